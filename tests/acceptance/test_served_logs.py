"""A cycle's log and files, served: whole, in ranges, and followed while it is written; slow and many readers."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.host import Host
from tests.acceptance.serving import Event, Served, Writing, descriptors, handed_over, residents, serving
from tests.waiting import until

HOSTILE = b"<script>alert(1)</script>\x1b[31m\x07 data: x\n\nevent: end\ndata: {}\n\n\r\n caf\xc3\xa9 \xff\xfe \xe2\x82"


@pytest.fixture
def writing(host: Host) -> Iterator[Writing]:
    running = Writing(host)
    yield running
    running.end()
    until(lambda: host.rows("SELECT state FROM cycles") == [("succeeded",)], what="the cycle ends")


def taken(events: Iterator[Event], enough: Callable[[str], bool]) -> tuple[str, int]:
    """Take log events until the text is enough; returns it, and the last id."""
    text = ""
    for event in events:
        assert event.name == "log", event
        text += event.data
        if enough(text):
            return text, event.id
    raise AssertionError(f"the stream ended with {text!r}")


def to_the_end(events: Iterator[Event]) -> tuple[str, Event]:
    """Take everything; returns the text, and the event that ends it."""
    text = ""
    for event in events:
        if event.name != "log":
            return text, event
        text += event.data
    raise AssertionError(f"the stream broke off with {text!r}")


def test_a_running_log_is_followed_without_a_gap_until_it_ends(host: Host, writing: Writing) -> None:
    with serving(host) as served:
        writing.write(b"first\n")
        with served.follow(1) as events:
            assert taken(events, lambda text: text == "first\n")[1] == 6
            writing.write("größer\n".encode())
            _, known = taken(events, lambda text: text == "größer\n")
        writing.write(b"while nobody looked\n")
        with served.follow(1, Last_Event_ID=str(known)) as events:
            writing.write(b"and after")
            taken(events, lambda text: text == "while nobody looked\nand after")
            writing.end()
            text, last = to_the_end(events)
        assert (text, last.name, last.data) == ("", "end", {"state": "succeeded"})
        size = writing.log.stat().st_size
        assert last.id == size
        assert served.get("/api/v1/cycles/1/log?follow=1", Last_Event_ID=str(size)).status == 204
        with served.follow(1, "follow=1&from=-5") as events:
            assert to_the_end(events)[0] == "after"
        with served.follow(1, "", Accept="text/event-stream") as events:
            assert to_the_end(events)[0] == writing.log.read_text()


def test_whatever_a_command_prints_is_text_in_one_event(host: Host, writing: Writing) -> None:
    with serving(host) as served:
        writing.write(HOSTILE)
        with served.follow(1) as events:
            seen, _ = taken(events, lambda text: text.endswith("caf\u00e9 \ufffd\ufffd "))
            assert "<script>alert(1)</script>\x1b[31m\x07 data: x\n\nevent: end" in seen
            writing.write(b"\xac whole\n")
            assert taken(events, lambda text: text.endswith("\n"))[0] == "\u20ac whole\n", "no character is torn"
            line = b"x" * 10_000_000
            writing.write(line)
            assert len(taken(events, lambda text: len(text) >= len(line))[0]) == len(line)
        page = served.get("/api/v1/cycles/1/log")
        assert page.headers["content-type"] == "text/plain; charset=utf-8"
        assert page.body == writing.log.read_bytes()
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["content-security-policy"].startswith("default-src 'none'")


def test_a_log_that_is_cut_short_or_replaced_begins_again(host: Host, writing: Writing) -> None:
    with serving(host) as served:
        writing.write(b"0123456789\n")
        with served.follow(1) as events:
            taken(events, lambda text: text == "0123456789\n")
            os.truncate(writing.log, 0)
            assert next(events) == Event("reset", {"reason": "cut short"}, 0)
            beside = writing.log.with_name("new.log")
            beside.write_bytes(b"abc\n")
            beside.rename(writing.log)
            assert next(events) == Event("reset", {"reason": "replaced"}, 0)
            assert taken(events, lambda text: text == "abc\n")[1] == 4
        with served.follow(1, Last_Event_ID="4000") as events:
            assert next(events).name == "reset"
            assert next(events).data == "abc\n"


def test_ranges_of_a_log(host: Host, writing: Writing) -> None:
    writing.write(b"0123456789")
    with serving(host) as served:
        path = "/api/v1/cycles/1/log"
        for asked, status, content, body in (
            ("bytes=2-4", 206, "bytes 2-4/10", b"234"),
            ("bytes=7-", 206, "bytes 7-9/10", b"789"),
            ("bytes=-3", 206, "bytes 7-9/10", b"789"),
            ("bytes=-300", 206, "bytes 0-9/10", b"0123456789"),
            ("bytes=0-999999999999999999999", 206, "bytes 0-9/10", b"0123456789"),
            ("bytes=4-2", 200, None, b"0123456789"),
            ("lines=1-2", 200, None, b"0123456789"),
            ("bytes=0-1,3-4", 200, None, b"0123456789"),
        ):
            answer = served.get(path, Range=asked)
            assert (answer.status, answer.headers.get("content-range"), answer.body) == (status, content, body), asked
        for beyond in ("bytes=10-", "bytes=99999999999999999999-", "bytes=-0"):
            answer = served.get(path, Range=beyond)
            assert (answer.status, answer.headers["content-range"]) == (416, "bytes */10"), beyond
        head = served.get(path, method="HEAD")
        assert (head.headers["content-length"], head.body) == ("10", b"")
        etag = head.headers["etag"]
        writing.write(b"more")
        assert served.get(path, Range="bytes=2-4", If_Range=etag).status == 200, "it is no longer that file"
        assert served.get("/api/v1/cycles/2/log").status == 404


def test_only_what_the_manifest_lists_is_given_out(host: Host) -> None:
    artifact = 'mkdir artifacts/sub; printf "%s" "$0" >"artifacts/sub/<b> é.html"; ln -s /etc/passwd artifacts/link'
    host.configure(f"[dream]\ncommand = ['sh', '-c', '{artifact}', '<script>alert(1)</script>']\n")
    host.stepwise()
    host.promote("one")
    host.decided()
    host.run_queued()
    folder = host.state / "cycles/cycle_00001"
    (folder / "artifacts/later").write_text("nobody listed this")
    (host.state / "cycles/secret").write_text("secret")
    with serving(host) as served:
        base = "/api/v1/cycles/1/files"
        got = served.get(f"{base}/artifacts%2Fsub%2F%3Cb%3E%20%C3%A9.html")
        assert (got.status, got.text) == (200, "<script>alert(1)</script>")
        assert got.headers["content-type"] == "application/octet-stream"
        disposition = got.headers["content-disposition"]
        assert disposition == "attachment; filename=\"_b_ _.html\"; filename*=UTF-8''%3Cb%3E%20%C3%A9.html"
        assert served.get(f"{base}/artifacts/sub/%3Cb%3E%20%C3%A9.html").status == 200
        for path in (
            "artifacts/link",
            "artifacts/later",
            "../secret",
            "..%2fsecret",
            "%2e%2e/%2e%2e/kloros.db",
            "/etc/passwd",
            "%2Fetc%2Fpasswd",
            "artifacts",
            "artifacts/",
            "",
            "manifest.json%00",
            "%ff",
        ):
            assert served.get(f"{base}/{path}").status == 404, path
        listed = folder / "artifacts/sub/<b> é.html"
        listed.unlink()
        listed.symlink_to("/etc/passwd")
        assert served.get(f"{base}/artifacts/sub/%3Cb%3E%20%C3%A9.html").status == 404, "a link is never followed"
        listed.unlink()
        (folder / "artifacts/sub").rmdir()
        (folder / "artifacts/sub").symlink_to("/etc")
        assert served.get(f"{base}/artifacts/sub/%3Cb%3E%20%C3%A9.html").status == 404


@contextmanager
def followers(served: Served, number: int) -> Iterator[list[socket.socket]]:
    """So many readers of cycle 1's log who take nothing by themselves."""
    with ExitStack() as held:
        opened = []
        for _ in range(number):
            one = held.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=30))
            one.sendall(b"GET /api/v1/cycles/1/log?follow=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            opened.append(one)
        yield opened


def test_two_hundred_follow_and_the_257th_is_told_to_wait(host: Host, writing: Writing) -> None:
    writing.write(b"begun\n")
    with serving(host) as served, followers(served, 256) as readers:
        gauge = "kloros_http_followers{} 256.0"
        until(lambda: gauge in served.get("/metrics").text, what="all follow")
        refused = served.get("/api/v1/cycles/1/log?follow=1")
        assert (refused.status, refused.headers["retry-after"]) == (503, "30")
        began = time.monotonic()
        writing.write(b"to all of you\n")
        for one in readers:
            seen = b""
            while b"to all of you" not in seen:
                part = one.recv(65536)
                assert part
                seen += part
        assert time.monotonic() - began < 10
        assert descriptors(served.process.pid) < 1024
        began = time.monotonic()
        assert served.stop() == 0
        assert time.monotonic() - began < 2.5, "open streams do not hold it up: what lasts is cut off after 3 s"


def test_readers_who_take_nothing_cost_little(host: Host, writing: Writing) -> None:
    with writing.log.open("ab") as log:
        log.truncate(200_000_000)
    with serving(host) as served:
        served.get("/metrics")
        before = residents(served.process.pid)
        with followers(served, 20), ExitStack() as held:
            for _ in range(20):
                one = held.enter_context(socket.create_connection(("127.0.0.1", served.port)))
                one.sendall(b"GET /api/v1/cycles/1/log HTTP/1.1\r\nHost: localhost\r\n\r\n")
            until(lambda: "kloros_http_requests_open{} 41.0" in served.get("/metrics").text, what="all read")
            assert residents(served.process.pid) - before < 60_000_000
            began = time.monotonic()
            assert served.get("/metrics").status == 200
            assert time.monotonic() - began < 2


def test_an_open_stream_is_activity(host: Host, writing: Writing) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, handed_over(host, listener, "--idle-exit", "1s") as served:
        with served.follow(1) as events:
            writing.write(b"x\n")
            taken(events, lambda text: text == "x\n")
            with pytest.raises(AssertionError, match="not within"):
                until(lambda: served.process.poll() is not None, what="it ends", within=2.5)
            writing.write(b"y\n")
            taken(events, lambda text: text == "y\n")
        assert served.process.wait(10) == 0


def test_reading_keeps_no_tick_from_its_store(host: Host) -> None:
    host.decided()
    with serving(host) as served:
        stop = threading.Event()
        wrong: list[bytes] = []

        def read() -> None:
            while not stop.is_set():
                answer = served.get("/api/v1/health")
                if answer.status != 200 or json.loads(answer.body)["schema"] != "v1":
                    wrong.append(answer.body)

        readers = [threading.Thread(target=read) for _ in range(4)]
        for one in readers:
            one.start()
        try:
            for _ in range(10):
                assert host.tick("--json").returncode == 0
        finally:
            stop.set()
            for one in readers:
                one.join()
        assert not wrong, wrong[0]
        assert host.rows("SELECT count(*) FROM ticks") == [(11,)]


def test_a_name_that_is_no_utf_8_is_listed_and_given_out(host: Host) -> None:
    host.configure("[dream]\ncommand = ['python3', '-c', 'open(b\"artifacts/\\xff<b>\", \"w\").write(\"odd\")']\n")
    host.stepwise()
    host.promote("one")
    host.decided()
    host.run_queued()
    with serving(host) as served:
        listed = [one["path"] for one in served.get("/api/v1/cycles/1").json["artifacts"]]
        assert "artifacts/\\xff<b>" in listed
        page = served.get("/cycles/1", Accept="text/html")
        assert page.status == 200
        (address,) = re.findall(r'href="(/api/v1/cycles/1/files/[^"]*xff[^"]*)"', page.text)
        assert served.get(address).text == "odd"
        assert served.get("/api/v1/cycles/1/files/artifacts/%FF%3Cb%3E").text == "odd"


def test_the_same_bytes_as_the_checksum_says(host: Host, tmp_path: Path) -> None:
    host.configure("[dream]\ncommand = ['sh', '-c', 'head -c 3000000 /dev/urandom >artifacts/big']\n")
    host.stepwise()
    host.promote("one")
    host.decided()
    host.run_queued()
    with serving(host) as served:
        detail = served.get("/api/v1/cycles/1").json
        (listed,) = [one for one in detail["artifacts"] if one["path"] == "artifacts/big"]
        got = served.get("/api/v1/cycles/1/files/artifacts/big")
        assert hashlib.sha256(got.body).hexdigest() == listed["sha256"]
        whole = got.body
        parts = [served.get("/api/v1/cycles/1/files/artifacts/big", Range=f"bytes={at}-{at + 999_999}").body
                 for at in range(0, 3_000_000, 1_000_000)]  # fmt: skip
        assert b"".join(parts) == whole
