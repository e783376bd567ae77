"""The PHASE window: local wall-clock hours in a named time zone, one window for each local date.

Owns the step from local hours to instants; refuses to know which dates are done, and reads no clock. Outside
this module every instant is UTC. A window belongs to the local date on which it opens, also when it closes on
the next one.

**Edges.** On an ordinary day an edge is its local time. In a *gap* (clocks move forward over it) it moves forward
by the length of the gap, as `dateutil.tz.resolve_imaginary` does: 02:30 in New York becomes 03:30 EDT, so a window
keeps its length. In a *fold* (the local time happens twice) an opening edge is the first occurrence and a closing
edge the second, so a window is never shorter than its hours say. A gap or a fold is where `fold=0` and `fold=1`
have different offsets (PEP 495); dateutil costs 17 ms of CPU and is imported only there.

**Empty windows.** Where moved edges meet or cross (02:00 to 03:00 in New York, both at 03:00 EDT), the date has
no window; neither has a date that the zone never had (Pacific/Apia 2011-12-30: a gap of 24 h would move its window
onto that of the 31st). Such a date still has an `Interval`, with `opens == closes`, so that it can be recorded as
skipped.

**Windows of neighbouring dates never overlap.** Write W(d) for the window of date d, and x(d) for the instant of
its closing edge.

1. x never decreases. A closing edge is its local time minus an offset that is in force within a day of it, and
   from one date to the next the local time grows by 24 h while the offset grows by at most 24 h (no zone in the
   database ever moved further; the tests look at every one). For a date without hours x(d) is its opening edge,
   which lies between the closing edges around it by the same sum.
2. W(d) opens at its opening edge or at x(d-1), whichever is later, but no later than x(d). So W(d) is empty, or
   begins where W(d-1) has ended; with 1, where every earlier window has ended. Intervals are half open, so no
   instant is in two.

The clamp of step 2 matters only for windows of almost a day: 01:50 to 01:40 in the night that repeats 01:00 to
02:00 closes at the second 01:40, after the first 01:50 at which the next one would open.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from orchestration.errors import Malformed

_DAY: Final = timedelta(days=1)
_BACK: Final = 2 * _DAY
"""The window that holds an instant is of a date at most so long before the instant's own: two days for one that
crosses midnight and whose end a gap of 24 h moved on."""
_NEAR: Final = 4
"""So many dates from there may hold it; the last is tomorrow's, for a fold over midnight (St John's until 2011:
00:01 back to 23:01)."""


class Interval(NamedTuple):
    """The window of one local date: aware UTC instants, half open `[opens, closes)`, never `opens > closes`."""

    date: date
    opens: datetime
    closes: datetime

    @property
    def is_empty(self) -> bool:
        """Tell whether this date has no window at all."""
        return self.opens == self.closes

    def contains(self, now: datetime) -> bool:
        """Tell whether the aware instant `now` is inside."""
        return self.opens <= now < self.closes


class _Edges(NamedTuple):
    opens: datetime
    closes: datetime


class _Hours(NamedTuple):
    opens: time
    closes: time
    time_zone: str


class Window(_Hours):
    """Local hours from `opens` to `closes` (on the next day when that is the earlier) in the IANA zone `time_zone`.

    Raises: Malformed when the hours are equal (a whole day, or nothing?) or carry an offset of their own, or the
    zone is unknown.
    """

    __slots__ = ()

    def __new__(cls, opens: time, closes: time, time_zone: str) -> "Window":
        """Check the hours and the zone."""
        if opens == closes:
            raise Malformed(
                f"window: opens and closes are both {opens:%H:%M}, which is no window",
                hint="Give it two different times, such as 03:00 and 07:00; 22:00 and 02:00 closes on the next day.",
            )
        for edge in (opens, closes):
            if edge.tzinfo is not None:
                raise Malformed(
                    f"window: {edge.isoformat()} has an offset of its own",
                    hint="Write a plain time such as 03:00; the zone is time_zone's.",
                )
        _zone(time_zone)
        return super().__new__(cls, opens, closes, time_zone)

    def on(self, day: date) -> Interval:
        """Return the window of local date `day`, empty if it has none."""
        return next(self._from(day))

    def containing(self, now: datetime) -> Interval | None:
        """Return the window that the aware instant `now` is in, or None."""
        near = islice(self._from(self._local_date(now) - _BACK), _NEAR)
        return next((interval for interval in near if interval.contains(now)), None)

    def next_after(self, now: datetime) -> Interval:
        """Return the next window, not an empty one, that opens after the aware instant `now`."""
        ahead = self._from(self._local_date(now) - _BACK)
        return next(interval for interval in ahead if interval.opens > now and not interval.is_empty)

    def closed_between(self, after: date, now: datetime) -> list[Interval]:
        """Return, in order, the window of every local date later than `after` that has closed by the instant `now`.

        Empty windows are among them, so that the dates have no holes: what a tick must account for, whether the
        last tick was a minute or a year ago. Nothing when `after` lies ahead, as when the clock was set back.
        """
        closed: list[Interval] = []
        for interval in self._from(after + _DAY):
            if interval.closes > now:
                break
            closed.append(interval)
        return closed

    def last_closed(self, now: datetime) -> Interval:
        """Return the latest date's window, maybe an empty one, that has closed by the aware instant `now`.

        A first tick begins its account after this date: earlier ones were never ours.
        """
        return self.closed_between(self._local_date(now) - _BACK - 2 * _DAY, now)[-1]

    def _local_date(self, now: datetime) -> date:
        return now.astimezone(_zone(self.time_zone)).date()

    def _from(self, day: date) -> Iterator[Interval]:
        """Yield the window of `day` and of every later date, each clamped to the end of the one before."""
        zone = _zone(self.time_zone)
        ended = self._edges(day - _DAY, zone).closes
        while True:
            edges = self._edges(day, zone)
            yield Interval(day, min(max(edges.opens, ended), edges.closes), edges.closes)
            day, ended = day + _DAY, edges.closes

    def _edges(self, day: date, zone: ZoneInfo) -> _Edges:
        """Return both edges of `day` as instants, not yet clamped: `closes` may be the earlier."""
        closing_day = day if self.opens < self.closes else day + _DAY
        opens, gap = _edge(datetime.combine(day, self.opens, zone), fold=0)
        closes, _ = _edge(datetime.combine(closing_day, self.closes, zone), fold=1)
        if gap >= _DAY:  # these hours do not exist on this date; moved on, they would be the next date's
            closes = opens
        return _Edges(opens, closes)


def _edge(local: datetime, *, fold: int) -> tuple[datetime, timedelta]:
    """Return the instant of a local time, and the length of the gap that it falls in (zero or less: in none).

    `fold` says which occurrence is meant if there are two: 0 the first, 1 the second.
    """
    gap = _offset(local.replace(fold=1)) - _offset(local)
    if gap:
        from dateutil import tz  # 17 ms; only for edges in a gap or a fold

        # datetime_exists comes first: for a zoneinfo zone datetime_ambiguous is true in a gap too (dateutil 2.9)
        local = local.replace(fold=fold) if tz.datetime_exists(local) else tz.resolve_imaginary(local)
    return local.astimezone(UTC), gap


def _offset(local: datetime) -> timedelta:
    return local.utcoffset() or timedelta()


def _zone(name: str) -> ZoneInfo:
    """Return the zone of an IANA name.

    Raises: Malformed for a name that is in no zone database on this machine.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: a folder's name, such as "America"
        raise Malformed(
            f"window: there is no time zone {name!r}",
            hint="Use an IANA name such as America/New_York or UTC (timedatectl list-timezones prints them).",
        ) from error
