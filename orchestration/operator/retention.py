"""`klorosctl prune`, `pin` and `unpin`: which cycles stay on disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from orchestration.cycles import ledger
from orchestration.cycles.cycle import CycleNumber
from orchestration.errors import Usage
from orchestration.host.lock import PATIENCE
from orchestration.operator.console import Console, json_option
from orchestration.operator.cycles import find, folder_of, number_argument
from orchestration.operator.screen import size
from orchestration.tick.kernel import Kernel

if TYPE_CHECKING:
    from orchestration.tick.expire import Old


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go, and what is held by what.")
@json_option
@click.pass_obj
def prune(console: Console, *, dry_run: bool) -> int:
    """Remove everything that [retention] no longer keeps, at once; ticks remove a little each time."""
    from orchestration.cycles import retention
    from orchestration.tick import expire

    settings = console.settings
    if dry_run:
        with console.looking() as kernel:
            over = _over(kernel)
            held = retention.held_among(kernel.db, settings, over)
            old = expire.old(kernel)
        going = [(cycle, _bytes(console, cycle)) for cycle in over if cycle not in held]
        document = {"would_remove": [{"cycle": cycle, "bytes": used} for cycle, used in going], "held": held}
        console.answer({**document, "old": old._asdict()}, lambda: _lines(console, "would go", going, held, old))
        return 0
    with console.acting() as kernel, kernel.lock.held("klorosctl prune", patience=PATIENCE):
        over = _over(kernel)
        sizes = {cycle: _bytes(console, cycle) for cycle in over}
        done = retention.prune(kernel.db, settings, over, now=kernel.now())
        old = _expire(kernel)
    if done.removed:
        console.note("prune", f"removed {len(done.removed)} cycles from disk")
    gone = [(cycle, sizes[cycle]) for cycle in done.removed]
    document = {
        "removed": [{"cycle": cycle, "bytes": used} for cycle, used in gone],
        "held": done.held,
        "failed": done.failed,
        "old": old._asdict(),
    }
    console.answer(document, lambda: _lines(console, "gone", gone, {**done.held, **done.failed}, old))
    return 1 if done.failed else 0


def _expire(kernel: Kernel) -> Old:
    """Remove all that is old, as ticks do in many turns."""
    from orchestration.tick.expire import PER_TICK, Old, expire

    total = Old(0, 0, 0, 0)
    while True:
        done = expire(kernel)
        total = Old(*(one + other for one, other in zip(total, done, strict=True)))
        if max(done) < PER_TICK:
            return total


def _over(kernel: Kernel) -> list[CycleNumber]:
    kept = kernel.settings.retention
    return ledger.over(kernel.db, keep_last=kept.keep_last, before=kernel.now() - kept.keep_for, held_too=True)


def _bytes(console: Console, cycle: CycleNumber) -> int:
    from orchestration.cycles import artifacts, bundle
    from orchestration.cycles.cycle import folder_name
    from orchestration.host import folders

    folder = artifacts.cycle_dir(console.settings.cycles_dir, cycle)
    used = sum(status.st_blocks * 512 for _, _, status in folders.tree(folder, lambda _path, _error: None))
    packed = bundle.path_of(folder_name(cycle), console.settings.bundles_dir)
    return used + (os.stat(packed).st_blocks * 512 if packed else 0)


def _lines(
    console: Console, what: str, gone: list[tuple[CycleNumber, int]], held: dict[CycleNumber, str], old: Old
) -> list[str]:
    kept = console.settings.retention
    parts = f"{old.ticks} ticks, {old.intents} processed intents, {old.signals} signals, {old.versions} baseline files"
    history = [f"Old history, {what}: {parts}."]
    if not gone and not held:
        nothing = f"beyond the last {kept.keep_last} cycles none ended more than {kept.keep_for.days} days ago."
        return [
            f"No cycle to remove: {nothing}" if any(old) else f"Nothing to remove: {nothing}",
            *(history if any(old) else []),
        ]
    rows = [(str(cycle), what, size(used), "") for cycle, used in gone]
    rows += [(str(cycle), "held", "", why) for cycle, why in held.items()]
    return [*console.screen.table(("CYCLE", "", "ON DISK", "WHY"), rows), *(history if any(old) else [])]


@click.command()
@number_argument
@click.option("--reason", default="", help="Why; it is shown with the pin.")
@json_option
@click.pass_obj
def pin(console: Console, *, number: str, reason: str) -> int:
    """Keep cycle N on disk whatever its age, until it is unpinned."""
    from orchestration.store.instants import to_text

    with console.looking() as kernel:
        cycle = find(kernel, number)
    if cycle.ended_at is not None and not os.path.isdir(folder_of(console, cycle)):
        raise Usage(f"cycle {cycle.cycle} is gone from disk already", hint=f"its row stays: klorosctl show {cycle.cycle}")
    with console.acting() as kernel:
        now = to_text(kernel.now())
        kernel.db.run("pins.set", cycle=cycle.cycle, reason=reason, pinned_by=console.actor, now=now)
    console.note("pin", f"keeps cycle {cycle.cycle} on disk: {reason or 'no reason given'}", cycle=cycle.cycle)
    document: dict[str, Any] = {"cycle": cycle.cycle, "pinned": True, "reason": reason}
    console.answer(document, lambda: [f"Cycle {cycle.cycle} stays on disk. Undo: klorosctl unpin {cycle.cycle}"])
    return 0


@click.command()
@number_argument
@json_option
@click.pass_obj
def unpin(console: Console, *, number: str) -> int:
    """Let cycle N go from disk when its time comes."""
    with console.looking() as kernel:
        cycle = find(kernel, number)
        pinned = [str(row["cycle"]) for row in kernel.db.rows("pins.all")]
    if str(cycle.cycle) not in pinned:
        there = f"pinned are {', '.join(pinned[:20])}" if pinned else "no cycle is pinned"
        raise Usage(f"cycle {cycle.cycle} is not pinned", hint=there)
    with console.acting() as kernel:
        kernel.db.run("pins.remove", cycle=cycle.cycle)
    console.note("unpin", f"no longer keeps cycle {cycle.cycle} on disk", cycle=cycle.cycle)
    document = {"cycle": cycle.cycle, "pinned": False}
    console.answer(document, lambda: [f"Cycle {cycle.cycle} goes when its time comes: klorosctl prune --dry-run"])
    return 0
