"""`klorosctl db`: the bridge's database: brought up to this program, looked at, and moved to PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from orchestration import wiring
from orchestration.errors import KlorosError, Usage
from orchestration.operator import bridging
from orchestration.operator.console import Console, json_option

if TYPE_CHECKING:
    from orchestration.bridge.port import Store
    from orchestration.bridge.state import ChainsVerified
    from orchestration.bridge.store.copying import Copied


@click.group()
def db() -> None:
    """Migrate, check and move the database of the bridge.

    It is kloros.db in the state folder, copied by `klorosctl backup`, or PostgreSQL at KLR_DATABASE_URL, copied by pg_dump.
    """


@db.command()
@json_option
@click.pass_obj
def migrate(console: Console) -> None:
    """Bring the tables up to this program. Starting the bridge does it by itself."""
    bridging.ask(console, lambda ours, _who: ours.store.check())
    where = _where(console)
    console.answer({"database": where, "current": True}, lambda: [f"{where}: the tables are those of this program"])


@db.command()
@json_option
@click.pass_obj
def check(console: Console) -> int:
    """Ask the database something, compare its tables, and walk the audit. Exit code 1 when that was tampered with."""
    if not bridging.is_made(console):
        raise KlorosError(
            "there is no database yet", hint="the first tick makes it: klorosctl tick; or klorosctl db migrate"
        )
    where = _where(console)

    async def checked(store: Store) -> ChainsVerified:
        await store.check()
        return await store.verify()

    found = bridging.ask(console, lambda ours, _who: checked(ours.store))
    document = {"database": where, "chains": found.chains, "entries": found.entries, "faults": len(found.faults)}

    def lines() -> Iterator[str]:
        yield f"{where}: answers, with the tables of this program"
        yield f"audit: {found.entries} entries in {found.chains} chains, {len(found.faults)} faults"
        if found.faults:
            yield "see which: klorosctl audit verify"

    console.answer(document, lines)
    return 1 if found.faults else 0


@db.command()
@click.option("--to", "url", required=True, metavar="URL", help="An empty PostgreSQL database: postgresql:///kloros")
@json_option
@click.pass_obj
def copy(console: Console, *, url: str) -> None:
    """Copy the bridge's threads from kloros.db into PostgreSQL, compared row by row, or nothing. Stop the bridge before."""
    if not url.startswith(("postgresql://", "postgres://")):
        raise Usage(f"{url!r} is no URL of a PostgreSQL database", hint="such as postgresql:///kloros")
    try:
        from orchestration.bridge.store.copying import copy_to_postgres
    except ImportError as error:
        hint = "install the extra postgres: sudo ./install.sh --with bridge,postgres"
        raise Usage(f"PostgreSQL needs a package that is not installed: {error.name}", hint=hint) from error
    console.become_owner()
    copied = asyncio.run(copy_to_postgres(console.path(wiring.STORE), url))
    console.answer({"copied": {one.table: one.rows for one in copied}}, lambda: _copied(copied))


def _copied(copied: list[Copied]) -> Iterator[str]:
    for one in copied:
        yield f"{one.table:<22} {one.rows:>9}"
    yield "All of it came back as it was written. Set KLR_DATABASE_URL, and start the bridge."


def _where(console: Console) -> str:
    """Say which database it is, without what may be secret of its address."""
    return "PostgreSQL" if console.settings.database_url else console.path(wiring.STORE)
