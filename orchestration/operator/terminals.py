"""The terminals of agents on this host: those of a tmux server of ours, at `agents/tmux.sock` in the state folder."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from orchestration.errors import CommandNotStarted, KlorosError, Usage
from orchestration.host import clock, files

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestration.bridge.wake.places import Place, Places

_STARTS_WITHIN: Final = 30.0
_STAYS: Final = 1.0
"""Seconds that a program has to live: what can't do with its arguments, or where it is, ends before."""
_NAP_MS: Final = 50
_LONGEST_SOCKET: Final = 107  # sun_path, unix(7)
_OPTIONS: Final = (("default-terminal", "tmux-256color"), ("history-limit", "20000"), ("remain-on-exit", "off"))


def start(places: Places, order: dict[str, Any]) -> Place:
    """Have tmux run an agent's keeper, `run_agent`, and wait until the agent lives.

    Raises:
        Usage: there is no tmux here, or no room for its socket's path. CommandNotStarted: it did not stay.
    """
    files.make_folder(places.folder)
    if len(places.socket.encode()) > _LONGEST_SOCKET:
        raise Usage(
            f"{places.socket} is too long for a socket", hint=f"at most {_LONGEST_SOCKET} bytes: a shorter state_dir"
        )
    agent = order["agent"]
    path = os.path.join(places.folder, f"{agent}.start")
    failed = f"{path}.failed"
    _remove(failed)
    files.replace(path, json.dumps(order).encode(), 0o600)
    keeper = [sys.executable, "-P", "-m", "orchestration.run_agent", path]
    options = [word for name, value in _OPTIONS for word in ("set-option", "-g", name, value, ";")]
    made = ["new-session", "-d", "-P", "-F", "#{pane_id}", "-x", "200", "-y", "50", "-n", "agent", "--", *keeper]
    try:
        pane = _tmux(places.socket, "-f", os.devnull, "start-server", ";", *options, *made).strip()
        wait_until(
            lambda: _lives(places, agent, pane) or os.path.exists(failed) or not _is_pane(places.socket, pane),
            _STARTS_WITHIN,
        )
    finally:
        _remove(path)
    place = places.of_agent(agent)
    if place is not None and _lives(places, agent, pane) and not wait_until(lambda: not _lives(places, agent, pane), _STAYS):
        return place
    if os.path.exists(failed):
        with open(failed, "rb") as file:
            told = json.loads(file.read())
        _remove(failed)
        raise CommandNotStarted(f"{agent} was not started: {told['error']}", hint=told["hint"])
    command = " ".join(order["command"])
    raise CommandNotStarted(f"{agent} ended at once: {command}", hint="run that command by hand in a terminal and see why")


def attach_command(place: Place) -> list[str]:
    """Return what shows its terminal."""
    return ["tmux", "-S", place.socket, "attach-session", "-t", place.tmux_session]


def where(place: Place) -> str:
    """Say where it lives, for people."""
    return f"pane {place.pane} of tmux at {place.socket}, as session {place.session_id}"


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    """Wait for a condition; False when it has not come in time."""
    until = clock.monotonic() + seconds
    while not condition():
        if clock.monotonic() > until:
            return False
        select.poll().poll(_NAP_MS)  # neither tmux nor a process that is not ours tells when it is there or gone
    return True


def _lives(places: Places, agent: str, pane: str) -> bool:
    place = places.of_agent(agent)
    return place is not None and place.pane == pane and place.keeper_lives and place.program_lives


def _is_pane(socket: str, pane: str) -> bool:
    try:
        return pane in _tmux(socket, "list-panes", "-a", "-F", "#{pane_id}").split()
    except KlorosError:
        return False  # the server ends with its last pane


def _tmux(socket: str, *words: str) -> str:
    program = shutil.which("tmux")
    if program is None:
        raise Usage("tmux is not installed, in which agents live", hint="sudo apt-get install tmux")
    environ = {name: value for name, value in os.environ.items() if name not in ("TMUX", "TMUX_PANE") and name[:4] != "KLR_"}
    done = subprocess.run([program, "-S", socket, *words], capture_output=True, text=True, check=False, env=environ)
    if done.returncode:
        raise KlorosError(f"tmux: {done.stderr.strip()}", hint=f"tmux -S {socket} ls")
    return done.stdout


def _remove(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)
