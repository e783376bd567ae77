"""Two bridges over one store, served as they are, with those who write and read over HTTP while everything is broken.

A model of one thread: whatever a writer was told is in it under that number; whoever reads along, by polls or by an event
stream, gets every message once, in order, across every reconnect.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from typing import Any

from orchestration.bridge.auth.issuer import issue
from orchestration.bridge.auth.ring import Ring
from orchestration.bridge_wiring import AUDIENCE, ISSUER
from orchestration.exits import Exit
from tests.acceptance.host import PYTHON, Host
from tests.acceptance.serving import Served, until

UNLIMITED = dict.fromkeys(
    ("KLR_BRIDGE_AGENT_POSTS_PER_MINUTE", "KLR_BRIDGE_THREAD_POSTS_PER_MINUTE", "KLR_BRIDGE_MAX_TURNS"), "0"
)
SOON = 20.0
_UNREACHED = (OSError, http.client.HTTPException)


def token_of(host: Host, agent: str, role: str = "participant") -> str:
    """Sign a token as `klorosctl token issue` does, without a process for each."""
    folder = host.state / "keys"
    (host.state / "locks").mkdir(parents=True, exist_ok=True)
    return issue(
        Ring(str(folder / "tokens.json"), str(host.state / "locks" / "tokens.lock")),
        issuer=ISSUER,
        audience=AUDIENCE,
        agent_id=agent,
        workspace_id="kloros",
        role=role,
        session_id="s-1",
        ttl=timedelta(hours=1),
        by="test",
        now=time.time(),
    ).text


class Process:
    """One bridge on a port that stays the same when it is started again."""

    def __init__(self, host: Host) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._environ = {**host.environ, **UNLIMITED}
        self._all: list[Served] = []
        self.start()

    @property
    def pid(self) -> int:
        return self._all[-1].process.pid

    def start(self) -> None:
        command = [PYTHON, "-m", "orchestration.serve", "--bridge", "--port", str(self.port)]
        process = subprocess.Popen(command, env=self._environ, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self._all.append(Served(process, self.port))

    def ready(self) -> bool:
        """Whether it answers and can work; one that found no database to begin with is started again, as by its unit."""
        if (code := self._all[-1].process.poll()) is not None:
            assert code == Exit.STORE_UNREACHABLE, (code, self._all[-1].lines[-20:])
            self.start()
            return False
        try:
            return self._all[-1].get("/ready").status == 200
        except _UNREACHED:
            return False

    def end(self, *, kill: bool) -> None:
        """End it, in its own time or at once."""
        process = self._all[-1].process
        process.kill() if kill else process.terminate()
        process.wait(20)

    def close(self) -> None:
        self.end(kill=True)
        for one in self._all:
            one.read_out()
            if one.process.stderr is not None:
                one.process.stderr.close()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What any of its lives has logged under an event's name."""
        return [line for one in self._all for line in one.log(event)]


class Client:
    """One agent with a connection that stays open as long as it can; every status that it was ever told is kept."""

    def __init__(self, port: int, token: str, statuses: dict[int, int] | None = None) -> None:
        self.port, self.token = port, token
        self.statuses: dict[int, int] = {} if statuses is None else statuses
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, **asked: object) -> tuple[int, Any]:
        """Call a method; a status of 0 is a connection that broke."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SOON)
        try:
            headers = {"authorization": f"Bearer {self.token}"}
            self._connection.request("POST", f"/v1/mcp/{method}", json.dumps(asked), headers)
            answer = self._connection.getresponse()
            document = json.loads(answer.read())
        except _UNREACHED:
            self.close()
            return 0, None
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        return answer.status, document

    def cut(self, method: str, **asked: object) -> None:
        """Ask, and be gone before there is an answer."""
        body = json.dumps(asked).encode()
        head = f"POST /v1/mcp/{method} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.token}\r\n"
        with suppress(OSError), closing(socket.create_connection(("127.0.0.1", self.port), timeout=SOON)) as one:
            one.sendall(head.encode() + b"content-length: %d\r\n\r\n%b" % (len(body), body))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class World:
    """One thread, its writers and readers, and what each was told."""

    def __init__(self, host: Host, *, seed: int, writers: int = 6) -> None:
        self.bridges = [Process(host) for _ in range(2)]
        self.told: dict[tuple[str, int], int] = {}
        self.read: dict[str, list[tuple[int, str]]] = {}
        self.statuses: dict[int, int] = {}
        self.thread_id = ""
        self._seed = seed
        self._names = [f"writer-{number}" for number in range(writers)]
        self._tokens = {name: token_of(host, name) for name in ("reader", *self._names)}
        self._writing, self._reading = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []
        self._failed: list[BaseException] = []

    def begin(self) -> None:
        for bridge in self.bridges:
            until(bridge.ready, what="it is ready")
        first = Client(self.bridges[0].port, self._tokens["reader"])
        asked: dict[str, Any] = {"workspace_id": "kloros", "title": "model", "participants": self._names}
        status, thread = first.ask("create_thread", **asked)
        assert status == 200, thread
        first.close()
        self.thread_id = thread["thread_id"]
        self._writing.set()
        self._reading.set()
        work: list[Callable[[], None]] = []
        for number, name in enumerate(self._names):
            work.append(lambda number=number, name=name: self._write(number, name))  # type: ignore[misc]
        for number in range(2):
            work.append(lambda number=number: self._poll(number))  # type: ignore[misc]
            work.append(lambda number=number: self._follow(number))  # type: ignore[misc]
        for one in work:
            self._threads.append(threading.Thread(target=self._surely, args=(one,), daemon=True))
            self._threads[-1].start()

    def some_more(self, count: int = 30) -> None:
        """Wait until writers have been told of so many more."""
        enough = len(self.told) + count
        until(lambda: len(self.told) >= enough or self._failed, what="writers get on", within=60)
        assert not self._failed, self._failed

    def end(self) -> list[dict[str, Any]]:
        """Let writers finish and readers read to the end; hold what they were told against what is there."""
        self._writing.clear()
        for one in self._threads[: len(self._names)]:
            one.join(30)
        messages = self._all_messages()
        until(
            lambda: all(len(got) >= len(messages) for got in self.read.values()) or self._failed,
            what="all is read",
            within=15,
        )
        self._reading.clear()
        for one in self._threads:
            one.join(30)
            assert not one.is_alive()
        assert not self._failed, self._failed
        stands = [(message["seq"], message["body"]) for message in messages]
        assert [seq for seq, _ in stands] == list(range(1, len(stands) + 1)), "no gap"
        for reader, got in self.read.items():
            assert got == stands, f"{reader} missed some, or had some twice or out of order"
        assert len(self.read) == 4
        numbers = {body: seq for seq, body in stands}
        assert len(numbers) == len(stands), "nothing twice"
        assert {key: numbers.get(f"{key[0]} {key[1]}") for key in self.told} == self.told, "what was told is there"
        for name in self._names:
            own = [seq for body, seq in numbers.items() if body.startswith(f"{name} ")]
            assert [numbers[f"{name} {number}"] for number in range(len(own))] == own == sorted(own)
        assert set(self.statuses) <= {200, 503}, self.statuses
        assert not [line for bridge in self.bridges for line in bridge.logged("bridge.failed")]
        return messages

    def close(self) -> None:
        self._writing.clear()
        self._reading.clear()
        for bridge in self.bridges:
            bridge.close()
        for one in self._threads:
            one.join(30)

    def _surely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # the test must hear of it
            self._failed.append(error)

    def _write(self, number: int, name: str) -> None:
        chance = random.Random(f"{self._seed} {name}")
        client = Client(self.bridges[number % 2].port, self._tokens[name], self.statuses)
        at = 0
        while self._writing.is_set():
            body = f"{name} {at}"
            asked = {"thread_id": self.thread_id, "body": body, "idempotency_key": f"key-{at:08}"}
            if chance.random() < 0.1:
                client.cut("post_message", **asked)
            status, answer = client.ask("post_message", **asked)
            if status == 200:
                assert self.told.setdefault((name, at), answer["seq"]) == answer["seq"]
                at += 1
            else:
                assert status in (0, 503), (status, answer)
                assert status == 0 or answer["error"]["retryable"]
                threading.Event().wait(0.02)
        client.close()

    def _poll(self, number: int) -> None:
        client = Client(self.bridges[number].port, self._tokens["reader"], self.statuses)
        got = self.read.setdefault(f"poll {number}", [])
        since = 0
        while self._reading.is_set():
            asked = {"thread_id": self.thread_id, "since_seq": since, "limit": 7, "wait_seconds": 0.5}
            status, answer = client.ask("read_messages", **asked)
            assert status in (0, 200, 503), (status, answer)
            if status == 200:
                got += [(one["seq"], one["body"]) for one in answer["messages"]]
                since = answer["next_seq"]
            else:
                threading.Event().wait(0.02)
        client.close()

    def _follow(self, number: int) -> None:
        """Follow the event stream, and leave it now and then in the middle."""
        chance = random.Random(f"{self._seed} {number}")
        token = self._tokens["reader"]
        got = self.read.setdefault(f"stream {number}", [])
        while self._reading.is_set():
            with suppress(*_UNREACHED), closing(http.client.HTTPConnection("127.0.0.1", self.bridges[number].port)) as one:
                one.timeout = 1.0
                headers = {"authorization": f"Bearer {token}", "last-event-id": str(got[-1][0] if got else 0)}
                one.request("GET", f"/v1/threads/{self.thread_id}/events", headers=headers)
                answer = one.getresponse()
                self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
                if answer.status == 200:
                    for _, message in zip(range(chance.randint(1, 80)), events_of(answer), strict=False):
                        got.append((message["seq"], message["body"]))
                    continue
            threading.Event().wait(0.02)

    def _all_messages(self) -> list[dict[str, Any]]:
        with closing(Client(self.bridges[0].port, self._tokens["reader"])) as client:
            messages: list[dict[str, Any]] = []
            more = True
            while more:
                asked = {"thread_id": self.thread_id, "since_seq": len(messages), "limit": 200}
                status, read = client.ask("read_messages", **asked)
                assert status == 200, read
                messages += read["messages"]
                more = read["has_more"]
        return messages


def events_of(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Read the messages of an event stream; one that was cut off in the middle is none."""
    for line in answer:
        if line.startswith(b"data: ") and line.endswith(b"\n"):
            yield json.loads(line[6:])


@contextmanager
def world(host: Host, *, seed: int) -> Iterator[World]:
    """Have a world that is at work until the block ends."""
    made = World(host, seed=seed)
    try:
        made.begin()
        yield made
    finally:
        made.close()
