"""Two bridges over one store, served as they are, with those who write and read over HTTP while everything is broken.

A model of one thread: whatever a writer was told is in it under that number; whoever reads along, by polls or by an event
stream, gets every message once, in order, across every reconnect.
"""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, suppress
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

from orchestration.bridge.auth.issuer import issue
from orchestration.bridge.auth.ring import Ring
from orchestration.bridge_wiring import AUDIENCE, ISSUER
from orchestration.exits import Exit
from tests.acceptance.host import PYTHON, Host
from tests.acceptance.serving import Served
from tests.waiting import until

UNLIMITED = dict.fromkeys(
    ("KLR_BRIDGE_AGENT_POSTS_PER_MINUTE", "KLR_BRIDGE_THREAD_POSTS_PER_MINUTE", "KLR_BRIDGE_MAX_TURNS"), "0"
)
SOON = 20.0
WRITERS = 6
"""As many as a conversation has at most."""
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
        self.said = ""
        """When it was last asked whether it is ready."""
        self.start()

    @property
    def pid(self) -> int:
        return self._all[-1].process.pid

    @property
    def last_lines(self) -> list[str]:
        """The end of its log, but for what went well."""
        return [line for line in self._all[-1].lines if '"request.answered"' not in line][-20:]

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
            answer = self._all[-1].get("/ready")
            self.said = answer.text
            return answer.status == 200
        except _UNREACHED as error:
            self.said = repr(error)
            return False

    def stand_still(self, seconds: float) -> None:
        """Have the kernel give it no time for a while, as on a machine that is short of it."""
        process = self._all[-1].process
        process.send_signal(signal.SIGSTOP)
        threading.Timer(seconds, process.send_signal, (signal.SIGCONT,)).start()

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


class Writing(NamedTuple):
    """How one writer writes: to which bridge, and how often of ten it hangs up before it is answered."""

    bridge: int
    hangs_up: int


class Polling(NamedTuple):
    """How one reader polls."""

    bridge: int
    limit: int
    wait_seconds: float


class Following(NamedTuple):
    """How one reader follows the event stream: for how many events before it leaves, and comes again."""

    bridge: int
    stays: int


class Ground:
    """Two bridges over one store, and tokens of everybody; stays as it is while conversations come and go."""

    def __init__(self, host: Host) -> None:
        self.bridges = [Process(host) for _ in range(2)]
        self.tokens = {name: token_of(host, name) for name in ("reader", *(f"writer-{number}" for number in range(WRITERS)))}
        self.messages = 0
        """Of all conversations that are over, and one each for their beginning: as many as the audit must have."""

    def await_ready(self, but: Collection[int] = ()) -> None:
        for number, bridge in enumerate(self.bridges):
            if number not in but:
                self._await_ready(bridge)

    def _await_ready(self, bridge: Process) -> None:
        try:
            until(bridge.ready, what="it is ready")
        except AssertionError as error:
            raise AssertionError(f"{error}; it says {bridge.said}, and has logged {bridge.last_lines}") from error

    def client(self, bridge: int, name: str, statuses: dict[int, int] | None = None) -> Client:
        return Client(self.bridges[bridge].port, self.tokens[name], statuses)

    def close(self) -> None:
        for bridge in self.bridges:
            bridge.close()


class Conversation:
    """One thread, its writers and readers, each at work in a thread of ours, and what each was told."""

    def __init__(self, ground: Ground, *, writers: Sequence[Writing], readers: Sequence[Polling | Following]) -> None:
        self.told: dict[tuple[str, int], int] = {}
        self.statuses: dict[int, int] = {}
        self._ground = ground
        self._read: list[list[tuple[int, str]]] = []
        self._writing, self._reading = threading.Event(), threading.Event()
        self._writers: list[threading.Thread] = []
        self._readers: list[threading.Thread] = []
        self.failed: list[BaseException] = []
        """What writers and readers have found wrong."""
        self._names = [f"writer-{number}" for number in range(len(writers))]
        ground.await_ready()
        with closing(ground.client(0, "reader")) as first:
            status, thread = first.ask("create_thread", title="model", participants=self._names)
        assert status == 200, thread
        self.thread_id = str(thread["thread_id"])
        self._writing.set()
        self._reading.set()
        for how in readers:
            self.join(how)
        for name, writing in zip(self._names, writers, strict=True):
            self._writers.append(self._begun(partial(self._write, name, writing)))

    def join(self, how: Polling | Following) -> None:
        """Have one more reader, from the first message on."""
        got: list[tuple[int, str]] = []
        self._read.append(got)
        work = partial(self._poll, how, got) if isinstance(how, Polling) else partial(self._follow, how, got)
        self._readers.append(self._begun(work))

    def some_more(self, count: int) -> None:
        """Wait until writers have been told of so many more."""
        enough = len(self.told) + count
        until(lambda: len(self.told) >= enough or self.failed, what="writers get on")

    def check(self) -> None:
        """Raise the first of what was found wrong."""
        for error in self.failed:
            raise error

    def end(self) -> None:
        """Let writers finish and readers read to the end; hold what they were told against what is there."""
        self._writing.clear()
        for one in self._writers:
            one.join(30)
        messages = self._all_messages()
        while not self.failed and any(len(got) < len(messages) for got in self._read):  # however slow this machine is
            so_far = sum(map(len, self._read))
            until(lambda: self.failed or sum(map(len, self._read)) > so_far, what="readers get on")  # noqa: B023 - at once
        self._reading.clear()
        for one in (*self._writers, *self._readers):
            one.join(30)
            assert not one.is_alive()
        self.check()
        stands = [(message["seq"], message["body"]) for message in messages]
        assert [seq for seq, _ in stands] == list(range(1, len(stands) + 1)), "no gap"
        for got in self._read:
            assert got == stands, "a reader missed some, or had some twice or out of order"
        numbers = {body: seq for seq, body in stands}
        assert len(numbers) == len(stands), "nothing twice"
        assert {key: numbers.get(f"{key[0]} {key[1]}") for key in self.told} == self.told, "what was told is there"
        for name in self._names:
            own = [seq for body, seq in numbers.items() if body.startswith(f"{name} ")]
            assert [numbers[f"{name} {number}"] for number in range(len(own))] == own == sorted(own)
        assert set(self.statuses) <= {200, 503}, self.statuses
        told = [line for bridge in self._ground.bridges for line in bridge.logged("bridge.failed")]
        defects = [line for line in told if line["priority"] != "warning"]  # that of a database that is away
        assert not defects, defects
        self._ground.messages += len(messages) + 1

    def close(self) -> None:
        self._writing.clear()
        self._reading.clear()
        for one in (*self._writers, *self._readers):
            one.join(30)

    def _begun(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=self._surely, args=(work,), daemon=True)
        thread.start()
        return thread

    def _surely(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # the test must hear of it
            self.failed.append(error)

    def _write(self, name: str, how: Writing) -> None:
        client = self._ground.client(how.bridge, name, self.statuses)
        at = tries = 0
        while self._writing.is_set():
            asked = {"thread_id": self.thread_id, "body": f"{name} {at}", "idempotency_key": f"key-{at:08}"}
            tries += 1
            if tries % 10 < how.hangs_up:
                client.cut("post_message", **asked)
            status, answer = client.ask("post_message", **asked)
            if status == 200:
                assert self.told.setdefault((name, at), answer["seq"]) == answer["seq"]
                at += 1
            else:
                assert status in (0, 503), (status, answer)
                assert status == 0 or answer["error"]["retryable"]
            threading.Event().wait(0.01 if status == 200 else 0.02)
        client.close()

    def _poll(self, how: Polling, got: list[tuple[int, str]]) -> None:
        client = self._ground.client(how.bridge, "reader", self.statuses)
        asked = {"thread_id": self.thread_id, "limit": how.limit, "wait_seconds": how.wait_seconds}
        since = 0
        while self._reading.is_set():
            status, answer = client.ask("read_messages", since_seq=since, **asked)
            assert status in (0, 200, 503), (status, answer)
            if status == 200:
                for message in answer["messages"]:
                    _add(got, message)
                assert answer["next_seq"] == len(got)
                since = answer["next_seq"]
            if status != 200 or not (how.wait_seconds or answer["messages"]):
                threading.Event().wait(0.02)
        client.close()

    def _follow(self, how: Following, got: list[tuple[int, str]]) -> None:
        """Follow the event stream, and leave it now and then in the middle."""
        port, token = self._ground.bridges[how.bridge].port, self._ground.tokens["reader"]
        while self._reading.is_set():
            with suppress(*_UNREACHED), closing(http.client.HTTPConnection("127.0.0.1", port)) as one:
                one.timeout = 0.5
                headers = {"authorization": f"Bearer {token}", "last-event-id": str(len(got))}
                one.request("GET", f"/v1/threads/{self.thread_id}/events", headers=headers)
                answer = one.getresponse()
                self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
                if answer.status == 200:
                    for _, message in zip(range(how.stays), events_of(answer), strict=False):
                        _add(got, message)
                    continue
            threading.Event().wait(0.02)

    def _all_messages(self) -> list[dict[str, Any]]:
        with closing(self._ground.client(0, "reader")) as client:
            messages: list[dict[str, Any]] = []
            more = True
            while more:
                asked = {"thread_id": self.thread_id, "since_seq": len(messages), "limit": 200}
                status, read = client.ask("read_messages", **asked)
                assert status == 200, read
                messages += read["messages"]
                more = read["has_more"]
        return messages


def _add(got: list[tuple[int, str]], message: dict[str, Any]) -> None:
    assert message["seq"] == len(got) + 1, f"{message['seq']} comes after {len(got)}"
    got.append((message["seq"], message["body"]))


def events_of(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Read the messages of an event stream; one that was cut off in the middle is none."""
    for line in answer:
        if line.startswith(b"data: ") and line.endswith(b"\n"):
            yield json.loads(line[6:])
