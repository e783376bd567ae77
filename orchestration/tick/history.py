"""The ticks in the store: what each decided and why; and their copy for other programs, `history.jsonl`.

The store is the memory. The file follows it: each tick adds the rows that the file's last line does not have yet, so a
tick killed in between loses no line and doubles none.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, cast

from orchestration.exits import Exit
from orchestration.host import files
from orchestration.store.instants import from_text, to_text
from orchestration.store.port import Database, Row
from orchestration.tick.decision import CLEAR, Finding

SKIPPED = "skipped"
LEASE = "lease"
"""The rule by which a host of several leaves deciding to another; its evidence says to whom."""


class Refusal(StrEnum):
    """Why a tick was turned away before it looked at anything, or that an error ended it before it had decided."""

    DISABLED = "disabled"
    HALTED = "halted"
    LOCK_HELD = "lock_held"
    FAILED = "failed"


class Aside(StrEnum):
    """Why a host of a scope leaves deciding to another; the one reason of such a tick's NOOP."""

    STANDBY = "standby"
    LEASE_LOST = "lease_lost"


_TAIL_BYTES = 65536
_MOST_ROWS = 1000


class Tick(NamedTuple):
    """One pass of `run_once`, or one that was turned away; instants are aware UTC."""

    tick_id: str
    started_at: datetime
    ended_at: datetime
    boot_id: str
    decision: str  # phase, dream_cycle, noop, skipped
    exit: Exit
    cycle: int | None
    blocker: str | None  # inside the PHASE window: why this tick started no PHASE
    findings: tuple[tuple[str, str, str], ...]  # rule, reason, evidence, in order of precedence
    tick: int = 0  # its number in the store, from 1

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons that counted: for a NOOP all that held something up, else the one that decided."""
        held = tuple(reason for _, reason, _ in self.findings if reason not in CLEAR)
        return held if self.decision in ("noop", SKIPPED) else held[-1:]


def append(db: Database, tick: Tick) -> Tick:
    """Store one tick; returns it with the number it was given. Inside a transaction."""
    (row,) = db.rows(
        "ticks.append",
        tick_id=tick.tick_id,
        started_at=to_text(tick.started_at),
        ended_at=to_text(tick.ended_at),
        boot_id=tick.boot_id,
        decision=tick.decision,
        exit_code=int(tick.exit),
        cycle=tick.cycle,
        blocker=tick.blocker,
        findings=json.dumps(tick.findings),
    )
    return tick._replace(tick=cast("int", row["tick"]))


def failed(db: Database, tick: Tick, exit_code: Exit) -> Tick:
    """Note that a tick failed after it had decided, so that no record calls it well; returns it with its exit."""
    db.run("ticks.fail", tick_id=tick.tick_id, exit_code=int(exit_code))
    return tick._replace(exit=exit_code)


def recent(db: Database, limit: int) -> list[Tick]:
    """Return the newest ticks, newest first."""
    return _ticks(db.rows("ticks.recent", limit=limit))


def get(db: Database, tick_id: str) -> Tick | None:
    """Return one tick by its id or its number, or None."""
    return next(iter(_ticks(db.rows("ticks.get", tick_id=tick_id))), None)


def last_before(db: Database, instant: datetime) -> Tick | None:
    """Return the newest tick that started before an instant."""
    return next(iter(_ticks(db.rows("ticks.last_before", instant=to_text(instant)))), None)


def last_of_any_before(db: Database, instant: datetime) -> Tick | None:
    """Return the newest tick that started before an instant, whichever host's it was."""
    return next(iter(_ticks(db.rows("ticks.last_of_any_before", instant=to_text(instant)))), None)


def between(db: Database, since: datetime, until: datetime, limit: int) -> list[Tick]:
    """Return the ticks that started in [since, until), newest first."""
    return _ticks(db.rows("operator.ticks_between", since=to_text(since), until=to_text(until), limit=limit))


def blockers(db: Database, since: datetime, until: datetime) -> list[tuple[str, int]]:
    """Count, most frequent first, why the ticks of [since, until) started no PHASE; and those that say nothing."""
    rows = db.rows("ticks.blockers", since=to_text(since), until=to_text(until))
    return [(cast("str | None", row["blocker"]) or "", cast("int", row["ticks"])) for row in rows]


def mirror(db: Database, path: str) -> None:
    """Bring `history.jsonl` up to the store, whole lines only.

    A file that is new goes on where the rotated one beside it (`history.jsonl.1`) ended. Without one it begins with the
    newest ticks there are: on a new host all of them, since the very first may have died before it came here. Where the
    store was replaced, by a backup or by a new one, the same numbers mean other ticks; the file goes on with those it lacks.

    Raises:
        Unwritable: disk full, read-only or not ours.
    """
    with _alone(path) as alone:
        if not alone:
            return  # another tick is at it and finds our row in the store
        lines = [json.dumps(as_json(tick)) for tick in _unwritten(db, path)]
        if lines:
            files.append_line(path, "\n".join(lines))


def _unwritten(db: Database, path: str) -> list[Tick]:
    """Return the ticks that the file lacks, oldest first."""
    last = next(_written(path), None) or next(_written(f"{path}.1"), None)
    if last is not None:
        number, tick_id = last
        rows = db.rows("ticks.after", tick=number - 1, limit=_MOST_ROWS)
        if rows and rows[0]["tick_id"] == tick_id:
            return _ticks(rows[1:])
    held = {tick_id for file in (path, f"{path}.1") for _, tick_id in _written(file)}
    newest = _ticks(db.rows("ticks.recent", limit=_MOST_ROWS))
    return [tick for tick in reversed(newest) if tick.tick_id not in held]


@contextmanager
def _alone(path: str) -> Iterator[bool]:
    """Hold a kernel lock on the file itself for the block; gives False at once when another process has it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise files.unwritable(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def as_json(tick: Tick) -> dict[str, object]:
    """Write a tick as it stands in `history.jsonl`, `latest.json` and every `--json`."""
    return {
        "tick": tick.tick,
        "tick_id": tick.tick_id,
        "started_at": to_text(tick.started_at),
        "ended_at": to_text(tick.ended_at),
        "decision": tick.decision,
        "exit_code": int(tick.exit),
        "cycle": tick.cycle,
        "reasons": [{"rule": rule, "reason": reason, "evidence": text} for rule, reason, text in tick.findings],
    }


def plain(findings: Iterable[Finding]) -> tuple[tuple[str, str, str], ...]:
    """Write findings as they are stored."""
    return tuple((str(found.rule), str(found.reason), found.evidence) for found in findings)


def _written(path: str) -> Iterator[tuple[int, str]]:
    """Give number and id of the ticks in the file's last whole lines, newest first; nothing when there are none."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return
    for line in reversed(lines):
        try:
            tick = json.loads(line)
            yield int(tick["tick"]), str(tick["tick_id"])
        except (ValueError, KeyError, TypeError):
            continue


def _ticks(rows: Iterable[Row]) -> list[Tick]:
    return [
        Tick(
            tick=cast("int", row["tick"]),
            tick_id=cast("str", row["tick_id"]),
            started_at=from_text(cast("str", row["started_at"])),
            ended_at=from_text(cast("str", row["ended_at"])),
            boot_id=cast("str", row["boot_id"]),
            decision=cast("str", row["decision"]),
            exit=Exit(cast("int", row["exit_code"])),
            cycle=cast("int | None", row["cycle"]),
            blocker=cast("str | None", row["blocker"]),
            findings=tuple(cast("tuple[str, str, str]", tuple(f)) for f in json.loads(cast("str", row["findings"]))),
        )
        for row in rows
    ]
