"""Takes what one host's ticks remember, in its SQLite file, into the empty PostgreSQL of a scope: for `klorosctl db join`.

Whatever a table keeps for each host becomes this host's; cycles that were run, were run here. The bridge's tables have a
copy of their own, `bridge/store/transfer.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice

from orchestration.errors import KlorosError, StoreOutdated, StoreUnreachable
from orchestration.store.libpq import literal
from orchestration.store.opening import MOVED, Place
from orchestration.store.postgres_copy import tables_of
from orchestration.store.postgres_database import PostgresDatabase, translated
from orchestration.store.sqlite import SCHEMA_VERSION, SqliteDatabase, uri

_AT_ONCE = 500
_LED = 0  # the epoch of ticks before there was a lease: they decided


def join(place: Place) -> dict[str, int]:
    """Take it all over, or nothing; returns how many rows each table had. The file stays, and says where they went.

    Raises:
        KlorosError: somebody has ticked in the scope already, so its numbers are taken.
        StoreUnreachable, StoreOutdated: the file can't be read, or no tick of this release has migrated it.
        LeaseLost, SettingsInvalid, Unwritable: see `PostgresDatabase`.
    """
    with (
        closing(_opened(place.path)) as file,
        closing(PostgresDatabase(place.url, scope=place.scope, here=place.here)) as db,
        db.transaction(),
        translated(place.url),
    ):
        for (cycle,) in file.execute("SELECT cycle FROM cycles WHERE state = 'running'"):
            told = f"cycle {cycle} is running, and would end in {place.path}"
            raise KlorosError(told, hint="stop ticks, let it end, come back")
        if any(one["filled"] for one in db.rows("postgres.filled")):
            hint = "to begin anew as one more host of the scope: move kloros.db and cycles/ away"
            raise KlorosError(f"{db} has cycles or ticks already, whose numbers this host's would take", hint=hint)
        there = tables_of(db.connection)
        moved = {name: _move(file, db, name, columns) for name, columns in there.items() if _is_ours(file, name)}
        for query in ("postgres.join_facts", "postgres.join_cycles"):
            db.run(query)
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


def _is_ours(file: sqlite3.Connection, name: str) -> bool:
    known = file.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", (name,)).fetchone()
    return known is not None and not name.startswith("bridge_")


def _move(file: sqlite3.Connection, db: PostgresDatabase, name: str, there: set[str]) -> int:
    ours = [str(column) for _, column, *_ in file.execute(f"PRAGMA table_info({name})")]
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
