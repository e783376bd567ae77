"""The composition root of the bridge: where its store, commands, keys and face are built and given to each other.

Beside `wiring.py`, which every quiet tick imports: nothing of the bridge may cost a tick anything.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from orchestration import wiring
from orchestration.bridge import configured, watching
from orchestration.bridge.auth.fetching import fetcher
from orchestration.bridge.auth.keys import KeysUnavailable, LocalKeys, RemoteKeys
from orchestration.bridge.auth.ring import Ring
from orchestration.bridge.auth.tokens import Verifier
from orchestration.bridge.caller import Caller, Role
from orchestration.bridge.census import Tally
from orchestration.bridge.commands import Commands
from orchestration.bridge.expiry import Expiry
from orchestration.bridge.http import tracing
from orchestration.bridge.refusal import Refused
from orchestration.bridge.telling import Teller
from orchestration.errors import KlorosError, Usage
from orchestration.host import clock, files, tasks
from orchestration.host.journal import Event, Priority, log
from orchestration.store import opening

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from orchestration.bridge.http.face import Face
    from orchestration.bridge.http.threads_measured import ThreadsMeasured
    from orchestration.bridge.mcp.face import Names
    from orchestration.bridge.port import Store
    from orchestration.settings import Settings

ISSUER: Final = "kloros"
AUDIENCE: Final = "kloros-bridge"
_LOOK_AT_REVOKED: Final = 1.0
_WRITE_BEYOND_RATE: Final = 5.0
_EXPIRE: Final = 3600.0  # seconds between two passes over old threads
_AGAIN: Final = 5.0  # seconds after which what failed beside the requests is begun anew


class Trust(NamedTuple):
    """What tokens must say of who issued them, and for whom."""

    issuer: str
    audience: str


def trust(settings: Settings) -> Trust:
    """Return whom the bridge trusts."""
    return Trust(settings.bridge.auth_issuer or ISSUER, settings.bridge.auth_audience or AUDIENCE)


def ring(settings: Settings) -> Ring:
    """Return the keys of this host's own issuer."""
    folder = os.path.join(settings.state_dir, "keys")
    return Ring(os.path.join(folder, "tokens.json"), os.path.join(settings.state_dir, "locks", "tokens.lock"))


async def store(settings: Settings) -> Store:
    """Open the store of the bridge: made, if absent, and migrated.

    Raises:
        StoreUnreachable, Unwritable: it can't be opened or migrated.
        Usage: a package is missing.
    """
    if settings.database_url:
        try:
            from orchestration.bridge.store.postgres import PostgresStore
        except ImportError as error:
            hint = "install the extra postgres: sudo ./install.sh --with bridge,postgres, or unset KLR_DATABASE_URL"
            raise Usage(f"PostgreSQL needs a package that is not installed: {error.name}", hint=hint) from error
        return await PostgresStore.opened(settings.database_url)

    from orchestration.bridge.store.sqlite import SqliteStore

    files.make_folder(settings.state_dir)
    return SqliteStore(os.path.join(settings.state_dir, wiring.STORE))


def commands(settings: Settings, store: Store) -> Commands:
    """Return the commands over a store, with the rules of the settings."""
    return Commands(store, configured.rules(settings.bridge))


def expiry(settings: Settings, commands: Commands) -> Expiry:
    """Return what takes old threads out of the store."""
    folder = os.path.join(settings.state_dir, "archive", "threads")
    return Expiry(commands, settings.retention.threads, folder, now=clock.now)


class Bridge:
    """The bridge of one process: its face, and what goes on beside the requests. An ASGI application once it has started."""

    _store: Store
    _commands: Commands
    _face: Face
    _measured: ThreadsMeasured
    _expiry: Expiry

    def __init__(self, settings: Settings, *, admits: Callable[[str, str], bool], names: Names) -> None:
        """Take the settings.

        Args:
            admits: tells whether a `Host` and an `Authorization` may read the metrics.
            names: under which MCP may be asked.
        """
        self._settings = settings
        self._admits = admits
        self._names = names
        self._keys = keys(settings)
        issuer, audience = trust(settings)
        self._verifier = Verifier(self._keys, issuer=issuer, audience=audience, now=time.time)
        self._tasks: set[asyncio.Task[None]] = set()
        self._tally = Tally()
        self._tracing = tracing.tracing(os.environ)
        self._teller = Teller(opening.place_of(settings), self._tally)
        self.crowded: Callable[[], bool] = lambda: False
        """Whether more connections are open than are served."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request."""
        return self._face(scope, receive, send)

    async def start(self) -> None:
        """Open the store and begin what goes on beside the requests.

        Raises:
            StoreUnreachable, Unwritable: of the store.
        """
        from orchestration.bridge.http.face import Face  # with MCP's SDK, which no command of klorosctl is to wait for
        from orchestration.bridge.http.threads_measured import ThreadsMeasured

        self._store = await store(self._settings)
        self._commands = carried_out = commands(self._settings, self._store)
        self._face = Face(
            carried_out,
            self._verifier,
            refuse=carried_out.refuse,
            checks=self._checks,
            jwks=self._jwks,
            admits=self._admits,
            tracing=self._tracing,
            names=self._names,
        )
        self._face.crowded = self.crowded
        self._face.measures.figures = self._figures
        self._measured = ThreadsMeasured(self._tally)
        self._face.measures.add(self._measured)
        self._expiry = expiry(self._settings, carried_out)
        for work in (
            self._keys.run, self._watch_revocations, self._watch_threads, self._expire_threads, self._write_beyond_rate,
        ):  # fmt: skip
            self._tasks.add(asyncio.create_task(_on_and_on(work)))

    def stop(self) -> None:
        """End what would go on without end."""
        self._face.stop()

    async def end(self) -> None:
        """End the rest, and let go of the store."""
        await tasks.end(self._tasks)
        with suppress(Refused):  # the log has each of them
            await self._commands.write_beyond_rate(all_of_it=True)
        await self._teller.end()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        await self._store.close()
        await asyncio.to_thread(self._face.end)

    async def _watch_revocations(self) -> None:
        while True:
            with suppress(Refused):  # those that are known stay; it is looked again in a moment
                self._verifier.revoked = await self._store.revoked(clock.now())
            await asyncio.sleep(_LOOK_AT_REVOKED)

    async def _write_beyond_rate(self) -> None:
        while True:
            await asyncio.sleep(_WRITE_BEYOND_RATE)
            with suppress(Refused):  # it stays counted
                await self._commands.write_beyond_rate()

    async def _expire_threads(self) -> None:
        workspace = self._settings.bridge.workspace
        while True:
            who = Caller(
                agent_id="operator:kloros", workspace_id=workspace, role=Role.OPERATOR, request_id=secrets.token_hex(8)
            )
            try:
                await self._expiry.run(who)
            except KlorosError as error:
                log(Event.BRIDGE_FAILED, f"old threads can't be archived: {error.message}", priority=Priority.ERROR)
            except Refused as refused:  # it is tried again
                log(Event.BRIDGE_FAILED, f"old threads can't be archived: {refused.message}", priority=Priority.WARNING)
            await asyncio.sleep(_EXPIRE)

    async def _watch_threads(self) -> None:
        await watching.watch(self._store, self._tally, self._measured, self._teller.tell)

    async def _checks(self) -> Mapping[str, str]:
        store, keys = "", ""
        try:
            await self._store.check()
        except Refused as error:
            store = error.message
        try:
            self._keys.known()
        except KeysUnavailable as error:
            keys = error.message
        return {"store": store, "keys": keys}

    def _jwks(self) -> Mapping[str, Any]:
        return self._keys.document if isinstance(self._keys, LocalKeys) else {"keys": []}

    def _figures(self) -> Mapping[str, float]:
        remote = self._keys if isinstance(self._keys, RemoteKeys) else None
        age = remote.age if remote else None
        keys = {} if age is None else {"keys_age_seconds": age}
        lines = {"log_lines_dropped": float(self._face.answers.dropped)}
        return {**keys, **lines, **{f"store_{name}": value for name, value in self._store.figures().items()}}


def keys(settings: Settings) -> LocalKeys | RemoteKeys:
    """Return the keys that tokens are verified with; they want to be run."""
    bridge = settings.bridge
    if not bridge.auth_jwks_url:
        return LocalKeys(ring(settings), now=time.time)
    return RemoteKeys(
        fetcher(bridge.auth_jwks_url),
        url=bridge.auth_jwks_url,
        now=time.time,
        refresh=bridge.auth_keys_refresh.total_seconds(),
        keep=bridge.auth_keys_keep.total_seconds(),
        copy=os.path.join(settings.state_dir, "keys", "jwks.json"),
    )


async def _on_and_on(work: Callable[[], Awaitable[None]]) -> None:
    """Go on with work that has no end, whatever comes up in it."""
    while True:
        try:
            await work()
        except Exception:
            import traceback

            log(Event.BRIDGE_FAILED, traceback.format_exc(), priority=Priority.ERROR)
        await asyncio.sleep(_AGAIN)
