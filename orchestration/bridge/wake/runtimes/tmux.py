"""Terminals: an agent that lives in a pane of our tmux server is looked at, and told, there.

A prompt goes in as a bracketed paste out of a buffer of its own, and Enter apart from it; nothing is typed by a shell or
interpreted as keys. Whoever is to be told must still be who was started there: the pane with the same first process (pid and
start time), the agent's program alive and in the foreground of the terminal. Anything else in that pane is refused.

A person at the terminal is told by tmux's `client_activity` of the clients attached to the session, which rises with their
keys; what is pasted by another command is nobody's key (tmux(1), FORMATS).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from orchestration.bridge.wake.limits import MAX_PROMPT
from orchestration.bridge.wake.port import Liveness, Probe, Turn, TurnTold, WakeFailed
from orchestration.bridge.wake.state import Code
from orchestration.bridge.wire import ManagementMode
from orchestration.host import clock
from orchestration.store.instants import from_text

if TYPE_CHECKING:
    from orchestration.bridge.state import Session
    from orchestration.bridge.wake.places import Place, Places

_PATIENCE: Final = 5.0
"""Seconds for one command of tmux, which answers in milliseconds."""
_TAKEN_IN: Final = 1.0
"""Seconds in which a program shows what was pasted; after them Enter is pressed all the same."""
_READ: Final = 0.15
"""Seconds until Enter at least: a program that reads both at once takes it for a part of what was pasted."""
_NAP: Final = 0.05
_INPUT_ROWS: Final = 6
"""Rows up to the cursor in which the end of a prompt stands that was not sent off."""
_FIELDS: Final = ("pane_id", "pane_pid", "pane_dead", "pane_in_mode", "cursor_y", "session_id", "pane_current_command")
_REFUSED: Final = {
    Liveness.DEAD: Code.PANE_DEAD,
    Liveness.FOREIGN: Code.RUNTIME_SESSION_MISMATCH,
    Liveness.ABSENT: Code.RUNTIME_OFFLINE,
}
_NO_SERVER: Final = ("no server running", "error connecting", "no such file", "server exited", "lost server")


class _Pane(NamedTuple):
    pid: int
    dead: bool
    in_mode: bool
    cursor: int
    session: str
    command: str


class Tmux:
    """The terminals of this host; a `Runtime` that runs no turns."""

    def __init__(self, places: Places, program: str = "tmux") -> None:
        self._places = places
        self._program = program

    @property
    def name(self) -> str:
        return "tmux"

    def is_here(self, session: Session) -> bool:
        """Say whether this session's terminal is one of this host."""
        return session.management_mode is ManagementMode.MANAGED and self._place(session) is not None

    async def probe(self, session: Session) -> Probe:
        """See `Runtime`."""
        place = self._place(session)
        if place is None:
            return Probe(liveness=Liveness.ABSENT, detail=f"this host has no terminal of {session.session_id}")
        probe, _ = await self._look(place)
        return probe

    async def deliver(self, session: Session, prompt: str) -> None:
        """See `Runtime`."""
        text = clean(prompt)
        if not text:
            raise WakeFailed(Code.SEND_KEYS_ERROR, "there is nothing to say")
        if len(text.encode()) > MAX_PROMPT:
            raise WakeFailed(Code.SEND_KEYS_ERROR, f"the prompt has more than {MAX_PROMPT} bytes")
        place, pane = await self._live(session)
        before = await self._shown(place)
        buffer = f"kloros-{secrets.token_hex(8)}"
        if pane.in_mode:  # somebody had scrolled back, and types no more
            await self._tmux(place, "copy-mode", "-q", "-t", place.pane)
        await self._tmux(place, "load-buffer", "-b", buffer, "-", given=text)
        await self._tmux(place, "paste-buffer", "-p", "-d", "-b", buffer, "-t", place.pane)
        await asyncio.sleep(_READ)
        until = clock.monotonic() + _TAKEN_IN
        while await self._shown(place) == before and clock.monotonic() < until:
            await asyncio.sleep(_NAP)  # a terminal tells nobody what it shows
        await self._enter(place)

    async def press(self, session: Session, trigger_id: str) -> None:
        """See `Runtime`."""
        place, pane = await self._live(session)
        rows = (await self._shown(place)).split("\n")[: pane.cursor + 1][-_INPUT_ROWS:]
        stands_there = trigger_id in "".join("".join(rows).split())
        if stands_there and rows[-1].strip():
            await self._enter(place)

    def turn(self, prompt: str, *, session_id: str = "") -> Turn:
        """Refuse."""
        raise WakeFailed(Code.RUNTIME_UNMANAGED, "an agent without a runtime of its own is woken in its terminal alone")

    def told(self, output: Sequence[str]) -> TurnTold:
        """Return nothing: there are no turns."""
        return TurnTold()

    def _place(self, session: Session) -> Place | None:
        place = self._places.of_session(session.session_id)
        return place if place is not None and place.agent == session.agent_id else None

    async def _live(self, session: Session) -> tuple[Place, _Pane]:
        """Return where it lives. Raises: WakeFailed, when it does not."""
        if session.management_mode is not ManagementMode.MANAGED:
            raise WakeFailed(Code.RUNTIME_UNMANAGED, f"the terminal of {session.session_id} is not ours to write to")
        place = self._place(session)
        if place is None:
            raise WakeFailed(Code.RUNTIME_OFFLINE, f"this host has no terminal of {session.session_id}")
        probe, pane = await self._look(place)
        if probe.liveness is not Liveness.LIVE or pane is None:
            raise WakeFailed(_REFUSED[probe.liveness], probe.detail)
        return place, pane

    async def _look(self, place: Place) -> tuple[Probe, _Pane | None]:
        try:
            pane = await self._pane(place)
            if pane is None:
                return Probe(liveness=Liveness.ABSENT, detail=f"there is no pane {place.pane} any more"), None
            liveness, detail = _judged(place, pane)
            typed = await self._typed(place) if liveness is Liveness.LIVE else None
        except _Unreachable as gone:
            return Probe(liveness=Liveness.ABSENT, detail=f"its tmux server is gone: {gone}"), None
        since = from_text(place.started_at)
        return Probe(liveness=liveness, command=pane.command, typed_at=typed, since=since, detail=detail), pane

    async def _pane(self, place: Place) -> _Pane | None:
        asked = " ".join(f"#{{{field}}}" for field in _FIELDS)
        for line in (await self._tmux(place, "list-panes", "-a", "-F", asked)).splitlines():
            pane, pid, dead, mode, cursor, session, command = line.split(" ", len(_FIELDS) - 1)
            if pane == place.pane:
                return _Pane(int(pid), dead == "1", mode not in ("", "0"), int(cursor or 0), session, command)
        return None

    async def _typed(self, place: Place) -> datetime | None:
        """Return when somebody last pressed a key there; None while nobody is attached who can."""
        asked = "#{client_readonly} #{client_activity}"
        lines = (await self._tmux(place, "list-clients", "-t", place.tmux_session, "-F", asked)).splitlines()
        seconds = [int(at) for readonly, at in (line.split() for line in lines) if readonly != "1"]
        return datetime.fromtimestamp(max(seconds), UTC) if seconds else None

    async def _shown(self, place: Place) -> str:
        return await self._tmux(place, "capture-pane", "-p", "-t", place.pane)

    async def _enter(self, place: Place) -> None:
        await self._tmux(place, "send-keys", "-t", place.pane, "Enter")

    async def _tmux(self, place: Place, *words: str, given: str = "") -> str:
        """Ask the tmux server. Raises: WakeFailed, _Unreachable: it is not there any more."""
        try:
            process = await asyncio.create_subprocess_exec(
                *(self._program, "-S", place.socket, *words),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
            )
        except OSError as error:
            raise WakeFailed(Code.RUNTIME_NOT_FOUND, f"{self._program} can't be run: {error.strerror}") from error
        try:
            out, err = await asyncio.wait_for(process.communicate(given.encode()), _PATIENCE)
        except TimeoutError:
            raise WakeFailed(Code.SEND_KEYS_ERROR, f"tmux did not answer within {_PATIENCE:g} s: {words[0]}") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            said = err.decode(errors="replace").strip()
            if any(sign in said.lower() for sign in _NO_SERVER):
                raise _Unreachable(said)
            raise WakeFailed(Code.SEND_KEYS_ERROR, f"tmux {words[0]}: {said}")
        return out.decode(errors="replace")


class _Unreachable(WakeFailed):
    """There is no tmux server at that socket."""

    def __init__(self, said: str) -> None:
        super().__init__(Code.RUNTIME_OFFLINE, said)

    def __str__(self) -> str:
        return self.detail


def clean(prompt: str) -> str:
    """Take out what steers a terminal: control and format characters; tabs become spaces, line ends stay."""
    lines = prompt.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    return "".join(one for one in lines if one == "\n" or unicodedata.category(one) not in ("Cc", "Cf", "Cs")).strip("\n")


def _judged(place: Place, pane: _Pane) -> tuple[Liveness, str]:
    if pane.dead:
        return Liveness.DEAD, f"the program in pane {place.pane} has ended"
    if pane.pid != place.keeper or pane.session != place.tmux_session or not place.keeper_lives:
        return Liveness.FOREIGN, f"pane {place.pane} is another one by now: {pane.command} runs there"
    if not place.program_lives:
        return Liveness.DEAD, f"the agent's program in pane {place.pane} has ended"
    if _foreground(place.keeper) != place.program:
        return Liveness.FOREIGN, f"{pane.command} is in the foreground of pane {place.pane}, and not the agent"
    return Liveness.LIVE, ""


def _foreground(pid: int) -> int | None:
    """Return the process group in the foreground of a process's terminal (proc(5), tpgid)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[5])
    except (OSError, ValueError, IndexError):
        return None
