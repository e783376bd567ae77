"""The folder `intents/` against the store: what lies there, and what became of each.

Owns the first half of a file's way: seen, remembered, decided. `filing.py` does the second, after the commit: the
line in a log, the move to `processed/<status>/`. Refuses to know what a decision makes of a pending intent.

Why nothing is lost or doubled (design rules 4 and 8): an intent's final status is a row (name, content, decided_at)
with `filed = 0`, written in the tick's transaction. As long as such a row is open, a file of that name is that
intent, and only the filing is left to do. Once the file was moved, the row is closed, and a file of that name is a
new intent, even if it is equal to the byte; the rule of deduplication then judges it like any other.

On the quiet path: with an empty folder and no open row, one listing and one indexed query.
"""

import os
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from orchestration.errors import Unwritable
from orchestration.intents.intent import (
    STARTS,
    Category,
    Limits,
    PendingIntent,
    Status,
    Verdict,
    arrange,
    category_of,
    waiting_since,
)
from orchestration.store.instants import from_text, to_text
from orchestration.store.port import Database, Row

if TYPE_CHECKING:
    from orchestration.intents.document import Intent
    from orchestration.intents.reading import Dropped

READ_PER_TICK = 5000  # files opened by one tick: about half a second of work; KLoROS once had 44,638 waiting


class Sorted(NamedTuple):
    """What one tick found in the folder."""

    pending: tuple[PendingIntent, ...]  # those that start something, next first
    waiting: int  # every intent still pending, those included
    verdicts: tuple[Verdict, ...]  # given their final status by this tick
    goals: tuple[PendingIntent, ...] = ()  # those that wait for the continuous loop, next first


NOTHING = Sorted((), 0, ())


def list_names(intents_dir: str) -> list[str]:
    """List the names that may be intents, in order: `*.json` that begin with no dot. No folder, no names.

    Raises: Unwritable when the folder is there and can't be listed.
    """
    try:
        names = os.listdir(intents_dir)
    except FileNotFoundError:
        return []
    except OSError as fault:
        raise Unwritable(f"{intents_dir} can't be listed: {fault.strerror}", hint=f"ls -ld {intents_dir}") from fault
    return sorted(name for name in names if name.endswith(".json") and not name.startswith("."))


def key_of(name: str) -> str:
    """Give the store's key of a file name: itself, with bytes that are not UTF-8 written as `\\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def sort_out(intents_dir: str, db: Database, now: datetime, limits: Limits) -> Sorted:
    """Look at every file, record what each becomes, and return what is left to decide on.

    Call it inside the tick's transaction, on every tick; after the commit call `filing.file_away` with the result.
    `now` is aware UTC.
    """
    names, rows = list_names(intents_dir), db.rows("intents.open")
    if not names and not rows:
        return NOTHING
    present = {key_of(name): name for name in names}
    known = _settle_absent(db, rows, present)
    found = _read_undecided(intents_dir, db, present, known, now)
    intents, malformed = _as_intents(found, known, now)
    acted_on = _acted_on(db, intents, now - limits.expires_after - limits.dedup_within)
    arranged = arrange(intents, acted_on, now, limits)
    verdicts = (*malformed, *arranged.verdicts)
    for verdict in verdicts:
        conclude(db, verdict.intent, verdict.status, reason=verdict.reason, now=now)
    for intent in arranged.waiting:
        _remember(db, intent, known.get(intent.name))
    starting = tuple(intent for intent in arranged.waiting if intent.category in STARTS)
    goals = tuple(intent for intent in arranged.waiting if intent.category is Category.LOOP_GOAL)
    return Sorted(starting, len(arranged.waiting), verdicts, goals)


def conclude(
    db: Database, intent: PendingIntent, status: Status, *, reason: str, now: datetime, cycle: int | None = None
) -> None:
    """Give an intent its final status, and count it, inside the caller's transaction.

    The tick, or the loop, calls this for the intent it acted on (`PROCESSED` with the cycle's number, or `FAILED` with
    the reason).
    """
    from orchestration.store.counters import count

    db.run("intents.forget", name=intent.name)
    db.run(
        "intents.conclude",
        name=intent.name,
        content_sha=intent.content_sha,
        intent_type=intent.intent_type,
        priority=intent.priority,
        status=status.value,
        reason=reason if intent.checksummed or status is Status.MALFORMED else f"{reason} (no checksum)",
        seen_at=to_text(intent.since),
        decided_at=to_text(now),
        cycle=cycle,
    )
    count(db, "kloros_intents_total", status=status.value)


def _acted_on(db: Database, intents: Iterable[PendingIntent], oldest: datetime) -> list[tuple[str, datetime]]:
    """Recall (content_sha, since) of what was processed before with the content of one of these."""
    return [
        (content_sha, from_text(str(row["seen_at"])))
        for content_sha in {intent.content_sha for intent in intents}
        for row in db.rows("intents.acted_on", content_sha=content_sha, oldest=to_text(oldest))
    ]


def _settle_absent(db: Database, rows: Iterable[Row], present: dict[str, str]) -> dict[str, Row]:
    """Close the rows whose file is gone (moved by a tick that died then, or taken away); return the others by name."""
    known = {}
    for row in rows:
        name = str(row["name"])
        if name in present:
            known[name] = row
        elif row["status"] == Status.PENDING.value:
            db.run("intents.forget", name=name)
        else:
            db.run(
                "intents.filed",
                name=name,
                content_sha=str(row["content_sha"]),
                decided_at=str(row["decided_at"]),
            )
    return known


def _read_undecided(
    intents_dir: str, db: Database, present: dict[str, str], known: dict[str, Row], now: datetime
) -> "dict[str, Dropped]":
    """Open every file without a final status: those known to be pending, then the new ones, oldest name first."""
    undecided = [name for name in present if name not in known or known[name]["status"] == Status.PENDING.value]
    if not undecided:
        return {}
    from orchestration.intents.reading import read  # brings pydantic: only when there is a file

    undecided.sort(key=lambda name: (name not in known, name))
    found = {}
    for name in undecided[:READ_PER_TICK]:
        dropped = read(intents_dir, present[name], now)
        if dropped is not None and not dropped.unfinished:
            found[name] = dropped
    return found


def _as_intents(
    found: "dict[str, Dropped]", known: dict[str, Row], now: datetime
) -> tuple[list[PendingIntent], list[Verdict]]:
    intents, malformed = [], []
    for name, dropped in found.items():
        if dropped.intent is None:
            nothing = PendingIntent(name, "", 0, Category.UNKNOWN, "", dropped.content_sha, False, now)
            malformed.append(Verdict(nothing, Status.MALFORMED, dropped.fault))
        else:
            intents.append(_pending(name, dropped, dropped.intent, known.get(name), now))
    return intents, malformed


def _pending(name: str, dropped: "Dropped", intent: "Intent", row: Row | None, now: datetime) -> PendingIntent:
    same = row is not None and row["content_sha"] == intent.content_sha
    seen = from_text(str(row["seen_at"])) if row is not None and same else None
    return PendingIntent(
        name=name,
        intent_type=intent.intent_type,
        priority=intent.priority,
        category=category_of(intent.intent_type),
        topic=intent.topic,
        content_sha=intent.content_sha,
        checksummed=intent.checksummed,
        since=waiting_since(intent.emitted or dropped.changed, seen, now),
    )


def _remember(db: Database, intent: PendingIntent, row: Row | None) -> None:
    since = to_text(intent.since)
    if row is not None and (row["content_sha"], row["seen_at"]) == (intent.content_sha, since):
        return
    db.run("intents.forget", name=intent.name)
    db.run(
        "intents.remember",
        name=intent.name,
        content_sha=intent.content_sha,
        intent_type=intent.intent_type,
        priority=intent.priority,
        seen_at=since,
    )
