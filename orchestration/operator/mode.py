"""`klorosctl enable` and `klorosctl disable`: the mode, where ticks read it.

With units installed that is a drop-in of ours, so the unit's own file stays as the installer or the operator left it;
the drop-in is there only while it is needed, so that a later edit of the unit counts. Without units it is the line
`orchestration_mode` of the TOML file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from orchestration import configuration
from orchestration.errors import KlorosError, Unwritable
from orchestration.host import files
from orchestration.operator.console import MODE, Console, json_option
from orchestration.operator.toml_line import set_top_level


@click.command()
@json_option
@click.pass_obj
def enable(console: Console) -> int:
    """Let ticks work. Writes a systemd drop-in where units are installed, else the settings file."""
    return _set(console, "enabled", "disable")


@click.command()
@json_option
@click.pass_obj
def disable(console: Console) -> int:
    """Let ticks do nothing (they end with exit code 2). A running cycle goes on."""
    return _set(console, "disabled", "enable")


def _set(console: Console, mode: str, opposite: str) -> int:
    done = _in_unit(console, mode) if console.units.fragment() else _in_file(console, mode)
    console.note("enable" if mode == "enabled" else "disable", f"sets the mode to {mode}: {'; '.join(done)}")
    lines = [f"Orchestration is {console.screen.state(mode)}.", *(f"  {one}" for one in done), f"Undo: klorosctl {opposite}"]
    lines += _remarks(console, mode)
    if mode == "disabled" and console.settings.database_url:
        from orchestration.operator.leader import released

        lines += filter(None, [released(console)])
    console.answer({"mode": mode, "done": done, "undo": f"klorosctl {opposite}"}, lambda: lines)
    return 0


def _remarks(console: Console, mode: str) -> list[str]:
    if MODE in console.caller and console.caller[MODE] != mode:
        return [f"In this shell {MODE}={console.caller[MODE]} is set and beats it: unset {MODE}"]
    if mode == "disabled":
        return ["A running cycle goes on: klorosctl status shows it, klorosctl cancel N ends it."]
    return []


def _in_unit(console: Console, mode: str) -> list[str]:
    units = console.units
    path = units.our_drop_in()
    value, source = units.environment(without=path).get(MODE, ("", ""))
    if value == mode:
        done = [f"{source} says {MODE}={mode}", *_forget(path)]
    else:
        text = f"# Written by klorosctl; undo with: klorosctl {'disable' if mode == 'enabled' else 'enable'}\n"
        _writing(path, lambda: _write(path, f"{text}[Service]\nEnvironment={MODE}={mode}\n"))
        done = [f"written: {path} (Environment={MODE}={mode})"]
    done.append(_reload(console))
    value, source = units.environment().get(MODE, ("disabled", "nothing"))
    if value != mode:
        raise KlorosError(f"{source} says {MODE}={value} and beats {path}", hint=f"remove that line from {source}")
    return done


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    files.replace(path, text.encode(), mode=0o644)


def _forget(path: str) -> list[str]:
    if not os.path.lexists(path):
        return []
    _writing(path, lambda: os.unlink(path))
    return [f"removed: {path}, which said otherwise"]


def _writing(path: str, write: Callable[[], Any]) -> None:
    try:
        write()
    except (OSError, Unwritable) as error:
        reason = error.strerror if isinstance(error, OSError) else error.message
        raise Unwritable(f"{path}: {reason}", hint="the host's units are root's: sudo klorosctl …") from error


def _reload(console: Console) -> str:
    if not console.units.manager_runs():
        return "systemd does not run here; it reads this when it starts"
    code, said = console.units.systemctl("daemon-reload")
    if code:
        user = " --user" if console.units.user else ""
        raise KlorosError(
            f"the files are written, but systemd did not read them: {said}", hint=f"systemctl{user} daemon-reload"
        )
    return "systemd has read it (daemon-reload); it counts from the next tick"


def _in_file(console: Console, mode: str) -> list[str]:
    path = os.path.realpath(configuration.config_path(console.environ))
    line = f'orchestration_mode = "{mode}"'
    try:
        changed = set_top_level(path, "orchestration_mode", mode)
    except Unwritable as error:
        hint = "run it as the file's owner (sudo), or name a file of your own: export KLR_CONFIG=…"
        raise Unwritable(error.message, hint=hint) from error
    where = f"{path}: {line}"
    return [f"no systemd unit ticks for this installation; {'written' if changed else 'it stood there already'} in {where}"]
