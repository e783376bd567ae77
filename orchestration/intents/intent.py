"""What an intent asks for, and which of those waiting is next (pure).

Owns the rules of the queue: the category of a type, the order, deduplication, expiry and overflow. Refuses to know
files, the store and JSON; `intents/document.py` reads files, `intents/inbox.py` applies what `arrange` says.

Every intent is `pending` until it gets exactly one final status:

    pending -> processed, failed, unknown, stale, deduplicated, queue_overflow
    a file that can't be read as an intent -> malformed

Light on purpose: a quiet tick imports this module, so it imports no pydantic and no dataclasses.

The figures 1 h, 24 h and 50, and "keep the older of two equal ones", are those of KLoROS (HomoYouDidnt/kloros,
src/kloros/orchestration/intent_queue.py).
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from typing import NamedTuple, Protocol


class Status(StrEnum):
    """Where an intent stands. Every value but PENDING is final, a folder in `intents/processed/`, and a label."""

    PENDING = "pending"
    PROCESSED = "processed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    STALE = "stale"
    DEDUPLICATED = "deduplicated"
    QUEUE_OVERFLOW = "queue_overflow"
    MALFORMED = "malformed"


FINAL = tuple(status for status in Status if status is not Status.PENDING)


class Category(Enum):
    """What a type of intent asks us to do."""

    PHASE = "phase"  # start a PHASE
    DREAM_CYCLE = "dream_cycle"  # start a D-REAM cycle with a topic
    REFLECTION = "reflection"  # start a reflection, when nothing else is to start
    SUGGESTION = "suggestion"  # one line in suggestions.jsonl
    ALERT = "alert"  # one line in alerts.jsonl
    LOOP_GOAL = "loop_goal"  # the goal of an iteration of the continuous loop, which takes it
    UNKNOWN = "unknown"  # archived


STARTS = (Category.PHASE, Category.DREAM_CYCLE, Category.REFLECTION)
"""What a tick starts."""
_TAKEN = (*STARTS, Category.LOOP_GOAL)  # wait until somebody takes them; the rules alone finish all others

_PREFIXES = (
    ("trigger_phase", Category.PHASE),
    ("trigger_dream", Category.DREAM_CYCLE),
    ("curiosity_", Category.DREAM_CYCLE),
    ("suggest_", Category.SUGGESTION),
    ("alert_", Category.ALERT),
    ("loop_goal", Category.LOOP_GOAL),
)
_EXACT = {
    "idle_reflection": Category.REFLECTION,
    "suggest": Category.SUGGESTION,
    "alert": Category.ALERT,
}


class PendingIntent(NamedTuple):
    """An intent that waits, as far as a decision needs to know it."""

    name: str  # its key in the store: the file's name
    intent_type: str
    priority: int  # 0 (lowest) to 10
    category: Category
    topic: str  # what a D-REAM cycle is to be about, or the loop's goal; empty when the intent names nothing
    content_sha: str  # same content, same value, whenever and by whom it was emitted
    checksummed: bool  # False: its file carried no checksum, which is accepted and marked
    since: datetime  # UTC; it counts as waiting since then, never later than it was first seen


class Verdict(NamedTuple):
    """The final status of one intent, and why, for people."""

    intent: PendingIntent
    status: Status
    reason: str


class Limits(Protocol):
    """The settings these rules depend on (`Settings.intents`)."""

    @property
    def max_pending(self) -> int: ...
    @property
    def per_tick(self) -> int: ...
    @property
    def expires_after(self) -> timedelta: ...
    @property
    def dedup_within(self) -> timedelta: ...


class Arrangement(NamedTuple):
    """The queue after its rules were applied: each intent is in exactly one of the two."""

    verdicts: tuple[Verdict, ...]
    waiting: tuple[PendingIntent, ...]  # next first; never more than `max_pending`


def category_of(intent_type: str) -> Category:
    """Tell what an intent of this type asks for.

    `suggest` and `alert` alone are accepted too: the observer's own comment names them so
    (HomoYouDidnt/kloros, src/kloros/observer/rules.py).
    """
    if intent_type in _EXACT:
        return _EXACT[intent_type]
    return next((category for prefix, category in _PREFIXES if intent_type.startswith(prefix)), Category.UNKNOWN)


def waiting_since(emitted: datetime | None, seen: datetime | None, now: datetime) -> datetime:
    """Return the instant (UTC) from which an intent's age counts: emission or first sight, whichever is earlier.

    `seen` is the first sight as remembered, None at the first sight. An instant in the future (a clock that jumped, a
    wrong emitter) counts as `now`, so that it can neither win over older ones nor live forever: `seen` is remembered.
    """
    return min(instant for instant in (emitted, seen, now) if instant is not None)


def arrange(
    intents: Iterable[PendingIntent],
    processed: Iterable[tuple[str, datetime]],
    now: datetime,
    limits: Limits,
) -> Arrangement:
    """Apply expiry, deduplication, overflow and the per-tick limit, in this order.

    `processed` are (content_sha, since) of intents already acted on. Triggers stay waiting, they are the decision's to
    start, and goals the loop's to take; of the others the first `per_tick` get their final status.
    """
    verdicts: list[Verdict] = []
    fresh = _expire(sorted(intents, key=_age), now, limits.expires_after, verdicts)
    unique = _deduplicate(fresh, processed, limits.dedup_within, verdicts)
    ranked = sorted(unique, key=rank)
    kept, dropped = ranked[: limits.max_pending], ranked[limits.max_pending :]
    why = f"more than {limits.max_pending} were pending, and this one was among the lowest"
    verdicts += [Verdict(intent, Status.QUEUE_OVERFLOW, why) for intent in dropped]
    chosen = [intent for intent in kept if intent.category not in _TAKEN][: limits.per_tick]
    verdicts += [_finish(intent) for intent in chosen]
    handled = {intent.name for intent in chosen}
    return Arrangement(tuple(verdicts), tuple(intent for intent in kept if intent.name not in handled))


def rank(intent: PendingIntent) -> tuple[int, datetime, str]:
    """Sort key: highest priority first, then oldest, then by name so that the order is the same everywhere."""
    return (-intent.priority, intent.since, intent.name)


def _age(intent: PendingIntent) -> tuple[datetime, str]:
    return (intent.since, intent.name)


def _expire(
    intents: Sequence[PendingIntent], now: datetime, after: timedelta, verdicts: list[Verdict]
) -> list[PendingIntent]:
    fresh = []
    for intent in intents:
        if now - intent.since > after:
            verdicts.append(Verdict(intent, Status.STALE, f"waited since {intent.since:%Y-%m-%dT%H:%M:%SZ}"))
        else:
            fresh.append(intent)
    return fresh


def _deduplicate(
    intents: Sequence[PendingIntent],
    processed: Iterable[tuple[str, datetime]],
    within: timedelta,
    verdicts: list[Verdict],
) -> list[PendingIntent]:
    """Keep the oldest of equal ones; `intents` come oldest first. Duplicates suppress nothing themselves."""
    stands: dict[str, list[datetime]] = {}
    for content_sha, since in processed:
        stands.setdefault(content_sha, []).append(since)
    unique = []
    for intent in intents:
        same = stands.setdefault(intent.content_sha, [])
        if any(abs(intent.since - since) < within for since in same):
            verdicts.append(Verdict(intent, Status.DEDUPLICATED, "same content as an earlier intent"))
        else:
            same.append(intent.since)
            unique.append(intent)
    return unique


def _finish(intent: PendingIntent) -> Verdict:
    if intent.category is Category.UNKNOWN:
        return Verdict(intent, Status.UNKNOWN, f"no rule for type {intent.intent_type}")
    return Verdict(intent, Status.PROCESSED, f"noted as {intent.category.value}")
