"""`klorosctl db`: the databases themselves: `kloros.db`, and PostgreSQL where `KLR_DATABASE_URL` names one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from orchestration import wiring
from orchestration.errors import KlorosError, StoreUnreachable, Usage
from orchestration.host import files
from orchestration.operator import backup as copies
from orchestration.operator import postgres_copies, postgres_side, soundness
from orchestration.operator.console import Console, json_option
from orchestration.store import opening
from orchestration.store.sqlite import SCHEMA_VERSION, SqliteDatabase

if TYPE_CHECKING:
    from orchestration.bridge.store.transfer import Moved


@click.group()
def db() -> None:
    """Migrate, check, back up and restore the databases, and move to PostgreSQL."""


@db.command()
@json_option
@click.pass_obj
def migrate(console: Console) -> None:
    """Bring the tables up to this program, as ticks and services do by themselves. Forward only."""
    console.become_owner()
    os.umask(0o077)
    path, url = console.path(wiring.STORE), console.settings.database_url
    done = []
    if not url or os.path.exists(path):
        done.append((path, copies.schema_of(path) if os.path.exists(path) else 0, SCHEMA_VERSION))
        files.make_folder(console.settings.state_dir)
        SqliteDatabase(path).close()
    if url:
        postgres = postgres_side.load()
        from orchestration.store import postgres as tables

        done.append((postgres.named(url), postgres.schema_of(url), tables.SCHEMA_VERSION))
        asyncio.run(tables.migrate(url))
    for name, before, after in done:
        if before != after:
            console.note("db migrate", f"brings {name} from schema {before} to {after}")
    console.answer(
        [{"database": name, "before": before, "schema": after, "changed": before != after} for name, before, after in done],
        lambda: [
            f"{name}: schema {after}" + ("" if before == after else f", {before} before") for name, before, after in done
        ],
    )


@db.command()
@json_option
@click.pass_obj
def check(console: Console) -> int:
    """Check files, tables, message numbers, cursors and the audit's chains, and change nothing. Exit code 1 for a fault."""
    console.become_owner()
    url, path = console.settings.database_url, console.path(wiring.STORE)
    found = [] if url and not os.path.exists(path) else [soundness.of_file(path, bridge=not url)]
    if url:
        found.append(soundness.of_postgres(url))
    document = [{**one._asdict(), "faults": list(one.faults), "sound": not one.faults} for one in found]
    console.answer(document, lambda: _checked(console, found))
    return 1 if any(one.faults for one in found) else 0


@db.command()
@click.option("--keep", type=click.IntRange(min=1), default=3, show_default=True, help="Copies of each kind that stay.")
@json_option
@click.pass_obj
def backup(console: Console, *, keep: int) -> None:
    """Copy databases to `backups/` in the state folder, while all goes on: `kloros-….db`, PostgreSQL `bridge-….db`.

    That of PostgreSQL has the bridge and what the ticks of all hosts of the scope remember.
    """
    console.become_owner()
    os.umask(0o077)
    folder, store, url = console.path(copies.FOLDER), console.path(wiring.STORE), console.settings.database_url
    files.make_folder(folder)
    made: list[dict[str, object]] = []
    if os.path.exists(store):
        path = copies.new_path(folder, copies.PREFIX)
        copies.copy(store, path)
        made.append({"of": store, "path": path, "removed": copies.remove_older(folder, copies.PREFIX, keep)})
    if url:
        path = copies.new_path(folder, postgres_copies.PREFIX)
        rows = postgres_copies.save(url, path)
        removed = copies.remove_older(folder, postgres_copies.PREFIX, keep)
        made.append({"of": postgres_side.load().named(url), "path": path, "removed": removed, "rows": rows})
    for one in made:
        console.note("db backup", f"copies {one['of']} to {one['path']}")
    console.answer(made, lambda: [f"{one['of']}: {one['path']}" for one in made] or [f"There is no store yet: {store}"])


@db.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, resolve_path=True))
@click.option("--yes", is_flag=True, help="Do it; without it only what would be done is told.")
@json_option
@click.pass_obj
def restore(console: Console, *, file: str, yes: bool) -> None:
    """Put a copy that `db backup` or `backup` made in the place of the database. What is there now is kept beside it.

    A `kloros-….db` goes to kloros.db, a `bridge-….db` to PostgreSQL. Stop the bridge and ticks first, on every host of a
    scope. Nobody leads the scope then; the next tick of any host does.
    """
    console.become_owner()
    os.umask(0o077)
    of_bridge, url, store = postgres_copies.is_one(file), console.settings.database_url, console.path(wiring.STORE)
    if of_bridge and not url:
        raise Usage(f"{file} is a copy of PostgreSQL", hint="set KLR_DATABASE_URL to the database to restore")
    target = postgres_side.load().named(url) if of_bridge else store
    checked = soundness.of_file(file, bridge=True)
    if checked.faults:
        raise StoreUnreachable(f"{file} is damaged: {checked.faults[0]}", hint="klorosctl db check; take an older copy")
    kept = ""
    if yes and of_bridge:
        soundness.check_current(file)
        kept = postgres_copies.restore(console, file, url)
    elif yes:
        kept = _restore_file(console, file, store)
    if yes:
        console.note("db restore", f"puts {file} in the place of {target}; what was there is {kept or 'nothing'}")
    told = f"{target} is what {file} was" if yes else f"{file} is whole, and would replace {target}: add --yes"
    console.answer(
        {"restored": yes, "file": file, "database": target, "kept": kept or None},
        lambda: [told, *([f"What was there before: {kept}"] if kept else [])],
    )


@db.command("copy")
@click.option("--from", "source", type=click.Path(exists=True, dir_okay=False), help="The file; kloros.db by default.")
@click.option("--to", "url", metavar="URL", help="The database; that of KLR_DATABASE_URL by default.")
@json_option
@click.pass_obj
def copy_(console: Console, *, source: str | None, url: str | None) -> int:
    """Copy all of SQLite into an empty PostgreSQL, and compare every row; the bridge is kept whole or not, and so are ticks.

    Copied are threads, participants, messages, findings, rates, sessions, triggers, revocations, audit and its chains; and
    what ticks remember, as `db join` does. Stop both first: what the bridge is told meanwhile is not copied, and told.
    """
    console.become_owner()
    path = source or console.path(wiring.STORE)
    url = url or console.settings.database_url
    if not url:
        raise Usage("no PostgreSQL is named", hint="klorosctl db copy --to postgresql:///kloros, or set KLR_DATABASE_URL")
    if not url.startswith(("postgresql://", "postgres://")):
        raise Usage(f"{url!r} is no URL of a PostgreSQL database", hint="such as postgresql:///kloros")
    postgres = postgres_side.load()
    from orchestration.bridge.store import transfer
    from orchestration.store import postgres as tables

    soundness.check_current(path)
    asyncio.run(tables.migrate(url))
    with closing(transfer.SqliteSide(path)) as ours, closing(postgres.PostgresSide(url, filled=True)) as theirs:
        if not transfer.is_empty(theirs):
            raise KlorosError(f"{theirs.name} has rows already", hint="copy into an empty database: createdb …")
        moved = transfer.transfer(ours, theirs)
    ticks = _join(console, path, url)
    console.note("db copy", f"copies {path} to {postgres.named(url)}")
    document = {"from": path, "to": postgres.named(url), "rows": {**moved.copied, **ticks}, "not_copied": moved.newer}
    console.answer(document, lambda: _copied(console, document, moved))
    return 1 if moved.newer else 0


@db.command()
@json_option
@click.pass_obj
def join(console: Console) -> None:
    """Take what ticks remember out of kloros.db into the PostgreSQL of KLR_DATABASE_URL, for the first host of a scope.

    All of it or nothing, and only into a scope in which nobody has ticked yet. The bridge's threads are copied by `db copy`.
    Stop ticks and cycles first. The file stays as it was.
    """
    console.become_owner()
    place = opening.place_of(console.settings)
    if not place.url:
        raise Usage("no PostgreSQL is named", hint="set KLR_DATABASE_URL to the database of the scope: postgresql:///kloros")
    from orchestration.store.postgres_join import join as take_over

    rows = take_over(place)
    console.note("db join", f"takes what ticks remember from {place.path} to {place}")
    document = {"from": place.path, "to": str(place), "rows": rows}
    table = [(name, str(many)) for name, many in rows.items()]
    console.answer(document, lambda: [*console.screen.table(("TABLE", "ROWS"), table), f"All of it is in {place} now."])


def _join(console: Console, path: str, url: str) -> dict[str, int]:
    """Take over what ticks remember, if they remember anything that was not taken over before; returns the rows by table."""
    from orchestration.store import postgres_join

    settings = console.settings
    if not postgres_join.is_wanted(path):
        return {}
    return postgres_join.join(opening.Place(path, url, settings.scope.name, opening.here(settings.scope)))


def _copied(console: Console, document: dict[str, Any], moved: Moved) -> Iterator[str]:
    yield from console.screen.table(("TABLE", "ROWS"), [(name, str(rows)) for name, rows in document["rows"].items()])
    yield f"Every row of {document['to']} was compared with {document['from']}: they are the same."
    if moved.newer:
        told = f"{moved.newer} changes were made in {document['from']} meanwhile and are not in the copy: stop the bridge, "
        yield from console.screen.alarm(told + "empty the database, and copy again.")


def _checked(console: Console, found: list[soundness.Soundness]) -> Iterator[str]:
    for one in found:
        rows = "" if one.rows is None else f", {one.rows['threads']} threads, {one.rows['entries']} audit entries"
        yield f"{one.database}: schema {one.schema}{rows}" + ("" if one.faults else ", sound")
        for fault in one.faults:
            yield from console.screen.alarm(fault)


def _restore_file(console: Console, file: str, store: str) -> str:
    files.make_folder(console.settings.state_dir)
    kept = ""
    if os.path.exists(store):
        files.make_folder(console.path(copies.FOLDER))
        kept = copies.set_back(store, file, console.path(copies.FOLDER))
    else:
        copies.copy(file, store)
    SqliteDatabase(store).close()
    return kept
