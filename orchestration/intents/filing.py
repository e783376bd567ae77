"""Where an intent's file ends: a line in a log if it was one, then `intents/processed/<status>/`.

Owns the second half of a file's way, after the commit; refuses to decide anything. Repeatable: it works through every
decided row whose file has not been moved, so a tick that died in the middle is finished by the next one.

The line of a suggestion or an alert carries its file's name and the instant of its decision, both from the store, so
the same intent always makes the same line. Only when a tick died could it be there already, and only then it is
looked for.
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from orchestration.errors import KlorosError, Unwritable
from orchestration.host import files
from orchestration.intents.document import Intent
from orchestration.intents.inbox import Sorted, key_of, list_names
from orchestration.intents.intent import Category, Status, category_of
from orchestration.intents.reading import read
from orchestration.store.instants import from_text
from orchestration.store.port import Database

MOVES_PER_TICK = 250  # each syncs two folders; a flood is filed over several ticks
LOGS = {Category.SUGGESTION: "suggestions.jsonl", Category.ALERT: "alerts.jsonl"}


class Decided(NamedTuple):
    """A decided intent whose file is still to be moved."""

    name: str
    content_sha: str
    status: str
    decided_at: str
    intent_type: str


def file_away(intents_dir: str, state_dir: str | None, db: Database, found: Sorted) -> int:
    """Finish every decided intent: note it if it is a note, move its file, close its row. Return how many were moved.

    Call it after the tick's transaction was committed, with what `inbox.sort_out` returned in it.

    Raises: Unwritable for the first file that could not be moved, after all others were tried.
    """
    present = {key_of(name): name for name in list_names(intents_dir)}
    fresh = {verdict.intent.name for verdict in found.verdicts}
    closed: list[Decided] = []
    moved, fault = 0, None
    for row in _open_rows(db):
        if moved >= MOVES_PER_TICK:
            break
        try:
            if row.name in present:
                moved += finish(intents_dir, present[row.name], state_dir, row, repeated=row.name not in fresh)
            closed.append(row)
        except (KlorosError, OSError) as error:
            fault = fault or _named(intents_dir, row, error)
    _close(db, closed)
    if fault is not None:
        raise fault
    return moved


def _named(intents_dir: str, row: Decided, error: KlorosError | OSError) -> KlorosError:
    if isinstance(error, KlorosError):
        return error
    target = os.path.join(intents_dir, "processed", row.status)
    return Unwritable(f"{row.name} can't be moved to {target}: {error.strerror}", hint=f"look at it: ls -ld {target}")


def finish(intents_dir: str, entry: str, state_dir: str | None, row: Decided, *, repeated: bool) -> bool:
    """Note and move one file; False when the name now belongs to another intent, which stays for the next tick.

    Without a `state_dir` nothing is noted: this folder is a mirror, and whose file it is notes it.
    """
    dropped = read(intents_dir, entry, from_text(row.decided_at))
    if dropped is None or dropped.content_sha != row.content_sha:
        return False
    category = category_of(row.intent_type)
    if state_dir and row.status == Status.PROCESSED.value and category in LOGS and dropped.intent is not None:
        log = os.path.join(state_dir, LOGS[category])
        line = _line(row, dropped.intent)
        if not (repeated and files.has_line(log, line)):
            files.append_line(log, line)
    try:
        files.move_no_replace(os.path.join(intents_dir, entry), os.path.join(intents_dir, "processed", row.status), entry)
    except FileNotFoundError:
        return False
    return True


def _open_rows(db: Database) -> list[Decided]:
    return [
        Decided(*(str(row[column]) for column in Decided._fields))
        for row in db.rows("intents.open")
        if row["status"] != Status.PENDING.value
    ]


def _close(db: Database, rows: list[Decided]) -> None:
    if not rows:
        return
    with db.transaction():
        for row in rows:
            db.run("intents.filed", name=row.name, content_sha=row.content_sha, decided_at=row.decided_at)


def _line(row: Decided, intent: Intent) -> str:
    """Write one line of a log: the intent as it was emitted, under its name and the instant of its decision."""
    noted = {"intent": row.name, "noted_at": row.decided_at, **intent.model_dump(mode="json")}
    return json.dumps(noted, sort_keys=True)
