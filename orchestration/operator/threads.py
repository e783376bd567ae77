"""`klorosctl threads`: the threads there are; written out, taken in, and removed when they are old."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from orchestration.operator import bridging
from orchestration.operator.console import Console, json_option

if TYPE_CHECKING:
    from orchestration.bridge import wire
    from orchestration.bridge.caller import Caller
    from orchestration.bridge.commands import Commands
    from orchestration.bridge.expiry import Expired

_STATUSES = ("active", "blocked", "resolved", "closed")


@click.group()
def threads() -> None:
    """List the threads in which agents talk, write them out, and take them in."""


@threads.command("list")
@click.option("--status", type=click.Choice(_STATUSES), help="Only those that stand there.")
@click.option("--participant", help="Only those in which this agent takes part.")
@click.option("--workspace", help="Only those of this workspace.")
@click.option("--after", metavar="THREAD", help="Go on after this one, the last of the list before.")
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="At most so many.")
@json_option
@click.pass_obj
def list_(
    console: Console, *, status: str | None, participant: str | None, workspace: str | None, after: str | None, limit: int
) -> None:
    """List threads, the newest first."""
    asked = bridging.of_wire(
        "ListThreads", status=status, participant=participant, workspace_id=workspace, after=after, limit=limit
    )
    found: tuple[wire.ThreadListed, ...] = ()
    further = None
    if _there(console):
        found, further = bridging.ask(console, lambda ours, who: _page(ours, who, asked))
    console.answer([one.model_dump(mode="json") for one in found], lambda: _listed(console, found, further))


@threads.command()
@click.argument("thread_ids", nargs=-1, metavar="[THREAD]...")
@json_option
@click.pass_obj
def export(console: Console, *, thread_ids: tuple[str, ...]) -> None:
    """Write threads to standard output as JSON lines, with and without --json; without a name, all of them."""

    async def work(ours: Commands, who: Caller) -> None:
        for thread_id in thread_ids or [one async for one in _all(ours, who)]:
            async for line in ours.export_thread(who, thread_id):
                sys.stdout.write(line)

    for thread_id in thread_ids:
        bridging.of_wire("GetThread", thread_id=thread_id)
    if _there(console):
        bridging.ask(console, work)


@threads.command("import")
@click.argument("file", type=click.File(encoding="utf-8", errors="replace"), metavar="FILE")
@json_option
@click.pass_obj
def import_(console: Console, *, file: Any) -> None:
    """Take in threads from a file of JSON lines, `-` for standard input. Those that are there already stay as they are."""
    from orchestration.bridge import archive

    found = list(archive.read(file))

    async def work(ours: Commands, who: Caller) -> list[dict[str, object]]:
        return [
            {
                "thread_id": one.thread_id,
                "messages": len(messages),
                "changed": await ours.import_thread(who, one, messages, sha),
            }
            for one, messages, sha in found
        ]

    done = bridging.ask(console, work)
    bridging.tell(console)
    console.note("threads import", f"imports {sum(bool(one['changed']) for one in done)} threads")
    told = {True: "taken in", False: "there already"}
    console.answer(
        done, lambda: [f"{one['thread_id']}: {one['messages']} messages, {told[bool(one['changed'])]}" for one in done]
    )


@threads.command()
@click.option("--dry-run", is_flag=True, help="Only say which would go.")
@json_option
@click.pass_obj
def expire(console: Console, *, dry_run: bool) -> None:
    """Archive and remove threads that `[retention] threads` keeps no longer. The bridge does so by itself, once an hour."""
    from orchestration import bridge_wiring

    async def work(ours: Commands, who: Caller) -> list[Expired]:
        return await bridge_wiring.expiry(console.settings, ours).run(who, dry=dry_run)

    found = bridging.ask(console, work) if _there(console) else []
    if found and not dry_run:
        console.note("threads expire", f"archives and removes {len(found)} threads")
    rows = [f"{one.thread_id} of {one.workspace_id}: {one.path or 'would go'}" for one in found]
    console.answer([one._asdict() for one in found], lambda: rows or ["There is nothing to remove."])


def _there(console: Console) -> bool:
    console.become_owner()
    return bridging.is_made(console)


async def _all(ours: Commands, who: Caller) -> Any:
    after = None
    while True:
        page = await ours.list_threads(who, bridging.of_wire("ListThreads", after=after, limit=200))
        for one in page.threads:
            yield one.thread_id
        after = page.next_after
        if after is None:
            return


async def _page(ours: Commands, who: Caller, asked: wire.ListThreads) -> tuple[tuple[wire.ThreadListed, ...], str | None]:
    page = await ours.list_threads(who, asked)
    return page.threads, page.next_after


def _listed(console: Console, found: tuple[wire.ThreadListed, ...], further: str | None) -> Iterator[str]:
    if not found:
        yield "There is no such thread."
        return
    rows = [
        (one.status.value, str(one.last_seq), console.times.ago(one.updated_at), one.thread_id, one.type.value, one.title)
        for one in found
    ]
    yield from console.screen.table(("STATUS", "MESSAGES", "CHANGED", "THREAD", "TYPE", "TITLE"), rows)
    if further:
        yield f"There are more: --after {further}"
