"""One telemetry series, thinned out as it comes: as many points as a chart shows, in bounded memory. Pure."""

from __future__ import annotations

from datetime import datetime

from orchestration.cycles.telemetry import Figures, add
from orchestration.pulse.views import MOST_POINTS, Point


class Thinned:
    """Every n-th value of a series, n doubled whenever there are too many; first and last always."""

    def __init__(self) -> None:
        """Begin without a value."""
        self._kept: list[Point] = []
        self._last: Point | None = None
        self._every = 1
        self._figures: Figures | None = None

    def add(self, line: int, at: datetime | None, value: float) -> None:
        """Take the next value."""
        position = 0 if self._figures is None else self._figures.number
        self._figures = add(self._figures, value)
        self._last = Point(line=line, at=at, value=value)
        if position % self._every == 0:
            self._kept.append(self._last)
            if len(self._kept) >= MOST_POINTS:
                self._kept = self._kept[::2]
                self._every *= 2

    @property
    def figures(self) -> Figures:
        """What all of its values come to. There must be one."""
        assert self._figures is not None, "a series has a value"
        return self._figures

    @property
    def points(self) -> tuple[Point, ...]:
        """At most `MOST_POINTS`, in order."""
        if self._last is None or self._kept[-1] is self._last:
            return tuple(self._kept)
        return (*self._kept, self._last)
