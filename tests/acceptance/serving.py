"""A running server for acceptance tests: the process itself on a free port, or on a socket that it is handed."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.acceptance.host import PYTHON, Host
from tests.waiting import until


class Answer(NamedTuple):
    """One answer, whole."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Event(NamedTuple):
    """One server-sent event."""

    name: str
    data: Any
    id: int


class Served:
    """One server process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def connect(self, timeout: float = 30) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def get(self, path: str, *, method: str = "GET", **headers: str) -> Answer:
        """Ask once."""
        connection = self.connect()
        try:
            connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    @contextmanager
    def follow(self, cycle: int, query: str = "follow=1", **headers: str) -> Iterator[Iterator[Event]]:
        """Follow a log: gives its events as they come."""
        connection = self.connect(timeout=20)
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        try:
            connection.request("GET", f"/api/v1/cycles/{cycle}/log?{query}", headers=named)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            assert answer.getheader("content-type", "").startswith("text/event-stream")
            yield events(answer)
        finally:
            connection.close()

    def log(self, event: str) -> list[dict[str, Any]]:
        """What it has logged under an event's name."""
        found = [json.loads(line) for line in list(self.lines) if line.startswith("{")]
        return [line for line in found if line["event"] == event]

    def stop(self, within: float = 10) -> int:
        """Ask it to end; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def read_out(self) -> None:
        """Let the reader come to the end of what the process has said, before somebody closes it."""
        self._reader.join(5)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.decode().rstrip("\n"))


def events(answer: http.client.HTTPResponse) -> Iterator[Event]:
    """Read server-sent events."""
    fields: dict[str, str] = {}
    for line in answer:
        text = line.decode().rstrip("\n")
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
        elif "event" in fields:
            yield Event(fields["event"], json.loads(fields["data"]), int(fields["id"]))
            fields = {}


@contextmanager
def serving(host: Host, *arguments: str, **variables: str) -> Iterator[Served]:
    """Run the server on a free port of loopback until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [PYTHON, "-m", "orchestration.serve", "--port", str(port), *arguments]
    process = subprocess.Popen(command, env={**host.environ, **variables}, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with _until_ended(process, port) as served:
        until(lambda: served.log("pulse.started") or process.poll() is not None, what="it listens")
        assert process.poll() is None, served.lines
        until(lambda: _answers(served), what="it answers")
        yield served


@contextmanager
def handed_over(host: Host, listener: socket.socket, *arguments: str) -> Iterator[Served]:
    """Run the server on a socket as systemd hands it over: descriptor 3, LISTEN_FDS, LISTEN_PID."""
    given = listener.fileno()
    run = shlex.join([PYTHON, "-m", "orchestration.serve", *arguments])
    script = f"exec 3<&{given}; LISTEN_FDS=1 LISTEN_PID=$$ exec {run}"
    process = subprocess.Popen(
        ["/bin/bash", "-c", script], env=host.environ, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=(given,)
    )
    with _until_ended(process, listener.getsockname()[1]) as served:
        yield served


@contextmanager
def _until_ended(process: subprocess.Popen[bytes], port: int) -> Iterator[Served]:
    served = Served(process, port)
    try:
        yield served
    finally:
        process.kill()
        process.wait()
        served.read_out()
        if process.stderr is not None:
            process.stderr.close()


def _answers(served: Served) -> bool:
    try:
        return served.get("/health").status in (200, 401, 421)
    except OSError:
        return False


def residents(pid: int) -> int:
    """Bytes of memory that a process has in RAM."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        found = re.search(r"VmRSS:\s+(\d+) kB", file.read())
    assert found
    return int(found[1]) * 1024


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


class Writing:
    """A running cycle whose output the test writes."""

    def __init__(self, host: Host) -> None:
        fifo = host.home / "fifo"
        os.mkfifo(fifo)
        host.configure(f'[dream]\ncommand = ["cat", "{fifo}"]\n')
        host.promote("one")
        host.decided()
        self.log = host.state / "cycles/cycle_00001/logs/output.log"
        self._pipe = open(fifo, "wb", buffering=0)  # noqa: SIM115
        until(self.log.exists, what="the cycle runs")

    def write(self, data: bytes) -> None:
        """Have the command print it."""
        before = self.log.stat().st_size
        self._pipe.write(data)
        until(lambda: self.log.stat().st_size >= before + len(data), what="it is written")

    def end(self) -> None:
        """Let the command end."""
        self._pipe.close()
