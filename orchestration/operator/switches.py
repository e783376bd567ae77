"""`klorosctl halt`, `unhalt`, `maintenance`: two files in the state folder that ticks look for."""

from __future__ import annotations

import os

import click

from orchestration.errors import StoreUnreachable, Unwritable
from orchestration.host import files
from orchestration.operator.console import Console, json_option
from orchestration.tick.gate import KILL_SWITCH
from orchestration.tick.observe import MAINTENANCE_FILE


@click.command()
@click.option("--reason", default="", help="Why, for whoever finds the file.")
@json_option
@click.pass_obj
def halt(console: Console, *, reason: str) -> None:
    """Stop at once: no tick does anything until `unhalt`. A running cycle goes on."""
    path = _place(console, KILL_SWITCH)
    if _make(console, path, reason):
        console.note("halt", f"halts orchestration{_because(reason)}")
        message = f"Halted: {path} is there, every tick ends with exit code 20."
    else:
        message = f"It is halted already: {path} is there{_content(path)}."
    active, more = None, ""
    try:
        active = _active(console)
        more = f"Cycle {active} goes on; end it with: klorosctl cancel {active}" if active else ""
    except StoreUnreachable as error:  # halted all the same
        more = f"Whether a cycle runs can't be seen: {error.message}"
    lead = ""
    if console.settings.database_url:
        from orchestration.operator.leader import released

        lead = released(console)
    document = {"halted": True, "path": path, "active_cycle": active}
    console.answer(document, lambda: [message, *filter(None, [more, lead]), "Undo: klorosctl unhalt"])


@click.command()
@json_option
@click.pass_obj
def unhalt(console: Console) -> None:
    """Let ticks work again after `halt`."""
    path = _place(console, KILL_SWITCH)
    was = _content(path)
    if _remove(path):
        console.note("unhalt", "lets orchestration go on")
        message = f"No longer halted: {path} is removed (it was there{was})."
    else:
        message = f"It was not halted: there is no {path}."
    mode = console.settings.orchestration_mode
    more = [] if mode == "enabled" else [f"But orchestration is {mode}, says {console.mode_source()}: klorosctl enable"]
    console.answer({"halted": False, "path": path, "mode": mode}, lambda: [message, *more])


@click.command()
@click.argument("switch", type=click.Choice(["on", "off"]))
@click.option("--reason", default="", help="Why, for whoever finds the file.")
@json_option
@click.pass_obj
def maintenance(console: Console, *, switch: str, reason: str) -> None:
    """Switch maintenance on or off: ticks go on and settle what has ended, but start nothing."""
    path = _place(console, MAINTENANCE_FILE)
    changed = _make(console, path, reason) if switch == "on" else _remove(path)
    if changed:
        console.note("maintenance", f"switches maintenance {switch}{_because(reason)}")
    already = "" if changed else "already "
    tell = f"Maintenance is {already}{switch}: {path} is {'there' if switch == 'on' else 'not there'}."
    undo = ["Undo: klorosctl maintenance off"] if switch == "on" else []
    console.answer({"maintenance": switch == "on", "path": path, "changed": changed}, lambda: [tell, *undo])


def _place(console: Console, name: str) -> str:
    console.become_owner()
    return console.path(name)


def _make(console: Console, path: str, reason: str) -> bool:
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    except OSError as error:
        raise Unwritable(f"{path} can't be made: {error.strerror}", hint="run it as the folder's owner: sudo") from error
    text = f"by {console.actor} at {console.times.both(console.now)}{_because(reason)}\n"
    return files.create(path, text.encode(), mode=0o644)


def _remove(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Unwritable(f"{path} can't be removed: {error.strerror}", hint="run it as its owner, or remove it") from error
    return True


def _content(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            text = file.read(300).strip()
    except OSError:
        return ""
    return f", {text}" if text else ""


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _active(console: Console) -> int | None:
    from orchestration.cycles import ledger

    with console.looking() as kernel:
        return next((cycle.cycle for cycle in ledger.standing(kernel.db)), None)
