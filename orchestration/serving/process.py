"""The server as a process: uvicorn on sockets that are open already, until it is told to end or nobody asks any more.

Owns the limits that keep slow and many clients bounded, and the order of leaving: stop accepting, let what runs end, go.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Protocol

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from orchestration.host.notify import ALIVE, READY, STOPPING, Notifier

if TYPE_CHECKING:
    from starlette.types import ASGIApp

MOST_CONNECTIONS: Final = 400
"""With a file for each, below the 1,024 descriptors that a process has by default."""
GRACE: Final = 3  # seconds for running answers at the end; systemd would kill after TimeoutStopSec=
_LONGEST_HEAD: Final = 64 * 1024
STILL_ALIVE: Final = 5.0  # seconds between two signs of life; WatchdogSec= of a unit is several of them
_OTHER_FILES: Final = 100
_COLLECT_AFTER: Final = 10_000
"""Objects since the last look for garbage in rings. Python's own 700 come up every few requests: a tenth of all CPU."""
_LINGER: Final = 0.1  # seconds in which a connection that was accepted last becomes known
_TCP_USER_TIMEOUT: Final = 18  # linux/tcp.h; socket.TCP_USER_TIMEOUT has the same value where Python knows it


class Patience(asyncio.Protocol):
    """Goes before one of uvicorn's protocols for HTTP/1.1: then it waits for nobody without end.

    Neither for a request nor for a reader; and a head that never ends is cut off.
    """

    patience: float = 30.0
    """Seconds for a request to arrive whole, and for a client to take what is written."""
    cycle: Any  # None before the first request
    loop: asyncio.AbstractEventLoop
    transport: Any
    _timer: asyncio.TimerHandle | None = None
    _head: int = 0  # bytes since the last request began

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        taken = transport.get_extra_info("socket")
        if taken is not None and taken.family != socket.AF_UNIX:
            # asyncio does so only where it is told the protocol, and without it each answer waits 40 ms for an ACK.
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            taken.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(self.patience * 1000))
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a part of a request; one that comes in crumbs must be whole before the patience ends."""
        requests = self.cycle
        self._head += len(data)
        super().data_received(data)
        if self.cycle is not requests:
            self._head = 0
            self._wait_no_more()
        elif self._head > _LONGEST_HEAD and (self.cycle is None or self.cycle.response_complete):
            self.cut_off()
        elif self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._wait()

    def cut_off(self) -> None:
        """Wait for the end of a head no longer."""
        self.transport.abort()

    def pause_writing(self) -> None:
        """Begin to wait for the reader."""
        super().pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        """The reader has taken something."""
        super().resume_writing()
        self._wait_no_more()

    def _wait(self) -> None:
        self._wait_no_more()
        self._timer = self.loop.call_later(self.patience, self.transport.abort)

    def _wait_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class PatientProtocol(Patience, H11Protocol):
    """HTTP/1.1 by h11, which is pure Python: for where nobody is in a hurry."""


class Traffic(Protocol):
    """What the process must know of those who ask."""

    @property
    def quiet_seconds(self) -> float:
        """For how long nobody has asked for anything; 0 while somebody is being answered."""


class Server(uvicorn.Server):
    """uvicorn's server, which tells systemd how it stands and ends when it is idle."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        traffic: Traffic,
        notifier: Notifier,
        idle_exit: timedelta | None,
        on_stop: Callable[[], None],
        on_start: Callable[[], Awaitable[None]] | None = None,
        on_end: Callable[[], Awaitable[None]] | None = None,
        protocol: type[asyncio.Protocol] = PatientProtocol,
        most_connections: int = MOST_CONNECTIONS,
        fast_loop: bool = False,
    ) -> None:
        """Serve an application.

        Args:
            idle_exit: None for never. on_stop: ends what would go on without end.
            on_start: begins what goes on beside the requests, in their event loop; on_end: ends it, after the last answer.
            protocol: of uvicorn, with `Patience`. most_connections: who comes beyond them is sent away with 503.
            fast_loop: run on uvloop where it is installed (docs/decisions/0024).
        """
        super().__init__(
            uvicorn.Config(
                app,
                interface="asgi3",
                loop="auto" if fast_loop else "asyncio",
                http=protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=most_connections,
                timeout_graceful_shutdown=GRACE,
            )
        )
        self.idle = False
        self._traffic = traffic
        self._notifier = notifier
        self._idle_exit = idle_exit
        self._on_stop = on_stop
        self._on_start = on_start
        self._on_end = on_end
        self._told_alive = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then tell systemd."""
        if self._on_start is not None:
            await self._on_start()
        await super().startup(sockets)
        self._notifier.tell(READY)

    async def on_tick(self, counter: int) -> bool:
        """Look, ten times a second, whether it is time to go."""
        if await super().on_tick(counter):
            return True
        if time.monotonic() - self._told_alive >= STILL_ALIVE:
            self._told_alive = time.monotonic()
            self._notifier.tell(ALIVE)
        self.idle = self._is_idle() and await self._nobody_came()
        return self.idle

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell systemd, end the streams, let the other answers end."""
        self._notifier.tell(STOPPING)
        self._on_stop()
        await super().shutdown(sockets)
        if self._on_end is not None:
            await self._on_end()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on SIGTERM and SIGINT with our own exit code, where uvicorn would die of the signal after all."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End; a second signal ends it at once."""
        self.force_exit = self.should_exit
        self.should_exit = True

    def _is_idle(self) -> bool:
        return (
            self._idle_exit is not None
            and not self.server_state.connections
            and self._traffic.quiet_seconds >= self._idle_exit.total_seconds()
        )

    async def _nobody_came(self) -> bool:
        """Stop accepting and tell whether nobody came meanwhile; who did is answered first.

        The socket stays open at systemd, which starts the next process for whoever comes from now on.
        """
        for server in self.servers:
            server.close()
        await asyncio.sleep(_LINGER)
        while self.server_state.connections and not self.should_exit:
            await asyncio.sleep(_LINGER)
        return True


def allow_connections(wanted: int) -> int:
    """Have so many files that this many connections can be open, as far as the host lets us; returns how many can."""
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    except OSError:  # a unit may forbid to ask
        return MOST_CONNECTIONS
    most = wanted + _OTHER_FILES if hard == resource.RLIM_INFINITY else min(wanted + _OTHER_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(most - _OTHER_FILES, 1)


def serve(server: Server, sockets: Sequence[socket.socket]) -> None:
    """Serve on these sockets until it is time to end."""
    gc.set_threshold(_COLLECT_AFTER)
    server.run(list(sockets))
