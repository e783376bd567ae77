"""`klorosctl escrow`: accepted changes that wait for a person; looked at, approved, rejected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import click

from orchestration.host.lock import PATIENCE
from orchestration.operator import differences
from orchestration.operator.console import Console, check_reason, json_option, unknown
from orchestration.tick.kernel import Kernel

if TYPE_CHECKING:
    from orchestration.baseline.escrow import Entry
    from orchestration.baseline.version import Change, Version
    from orchestration.promotions.promotion import Number

_LIMIT = 20
_entry_argument = click.argument("entry")


@click.group()
def escrow() -> None:
    """Review accepted changes that the rules of [escrow] keep out of the baseline until a person has seen them."""


@escrow.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that were decided on, the newest first.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=_LIMIT, show_default=True, help="With --all, so many.")
@json_option
@click.pass_obj
def list_(console: Console, *, everything: bool, limit: int) -> None:
    """List what waits for a person, the oldest first."""
    from orchestration.baseline import escrow_ledger
    from orchestration.baseline.escrow import document

    with console.looking() as kernel:
        found = escrow_ledger.recent(kernel.db, limit=limit) if everything else escrow_ledger.pending(kernel.db)
    console.answer([document(entry) for entry in found], lambda: _rows(console, found))


@escrow.command()
@_entry_argument
@json_option
@click.pass_obj
def show(console: Console, *, entry: str) -> None:
    """Show an entry: what asks for what, why it waits, and what approving it would change today."""
    from orchestration.baseline import history
    from orchestration.baseline.escrow import document
    from orchestration.baseline.version import difference

    with console.looking() as kernel:
        found = _find(kernel, entry)
        now, parameters = history.in_force(kernel.db, kernel.settings.state_dir)
        today = _today(kernel, found, parameters)
    shown = {**document(found), "today": [difference(change) for change in today]}
    console.answer(shown, lambda: _shown(console, found, now, today))


@escrow.command()
@_entry_argument
@click.option("--reason", default="", help="Why; it stays with the entry and the version.")
@click.option("--anyway", is_flag=True, help="Of a rollback: also when it undoes versions that came since it was held.")
@json_option
@click.pass_obj
def approve(console: Console, *, entry: str, reason: str, anyway: bool) -> None:
    """Put what waits into the baseline, as a new version, within today's bounds."""
    from orchestration.baseline import escrow_ledger
    from orchestration.baseline.escrow import Reviewer, Status
    from orchestration.baseline.escrow_ledger import Terms

    def decide(kernel: Kernel, found: Entry) -> None:
        settings = kernel.settings
        bounds, strict = settings.promotions.bounds, settings.promotions.strict
        terms = Terms(bounds, strict, settings.escrow.four_eyes, settings.state_dir, anyway)
        reviewer = Reviewer(console.actor, console.identities)
        escrow_ledger.approve(kernel.db, found, reviewer, reason, at=kernel.now(), terms=terms)

    _decide(console, entry, Status.APPROVED, decide)


@escrow.command()
@_entry_argument
@click.option("--reason", required=True, help="Why; it stays with the entry.")
@json_option
@click.pass_obj
def reject(console: Console, *, entry: str, reason: str) -> None:
    """Close an entry; the baseline stays as it is."""
    from orchestration.baseline import escrow_ledger
    from orchestration.baseline.escrow import Status

    check_reason(reason)

    def decide(kernel: Kernel, found: Entry) -> None:
        escrow_ledger.reject(kernel.db, found, console.actor, reason, at=kernel.now())

    _decide(console, entry, Status.REJECTED, decide)


def _decide(console: Console, given: str, wanted: str, decide: Callable[[Kernel, Entry], None]) -> None:
    """Decide on an entry under the lock, once; deciding the same again is no failure."""
    from orchestration.baseline import copies, escrow_files, escrow_ledger, history
    from orchestration.baseline.escrow import document

    with console.acting() as kernel, kernel.lock.held("klorosctl escrow", patience=PATIENCE):
        found = _find(kernel, given)
        changed = found.status != wanted
        if changed:
            with kernel.db.transaction():
                decide(kernel, found)
        copies.bring_up(kernel.db, kernel.path("baseline"))
        escrow_files.bring_up(kernel.db, kernel.path("escrow"))
        entry = escrow_ledger.get(kernel.db, found.entry) or found
        made = None if entry.version is None else history.get(kernel.db, entry.version)
    if changed:
        message = f"{wanted} escrow {entry.entry}, {entry.subject}{f': {entry.reason}' if entry.reason else ''}"
        console.note(f"escrow {wanted}", message, entry=entry.entry, version=entry.version, cycle=entry.cycle)
    console.answer({**document(entry), "changed": changed}, lambda: _decided(console, entry, made, changed))


def _find(kernel: Kernel, given: str) -> Entry:
    from orchestration.baseline import escrow_ledger
    from orchestration.baseline.escrow import bare_id

    wanted = bare_id(given)
    found = escrow_ledger.get(kernel.db, wanted)
    if found is None:
        there = [*escrow_ledger.pending(kernel.db), *escrow_ledger.recent(kernel.db, limit=100)]
        known = list(dict.fromkeys(entry.entry for entry in there))
        raise unknown("entry of escrow", given, known, more="klorosctl escrow list --all")
    return found


def _today(kernel: Kernel, entry: Entry, now: Mapping[str, Number]) -> tuple[Change, ...]:
    """Return what approving an entry now would change; nothing once it is decided on."""
    from orchestration.baseline import history
    from orchestration.baseline.escrow import Kind, Status
    from orchestration.baseline.version import changes

    if entry.status is not Status.PENDING:
        return ()
    if entry.kind is Kind.ROLLBACK:
        target = history.get(kernel.db, entry.target or 0)
        return () if target is None else changes(now, target.parameters)
    return changes(now, {**now, **{name: value for name, value in entry.changes.items() if value is not None}})


def _rows(console: Console, found: list[Entry]) -> list[str]:
    if not found:
        return ["Nothing waits in escrow."]
    rows = []
    for entry in found:
        local, _ = console.times.columns(entry.created_at)
        rows.append((entry.entry, local, console.screen.state(entry.status), f"{entry.subject}; {entry.rule}"))
    return console.screen.table(("ENTRY", "SINCE", "STATUS", "WHAT; RULE"), rows)


def _shown(console: Console, entry: Entry, now: int | None, today: tuple[Change, ...]) -> Iterator[str]:
    from orchestration.baseline.escrow import Kind

    screen, times = console.screen, console.times
    yield f"{screen.heading(entry.subject)}  {screen.state(entry.status)}"
    yield from screen.field("Entry", entry.entry)
    yield from screen.field("Since", times.both(entry.created_at))
    if entry.expires_at is not None:
        yield from screen.field("Expires", times.both(entry.expires_at))
    yield from screen.field("Rule", entry.rule)
    if entry.cycle is not None:
        yield from screen.field("Cycle", f"{entry.cycle}: klorosctl show {entry.cycle}")
    if entry.emitted_by:
        barred = entry.kind is Kind.PROMOTION and (entry.four_eyes or console.settings.escrow.four_eyes)
        yield from screen.field("Emitted by", entry.emitted_by + (", who can't approve it" if barred else ""))
    known = ((name.replace("_", " "), value) for name, value in entry.evidence.items() if value is not None)
    evidence = (f"{name}: {value}" for name, value in known)
    yield from screen.field("Evidence", next(evidence, ""), *evidence)
    if entry.reviewed_at is not None:
        yield from screen.field("Decided", f"{times.both(entry.reviewed_at)} by {entry.reviewed_by}")
        yield from screen.field("Reason", entry.reason)
    if entry.version is not None:
        yield from screen.field("Made", f"version {entry.version}: klorosctl baseline show {entry.version}")
    yield from _differences(
        console, "Against " + ("nothing" if entry.against is None else f"version {entry.against}"), entry.diff
    )
    if entry.reviewed_at is None:
        yield from _differences(console, "Approved today, it would change", today)
        if entry.kind is Kind.ROLLBACK and entry.against != now:
            moved = f"The baseline was version {entry.against} when this was held and is version {now} by now."
            yield from screen.wrap(f"{moved} What came since is undone as well; if that is meant, approve it with --anyway.")
        yield f"klorosctl escrow approve {entry.entry}, or: klorosctl escrow reject {entry.entry} --reason …"


def _differences(console: Console, title: str, found: tuple[Change, ...]) -> Iterator[str]:
    yield ""
    yield console.screen.heading(title) + ("" if found else "  (no difference)")
    yield from differences.table(console.screen, found)


def _decided(console: Console, entry: Entry, made: Version | None, changed: bool) -> list[str]:
    word = "" if changed else "already "
    said = [f"Escrow {entry.entry}, {entry.subject}, is {word}{entry.status}, by {entry.reviewed_by}."]
    if made is not None:
        said.append(f"Version {made.version} of the baseline has it: klorosctl baseline show {made.version}")
    return [line for one in said for line in console.screen.wrap(one)]
