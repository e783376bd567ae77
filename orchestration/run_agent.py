"""What keeps a managed agent, as the first process of its terminal: `python -P -m orchestration.run_agent FILE`.

`klorosctl agent start` writes FILE, which says what to run and under which variables, and has tmux run this. It starts the
agent's program in the foreground of the terminal, notes where that lives, and tells the bridge every half minute that the
session lives: idle, for what an agent does it says itself. When the program ends, or this is asked to stop, the whole tree
goes, the session says good-bye, and the place is forgotten.

It holds the session's lock on this host, so that no turn of it runs beside the terminal.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from orchestration import wiring
from orchestration.bridge.wake.places import Place, Places
from orchestration.bridge.wake.resident import Resident
from orchestration.cycles import orphan
from orchestration.cycles.environment import of_agent
from orchestration.errors import KlorosError, LockHeld
from orchestration.exits import Exit
from orchestration.host import clock, files, process_identity
from orchestration.host.journal import Event, Priority, log
from orchestration.host.process import TOKEN
from orchestration.store.instants import to_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.bridge.port import Store
    from orchestration.settings import Settings

BEAT: Final = 30.0
"""Seconds between two heartbeats: three of them are a session's `[wake] fresh_within`."""
_LOOK: Final = 2.0
_GIVEN: Final = ("COLORTERM", "TERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "TMUX", "TMUX_PANE")
"""What tmux says to whoever runs in a pane."""
_GOODBYE: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What `klorosctl agent start` asks for."""

    agent: str
    workspace: str
    session_id: str
    runtime: str
    resumable: bool
    command: tuple[str, ...]
    cwd: str
    variables: dict[str, str]
    environ: dict[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep an agent; returns its exit status."""
    (path,) = sys.argv[1:] if arguments is None else arguments
    try:
        order = _taken(path)
        settings = wiring.settings(order.environ)
        os.umask(0o077)
        return _Keeper(order, settings).run()
    except KlorosError as error:
        _tell(path, error.message, error.hint)
        return error.exit
    except Exception:
        import traceback

        _tell(path, f"a defect of ours: {traceback.format_exc()}", "please report these lines")
        return Exit.DEFECT


def _tell(path: str, error: str, hint: str) -> None:
    """Leave word for `klorosctl agent start`, which reads no terminal."""
    with suppress(KlorosError):
        files.replace(f"{path}.failed", json.dumps({"error": error, "hint": hint}).encode())


def _taken(path: str) -> Order:
    """Read the order and take it away: it holds variables that are nobody else's business."""
    with open(path, "rb") as file:
        read: dict[str, Any] = json.loads(file.read())
    os.unlink(path)
    return Order(**{**read, "command": tuple(read["command"])})


class _Keeper:
    def __init__(self, order: Order, settings: Settings) -> None:
        self._order = order
        self._settings = settings
        self._places = Places(settings.state_dir)
        self._locks = ExitStack()
        self._stop = asyncio.Event()
        self._store: Store | None = None
        self._before: Place | None = None
        """The place under an earlier name, whose session has yet to say good-bye."""

    def run(self) -> int:
        """Keep the agent to its end."""
        order, token = self._order, secrets.token_hex(16)
        with self._locks:
            self._hold(order.session_id, must=True)
            own = process_identity.current()
            env = {
                **of_agent(order.environ),
                **{name: os.environ[name] for name in _GIVEN if name in os.environ},
                **order.variables,
                "KLR_AGENT": order.agent,
                "KLR_SESSION_ID": order.session_id,
                TOKEN: token,
            }
            output = self._log()
            self._resident = Resident(order.command, env=env, cwd=order.cwd)
            _print_to(output)  # from here on the terminal is the agent's
            socket, _, number = os.environ.get("TMUX", ",,").split(",")
            self._place = Place(
                agent=order.agent,
                workspace=order.workspace,
                session_id=order.session_id,
                runtime=order.runtime,
                resumable=order.resumable,
                socket=socket,
                tmux_session=f"${number}",
                pane=os.environ.get("TMUX_PANE", ""),
                keeper=own.pid,
                keeper_started=own.start_time,
                program=self._resident.pid,
                program_started=process_identity.start_time(self._resident.pid) or 0,
                boot_id=own.boot_id,
                token=token,
                command=order.command,
                started_at=to_text(clock.now()),
            )
            self._places.note(self._place)
            try:
                asyncio.run(self._live())
            finally:
                self._resident.end(self._settings.cycles.term_grace)
                self._places.forget(order.agent)
            asyncio.run(self._say_goodbye())
        code = os.waitstatus_to_exitcode(self._resident.status or 0)
        return code if code >= 0 else 128 - code

    def _log(self) -> int:
        """Open the file that is logged to while the terminal is the agent's. Raises: Unwritable."""
        folder = os.path.join(self._settings.state_dir, "logs")
        files.make_folder(folder)
        path = os.path.join(folder, "run_agent.log")
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise files.unwritable(path, error) from error

    def _log_anew(self) -> None:
        """Go on in a new file when the one that is logged to was rotated: an agent may live for months."""
        path = os.path.join(self._settings.state_dir, "logs", "run_agent.log")
        try:
            if os.path.samestat(os.stat(path), os.fstat(2)):
                return
        except FileNotFoundError:
            pass
        except OSError:
            return
        with suppress(KlorosError):
            _print_to(self._log())

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGCHLD, self._look_after)
        if not self._resident.lives:
            return
        beaten = -BEAT
        try:
            while not self._stop.is_set():
                self._resident.go_on()
                self._log_anew()
                if self._named() or clock.monotonic() - beaten >= BEAT:
                    beaten = clock.monotonic()
                    await self._beat("idle")
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _LOOK)
        finally:
            await self._close()

    def _look_after(self) -> None:
        if not self._resident.lives:
            self._stop.set()

    def _named(self) -> bool:
        """Say whether the runtime has told its session's name anew, and go on under that."""
        name = self._resident.session() if self._place.runtime == "codex" else ""
        if not name or name == self._place.session_id:
            return False
        self._hold(name, must=False)
        self._before = self._place
        self._place = replace(self._place, session_id=name, resumable=True)
        self._places.note(self._place)
        return True

    async def _beat(self, status: str) -> None:
        """Tell the bridge; what can't be told now is told with the next beat."""
        before, self._before = self._before, None
        try:
            for place, how in ((before, "offline"), (self._place, status)):
                if place is not None:
                    await self._tell(place, how)
        except Exception as error:
            self._before = before
            log(Event.BRIDGE_FAILED, f"no heartbeat of {self._place.agent}: {error}", priority=Priority.WARNING)
            await self._close()

    async def _tell(self, place: Place, status: str) -> None:
        from orchestration import bridge_wiring
        from orchestration.bridge import wire
        from orchestration.bridge.caller import Caller, Role

        if self._store is None:
            self._store = await bridge_wiring.store(self._settings)
        who = Caller(
            agent_id=place.agent,
            workspace_id=place.workspace,
            role=Role.PARTICIPANT,
            request_id=f"run_agent-{secrets.token_hex(8)}",
            session_id=place.session_id,
        )
        told = wire.HeartbeatSession(
            session_id=place.session_id,
            runtime=place.runtime,
            management_mode=wire.ManagementMode.MANAGED,
            resumable=place.resumable,
            status=wire.SessionStatus(status),
        )
        await bridge_wiring.commands(self._settings, self._store).heartbeat_session(who, told)

    async def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            with suppress(Exception):
                await store.close()

    async def _say_goodbye(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE):
                await self._beat("offline")
                await self._close()

    def _hold(self, session: str, *, must: bool) -> None:
        lock = orphan.session_lock(self._settings.state_dir, session)
        try:
            self._locks.enter_context(lock.held(f"the terminal of {self._order.agent}"))
        except LockHeld as error:
            if must:
                raise
            log(Event.BRIDGE_FAILED, f"{session} has another writer: {error.message}", priority=Priority.WARNING)


def _print_to(output: int) -> None:
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)


if __name__ == "__main__":
    sys.exit(main())
