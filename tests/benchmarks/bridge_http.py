"""What the bridge does over HTTP, as it is served: `python -m tests.benchmarks.bridge_http [--write]`.

Posts a second beside bare psycopg on the same PostgreSQL (asynchronous, one statement that numbers and inserts a row, each
in its own commit) with as many clients; reads of 50 messages out of 10,000 beside the bare prepared query; and how long a
post takes to be in the hands of a reader that waits for it. One server process for each store, with tokens, rules, audit,
syncs, log and metrics; the clients of each side in one process of their own, each asking again as soon as it is answered.
The sides take turns of half a second; medians. Every post is read back. `--write` puts the figures into
docs/reference/benchmarks.md; `--turns N` takes fewer.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import psycopg

from orchestration.bridge.auth.issuer import issue
from orchestration.bridge.auth.ring import Ring
from orchestration.bridge_wiring import AUDIENCE, ISSUER
from orchestration.host import files
from tests.benchmarks import page
from tests.benchmarks.bridge_store import _POST, _READ, _TABLES, BODY
from tests.benchmarks.tick import ROOT, _machine
from tests.contract.bridging import new_id
from tests.contract.postgres import running

SECONDS = 0.5
SHAPES = ((1, 1, 0.25), (8, 1, 0.7), (32, 1, 1.5), (32, 32, 0.35))
MESSAGES, READERS, PAGE_OF = 10_000, 8, 50
SEEN = 300
MARKS = ("<!-- bridge http: written by tests/benchmarks/bridge_http.py -->", "<!-- /bridge http -->")
COORDINATOR = "coordinator"


class Server(NamedTuple):
    """A bridge that is served."""

    port: int
    tokens: dict[str, str]


# --- the clients, in a process of their own -----------------------------------------------------------------------------


class Asking(asyncio.Protocol):
    """A client that sends one request after the other."""

    _transport: asyncio.Transport
    _answered: asyncio.Future[bytes]
    _held = b""

    @classmethod
    async def to(cls, port: int, token: str) -> Asking:
        """Connect."""
        found = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        found[1].head = f"host: localhost\r\nauthorization: Bearer {token}\r\n".encode()
        return found[1]

    head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, end, body = self._held.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            self._held = b""
            if head.startswith(b"HTTP/1.1 200 "):
                self._answered.set_result(body)
            else:
                self._answered.set_exception(RuntimeError(f"{head!r} {body!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if hasattr(self, "_answered") and not self._answered.done():
            self._answered.set_exception(exc or ConnectionError("closed"))

    def close(self) -> None:
        """Leave the server."""
        self._transport.close()

    def ask(self, method: str, document: dict[str, Any]) -> asyncio.Future[bytes]:
        """Send a request; the answer's body comes."""
        if self._transport.is_closing():
            raise ConnectionError("the server has closed the connection")
        body = json.dumps(document).encode()
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(
            b"POST /v1/mcp/%b HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n%b" % (method.encode(), self.head, len(body), body)
        )
        return self._answered


async def load() -> None:
    """Be the clients of one side: told by lines of JSON what to do, for how long, and answering with what was done."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    told = json.loads(await lines.readline())
    clients = [await _client(number, told) for number in range(told["clients"])]
    print("{}", flush=True)
    while line := await lines.readline():
        seconds = float(json.loads(line))
        done: list[Any] = []
        began = time.perf_counter()

        async def go_on(client: Any, until: float, into: list[Any]) -> None:
            while time.perf_counter() < until:
                into.append(await client())

        await asyncio.gather(*(go_on(client, began + seconds, done) for client in clients))
        print(json.dumps({"rate": len(done) / (time.perf_counter() - began), "done": done}), flush=True)


async def _client(number: int, told: dict[str, Any]) -> Any:
    thread_id = told["threads"][number % len(told["threads"])]
    if told["url"]:
        return await _bare(number, told, thread_id)
    agent = f"agent-{number}"
    asking = await Asking.to(told["port"], told["tokens"][agent])
    if told["what"] == "read":
        asked = {"thread_id": thread_id, "since_seq": 37 * number + 5000, "limit": PAGE_OF}

        async def read() -> int:
            return len((await asking.ask("read_messages", asked)) or b"")

        assert len(json.loads(await asking.ask("read_messages", asked))["messages"]) == PAGE_OF
        return read

    async def post() -> list[Any]:
        asked = {"thread_id": thread_id, "schema_version": 1, "kind": "chat", "body": BODY, "idempotency_key": new_id()}
        answer = json.loads(await asking.ask("post_message", asked))
        return [answer["message_id"], answer["seq"]]

    return post


async def _bare(number: int, told: dict[str, Any], thread_id: str) -> Any:
    connection = await psycopg.AsyncConnection.connect(told["url"], autocommit=True)
    if told["what"] == "read":

        async def read() -> int:
            return len(await (await connection.execute(_READ, (thread_id, 37 * number + 5000))).fetchall())

        return read

    async def post() -> int:
        values = (thread_id, new_id("msg"), f"agent-{number}", BODY)
        return len(await (await connection.execute(_POST, values)).fetchone() or ())

    return post


class Load:
    """The clients of one side, from outside."""

    def __init__(self, **told: Any) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.bridge_http", "--load"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.done: list[Any] = []
        self._ask({"url": "", **told})

    def rate(self, seconds: float) -> float:
        """Go on for a while; returns how often a second something was done."""
        answer = self._ask(seconds)
        self.done += answer["done"]
        return float(answer["rate"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, what: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(what), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


# --- the server -----------------------------------------------------------------------------------------------------------


@contextmanager
def serving(folder: str, url: str = "") -> Iterator[Server]:
    """Serve a bridge over a store of its own, as the installed unit does; who posts much is not held up."""
    files.make_folder(folder)
    ring = Ring(os.path.join(folder, "keys", "tokens.json"), os.path.join(folder, "locks", "tokens.lock"))
    tokens = {name: _token(ring, name) for name in (COORDINATOR, *(f"agent-{number}" for number in range(32)))}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {
        "PATH": os.environ["PATH"],
        "KLR_STATE_DIR": folder,
        "KLR_CONFIG": _written(f"{folder}/kloros.toml", ""),
        "KLR_ORCHESTRATION_MODE": "enabled",
        "KLR_DATABASE_URL": url,
        "KLR_BRIDGE_AGENT_POSTS_PER_MINUTE": "0",
        "KLR_BRIDGE_THREAD_POSTS_PER_MINUTE": "0",
        "KLR_BRIDGE_MAX_TURNS": "0",
    }
    with open(f"{folder}/log", "wb") as log:
        command = [sys.executable, "-m", "orchestration.serve", "--bridge", "--port", str(port)]
        process = subprocess.Popen(command, env=environ, cwd=ROOT, stderr=log)
        try:
            asyncio.run(_ready(port, process))
            yield Server(port, tokens)
        finally:
            process.terminate()
            process.wait()


def _token(ring: Ring, agent: str) -> str:
    role = "coordinator" if agent == COORDINATOR else "participant"
    return issue(
        ring, issuer=ISSUER, audience=AUDIENCE, agent_id=agent, workspace_id="kloros", role=role, session_id="s",
        ttl=timedelta(hours=2), by="benchmark", now=time.time(),
    ).text  # fmt: skip


def _written(path: str, text: str) -> str:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o600)
    return path


async def _ready(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        try:
            (await Asking.to(port, "")).close()
        except OSError:
            await asyncio.sleep(0.05)
        else:
            return
    raise RuntimeError("the bridge does not come up")


# --- what is measured -----------------------------------------------------------------------------------------------------


async def _opened(server: Server, threads: int) -> list[str]:
    asking = await Asking.to(server.port, server.tokens[COORDINATOR])
    asked = {"workspace_id": "kloros", "title": "t", "participants": [f"agent-{number}" for number in range(32)]}
    return [json.loads(await asking.ask("create_thread", asked))["thread_id"] for _ in range(threads)]


async def _all_there(server: Server, threads: list[str], posted: list[Any], before: int = 0) -> None:
    """Read everything back: no gap, no duplicate, and whatever was acknowledged under its number."""
    asking = await Asking.to(server.port, server.tokens[COORDINATOR])
    found: dict[str, int] = {}
    total = 0
    for thread_id in threads:
        since, more = before, True
        while more:
            asked = {"thread_id": thread_id, "since_seq": since, "limit": 200}
            page = json.loads(await asking.ask("read_messages", asked))
            for at, message in enumerate(page["messages"], since + 1):
                assert message["seq"] == at, f"a gap: {message['seq']} instead of {at}"
                found[message["message_id"]] = at
                total += 1
            since, more = page["next_seq"], page["has_more"]
    assert total == len(found) == len(posted), f"{total} messages, {len(found)} ids, {len(posted)} posted"
    assert found == dict(posted)


def _in_turns(sides: list[Load], turns: int) -> list[float]:
    """Return the rate of each side; the first turn warms up and does not count."""
    rates: list[list[float]] = [[] for _ in sides]
    for turn in range(turns + 1):
        for side, into in zip(sides, rates, strict=True):
            rate = side.rate(SECONDS)
            if turn:
                into.append(rate)
    return [statistics.median(rate) for rate in rates]


def _posts(url: str, servers: dict[str, Server], clients: int, threads: int, goal: float, turns: int) -> list[str]:
    ids = [new_id() for _ in range(threads)]
    with psycopg.connect(url, autocommit=True) as connection:
        for thread_id in ids:
            connection.execute(b"INSERT INTO bare_threads VALUES (%s, 0)", (thread_id,))
    opened = {name: asyncio.run(_opened(server, threads)) for name, server in servers.items()}
    sides = [Load(what="post", url=url, clients=clients, threads=ids)]
    sides += [
        Load(what="post", port=server.port, tokens=server.tokens, clients=clients, threads=opened[name])
        for name, server in servers.items()
    ]
    bare, *ours = _in_turns(sides, turns)
    for side, (name, server) in zip(sides[1:], servers.items(), strict=True):
        asyncio.run(_all_there(server, opened[name], side.done))
    for side in sides:
        side.close()
    what = f"posts, {clients} clients on {threads} threads".replace("1 clients", "1 client").replace("1 threads", "1 thread")
    lines = []
    for name, rate in zip(servers, ours, strict=True):
        wanted = f"≥ {goal}" if name == "PostgreSQL" else f"≥ {ours[0]:,.0f} a second" if clients < 32 else ""
        lines.append(f"| {what} | {name} | {rate:,.0f} | {bare:,.0f} | {rate / bare:.2f} | {wanted} |")
        print(lines[-1], flush=True)
    return lines


async def _filled(server: Server) -> list[str]:
    (thread_id,) = await _opened(server, 1)
    agents = [await Asking.to(server.port, server.tokens[f"agent-{number}"]) for number in range(32)]

    async def fill(asking: Asking, many: int) -> None:
        for _ in range(many):
            await asking.ask("post_message", {"thread_id": thread_id, "body": BODY})

    await asyncio.gather(*(fill(asking, MESSAGES // 32 + 1) for asking in agents))
    return [thread_id]


def _reads(url: str, servers: dict[str, Server], turns: int) -> list[str]:
    bare_id = new_id()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            b"INSERT INTO bare_messages (thread_id, seq, message_id, sender, kind, body, metadata)"
            b" SELECT %s, n, 'msg_' || md5(n::text), 'agent', 'chat', %s, '{}' FROM generate_series(1, 10000) n",
            (bare_id, BODY),
        )
        connection.execute(b"ANALYZE")
    filled = [asyncio.run(_filled(server)) for server in servers.values()]
    sides = [Load(what="read", url=url, clients=READERS, threads=[bare_id])]
    sides += [
        Load(what="read", port=server.port, tokens=server.tokens, clients=READERS, threads=threads)
        for server, threads in zip(servers.values(), filled, strict=True)
    ]
    bare, *ours = _in_turns(sides, turns)
    lines = []
    for name, rate in zip(servers, ours, strict=True):
        wanted = "≥ 0.5" if name == "PostgreSQL" else ""
        what = f"reads of {PAGE_OF} out of {MESSAGES:,}, {READERS} clients"
        lines.append(f"| {what} | {name} | {rate:,.0f} | {bare:,.0f} | {rate / bare:.2f} | {wanted} |")
        print(lines[-1], flush=True)
    for side in sides:
        side.close()
    return lines


async def _visible(server: Server) -> tuple[list[float], list[float]]:
    """Return the seconds from sending a post, and from its answer, to its being in the hands of a waiting reader."""
    (thread_id,) = await _opened(server, 1)
    writer = await Asking.to(server.port, server.tokens["agent-0"])
    reader = await Asking.to(server.port, server.tokens["agent-1"])
    sent: list[float] = []
    answered: list[float] = []
    since = 0
    for _ in range(SEEN):
        asked = {"thread_id": thread_id, "since_seq": since, "wait_seconds": 20}
        waiting = reader.ask("read_messages", asked)
        await asyncio.sleep(0.01)
        seen = asyncio.ensure_future(_when(waiting))
        began = time.perf_counter()
        await writer.ask("post_message", {"thread_id": thread_id, "body": BODY})
        acknowledged = time.perf_counter()
        at = await seen
        since = json.loads(await waiting)["next_seq"]
        sent.append(at - began)
        answered.append(max(at - acknowledged, 0.0))
    return sent, answered


async def _when(answered: asyncio.Future[bytes]) -> float:
    await answered
    return time.perf_counter()


def _latency(servers: dict[str, Server]) -> list[str]:
    lines = ["", "| from a post to a waiting reader | store | p50 | p95 | goal |", "|---|---|---|---|---|"]
    for name, server in servers.items():
        for what, took in zip(("from its being sent", "from its answer"), asyncio.run(_visible(server)), strict=True):
            p50, p95 = statistics.median(took), statistics.quantiles(took, n=20)[-1]
            goal = "p50 ≤ 5 ms, p95 ≤ 20 ms" if what == "from its being sent" else ""
            lines.append(f"| {what} | {name} | {p50 * 1000:.1f} ms | {p95 * 1000:.1f} ms | {goal} |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Measure, print, and write if asked to."""
    if "--load" in sys.argv:
        asyncio.run(load())
        return
    turns = int(sys.argv[sys.argv.index("--turns") + 1]) if "--turns" in sys.argv else 9
    parts = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else "posts,reads,visible"
    lines = [f"Measured on {datetime.now(UTC):%Y-%m-%d}: {_machine()}", ""]
    lines += ["| measured | store | a second | bare psycopg | ratio | goal |", "|---|---|---|---|---|---|"]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kloros-benchmark-"))
        url = stack.enter_context(running()).new_database()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_TABLES)
        servers = {
            "PostgreSQL": stack.enter_context(serving(f"{folder}/postgres", url)),
            "SQLite": stack.enter_context(serving(f"{folder}/sqlite")),
        }
        if "posts" in parts:
            for clients, threads, goal in SHAPES:
                lines += _posts(url, servers, clients, threads, goal, turns)
        if "reads" in parts:
            lines += _reads(url, servers, turns)
        if "visible" in parts:
            lines += _latency(servers)
    if "--write" in sys.argv:
        page.write(MARKS, "\n".join(lines))


if __name__ == "__main__":
    main()
