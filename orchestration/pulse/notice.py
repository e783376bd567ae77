"""Notices: what a person is told of the host, when, and in which words. Pure; `notifier.py` reads, sends and keeps.

A notice is about a subject: the loop's health, or one unit. What was told is kept as a set of conditions, not as a word, so:

- deduplication: a condition is told once, however often ticks find it;
- bad news is told at once, good news when the condition has been gone for `settle`. A condition that comes back before that
  is not news, so a verdict that flaps is told once. When nothing is left, that is the recovery notice;
- the rate limit holds news back and forgets none: when its turn has come, what is told is how things stand then;
- a newer notice on a subject takes the place of an older one that could not be delivered yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from orchestration.pulse.health import Cause, Condition, Verdict
from orchestration.pulse.runbooks import ADVICE as ADVICE
from orchestration.pulse.runbooks import EXITS
from orchestration.pulse.runbooks import RUNBOOKS as RUNBOOKS
from orchestration.pulse.standing import WINDOW as WINDOW
from orchestration.pulse.standing import Kept, Told
from orchestration.pulse.standing import Notice as Notice
from orchestration.pulse.standing import Rules as Rules
from orchestration.pulse.standing import Severity as Severity
from orchestration.pulse.standing import Standing as Standing
from orchestration.pulse.standing import attempted as attempted
from orchestration.pulse.standing import due as due
from orchestration.pulse.standing import put_out as put_out

HEALTH = "health"
"""The subject that the verdict is; a unit's is its name."""
TICKS = "kloros-orchestrator.service"
LOOP = "kloros-loop.service"
CYCLES = "kloros-cycle.service"
PULSE = "kloros-pulse.service"
BRIDGE = "kloros-bridge.service"

_WELL_AGAIN: Mapping[str, tuple[str, str]] = {
    TICKS: ("KLoROS ticks again", "A tick has decided"),
    LOOP: ("the loop of KLoROS works again", "An iteration has ended well"),
    CYCLES: ("the runner of KLoROS works again", "A cycle has succeeded"),
    PULSE: ("Pulse serves again", "Pulse, which is up, was started"),
    BRIDGE: ("the bridge serves again", "The bridge told how its threads stand, or was started and is up,"),
}
"""The units whose recovery can be known, with its title and what happened."""


class UnitFailure(Kept):
    """What `kloros-alert@.service` notes of a failed unit."""

    unit: str
    result: str = ""
    exit_status: str = ""
    ts: float = 0.0  # seconds since the epoch

    @property
    def at(self) -> datetime:
        """When it failed (aware UTC)."""
        return datetime.fromtimestamp(self.ts, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the news is from; `zone` is the IANA name in which local times are written."""

    host: str
    zone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one look found. `well_at`: when each unit last did what it is for (aware UTC)."""

    now: datetime
    causes: Sequence[Cause]
    failures: Sequence[UnitFailure] = ()
    well_at: Mapping[str, datetime] = field(default_factory=dict)
    elsewhere: frozenset[Condition] = frozenset()  # what another host of the scope tells: here it neither comes nor goes


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What a look led to: what is remembered from now on, the notices to send, and the failures that are told by them."""

    standing: Standing
    notices: tuple[Notice, ...]
    done: tuple[UnitFailure, ...]


def told_meanwhile(before: Standing, failures: Sequence[UnitFailure]) -> Standing:
    """Take in failures of units that were told while the store was away, so that their recovery can be told."""
    return before.model_copy(update={"units": {**before.units, **{one.unit: one.at for one in failures}}})


def consider(before: Standing, seen: Seen, rules: Rules, place: Place) -> News:
    """Work out what is to be told now."""
    made = [at for at in before.made_at if seen.now - WINDOW < at <= seen.now]
    notices: list[Notice] = []

    def tell(notice: Notice | None) -> bool:
        if notice is None or len(made) >= rules.per_hour:
            return False
        made.append(seen.now)
        last = made[0] + WINDOW if len(made) == rules.per_hour else None
        more = (
            []
            if last is None
            else ["", f"That was {rules.per_hour} within an hour; the next waits until {_time(last, place)}."]
        )
        notices.append(notice.model_copy(update={"body": "\n".join([notice.body, *more])}))
        return True

    units, done = {unit: at for unit, at in before.units.items() if unit in _WELL_AGAIN}, []
    for failure in seen.failures:
        if tell(_of_failure(failure, seen, place)):
            done.append(failure)
            if failure.unit in _WELL_AGAIN:
                units[failure.unit] = failure.at
    for unit in _well_again(units, seen, rules):
        if tell(_of_well_again(unit, units[unit], seen, place)):
            del units[unit]
    marked = _marked({condition: one for condition, one in before.told.items() if condition not in seen.elsewhere}, seen)
    after = _believed(marked, seen, rules)
    news = _of_health(marked, after, seen, place)
    told = after if news is None or tell(news) else marked
    standing = before.model_copy(update={"told": told, "made_at": tuple(made), "units": units})
    return News(standing=standing, notices=tuple(notices), done=tuple(done))


def _marked(told: Mapping[Condition, Told], seen: Seen) -> dict[Condition, Told]:
    """Note of each told condition whether it is there, and if not, since when."""
    there = {cause.condition for cause in seen.causes}
    return {
        condition: one.model_copy(update={"gone_at": None if condition in there else one.gone_at or seen.now})
        for condition, one in told.items()
    }


def _believed(marked: Mapping[Condition, Told], seen: Seen, rules: Rules) -> dict[Condition, Told]:
    """Return what a person who is told now believes: what is there, and what has not been gone for long enough."""
    kept = {
        condition: one for condition, one in marked.items() if one.gone_at is None or seen.now - one.gone_at < rules.settle
    }
    return {**kept, **{cause.condition: Told(verdict=cause.verdict) for cause in seen.causes}}


_FROM_GOOD_TO_BAD = tuple(Verdict)


def _worst(told: Mapping[Condition, Told]) -> Verdict:
    return max((one.verdict for one in told.values()), key=_FROM_GOOD_TO_BAD.index, default=Verdict.OK)


def _of_health(before: Mapping[Condition, Told], after: Mapping[Condition, Told], seen: Seen, place: Place) -> Notice | None:
    """Write the notice on the verdict, if there is news: a condition more, or a verdict less bad."""
    was, now = _worst(before), _worst(after)
    new = [condition for condition in after if condition not in before]
    if not new and was == now:
        return None
    if now is Verdict.OK:
        gone = ", ".join(before)
        lines = [f"Gone: {gone}.", "", *_where(seen.now, place)]
        return _notice(HEALTH, Severity.SUCCESS, f"{place.host}: KLoROS is ok again", lines, seen)
    what = f": {', '.join(new)}" if new else f", no longer {was}"
    severity = Severity.WARNING if now in (Verdict.DEGRADED, Verdict.UNKNOWN) else Severity.FAILURE
    lines = [f"The verdict is {now}{f' ({was} before)' if was != now else ''}."]
    for cause in seen.causes:
        lines += ["", *_cause_lines(cause, place, new=cause.condition in new and len(seen.causes) > 1)]
    return _notice(HEALTH, severity, f"{place.host}: KLoROS is {now}{what}", [*lines, "", *_where(seen.now, place)], seen)


def _cause_lines(cause: Cause, place: Place, *, new: bool) -> list[str]:
    return [
        f"{cause.condition}{' (new)' if new else ''}: {cause.evidence}",
        f"  since {_time(cause.since, place)}",
        f"  do: {cause.advice}",
        f"  runbook: docs/runbooks/{RUNBOOKS[cause.condition]}.md",
    ]


def _of_failure(failure: UnitFailure, seen: Seen, place: Place) -> Notice:
    code = int(failure.exit_status) if failure.exit_status.isdigit() else -1
    why, advice, page = EXITS.get(code, ("", "klorosctl doctor", "service-unavailable"))
    how = ", ".join(part for part in (failure.result, f"exit status {failure.exit_status or 'unknown'}") if part)
    lines = [
        f"{failure.unit} failed ({how})" + (f": {why}." if why else "."),
        f"  at {_time(failure.at, place)}",
        f"  do: {advice}",
        f"  its own words: journalctl -u {failure.unit} -n 20",
        f"  runbook: docs/runbooks/{page}.md",
        "",
        *_where(seen.now, place),
    ]
    return _notice(failure.unit, Severity.FAILURE, f"{place.host}: {failure.unit} failed", lines, seen)


def _well_again(units: Mapping[str, datetime], seen: Seen, rules: Rules) -> list[str]:
    return [
        unit
        for unit, failed_at in units.items()
        if unit in seen.well_at and seen.well_at[unit] > failed_at and seen.now - failed_at >= rules.settle
    ]


def _of_well_again(unit: str, failed_at: datetime, seen: Seen, place: Place) -> Notice:
    title, what = _WELL_AGAIN[unit]
    lines = [
        f"{what} at {_time(seen.well_at[unit], place)}; {unit} failed at {_time(failed_at, place)}.",
        "",
        *_where(seen.now, place),
    ]
    return _notice(unit, Severity.SUCCESS, f"{place.host}: {title}", lines, seen)


def _notice(subject: str, severity: Severity, title: str, lines: Iterable[str], seen: Seen) -> Notice:
    return Notice(subject=subject, severity=severity, title=title, body="\n".join(lines), made_at=seen.now)


def _where(now: datetime, place: Place) -> list[str]:
    return [f"On {place.host}, {_time(now, place)}. How things stand: klorosctl status"]


def _time(instant: datetime, place: Place) -> str:
    utc = f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if place.zone in ("UTC", "Etc/UTC"):
        return utc
    return f"{instant.astimezone(ZoneInfo(place.zone)):%Y-%m-%d %H:%M:%S %Z} = {utc}"


def _next_look_at(unit: str, failed_at: datetime, seen: Seen, rules: Rules) -> datetime:
    """Return when a unit may have recovered; what comes seldom or never again is not asked for at every tick."""
    first = failed_at + rules.settle
    if unit == TICKS or seen.now < first:
        return first
    return seen.now + (rules.settle if seen.now - failed_at < WINDOW else WINDOW)


def next_look(standing: Standing, seen: Seen, rules: Rules, held: Sequence[UnitFailure] = ()) -> datetime | None:
    """Return when there will be something to do although nothing changes; None: only a change can be news.

    Args:
        held: failures that the rate limit keeps from being told.
    """
    news = [one.gone_at + rules.settle for one in standing.told.values() if one.gone_at is not None]
    news += [_next_look_at(unit, failed_at, seen, rules) for unit, failed_at in standing.units.items()]
    if held or any(cause.condition not in standing.told for cause in seen.causes):
        news.append(seen.now)
    if len(standing.made_at) >= rules.per_hour:
        news = [max(time, standing.made_at[0] + WINDOW) for time in news]
    return min([*news, *(waiting.next_at for waiting in standing.waiting.values())], default=None)
