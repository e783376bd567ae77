"""`klorosctl audit`: what was done on the bridge and what was refused, and whether the record of it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from orchestration.errors import KlorosError, Usage
from orchestration.operator import bridging
from orchestration.operator.console import Console, json_option

if TYPE_CHECKING:
    from orchestration.bridge import wire
    from orchestration.bridge.caller import Caller
    from orchestration.bridge.commands import Commands
    from orchestration.bridge.state import ChainsVerified


@click.group()
def audit() -> None:
    """Read the bridge's audit, and check that nobody has edited it."""


@audit.command()
@json_option
@click.pass_obj
def verify(console: Console) -> int:
    """Walk every chain of the audit and compare each hash. Exit code 1 when one has been tampered with."""
    console.become_owner()
    if not bridging.is_made(console):
        raise KlorosError("there is no audit, for nothing has been stored yet")
    found = bridging.ask(console, lambda ours, _who: ours.store.verify())
    document = {
        "whole": not found.faults,
        "chains": found.chains,
        "entries": found.entries,
        "faults": [{"chain": one.chain, "link": one.link, "what": one.what} for one in found.faults],
    }
    console.answer(document, lambda: _verified(console, found))
    return 1 if found.faults else 0


@audit.command("list")
@click.option("--thread-id", metavar="THREAD", help="Only of this thread.")
@click.option("--after", type=click.IntRange(0), default=0, help="Go on after this entry.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="At most so many.")
@click.option("--last", type=click.IntRange(1, 10_000), help="So many, the newest, whatever --limit says.")
@json_option
@click.pass_obj
def list_(console: Console, *, thread_id: str | None, after: int, limit: int, last: int | None) -> None:
    """List entries of the audit, the oldest first."""
    if last is not None and after:
        raise Usage("--after goes on from an entry, and --last begins at the end", hint="leave one of them out")
    console.become_owner()
    wanted = bridging.of_wire("GetAudit", thread_id=thread_id, after=after, limit=limit)
    found: tuple[wire.AuditEntry, ...] = ()
    has_more = False
    if bridging.is_made(console):
        found, has_more = bridging.ask(console, lambda ours, who: _read(ours, who, wanted, last))
    console.answer([one.model_dump(mode="json") for one in found], lambda: _listed(console, found, has_more=has_more))


async def _read(
    ours: Commands, who: Caller, wanted: wire.GetAudit, last: int | None
) -> tuple[tuple[wire.AuditEntry, ...], bool]:
    if last is not None:
        return await ours.latest_audit(who, wanted.thread_id, last), False
    page = await ours.get_audit(who, wanted)
    return page.entries, page.has_more


def _verified(console: Console, found: ChainsVerified) -> Iterator[str]:
    for fault in found.faults:
        yield from console.screen.alarm(f"{fault.chain}, entry {fault.link}: {fault.what}")
    whole = "None was changed, removed or slipped in." if not found.faults else f"{len(found.faults)} chains are not whole."
    yield f"{found.entries} entries in {found.chains} chains. {whole}"


def _listed(console: Console, found: tuple[wire.AuditEntry, ...], *, has_more: bool) -> Iterator[str]:
    rows = [
        (str(one.entry), console.times.both(one.at), one.actor, one.operation, one.outcome, one.rule, one.thread_id or "")
        for one in found
    ]
    yield from console.screen.table(("ENTRY", "AT", "WHO", "WHAT", "OUTCOME", "RULE", "THREAD"), rows)
    if has_more:
        yield f"There are more: --after {found[-1].entry}; --last 50 gives the newest"
