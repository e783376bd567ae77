"""The composition root of waking: where a supervisor's store, runtimes, turns and words are built and given to each other.

Beside `bridge_wiring.py`, which brings faces and keys: a supervisor needs neither, and stays small.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from orchestration import wiring
from orchestration.bridge import configured
from orchestration.bridge.caller import Caller, Role
from orchestration.bridge.commanding.threads import ThreadCommands
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.wake import explain, policy, reach, trigger
from orchestration.bridge.wake.claims import boottime
from orchestration.bridge.wake.host_turns import HostTurns
from orchestration.bridge.wake.looking import Looking
from orchestration.bridge.wake.places import Places
from orchestration.bridge.wake.prompt import text
from orchestration.bridge.wake.runtimes import OfAgent
from orchestration.bridge.wake.runtimes.tmux import Tmux
from orchestration.bridge.wake.state import Case, Wake, Way
from orchestration.bridge.wake.supervisor import Supervisor
from orchestration.bridge.wake.telling import Reporter, Teller
from orchestration.bridge.wake.turns import Turns
from orchestration.bridge.wire import SummarizeThread
from orchestration.errors import StoreUnreachable, Usage
from orchestration.host import clock, files, process_identity, tasks
from orchestration.store import opening

if TYPE_CHECKING:
    from orchestration.bridge.port import Store
    from orchestration.bridge.state import Session
    from orchestration.bridge.store.postgres_wakes import PostgresWakes
    from orchestration.bridge.store.sqlite_wakes import SqliteWakes
    from orchestration.bridge.wake.port import Runtime, WakeStore
    from orchestration.settings import Settings

_KEPT_OPEN: Final = 60.0  # seconds without a new session after which the bridge's own store is closed again


async def store(settings: Settings) -> SqliteWakes | PostgresWakes:
    """Open the store of waking: made, if absent, and migrated.

    Raises:
        StoreUnreachable, Unwritable: it can't be opened or migrated.
        Usage: a package is missing.
    """
    if settings.database_url:
        try:
            from orchestration.bridge.store.postgres_wakes import PostgresWakes
        except ImportError as error:
            hint = "install the extra postgres: sudo ./install.sh --with bridge,postgres, or unset KLR_DATABASE_URL"
            raise Usage(f"PostgreSQL needs a package that is not installed: {error.name}", hint=hint) from error
        return await PostgresWakes.opened(settings.database_url)

    from orchestration.bridge.store.sqlite_wakes import SqliteWakes

    files.make_folder(settings.state_dir)
    return SqliteWakes(os.path.join(settings.state_dir, wiring.STORE))


async def threads(settings: Settings) -> Store:
    """Open the bridge's store, for a thread's summary."""
    if settings.database_url:
        from orchestration.bridge.store.postgres import PostgresStore

        return await PostgresStore.opened(settings.database_url)

    from orchestration.bridge.store.sqlite import SqliteStore

    return SqliteStore(os.path.join(settings.state_dir, wiring.STORE))


class Prompts:
    """The words of `prompt.py`, with the summary of the bridge.

    New sessions are rare, so the bridge's own store is opened for them, and closed again when none has begun for a while.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: Store | None = None
        self._opening = asyncio.Lock()
        self._users = 0
        self._closing: asyncio.Task[None] | None = None

    async def prompt(self, case: Case, wake: Wake, way: Way) -> str:
        """Return the prompt. See `reach.Words`."""
        return text(case, wake, way, summary=await self._summary(case) if way is Way.SPAWN else "")

    async def close(self) -> None:
        """Let go of the bridge's store."""
        if self._closing is not None:
            await tasks.end([self._closing])
        async with self._opening:
            if self._store is not None:
                await self._store.close()
                self._store = None

    async def _summary(self, case: Case) -> str:
        who = Caller(
            agent_id="operator:kloros",
            workspace_id=case.workspace_id,
            role=Role.OPERATOR,
            request_id=f"supervisor-{secrets.token_hex(8)}",
        )
        self._users += 1
        try:
            async with self._opening:
                if self._store is None:
                    self._store = await threads(self._settings)
                commands = ThreadCommands(self._store, configured.rules(self._settings.bridge))
            told = await commands.summarize_thread(who, SummarizeThread(thread_id=case.thread_id))
        except StoreUnreachable as error:
            raise Refused(Code.UNAVAILABLE, error.message, rule="store.reachable") from error
        except Refused as refused:
            if refused.code is Code.UNAVAILABLE:
                raise
            return ""  # it has gone meanwhile; the next pass sees that
        finally:
            self._users -= 1
            if self._closing is None or self._closing.done():
                self._closing = asyncio.create_task(self._close_later())
        return told.summary

    async def _close_later(self) -> None:
        """Close it once nobody has used it for a while."""
        quiet = 0
        while quiet < 2:
            await asyncio.sleep(_KEPT_OPEN / 2)
            quiet = 0 if self._users else quiet + 1
        async with self._opening:
            if self._store is not None and not self._users:
                await self._store.close()
                self._store = None


class HostReach:
    """The agents of `[agents.…]`, and the terminals of this host."""

    def __init__(self, settings: Settings) -> None:
        """Take the settings."""
        self._terminals = Tmux(Places(settings.state_dir))
        self._profiles = {
            (agent.workspace or settings.bridge.workspace, name): reach.Profile(
                OfAgent(agent, self._terminals), configured.means(agent)
            )
            for name, agent in settings.agents.items()
        }

    def profile(self, workspace_id: str, agent_id: str) -> reach.Profile | None:
        """Return an agent's profile. See `reach.Reach`."""
        return self._profiles.get((workspace_id, agent_id))

    async def terminal(self, session: Session) -> Runtime | None:
        """Return what has its terminal. See `reach.Reach`."""
        return self._terminals if self._terminals.is_here(session) else None


class Waking:
    """A supervisor with everything under it."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], *, refused: Callable[[], str]) -> None:
        """Take the settings, and what the turns' processes get for their environment.

        Args:
            refused: why nothing may be done now; empty when something may.
        """
        self._settings = settings
        self._environ = environ
        self._refused = refused
        self._supervisor: Supervisor | None = None
        self._place = opening.place_of(settings)
        self.holder = holder_of(settings)

    @property
    def lives(self) -> bool:
        """Whether no pass takes longer than one can."""
        return self._supervisor is None or self._supervisor.lives

    @property
    def supervisor(self) -> Supervisor:
        """The supervisor, once it is open."""
        assert self._supervisor is not None, "it is not open"
        return self._supervisor

    async def open(self) -> None:
        """Open the store, and build the supervisor over it.

        Raises:
            StoreUnreachable, Unwritable, Usage: see `store`.
        """
        self._store = await store(self._settings)
        self._turns = HostTurns(lambda: opening.open_at(self._place), lambda db: Turns(self._settings, self._environ, db))
        self._prompts = Prompts(self._settings)
        limits = configured.wake_limits(self._settings.wake)
        self._supervisor = Supervisor(
            self._store,
            HostReach(self._settings),
            self._turns,
            self._prompts,
            limits=limits,
            holder=self.holder,
            now=clock.now,
            refused=self._refused,
        )
        teller = Teller(self._place, holder=self.holder)
        self.reporter = Reporter(self._store, teller, now=clock.now, clock=boottime)

    async def close(self, *, within: float) -> None:
        """End what is under way, tell that nobody goes on, and let go of the store."""
        await self.supervisor.end(within=within)
        await self.reporter.end(self.supervisor.counted)
        await self._turns.close()
        await self._prompts.close()
        await self._store.close()


async def end_turn(settings: Settings, environ: Mapping[str, str], wake: Wake) -> None:
    """Have the turn of a trigger that is over ended, where it is one of this host; a supervisor that has the claim does so
    too when it sees it, but there may be none."""
    attempt = trigger.in_flight(wake)
    if attempt is None or attempt.way is Way.LIVE or reach.place_of(attempt.holder) != reach.place_of(holder_of(settings)):
        return
    turns = HostTurns(lambda: opening.open_store(settings), lambda db: Turns(settings, environ, db))
    try:
        await turns.cancel(reach.token_of(wake, attempt.number))
    finally:
        await turns.close()


async def why(
    settings: Settings, environ: Mapping[str, str], store: WakeStore, *, agent_id: str, thread_id: str
) -> dict[str, Any]:
    """Say why an agent is woken for a thread, or not: the sentence, and what every rule saw. Changes nothing.

    It is decided as whoever holds the trigger would, and looked at as from this host.
    """
    case = await store.case(thread_id, agent_id)
    if case is None:
        return {"known": False, "sentence": explain.sentence(None, None, agent_id=agent_id, thread_id=thread_id)}
    limits = configured.wake_limits(settings.wake)
    turns = HostTurns(lambda: opening.open_store(settings), lambda db: Turns(settings, environ, db), only_looks=True)
    here = holder_of(settings)
    try:
        looking = Looking(HostReach(settings), turns, here=here, limits=limits, now=clock.now)
        look = await looking.look(case, holder=case.wake.holder if case.wake and case.wake.holder else here)
    finally:
        await turns.close()
    decision = policy.decide(look.seen, limits)
    return {
        "known": True,
        "agent_id": agent_id,
        "thread_id": thread_id,
        "sentence": explain.sentence(case, decision, agent_id=agent_id, thread_id=thread_id),
        "action": type(decision.action).__name__.lower(),
        "rule": decision.why.rule.value,
        "reason": decision.why.reason.value,
        "evidence": list(explain.evidence(decision)),
    }


def holder_of(settings: Settings) -> str:
    """Name this process as a supervisor of this host."""
    return reach.name(
        os.uname().nodename,
        f"{_machine()} {os.path.realpath(settings.state_dir)}",
        process=f"{os.getpid()}.{process_identity.boot_id()[:8]}.{secrets.token_hex(3)}",
    )


def _machine() -> str:
    """Return what tells this machine from others, where it has such a thing (machine-id(5))."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
