"""Threads as event streams: nothing missed and nothing twice across reconnects, readers that are slow, gone, or many."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from orchestration.bridge.auth.claims import Rule
from orchestration.bridge.http.protocol import BridgeProtocol
from tests.contract.bridge_served import THREAD, Bridged, bridged, claims, until

MANY = 200
MOST_MEMORY = 150 * 1024 * 1024


def on_bridge(test: Callable[[Bridged], Awaitable[None]], **given: Any) -> None:
    async def run() -> None:
        async with bridged(**given) as bridge:
            await test(bridge)

    asyncio.run(run())


class Stream:
    """One open event stream, read by hand."""

    def __init__(self, reader: asyncio.StreamReader, status: int, headers: dict[str, str]) -> None:
        self.reader, self.status, self.headers = reader, status, headers
        self.comments = 0
        self.last_id = ""

    async def line(self) -> str | None:
        """The next line of the body; None at its end."""
        while True:
            size = await self.reader.readline()
            if not size or size == b"0\r\n":
                return None
            chunk = await self.reader.readexactly(int(size, 16) + 2)
            self._pending = chunk[:-2].decode()
            return self._pending

    async def message(self) -> dict[str, Any] | None:
        """The next message; None at the stream's end."""
        while (text := await self.line()) is not None:
            if text.startswith(":"):
                self.comments += 1
                continue
            fields = dict(part.split(": ", 1) for part in text.strip().split("\n"))
            if fields.get("event") == "message":
                self.last_id = fields["id"]
                found: dict[str, Any] = json.loads(fields["data"])
                assert str(found["seq"]) == fields["id"]
                return found
        return None


@asynccontextmanager
async def following(bridge: Bridged, query: str = "", **headers: str) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port, limit=2**20)
    named = {"authorization": f"Bearer {bridge.token}", **{name.replace("_", "-"): text for name, text in headers.items()}}
    lines = [f"GET /v1/threads/{THREAD}/events{query} HTTP/1.1", "host: x", *(f"{n}: {t}" for n, t in named.items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status, *rest = head.strip().split("\r\n")
        yield Stream(reader, int(status.split()[1]), dict(line.lower().split(": ", 1) for line in rest))
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


def test_messages_come_as_they_are_posted_in_the_wires_form() -> None:
    async def test(bridge: Bridged) -> None:
        bridge.commands.put("one\nwith a line\u2028and ünicode")
        async with following(bridge) as stream:
            assert stream.status == 200
            assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert stream.headers["x-accel-buffering"] == "no"
            first = await stream.message()
            assert first is not None
            assert first["body"] == "one\nwith a line\u2028and ünicode"
            bridge.commands.put("two")
            second = await stream.message()
            assert second is not None
            assert (second["seq"], second["body"]) == (2, "two")

    on_bridge(test)


def test_a_reader_that_comes_again_misses_nothing_and_gets_nothing_twice() -> None:
    total = 400

    async def test(bridge: Bridged) -> None:
        async def post() -> None:
            for number in range(total):
                bridge.commands.put(str(number))
                await asyncio.sleep(0)

        got: list[int] = []
        posting = asyncio.create_task(post())
        last = ""
        while len(got) < total:
            async with following(bridge, **({"last_event_id": last} if last else {})) as stream:
                for _ in range(1 + len(got) % 7):  # cut off at changing places
                    if len(got) < total and (found := await stream.message()) is not None:
                        got.append(found["seq"])
                last = stream.last_id or last
        await posting
        assert got == list(range(1, total + 1))

    on_bridge(test)


@pytest.mark.parametrize(
    ("query", "headers", "first"),
    [("", {}, 1), ("?since_seq=2", {}, 3), ("", {"last_event_id": "1"}, 2), ("?since_seq=2", {"last_event_id": "1"}, 2)],
)
def test_it_begins_where_the_reader_is(query: str, headers: dict[str, str], first: int) -> None:
    async def test(bridge: Bridged) -> None:
        for number in range(3):
            bridge.commands.put(str(number))
        async with following(bridge, query, **headers) as stream:
            found = await stream.message()
            assert found is not None
            assert found["seq"] == first

    on_bridge(test)


@pytest.mark.parametrize("given", ["x", "-1", "1.5", "9" * 20, "%D9%A3"])
def test_a_place_that_is_none_is_refused(given: str) -> None:
    async def test(bridge: Bridged) -> None:
        answer = await bridge.ask("GET", f"/v1/threads/{THREAD}/events?since_seq={given}")
        assert answer.status == 400
        assert answer.json["error"]["details"].keys() == {"since_seq"}

    on_bridge(test)


def test_what_can_not_be_followed_is_refused_before_the_stream_begins() -> None:
    async def test(bridge: Bridged) -> None:
        assert (await bridge.ask("GET", f"/v1/threads/{THREAD}/events", authorization="")).status == 401
        assert (await bridge.ask("GET", "/v1/threads/thr_" + "1" * 32 + "/events")).status == 404
        assert (await bridge.ask("GET", "/v1/threads/x/events")).status == 400
        assert bridge.face.measures.streams == 0

    on_bridge(test)


def test_a_silent_thread_shows_signs_of_life() -> None:
    async def test(bridge: Bridged) -> None:
        async with following(bridge) as stream:
            async with asyncio.timeout(5):
                while stream.comments < 3:
                    line = await stream.line()
                    stream.comments += line is not None and line.startswith(":")
            assert bridge.face.measures.streams == 1
        await until(lambda: bridge.face.measures.streams == 0, what="the stream of a reader that left has ended")

    on_bridge(test, heartbeat=0.05)


def test_a_stream_ends_with_its_token() -> None:
    async def test(bridge: Bridged) -> None:
        async with following(bridge) as stream:
            await stream.line()
            bridge.verifier.revoked = frozenset({"t-1"})
            async with asyncio.timeout(5):
                assert await stream.message() is None

    on_bridge(test, heartbeat=0.05)


def test_a_revocation_ends_what_waits_under_that_token_and_no_more(capfd: pytest.CaptureFixture[str]) -> None:
    """Without a message or a sign of life: those would come after 15 s at the earliest."""

    async def test(bridge: Bridged) -> None:
        other = f"Bearer {bridge.key.sign(claims(jti='t-2'))}"
        asked = {"thread_id": THREAD, "wait_seconds": 30}
        async with following(bridge) as stream, following(bridge, authorization=other) as others:
            await stream.line(), await others.line()
            waiting = asyncio.create_task(bridge.post("read_messages", asked))
            waits_on = asyncio.create_task(bridge.post("read_messages", asked, authorization=other))
            await until(lambda: bridge.face.measures.polls == 2, what="both wait")
            bridge.verifier.revoked = frozenset({"t-1"})
            async with asyncio.timeout(5):
                assert (await waiting).status == 401
                assert await stream.message() is None
            bridge.commands.put("news")
            async with asyncio.timeout(5):
                assert (await waits_on).json["messages"][0]["body"] == "news"
                assert (await others.message() or {})["body"] == "news"

    on_bridge(test)
    assert capfd.readouterr().err.count(f'"rule": "{Rule.REVOKED}"') == 2


def test_a_message_after_the_revocation_does_not_go_out() -> None:
    async def test(bridge: Bridged) -> None:
        async with following(bridge) as stream:
            await stream.line()
            bridge.commands.put("before")
            async with asyncio.timeout(5):
                assert (await stream.message() or {})["body"] == "before"
            bridge.verifier.revoked = frozenset({"t-1"})
            bridge.commands.put("after")
            async with asyncio.timeout(5):
                assert await stream.message() is None

    on_bridge(test)


def test_who_waits_with_a_token_that_is_revoked_reads_nothing() -> None:
    async def test(bridge: Bridged) -> None:
        asked = {"thread_id": THREAD, "wait_seconds": 20}
        waiting = asyncio.create_task(bridge.post("read_messages", asked))
        await until(lambda: bridge.face.measures.polls == 1, what="it waits")
        bridge.verifier.revoked = frozenset({"t-1"})
        bridge.commands.put("after")
        async with asyncio.timeout(5):
            assert (await waiting).status == 401

    on_bridge(test)


def test_a_reader_that_takes_nothing_holds_one_read_at_most() -> None:
    async def test(bridge: Bridged) -> None:
        for _ in range(400):
            bridge.commands.put("x" * 60_000)
        async with following(bridge) as slow:
            assert slow.status == 200
            await until(lambda: len(bridge.commands.asked) >= 2, what="it was read ahead")
            await asyncio.sleep(0.3)
            asked = [one[2] for one in bridge.commands.asked]
            assert max(one.limit for one in asked) <= 2, "a read is as large as the messages let it be"
            assert asked[-1].since_seq < 200, "nobody reads on for who takes nothing"
            for number in range(1, 401):
                found = await slow.message()
                assert found is not None
                assert found["seq"] == number

    on_bridge(test)


class Hasty(BridgeProtocol):
    """The bridge's protocol with hardly any patience."""

    patience = 0.3


def test_a_reader_that_takes_nothing_is_cut_off_and_one_that_is_slow_is_not() -> None:
    async def test(bridge: Bridged) -> None:
        for _ in range(100):
            bridge.commands.put("x" * 60_000)
        async with following(bridge) as never, following(bridge) as slow:
            assert never.status == slow.status == 200
            for number in range(1, 101):
                found = await slow.message()
                assert found is not None
                assert found["seq"] == number
            await until(lambda: bridge.face.measures.streams == 1, what="one is cut off", within=5)
            bridge.commands.put("news")
            found = await slow.message()
            assert found is not None
            assert found["body"] == "news"

    on_bridge(test, protocol=Hasty)


def test_the_servers_end_ends_streams_and_polls_at_once() -> None:
    async def test(bridge: Bridged) -> None:
        async with following(bridge) as stream:
            await stream.line()
            bridge.face.stop()
            async with asyncio.timeout(5):
                assert await stream.message() is None

    on_bridge(test)


def test_a_poll_whose_client_has_left_gives_its_place_free() -> None:
    async def test(bridge: Bridged) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
        body = json.dumps({"thread_id": THREAD, "wait_seconds": 30}).encode()
        head = f"POST /v1/mcp/read_messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bridge.token}\r\n"
        writer.write(head.encode() + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        await until(lambda: bridge.face.measures.polls == 1, what="it waits")
        writer.close()
        await until(lambda: bridge.face.measures.polls == 0, what="its place is free", within=5)
        assert bridge.face.measures.open == 0

    on_bridge(test)


def test_two_hundred_polls_and_two_hundred_streams_wait_in_little_memory() -> None:
    """In a process of their own, so that nothing but the bridge is weighed."""

    async def test() -> None:
        process = await asyncio.create_subprocess_exec(
            _python(), "-m", "tests.contract.bridge_alone", stdout=asyncio.subprocess.PIPE, cwd=_top()
        )
        assert process.stdout is not None
        try:
            port, token = (await process.stdout.readline()).decode().split()
            body = json.dumps({"thread_id": THREAD, "wait_seconds": 30}).encode()
            head = f"POST /v1/mcp/read_messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
            poll = head.encode() + b"content-length: %d\r\n\r\n%b" % (len(body), body)
            stream = f"GET /v1/threads/{THREAD}/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n".encode()
            opened = [await asyncio.open_connection("127.0.0.1", int(port)) for _ in range(2 * MANY)]
            for number, (_, writer) in enumerate(opened):
                writer.write(poll if number % 2 else stream)
            await _until_open(int(port))
            memory = _resident(process.pid)
            began = time.monotonic()
            await asyncio.to_thread(_post, int(port), token)
            for number, (reader, _) in enumerate(opened):
                await asyncio.wait_for(reader.readuntil(b"HTTP/1.1 200 OK"), 10)
                await asyncio.wait_for(reader.readuntil(b"news"), 10)
                assert number >= 0
            took = time.monotonic() - began
            for _, writer in opened:
                writer.close()
            assert memory <= MOST_MEMORY, f"{memory / 2**20:.0f} MiB"
            assert took < 10
        finally:
            process.kill()
            await process.wait()

    asyncio.run(test())


def _python() -> str:
    import sys

    return sys.executable


def _top() -> str:
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _post(port: int, token: str) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    body = json.dumps({"thread_id": THREAD, "body": "news"})
    connection.request("POST", "/v1/mcp/post_message", body, {"authorization": f"Bearer {token}"})
    assert connection.getresponse().status == 200
    connection.close()


async def _until_open(port: int) -> None:
    import http.client

    def seen() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return f"kloros_bridge_streams_open{{}} {MANY}.0" in text and f"kloros_bridge_polls_waiting{{}} {MANY}.0" in text

    deadline = time.monotonic() + 20
    while not await asyncio.to_thread(seen):
        assert time.monotonic() < deadline, "they all wait"


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        found = re.search(r"VmRSS:\s+(\d+) kB", file.read())
    assert found
    return int(found[1]) * 1024
