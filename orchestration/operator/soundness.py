"""Whether a database is whole: its file, its tables, message numbers, cursors and the audit's chains. Changes nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

from orchestration.errors import StoreOutdated, StoreUnreachable
from orchestration.operator import backup as copies
from orchestration.operator import postgres_side, scope_copies
from orchestration.store.sqlite import SCHEMA_VERSION


class Soundness(NamedTuple):
    """What is told of one database."""

    database: str
    schema: int
    known: int
    faults: tuple[str, ...] = ()
    rows: dict[str, int] | None = None


def of_file(path: str, *, bridge: bool) -> Soundness:
    """Look at an SQLite file; with `bridge`, also at what the bridge has in it."""
    if not os.path.exists(path):
        return Soundness(path, 0, SCHEMA_VERSION)
    schema = copies.schema_of(path)
    if schema > SCHEMA_VERSION:
        return Soundness(path, schema, SCHEMA_VERSION, (f"a newer release wrote it; this program knows {SCHEMA_VERSION}",))
    from orchestration.bridge.store import transfer

    with closing(transfer.SqliteSide(path)) as side, _told(path):
        faults = side.integrity()
        if faults or not bridge or schema < SCHEMA_VERSION:
            return Soundness(path, schema, SCHEMA_VERSION, tuple(faults))
        return Soundness(path, schema, SCHEMA_VERSION, *transfer.sound(side))


def of_postgres(url: str) -> Soundness:
    """Look at the bridge and the scope in PostgreSQL."""
    postgres = postgres_side.load()
    from orchestration.bridge.store import transfer
    from orchestration.store.postgres import SCHEMA_VERSION as KNOWN

    schema = postgres.schema_of(url)
    if schema != KNOWN:
        why = "klorosctl db migrate" if schema < KNOWN else "a newer release wrote it"
        fault = f"it has schema {schema}, and this program knows {KNOWN}: {why}"
        return Soundness(postgres.named(url), schema, KNOWN, (fault,))
    with closing(postgres.PostgresSide(url)) as side:
        found = transfer.sound(side)
        return Soundness(side.name, schema, KNOWN, (*found.faults, *scope_copies.faults(side)), found.rows)


def check_current(path: str) -> None:
    """Raise StoreOutdated for a file that is not of this program's schema."""
    schema = copies.schema_of(path)
    if schema != SCHEMA_VERSION:
        what = f"{path} has schema version {schema}, and this program works with {SCHEMA_VERSION}"
        raise StoreOutdated(what, hint="klorosctl db migrate")


@contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnreachable(f"{path}: {error}", hint="klorosctl db restore with an older copy") from error
