"""Takes what one host's ticks remember, in its SQLite file, into the empty PostgreSQL of a scope: for `klorosctl db join`.

Whatever a table keeps for each host becomes this host's; cycles that were run, were run here. The bridge's tables have a
copy of their own, `bridge/store/transfer.py`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice

from orchestration.errors import KlorosError, StoreOutdated, StoreUnreachable
from orchestration.store import kernel_rows
from orchestration.store.libpq import literal
from orchestration.store.opening import MOVED, Place
from orchestration.store.postgres_database import PostgresDatabase, translated
from orchestration.store.sqlite import SCHEMA_VERSION, SqliteDatabase, uri

_AT_ONCE = 500


class CopyDiffers(KlorosError):
    """The copy is not what it was copied from; nothing of it was kept."""


_NAMED_ANEW = tuple(f"postgres.join_{what}" for what in ("promotions", "acks", "escrow", "intents"))
"""In the mirror of a scope a file has its host before its name (scope/mirror.py)."""
_LED = 0  # the epoch of ticks before there was a lease: they decided


def is_wanted(path: str) -> bool:
    """Say whether a file remembers ticks or cycles that were not taken over before.

    Raises:
        StoreUnreachable, StoreOutdated: as `join`.
    """
    with closing(_opened(path)) as file:
        remembered = "SELECT EXISTS (SELECT 1 FROM ticks) OR EXISTS (SELECT 1 FROM cycles)"
        (moved,) = file.execute("SELECT count(*) FROM facts WHERE name = ?", (MOVED,)).fetchone()
        return not moved and file.execute(remembered).fetchone() == (1,)


def join(place: Place) -> dict[str, int]:
    """Take it all over, or nothing; returns how many rows each table had. The file stays, and says where they went.

    A file that was taken over there before has nothing left to take.

    Raises:
        CopyDiffers: a row there is not what it was here; nothing was kept.
        KlorosError: somebody has ticked in the scope already, so its numbers are taken; or a cycle is not settled.
        StoreUnreachable, StoreOutdated: the file can't be read, or no tick of this release has migrated it.
        LeaseLost, SettingsInvalid, Unwritable: see `PostgresDatabase`.
    """
    with (
        closing(_opened(place.path)) as file,
        closing(PostgresDatabase(place.url, scope=place.scope, here=place.here)) as db,
        db.transaction(),
        translated(place.url),
    ):
        if file.execute("SELECT value FROM facts WHERE name = ?", (MOVED,)).fetchone() == (str(place),):
            return {}
        waiting = "SELECT cycle, state FROM cycles WHERE settled_at IS NULL AND state <> 'queued'"
        for cycle, state in file.execute(waiting):
            told = f"{place.path}: cycle {cycle} is not settled, it is {state}"
            raise KlorosError(
                told, hint="unset KLR_DATABASE_URL, let it end and ticks settle it, and come back: klorosctl tick"
            )
        if any(one["filled"] for one in db.rows("postgres.filled")):
            hint = "to begin anew as one more host of the scope: move kloros.db and cycles/ away"
            raise KlorosError(f"{db} has cycles or ticks already, whose numbers this host's would take", hint=hint)
        there = kernel_rows.tables_of(db.connection)
        names = kernel_rows.names_of(file, there)
        moved = {name: _move(file, db, name, there[name]) for name in names}
        _note_files(file, db)
        for query in ("postgres.join_facts", "postgres.join_cycles"):
            db.run(query)
        for name in names:
            if found := kernel_rows.difference(file, db.connection, name, there[name], db.here):
                raise CopyDiffers(f"{db} is not what was taken over: {found}", hint="nothing was kept; please report this")
        for query in _NAMED_ANEW:
            db.run(query)
        _name_tried(file, db)
    with closing(SqliteDatabase(place.path)) as own:
        own.run("facts.set", name=MOVED, value=str(place))
    return {name: rows for name, rows in moved.items() if rows}


def _opened(path: str) -> sqlite3.Connection:
    try:
        file = sqlite3.connect(uri(path, "ro"), uri=True)
        (version,) = file.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        raise StoreUnreachable(f"{path}: {error}", hint="name the folder of this host's store: KLR_STATE_DIR") from error
    if version != SCHEMA_VERSION:
        file.close()
        what = f"{path} has schema version {version}, and this program works with {SCHEMA_VERSION}"
        raise StoreOutdated(what, hint="unset KLR_DATABASE_URL, tick once, and come back: klorosctl tick")
    return file


def _note_files(file: sqlite3.Connection, db: PostgresDatabase) -> None:
    """Note which files of the baseline and of escrow are in place on this host."""
    versions = file.execute("SELECT version, retired_at FROM baseline_versions WHERE written = 1").fetchall()
    db.run("postgres.join_baseline_files", files=json.dumps(versions))
    entries = [entry for (entry,) in file.execute("SELECT entry FROM escrow WHERE written = 1")]
    db.run("postgres.join_escrow_files", entries=json.dumps(entries))


def _name_tried(file: sqlite3.Connection, db: PostgresDatabase) -> None:
    """Name the promotions anew that cycles have tried."""
    found = ((cycle, json.loads(origin)) for cycle, origin in file.execute("SELECT cycle, origin FROM cycles"))
    tried = ((cycle, origin) for cycle, origin in found if origin.get("promotions"))
    while told := list(islice(tried, _AT_ONCE)):
        named = [[cycle, {**one, "promotions": [f"{db.here}@{stem}" for stem in one["promotions"]]}] for cycle, one in told]
        db.run("postgres.join_origins", origins=json.dumps([[cycle, json.dumps(origin)] for cycle, origin in named]))


def _move(file: sqlite3.Connection, db: PostgresDatabase, name: str, there: set[str]) -> int:
    ours = kernel_rows.columns_of(file, name)
    added: dict[str, str | int] = {"host": db.here, "epoch": _LED}
    new = [column for column in added if column in there and column not in ours]
    columns = [column for column in ours if column in there]
    found = file.execute(f"SELECT {', '.join(columns)} FROM {name}")  # noqa: S608 (names of our own migrations)
    rest = [literal(added[column]) for column in new]
    rows = 0
    for lines in _batches(found):
        values = ", ".join(f"({', '.join([*map(literal, line), *rest])})" for line in lines)
        db.connection.ask(f"INSERT INTO {name} ({', '.join(columns + new)}) VALUES {values}")  # noqa: S608
        rows += len(lines)
    return rows


def _batches(found: sqlite3.Cursor) -> Iterator[Sequence[tuple[str | int | float | None, ...]]]:
    while lines := list(islice(found, _AT_ONCE)):
        yield lines
