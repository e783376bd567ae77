"""What the notifier remembers: conditions told, units that failed, and notices on their way. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from orchestration.cycles.backoff import Backoff
from orchestration.pulse.health import Condition, Verdict

WINDOW = timedelta(hours=1)
"""Of the rate limit."""


class Severity(StrEnum):
    """How grave; the words are those of Apprise's notification types."""

    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


class Kept(BaseModel):
    """Kept between two processes, or read from a file."""

    model_config = ConfigDict(frozen=True)


class Notice(Kept):
    """One message, ready to send."""

    subject: str
    severity: Severity
    title: str
    body: str
    made_at: datetime


class Told(Kept):
    """A condition that was told. `gone_at`: since when looks no longer find it."""

    verdict: Verdict
    gone_at: datetime | None = None


class Waiting(Kept):
    """A notice on its way: the targets that have not taken it, and when to try again."""

    notice: Notice
    targets: tuple[str, ...]
    attempts: int = 0
    since: datetime
    next_at: datetime
    fault: str = ""


class Standing(Kept):
    """What the notifier remembers between two processes."""

    told: dict[Condition, Told] = {}
    made_at: tuple[datetime, ...] = ()  # of the notices within WINDOW, oldest first
    units: dict[str, datetime] = {}  # of those that can recover: failure told, recovery not; and when they failed
    waiting: dict[str, Waiting] = {}  # by subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the settings say about telling."""

    per_hour: int
    settle: timedelta
    backoff: Backoff


def put_out(standing: Standing, notices: Iterable[Notice], targets: Sequence[str], now: datetime) -> Standing:
    """Put notices on their way, each in the place of an older one on its subject."""
    new = {
        notice.subject: Waiting(notice=notice, targets=tuple(targets), since=now, next_at=now)
        for notice in notices
        if targets
    }
    return standing.model_copy(update={"waiting": {**standing.waiting, **new}})


def attempted(standing: Standing, subject: str, faults: Mapping[str, str], now: datetime, rules: Rules) -> Standing:
    """Note an attempt. `faults`: of each target that did not take it, why; all others are done with it."""
    one = standing.waiting[subject]
    others = {name: waiting for name, waiting in standing.waiting.items() if name != subject}
    if not faults:
        return standing.model_copy(update={"waiting": others})
    attempts = one.attempts + 1
    again = one.model_copy(
        update={
            "targets": tuple(faults),
            "attempts": attempts,
            "next_at": now + rules.backoff.after(attempts),
            "fault": "; ".join(faults.values()),
        }
    )
    return standing.model_copy(update={"waiting": {**others, subject: again}})


def due(standing: Standing, now: datetime) -> list[Waiting]:
    """Return the notices to try now; one from a clock that has since been set back is not kept waiting for it."""
    return [one for one in standing.waiting.values() if one.next_at <= now or now < one.since]
