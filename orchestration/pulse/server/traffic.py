"""The server's own metrics, and whether anybody still wants something of it."""

from __future__ import annotations

import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from orchestration.serving import exposition

_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Traffic:
    """Requests: how many, how long, how many at once. Every label value is one of ours, never the reader's."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._answered = Counter(
            "kloros_http_requests",
            "Requests answered, by route, method and status.",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "kloros_http_request_duration_seconds",
            "Time from a request to the end of its answer, by route; event streams are not in it.",
            ("route",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._open = Gauge("kloros_http_requests_open", "Requests that are being answered.", registry=self._registry)
        self._followers = Gauge("kloros_http_followers", "Open event streams.", registry=self._registry)
        self.open = 0
        self._quiet_since = time.monotonic()

    def began(self) -> float:
        """Note a request; returns when, for `ended`."""
        self.open += 1
        self._open.set(self.open)
        return time.monotonic()

    def ended(self, began: float, *, route: str, method: str, status: int, timed: bool = True) -> float:
        """Note its answer; returns the seconds it took."""
        self._quiet_since = time.monotonic()
        self.open -= 1
        self._open.set(self.open)
        self._answered.labels(route, method, str(status)).inc()
        seconds = self._quiet_since - began
        if timed:
            self._seconds.labels(route).observe(seconds)
        return seconds

    def followers(self, number: int) -> None:
        """Note how many follow a log."""
        self._followers.set(number)

    @property
    def quiet_seconds(self) -> float:
        """For how long nobody has asked for anything; 0 while somebody is being answered."""
        return 0.0 if self.open else time.monotonic() - self._quiet_since

    def text(self, *, openmetrics: bool) -> str:
        """Write these metrics; as OpenMetrics with the end mark."""
        return exposition.text(self._registry, openmetrics=openmetrics)
