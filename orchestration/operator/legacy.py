"""`klorosctl migrate-legacy`: take over what the older orchestrator left, after listing it."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import click

from orchestration.errors import Usage
from orchestration.host.lock import PATIENCE
from orchestration.legacy.item import Fate, Item, Kind
from orchestration.legacy.tree import Tree, read_tree
from orchestration.operator.console import Console, json_option

_SHOWN = 20  # of each kind and fate; the rest is counted
_TITLES = {
    Kind.ACK: "acks",
    Kind.VERSION: "baseline versions",
    Kind.EPOCH: "epochs",
    Kind.SIGNAL: "signals",
    Kind.INTENT: "intents",
}


@click.command("migrate-legacy")
@click.option("--from", "home", metavar="DIR", required=True, help="The older state folder, such as ~/.kloros.")
@click.option("--artifacts", metavar="DIR", help="Its artifacts, with the acks in dream/promotions_ack.")
@click.option(
    "--baseline",
    metavar="DIR",
    help="Its baseline, when that is neither baseline/ nor system/baseline/ in or beside those two.",
)
@click.option("--yes", is_flag=True, help="Do it. Without it: ask on a terminal, else only list.")
@json_option
@click.pass_obj
def migrate_legacy(console: Console, *, home: str, artifacts: str | None, baseline: str | None, yes: bool) -> None:
    """Take over what the older orchestrator left, after listing it: acks, baseline, epochs, signals, intents.

    Nothing there is changed. What is here stays as it is, so it may be run again, also after it was interrupted.
    """
    from orchestration.legacy.takeover import apply, plan

    places = {"--from": home, "--artifacts": artifacts, "--baseline": baseline}
    home, artifacts, baseline = (_folder(name, given) for name, given in places.items())
    tree = read_tree(home, artifacts=artifacts, baseline=baseline)  # as root, before we become who owns the state
    with console.looking() as kernel:
        items = [step.item for step in plan(kernel, tree, console.now)]
    document: dict[str, Any] = {"from": home, "artifacts": artifacts or None, "baseline": tree.baseline or None}
    advice = list(_advice(console, tree, artifacts))
    to_do = any(item.fate is Fate.TO_TAKE_OVER for item in items)
    if not console.as_json:
        console.screen.print(_listed(console, items, advice))
    done = to_do and (yes or _agreed(console))
    if done:
        with console.acting() as kernel, kernel.lock.held("klorosctl migrate-legacy", patience=PATIENCE):
            items = apply(kernel, plan(kernel, tree, console.now), console.now)
        taken = sum(item.fate is Fate.TAKEN_OVER for item in items)
        console.note("migrate-legacy", f"took over {taken} things from {home}")
    document |= {
        "done": done,
        "changed": any(item.fate is Fate.TAKEN_OVER for item in items),
        "counts": Counter(str(item.fate) for item in items),
        "items": [item._asdict() for item in items],
        "advice": advice,
    }
    console.answer(document, lambda: [_ended(items, done=done, to_do=to_do)])


def _folder(option: str, given: str | None) -> str:
    if given is None:
        return ""
    path = os.path.abspath(os.path.expanduser(given))
    if not os.path.isdir(path):
        raise Usage(f"{option}: {path} is no folder", hint="name the folder of the older orchestrator, such as ~/.kloros")
    return path


def _agreed(console: Console) -> bool:
    if console.as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return click.confirm("Take it over?", default=False)


def _advice(console: Console, tree: Tree, artifacts: str) -> Iterator[str]:
    ours = console.settings.promotions_dir
    if tree.promotions and os.path.realpath(tree.promotions) != os.path.realpath(ours):
        yield f'promotions come to {tree.promotions}: set promotions_dir = "{tree.promotions}", or they are not seen'
    if not (artifacts or tree.acks):
        yield "no acks were found: without --artifacts, promotions that were answered would be run again"
    yield "the D-REAM that starts by itself must be off before ticks are enabled: klorosctl autonomous list"


def _listed(console: Console, items: Sequence[Item], advice: Sequence[str]) -> Iterator[str]:
    screen = console.screen
    for kind, title in _TITLES.items():
        own = [item for item in items if item.kind is kind]
        counts = Counter(item.fate for item in own)
        told = ", ".join(f"{number} {fate.replace('_', ' ')}" for fate, number in sorted(counts.items()))
        yield from screen.field(title.split()[-1].capitalize(), told or "none")
        for fate in (Fate.TO_TAKE_OVER, Fate.REFUSED):
            yield from _some(console, [item for item in own if item.fate is fate])
    yield ""
    for text in advice:
        yield from screen.wrap(text, first="note: ", rest="      ")


def _some(console: Console, items: Sequence[Item]) -> Iterator[str]:
    for item in items[:_SHOWN]:
        mark = "  +" if item.fate is Fate.TO_TAKE_OVER else "  !"
        text = f"{item.name}: {item.detail}" if item.detail else item.name
        yield from console.screen.wrap(text, first=f"{mark} ", rest="     ")
    if len(items) > _SHOWN:
        yield f"    and {len(items) - _SHOWN} more: --json lists all"


def _ended(items: Sequence[Item], *, done: bool, to_do: bool) -> str:
    refused = sum(item.fate is Fate.REFUSED for item in items)
    left = f" {refused} refused, and left where they are." if refused else ""
    if done:
        return f"Taken over: {sum(item.fate is Fate.TAKEN_OVER for item in items)}.{left}"
    if to_do:
        return "Nothing has been changed. To do it: the same command with --yes"
    if not items:
        return "Nothing to do: there is nothing of an older orchestrator. Is it the right folder?"
    return f"Nothing to do: all that can be taken over is here.{left}"
