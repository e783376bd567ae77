"""The bridge as it is served: the process, its tokens, the real commands over the real store, and Pulse beside it."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from orchestration.exits import Exit
from tests.acceptance.anything import ask_anything
from tests.acceptance.host import Host
from tests.acceptance.serving import Served, residents, serving
from tests.acceptance.talking import Agent, issue, post
from tests.contract import postgres
from tests.waiting import until

CASES = int(os.environ.get("KLR_TEST_API_CASES", "10000"))
"""How many cases Schemathesis makes at least, in all."""
ROLES = ("participant", "coordinator", "auditor")
STREAM_CASES = 200
MANY = 200
MOST_MEMORY = 150 * 1024 * 1024


def test_two_agents_talk_and_nobody_else_hears(host: Host) -> None:
    with serving(host, "--bridge") as served:
        tokens = {name: issue(host, name) for name in ("executioner", "reviewer", "stranger")}
        executioner, reviewer, stranger = (Agent(served, token) for token in tokens.values())
        foreigner = Agent(served, issue(host, "reviewer", "--workspace", "elsewhere"))
        thread = executioner.ask("create_thread", workspace_id="kloros", title="Retry patch", participants=["reviewer"])
        thread_id = thread["thread_id"]
        with reviewer.events(thread_id) as heard:
            executioner.ask("post_message", thread_id=thread_id, body="done")
            while (message := next(heard))["kind"] == "system":
                pass
            assert (message["sender"], message["body"]) == ("executioner", "done")
        read = reviewer.ask("read_messages", thread_id=thread_id, since_seq=message["seq"] - 1)
        assert [one["body"] for one in read["messages"]] == ["done"]
        stranger.ask("get_thread", thread_id=thread_id, status=403)
        unknown = foreigner.ask("get_thread", thread_id=thread_id, status=404)["error"]
        assert unknown == foreigner.ask("get_thread", thread_id="thr_" + "0" * 32, status=404)["error"]
        waiting: list[Any] = []
        poll = threading.Thread(
            target=lambda: waiting.append(
                reviewer.ask("read_messages", thread_id=thread_id, since_seq=read["next_seq"], wait_seconds=20)
            )
        )
        poll.start()
        until(lambda: "kloros_bridge_polls_waiting{} 1.0" in served.get("/metrics").text, what="it waits")
        began = time.monotonic()
        executioner.ask("post_message", thread_id=thread_id, body="news")
        poll.join(10)
        assert time.monotonic() - began < 5
        assert waiting[0]["messages"][0]["body"] == "news"
        refused = {line["rule"] for line in served.log("request.refused")}
        assert len(refused) >= 2
        for token in tokens.values():
            assert not any(part in line for line in served.lines for part in token.split("."))


def test_a_reader_that_comes_again_and_again_misses_nothing_while_many_write(host: Host) -> None:
    writers, each = 4, 25
    with serving(host, "--bridge", KLR_BRIDGE_AGENT_POSTS_PER_MINUTE="0", KLR_BRIDGE_MAX_TURNS="0") as served:
        names = [f"writer-{number}" for number in range(writers)]
        reader = Agent(served, issue(host, "reader"))
        agents = [Agent(served, issue(host, name)) for name in names]
        thread_id = reader.ask("create_thread", workspace_id="kloros", title="many", participants=names)["thread_id"]

        def write(agent: Agent, number: int) -> None:
            for at in range(each):
                metadata = {"event_type": f"step_{number}_{at}"}  # each is progress
                agent.ask("post_message", thread_id=thread_id, kind="event", body=str(at), metadata=metadata)

        writing = [threading.Thread(target=write, args=(agent, number)) for number, agent in enumerate(agents)]
        for one in writing:
            one.start()
        got: list[int] = []
        while sum(1 for _ in got) < writers * each:
            with reader.events(thread_id, last=got[-1] if got else 0) as heard:
                for _ in range(1 + len(got) % 5):
                    if len(got) < writers * each:
                        got.append(next(heard)["seq"])
        for one in writing:
            one.join(20)
        assert got == list(range(got[0], got[0] + len(got)))
        assert got[0] == 1


def test_a_revoked_token_and_a_rotated_key_are_known_within_seconds(host: Host) -> None:
    with serving(host, "--bridge") as served:
        first, second = issue(host, "executioner"), issue(host, "executioner")
        for token in (first, second):
            Agent(served, token).ask("list_threads")
        (id_of_first, _) = [row["token_id"] for row in json.loads(host.run("klorosctl", "token", "list", "--json").stdout)]
        host.run("klorosctl", "token", "revoke", id_of_first)
        until(lambda: post(served, "/v1/mcp/list_threads", {}, first).status == 401, what="it is known", within=5)
        assert host.run("klorosctl", "token", "rotate").returncode == 0
        third = issue(host, "executioner")
        Agent(served, third).ask("list_threads")
        Agent(served, second).ask("list_threads")
        until(lambda: len(served.get("/.well-known/jwks.json").json["keys"]) == 2, what="both keys are public", within=5)
        assert all("d" not in key for key in served.get("/.well-known/jwks.json").json["keys"])


def test_pulse_is_beside_it_and_neither_token_opens_the_other(host: Host) -> None:
    secret = "a-token-of-pulse-0123456789"
    path = host.home / "pulse-token"
    path.write_text(secret)
    path.chmod(0o600)
    with serving(host, "--bridge", "--token-file", str(path)) as served:
        token = issue(host, "executioner")
        assert served.get("/").status == 401
        assert served.get("/", authorization=f"Bearer {secret}").status == 200
        assert served.get("/api/v1/health", authorization=f"Bearer {token}").status == 401
        assert served.get("/api/v1/health", authorization=f"Bearer {secret}").status == 200
        assert post(served, "/v1/mcp/list_threads", {}, secret).status == 401
        assert post(served, "/v1/mcp/list_threads", {}, token).status == 200
        assert served.get("/metrics").status == 401
        assert served.get("/metrics", authorization=f"Bearer {token}").status == 401
        metrics = served.get("/metrics", authorization=f"Bearer {secret}")
        assert "kloros_bridge_requests_total" in metrics.text
        assert served.get("/ready").json == {"ready": True, "reasons": {}}


def test_a_page_of_somebody_elses_can_not_read_the_metrics(host: Host) -> None:
    """A browser asks under the name that an attacker has made lead to this host."""
    with serving(host, "--bridge") as served:
        assert served.get("/metrics").status == 200
        assert served.get("/metrics", host="evil.example").status == 401


def test_it_tells_systemd_that_it_is_ready_lives_and_ends(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(path))
        told.settimeout(20)
        with serving(host, "--bridge", NOTIFY_SOCKET=str(path)) as served:
            said = [told.recv(100), told.recv(100), told.recv(100)]
            assert said[0] == b"READY=1"
            assert said[1:] == [b"WATCHDOG=1", b"WATCHDOG=1"]
            assert served.stop() == 0
            while (last := told.recv(100)) == b"WATCHDOG=1":
                pass
            assert last == b"STOPPING=1"


def test_what_was_told_is_there_after_a_restart(host: Host) -> None:
    token = issue(host, "executioner")
    with serving(host, "--bridge") as served:
        agent = Agent(served, token)
        thread_id = agent.ask("create_thread", workspace_id="kloros", title="kept")["thread_id"]
        seq = agent.ask("post_message", thread_id=thread_id, body="kept")["seq"]
        served.process.kill()
        served.process.wait()
    with serving(host, "--bridge") as served, Agent(served, token).events(thread_id, last=seq - 1) as heard:
        assert next(heard)["body"] == "kept"


def test_it_listens_where_its_own_settings_say(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    host.configure(f"[bridge]\nport = {port}\n[pulse]\nport = 1\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestration.serve", "--bridge"],
        env=host.environ,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        def answers() -> bool:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
                try:
                    connection.request("GET", "/health")
                    return connection.getresponse().status == 200
                except OSError:
                    return False

        until(answers, what="it answers there")
    finally:
        process.kill()
        process.wait()


def test_other_hosts_are_served_with_a_token_for_the_page_only(host: Host) -> None:
    done = host.run("serve", "--bridge", "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == Exit.SETTINGS_INVALID
    assert "can be reached from other hosts" in done.stderr


def test_without_its_packages_it_says_what_to_install(host: Host, tmp_path: Path) -> None:
    (tmp_path / "httptools.py").write_text("raise ImportError('no', name='httptools')\n")
    host.set(PYTHONPATH=str(tmp_path))
    done = host.run("serve", "--bridge", "--port", "0")
    assert done.returncode == Exit.USAGE
    assert "install.sh --with bridge" in done.stderr


def test_two_hundred_polls_and_two_hundred_streams_wait_in_little_memory(host: Host) -> None:
    with serving(host, "--bridge") as served, ExitStack() as opened:
        token = issue(host, "executioner")
        agent = Agent(served, token)
        thread_id = agent.ask("create_thread", workspace_id="kloros", title="quiet")["thread_id"]
        last = agent.ask("get_thread", thread_id=thread_id)["last_seq"]
        body = json.dumps({"thread_id": thread_id, "wait_seconds": 30, "since_seq": last}).encode()
        head = f"host: x\r\nauthorization: Bearer {token}\r\n"
        poll = f"POST /v1/mcp/read_messages HTTP/1.1\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body
        stream = f"GET /v1/threads/{thread_id}/events?since_seq={last} HTTP/1.1\r\n{head}\r\n".encode()
        sockets = []
        for number in range(2 * MANY):
            one = opened.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=20))
            one.sendall(poll if number % 2 else stream)
            sockets.append(one)

        def waiting() -> bool:
            text = served.get("/metrics").text
            return f"streams_open{{}} {MANY}.0" in text and f"polls_waiting{{}} {MANY}.0" in text

        until(waiting, what="they all wait")
        memory = residents(served.process.pid)
        began = time.monotonic()
        agent.ask("post_message", thread_id=thread_id, body="news-for-all")
        for one in sockets:
            held = b""
            while b"news-for-all" not in held:
                part = one.recv(65_536)
                assert part, held
                held += part
        took = time.monotonic() - began
        print(f"{memory / 2**20:.0f} MiB; all 400 were told within {took:.2f} s")
        assert memory <= MOST_MEMORY, f"{memory / 2**20:.0f} MiB"
        assert took < 10


@pytest.mark.parametrize("role", ROLES)
def test_nothing_that_is_asked_is_answered_otherwise_than_described(host: Host, tmp_path: Path, role: str) -> None:
    off = dict.fromkeys(("KLR_BRIDGE_AGENT_POSTS_PER_MINUTE", "KLR_BRIDGE_THREAD_POSTS_PER_MINUTE"), "0")
    with serving(host, "--bridge", **off) as served:
        described = served.get("/v1/openapi.json").json
        operations = sum("post" in methods for methods in described["paths"].values())
        # A wait is a wait: nobody here posts meanwhile.
        described["components"]["schemas"]["ReadMessages"]["properties"]["wait_seconds"]["maximum"] = 0.01
        cases = -(-CASES // len(ROLES) // operations)
        told = _ask_anything(served, described, tmp_path, issue(host, "executioner", "--role", role), cases, "exclude")
        (generated,) = re.findall(r"(\d+) generated", told)
        statuses = re.findall(r'operation="(\w+)",method="POST",status="200"', served.get("/metrics").text)
        print(f"{role}: {generated} cases; 200 from {', '.join(sorted(statuses))}")
        assert int(generated) >= CASES // len(ROLES)


def test_no_event_stream_is_refused_otherwise_than_described(host: Host, tmp_path: Path) -> None:
    """A granted stream has no end, which Schemathesis would wait for: contract/test_bridge_events.py asks for those."""
    with serving(host, "--bridge") as served:
        described = served.get("/v1/openapi.json").json
        token = issue(host, "executioner", "--role", "coordinator")
        told = _ask_anything(served, described, tmp_path, token, STREAM_CASES, "include")
        (generated,) = re.findall(r"(\d+) generated", told)
        assert int(generated) >= STREAM_CASES


def _ask_anything(served: Served, described: dict[str, Any], folder: Path, token: str, cases: int, streams: str) -> str:
    """Ask for all that is described but event streams, or for those alone."""
    document = folder / "openapi.json"
    document.write_text(json.dumps(described))
    # What is too long is refused as too large, which Schemathesis does not count among refusals by itself.
    refusals = "[checks.negative_data_rejection]\nexpected-statuses = [400, 401, 403, 404, 413]\n"
    (folder / "schemathesis.toml").write_text(refusals)
    where = ("--url", f"http://127.0.0.1:{served.port}", "-H", f"Authorization: Bearer {token}")
    which = (f"--{streams}-operation-id", "thread_events")
    told = ask_anything(str(document), *where, *which, cases=cases, folder=folder, within=1800)
    assert not served.log("bridge.failed")
    return told


@pytest.mark.parametrize("path", ["/v1/docs", "/v1/openapi.json"])
def test_the_description_is_open_and_named_alike(host: Host, path: str) -> None:
    with serving(host, "--bridge") as served:
        assert served.get(path).status == 200


def test_every_post_beyond_the_rate_is_in_the_audit_when_the_bridge_has_ended(host: Host) -> None:
    with serving(host, "--bridge", KLR_BRIDGE_AGENT_POSTS_PER_MINUTE="1") as served:
        agent = Agent(served, issue(host, "executioner"))
        thread_id = agent.ask("create_thread", title="Retry")["thread_id"]
        posts = [post(served, "/v1/mcp/post_message", {"thread_id": thread_id, "body": "x"}, agent.token) for _ in range(50)]
        refused = sum(one.status == 429 for one in posts)
        assert refused >= 48  # a minute may have ended meanwhile
        served.process.terminate()
        assert served.process.wait(20) == 0
    listed = json.loads(host.run("klorosctl", "audit", "list", "--json").stdout)
    rows = [row for row in listed if row["outcome"] == "RATE_LIMITED"]
    assert sum(row["after"]["refusals"] if row["after"] else 1 for row in rows) == refused
    assert len(rows) <= 4


def test_what_was_refused_is_in_the_audit_with_who_asked(host: Host) -> None:
    with serving(host, "--bridge") as served:
        agent, auditor = Agent(served, issue(host, "executioner")), Agent(served, issue(host, "ada", "--role", "auditor"))
        agent.ask("create_thread", workspace_id="kloros", title="", status=400)
        agent.ask("create_thread", workspace_id="elsewhere", title="t", status=403)
        agent.ask("post_message", thread_id="thr_" + "0" * 32, body="x" * 600_000, status=413)
        token = {"authorization": f"Bearer {agent.token}"}
        assert served.get("/v1/threads/x/events", **token).status == 400
        assert served.get(f"/v1/threads/thr_{'0' * 32}/events?since_seq=x", **token).status == 400
        assert served.get(f"/v1/threads/thr_{'0' * 32}/events", **token).status == 404
        assert post(served, "/mcp", "x" * 600_000, agent.token, content_type="application/json").status == 413
        assert post(served, "/v1/mcp/list_threads", {}, "nonsense").status == 401
        entries = auditor.ask("get_audit")["entries"]
        told = [(one["actor"], one["operation"], one["outcome"]) for one in entries]
        assert told == [
            ("executioner", "create_thread", "INVALID_ARGUMENT"),
            ("executioner", "create_thread", "WORKSPACE_MISMATCH"),
            ("executioner", "post_message", "PAYLOAD_TOO_LARGE"),
            ("executioner", "read_messages", "INVALID_ARGUMENT"),
            ("executioner", "read_messages", "INVALID_ARGUMENT"),
            ("executioner", "read_messages", "NOT_FOUND"),
            ("executioner", "mcp", "PAYLOAD_TOO_LARGE"),
        ]
        assert all(one["rule"] and one["request_id"] for one in entries)
        assert [one["rule"] for one in entries] == [
            line["rule"] for line in served.log("request.refused") if line["status"] != 401
        ]


def test_a_database_that_goes_and_comes_back_is_503_meanwhile_and_needs_no_restart(host: Host) -> None:
    if told := postgres.missing():
        pytest.fail(told) if os.environ.get("CI") == "true" else pytest.skip(told)
    with postgres.running() as cluster, serving(host, "--bridge", KLR_DATABASE_URL=cluster.new_database()) as served:
        agent = Agent(served, issue(host, "executioner"))
        thread_id = agent.ask("create_thread", workspace_id="kloros", title="over PostgreSQL")["thread_id"]
        agent.ask("post_message", thread_id=thread_id, body="before")
        with agent.events(thread_id) as heard:
            assert next(heard)["body"] == "before"
            cluster.stop("immediate")
            began = time.monotonic()
            answer = post(served, "/v1/mcp/post_message", {"thread_id": thread_id, "body": "lost"}, agent.token)
            assert time.monotonic() - began < 10
            assert (answer.status, answer.json["error"]["code"]) == (503, "UNAVAILABLE"), answer
            assert answer.json["error"]["retryable"] is True
            assert int(answer.headers["retry-after"]) >= 1
            assert "SELECT" not in answer.text
            assert "lost" not in answer.text
            ready = served.get("/ready")
            assert (ready.status, list(ready.json["reasons"])) == (503, ["store"])
            assert served.get("/health").status == 200
        cluster.start()
        until(lambda: served.get("/ready").status == 200, what="it is ready again")
        seq = agent.ask("post_message", thread_id=thread_id, body="after")["seq"]
        with agent.events(thread_id, last=seq - 1) as heard:
            assert next(heard)["body"] == "after"
        assert not served.log("bridge.failed")
        assert not (host.state / "kloros.db").exists() or b"over PostgreSQL" not in (host.state / "kloros.db").read_bytes()


def test_a_store_that_a_newer_release_has_taken_over_is_told(host: Host) -> None:
    with serving(host, "--bridge") as served:
        with closing(sqlite3.connect(host.state / "kloros.db")) as db:
            db.execute("PRAGMA user_version = 9999")
        ready = served.get("/ready")
        assert (ready.status, list(ready.json["reasons"])) == (503, ["store"])
