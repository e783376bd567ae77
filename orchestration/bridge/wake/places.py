"""Where this host's agents live: one file for each in `agents/` of the state folder, written by what keeps the agent.

A terminal is a matter of its host, so the bridge's store knows the session only; whoever finds no place for it here, leaves
it to the host that has one. Pids come with their start time: one that was given out again is no place of ours.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Final

from orchestration.host import files, process_identity

SOCKET: Final = "tmux.sock"
_MOST: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one managed session lives."""

    agent: str
    workspace: str
    session_id: str
    """As the bridge knows it: the runtime's own name where it has told it."""
    runtime: str
    resumable: bool
    socket: str
    """Of the tmux server."""
    tmux_session: str
    """Its id there, `$1`."""
    pane: str
    """Its id there, `%1`."""
    keeper: int
    """Pid of the pane's first process, which keeps the agent and its heartbeat."""
    keeper_started: int
    """In clock ticks since boot."""
    program: int
    """Pid, and process group, of the agent's program."""
    program_started: int
    boot_id: str
    token: str
    """Marks its processes, so that whoever finds the keeper dead can end what it left."""
    command: tuple[str, ...]
    started_at: str

    @property
    def keeper_lives(self) -> bool:
        return self._lives(self.keeper, self.keeper_started)

    @property
    def program_lives(self) -> bool:
        return self._lives(self.program, self.program_started)

    def _lives(self, pid: int, started: int) -> bool:
        return process_identity.is_alive(process_identity.ProcessIdentity(self.boot_id, pid, started))


class Places:
    """The places of this host."""

    def __init__(self, state_dir: str) -> None:
        self.folder = os.path.join(state_dir, "agents")

    @property
    def socket(self) -> str:
        """The socket of the tmux server in which our terminals are."""
        return os.path.join(self.folder, SOCKET)

    def of_session(self, session_id: str) -> Place | None:
        """Return the place of a session; None when it is not on this host."""
        return next((place for place in self.all() if place.session_id == session_id), None)

    def of_agent(self, agent: str) -> Place | None:
        """Return the place of an agent; None when it has none."""
        return _read(self._path(agent))

    def all(self) -> Iterator[Place]:
        """Give every place, by the agents' names."""
        try:
            names = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return
        found = (_read(os.path.join(self.folder, name)) for name in names if name.endswith(".json"))
        yield from (place for place in found if place is not None)

    def note(self, place: Place) -> None:
        """Write a place down. Raises: Unwritable."""
        files.make_folder(self.folder)
        files.replace(self._path(place.agent), json.dumps(asdict(place), indent=1).encode() + b"\n", 0o600)

    def forget(self, agent: str) -> None:
        """Forget the place of an agent that lives no more."""
        with suppress(FileNotFoundError):
            os.unlink(self._path(agent))

    def _path(self, agent: str) -> str:
        return os.path.join(self.folder, f"{agent}.json")


def _read(path: str) -> Place | None:
    try:
        with open(path, "rb") as file:
            read = json.loads(file.read(_MOST))
        given = {field.name: read[field.name] for field in fields(Place)}
        return Place(**{**given, "command": tuple(given["command"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none there, or of another release
