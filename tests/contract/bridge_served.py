"""A small bridge without a store, for tests of its face: commands that keep their messages in memory, keys, a server."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from orchestration.bridge import wire
from orchestration.bridge.auth.jwks import Key, keys_of
from orchestration.bridge.auth.tokens import Verifier
from orchestration.bridge.caller import Caller
from orchestration.bridge.http.face import Face
from orchestration.bridge.http.protocol import BridgeProtocol
from orchestration.bridge.mcp.face import Names
from orchestration.bridge.methods import METHODS
from orchestration.bridge.refusal import Code, Refused
from orchestration.host import listening
from orchestration.host.notify import Notifier
from orchestration.serving.process import Server

if TYPE_CHECKING:
    from starlette.types import ASGIApp

THREAD = "thr_" + "0" * 32
AT = datetime(2026, 11, 21, 8, tzinfo=UTC)
ISSUER = "https://id.example.org/"
AUDIENCE = "kloros-bridge"
ALGORITHMS: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}


class SigningKey:
    """A private key with its id, as an issuer has it."""

    def __init__(self, kid: str, algorithm: str = "EdDSA") -> None:
        self.kid = kid
        self.algorithm = algorithm
        self.private: Any
        match algorithm:
            case "RS256":
                self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            case "ES256":
                self.private = ec.generate_private_key(ec.SECP256R1())
            case _:
                self.private = ed25519.Ed25519PrivateKey.generate()

    def jwk(self, **more: object) -> dict[str, object]:
        public = json.loads(ALGORITHMS[self.algorithm].to_jwk(self.private.public_key()))
        return {**public, "kid": self.kid, "use": "sig", **more}

    def sign(self, claims: Mapping[str, object], **header: object) -> str:
        return jwt.encode(dict(claims), self.private, self.algorithm, headers={"kid": self.kid, **header})


def jwks(*keys: SigningKey) -> bytes:
    return json.dumps({"keys": [one.jwk() for one in keys]}).encode()


def claims(now: float | None = None, **other: object) -> dict[str, object]:
    """Claims that are good; None takes one out."""
    at = time.time() if now is None else now
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "agent_id": "executioner",
        "workspace_id": "kloros",
        "role": "participant",
        "session_id": "s-1",
        "iat": at,
        "exp": at + 600,
        "jti": "t-1",
    }
    return {name: value for name, value in {**good, **other}.items() if value is not None}


class FixedKeys:
    """Keys that never change by themselves."""

    def __init__(self, *keys: SigningKey) -> None:
        self.generation = 1
        self.keys: Mapping[str, Key] = keys_of(jwks(*keys))

    def known(self) -> Mapping[str, Key]:
        return self.keys

    async def find(self, kid: str) -> Key | None:
        return self.keys.get(kid)

    async def run(self) -> None:
        await asyncio.Event().wait()


class JwksServer:
    """An issuer's keys on loopback; what it answers, and whether it does, can be changed."""

    def __init__(self) -> None:
        self.body = b""
        self.status = 200
        self.hangs = threading.Event()
        self.drips = False
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                if outer.hangs.is_set():
                    outer.let_go.wait(20)
                self.send_response(outer.status)
                if outer.status in (301, 302):
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(b"" if outer.drips else outer.body)
                with suppress(OSError):
                    while outer.drips and not outer.let_go.wait(0.05):
                        self.wfile.write(b" ")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.let_go = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who asked may have left
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/jwks.json"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def jwks_server(*keys: SigningKey) -> Iterator[JwksServer]:
    server = JwksServer()
    server.body = jwks(*keys) if keys else b""
    try:
        yield server
    finally:
        server.close()


class Remembering:
    """Commands over one thread in memory; `asked` is what came, `raises` what they end in."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Caller, Any]] = []
        self.raises: Exception | None = None
        self.messages: list[wire.Message] = []
        self.news = asyncio.Event()

    def __getattr__(self, name: str) -> Callable[[Caller, Any], Awaitable[Any]]:
        if name not in {one.name for one in METHODS}:
            raise AttributeError(name)

        async def command(caller: Caller, asked: Any) -> Any:
            self.asked.append((name, caller, asked))
            if self.raises is not None:
                raise self.raises
            return await getattr(self, f"_{name}")(caller, asked)

        return command

    async def _post_message(self, caller: Caller, asked: wire.PostMessage) -> wire.MessagePosted:
        self.put(asked.body, sender=caller.agent_id)
        seq = len(self.messages)
        return wire.MessagePosted(
            message_id=f"msg_{seq:032x}", seq=seq, thread_status=wire.ThreadStatus.ACTIVE, created_at=AT
        )

    async def _read_messages(self, _caller: Caller, asked: wire.ReadMessages) -> wire.MessagesRead:
        if asked.thread_id != THREAD:
            raise Refused(Code.NOT_FOUND, "there is no such thread", rule="thread.unknown")
        if asked.since_seq >= len(self.messages) and asked.wait_seconds:
            try:
                async with asyncio.timeout(asked.wait_seconds):
                    await self.news.wait()
            except TimeoutError:
                pass
        found = tuple(itertools.islice(self.messages, asked.since_seq, asked.since_seq + asked.limit))
        reached = found[-1].seq if found else asked.since_seq
        return wire.MessagesRead(messages=found, next_seq=reached, has_more=reached < len(self.messages))

    def put(self, body: str, *, sender: str = "executioner") -> None:
        """Have one more message in the thread."""
        seq = len(self.messages) + 1
        message = wire.Message(
            message_id=f"msg_{seq:032x}",
            thread_id=THREAD,
            seq=seq,
            sender=sender,
            kind=wire.MessageKind.CHAT,
            body=body,
            metadata={},
            created_at=AT,
        )
        self.messages.append(message)
        news, self.news = self.news, asyncio.Event()
        news.set()


class Answer(NamedTuple):
    """One answer, whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Bridged:
    """A face that is served on loopback, and a client for it; the server's loop is the test's."""

    def __init__(self, face: Face, commands: Any, verifier: Verifier, key: SigningKey, port: int) -> None:
        self.face, self.commands, self.verifier, self.key, self.port = face, commands, verifier, key, port
        self.token = key.sign(claims())

    async def post(self, operation: str, document: object = None, *, raw: bytes | None = None, **headers: str) -> Answer:
        """Call a method as the token's holder."""
        body = json.dumps(document).encode() if raw is None else raw
        return await self.ask("POST", f"/v1/mcp/{operation}", body, **headers)

    async def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Ask anything; a header `authorization=""` leaves the token out."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        named.setdefault("authorization", f"Bearer {self.token}")
        return await asyncio.to_thread(self._ask, method, path, body, {n: text for n, text in named.items() if text})

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())
        finally:
            connection.close()


@asynccontextmanager
async def bridged(
    commands: Any = None,
    *,
    verifier: Verifier | None = None,
    heartbeat: float = 15.0,
    checks: Any = None,
    names: Names | None = None,
    refuse: Any = None,
    protocol: type[BridgeProtocol] = BridgeProtocol,
) -> AsyncIterator[Bridged]:
    """Serve a face, over commands in memory if there are no others."""
    key = SigningKey("k-1")
    given = Remembering() if commands is None else commands
    verifies = verifier or Verifier(FixedKeys(key), issuer=ISSUER, audience=AUDIENCE, now=time.time)

    async def fine() -> Mapping[str, str]:
        return {"store": "", "keys": ""}

    face = Face(
        given,
        verifies,
        checks=checks or fine,
        jwks=lambda: {"keys": [key.jwk()]},
        heartbeat=heartbeat,
        names=names,
        refuse=refuse,
    )
    try:
        async with served(face, face, protocol=protocol) as port:
            yield Bridged(face, given, verifies, key, port)
    finally:
        face.end()


@asynccontextmanager
async def served(face: Face, app: ASGIApp, *, protocol: type[BridgeProtocol] = BridgeProtocol) -> AsyncIterator[int]:
    """Serve an application on loopback that leads to a face; gives the port."""
    listens = listening.listen("127.0.0.1", 0)
    server = Server(
        app,
        traffic=face,
        notifier=Notifier({}),
        idle_exit=None,
        on_stop=face.stop,
        protocol=protocol,
        most_connections=900,
    )
    server.capture_signals = _no_signals  # type: ignore[method-assign]  # they are pytest's
    serving = asyncio.create_task(server.serve(list(listens.sockets)))
    try:
        yield listens.sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, 15)


@contextmanager
def _no_signals() -> Iterator[None]:
    yield


async def until(seen: Callable[[], object], *, what: str, within: float = 15.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + within
    while not seen():
        assert time.monotonic() < deadline, f"{what}: not within {within} s"
        await asyncio.sleep(0.01)
