"""Pulse served: what a real process answers, from its first byte to its exit code."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from base64 import b64encode
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from orchestration.exits import Exit
from tests.acceptance.host import Host
from tests.acceptance.serving import handed_over, serving
from tests.waiting import until

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
TOKEN = "tXq7Zk0vB2mN4pR6s8uWy"


def test_it_says_that_it_lives_and_whether_the_loop_is_at_work(host: Host) -> None:
    with serving(host) as served:
        health = served.get("/health").json
        assert health["status"] == "ok"
        assert health["pid"] == served.process.pid
        before = served.get("/ready")
        assert before.status == 503
        assert before.json["reasons"][0]["detail"].startswith("there is no store at")
        host.decided()
        assert served.get("/ready").json == {"ready": True, "reasons": []}, "without a restart"


def test_the_metrics_are_the_textfile_and_more_in_both_formats(host: Host) -> None:
    host.decided()
    written = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_families(host.textfile.read_text())
        for sample in family.samples
    }
    with serving(host) as served:
        for accept, content_type, families in (
            ("", "text/plain; version=0.0.4; charset=utf-8", text_families),
            ("text/html,*/*;q=0.8", "text/plain; version=0.0.4; charset=utf-8", text_families),
            (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8", openmetrics_families),
        ):
            answer = served.get("/metrics", Accept=accept)
            assert answer.headers["content-type"] == content_type
            found = {
                (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                for family in families(answer.text)
                for sample in family.samples
            }
            assert written.keys() <= found.keys()
            moving = {"kloros_state_free_bytes"}
            assert all(found[one] == value for one, value in written.items() if one[0] not in moving)
            assert {name for name, _ in found.keys() - written.keys()} >= {
                "kloros_http_requests_open",
                "kloros_http_followers",
            }
            assert answer.text.endswith("# EOF\n") == (families is openmetrics_families)
        again = served.get("/metrics").text
        assert 'kloros_http_requests_total{route="/metrics",method="GET",status="200"} 3.0' in again


def test_promtool_finds_no_fault_in_the_scrape(host: Host) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    host.decided()
    with serving(host) as served:
        served.get("/api/v1/cycles/1")
        text = served.get("/metrics").text
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_staleness_is_seen_without_any_tick(host: Host) -> None:
    """The textfile of a host whose timer died still says `ok`."""
    host.decided()
    with serving(host) as served:
        assert 'kloros_health_verdict{verdict="ok"} 1.0' in served.get("/metrics").text
        changed = "UPDATE counters SET value = value - 3600 WHERE name LIKE '%_last_%_timestamp_seconds'"
        with sqlite3.connect(host.state / "kloros.db") as store:
            store.execute(changed)
        text = served.get("/metrics").text
        assert 'kloros_health_condition{condition="tick_stale"} 1.0' in text
        ready = served.get("/ready")
        assert (ready.status, [one["reason"] for one in ready.json["reasons"]]) == (503, ["tick_stale"])


def test_the_page_is_for_browsers_and_problems_are_for_whom_they_are(host: Host) -> None:
    host.decided()
    with serving(host) as served:
        page = served.get("/", Accept="text/html,application/xhtml+xml")
        assert page.status == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert "server" not in page.headers

        for path in re.findall(r"/static/[^\"]+", page.text):
            asset = served.get(path)
            assert asset.status == 200
            assert "immutable" in asset.headers["cache-control"]
            assert served.get(path, If_None_Match=asset.headers["etag"]).status == 304
            assert served.get(path.partition("?")[0]).headers["cache-control"] == "no-cache"

        nowhere = served.get("/nowhere", Accept="text/html")
        assert (nowhere.status, nowhere.headers["content-type"]) == (404, "text/html; charset=utf-8")
        problem = served.get("/nowhere", Accept="application/json")
        assert problem.headers["content-type"] == "application/problem+json"
        assert problem.json["hint"]
        posted = served.get("/api/v1/health", method="POST")
        assert (posted.status, posted.headers["allow"]) == (405, "GET,HEAD".replace(",", ", "))
        wrong = served.get("/api/v1/health?cycles=many")
        assert (wrong.status, wrong.json["detail"]) == (400, "cycles = 'many' is no whole number from 0 to 500")
        unknown = served.get("/api/v1/health?cycle=3").json
        assert unknown["hint"] == "known here: cycles"
        assert served.get("/", method="HEAD").body == b""


def test_what_can_not_be_read_is_503_until_it_is_mended(host: Host) -> None:
    host.decided()
    store = host.state / "kloros.db"
    with serving(host) as served:
        store.rename(host.home / "aside")
        store.write_bytes(b"this is no database at all, " * 100)
        for path in ("/metrics", "/api/v1/health", "/ready"):
            assert served.get(path).status == 503, path
        broken = served.get("/api/v1/health").json
        assert "file is not a database" in broken["detail"]
        assert "klorosctl doctor" in broken["hint"]
        page = served.get("/", Accept="text/html")
        assert page.status == 503
        assert "not a database" in page.text
        assert served.get("/health").status == 200
        (host.home / "aside").rename(store)
        assert served.get("/ready").status == 200


def test_a_store_of_another_release_is_told(host: Host) -> None:
    host.decided()
    with sqlite3.connect(host.state / "kloros.db") as store:
        (version,) = store.execute("PRAGMA user_version").fetchone()
        store.execute(f"PRAGMA user_version = {version - 1}")
    with serving(host) as served:
        (reason,) = served.get("/ready").json["reasons"]
        assert f"has schema version {version - 1}; this program knows {version}" in reason["detail"]
        assert reason["hint"] == "the next tick migrates it: klorosctl tick"


def test_a_name_that_was_made_to_lead_here_is_refused(host: Host) -> None:
    host.decided()
    with serving(host, "--hosts", "pulse.example.org,other.example.org") as served:
        port = served.port
        for name in ("127.0.0.1", "localhost", "[::1]", socket.gethostname(), "pulse.example.org", "OTHER.example.org."):
            assert served.get("/health", Host=f"{name}:{port}").status == 200, name
        for name in ("attacker.example", "127.0.0.1.attacker.example", "localhost.attacker.example", "10.0.0.7"):
            refused = served.get("/api/v1/health", Host=f"{name}:{port}")
            assert refused.status == 421, name
            assert "[pulse] hosts" in refused.json["hint"]


def test_beyond_loopback_nothing_is_told_without_the_token(host: Host, tmp_path: Path) -> None:
    host.decided()
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    token.chmod(0o600)
    with serving(host, "--host", "0.0.0.0", "--token-file", str(token)) as served:
        (started,) = served.log("pulse.started")
        assert "reading needs the token" in started["message"]
        assert "can be reached from other hosts" in started["message"]
        refused = served.get("/metrics")
        assert refused.status == 401
        assert "KLoROS" in refused.headers["www-authenticate"]
        basic = b64encode(f"anybody:{TOKEN}".encode()).decode()
        assert served.get("/metrics", Authorization=f"Bearer {TOKEN}").status == 200
        assert served.get("/metrics", Authorization=f"Basic {basic}", Host="any.example").status == 200
        for wrong in ("Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Basic !!", f"Digest {TOKEN}", "Basic YQ=="):
            assert served.get("/", Authorization=wrong).status == 401, wrong
        served.get(f"/?token={TOKEN}", Authorization=f"Bearer {TOKEN}")
        assert served.stop() == 0
        assert not [line for line in served.lines if TOKEN in line], "no token is ever logged"


@pytest.mark.parametrize(
    ("content", "mode", "fault"),
    [
        (None, 0, "can be reached from other hosts, and there is no token"),
        (TOKEN, 0o640, "others may read it (mode 0640)"),
        ("short", 0o600, "it must hold 16 to 4096 characters without blanks"),
        ("", 0o600, "it must hold 16 to 4096 characters without blanks"),
    ],
)
def test_it_does_not_start_where_others_could_read(
    host: Host, tmp_path: Path, content: str | None, mode: int, fault: str
) -> None:
    flags = ["--host", "0.0.0.0", "--port", "0"]
    if content is not None:
        token = tmp_path / "token"
        token.write_text(content)
        token.chmod(mode)
        flags += ["--token-file", str(token)]
    ended = host.run("serve", *flags, timeout=20)
    assert ended.returncode == Exit.SETTINGS_INVALID
    assert fault in ended.stderr


def test_flag_beats_variable_beats_file(host: Host) -> None:
    host.configure('[pulse]\nhosts = ["from.file"]\n')
    with serving(host) as served:
        assert served.get("/health", Host="from.file").status == 200
    with serving(host, KLR_PULSE_HOSTS="from.variable") as served:
        assert served.get("/health", Host="from.variable").status == 200
        assert served.get("/health", Host="from.file").status == 421
    with serving(host, "--hosts", "from.flag", KLR_PULSE_HOSTS="from.variable") as served:
        assert served.get("/health", Host="from.flag").status == 200
        assert served.get("/health", Host="from.variable").status == 421
    assert host.run("serve", "--port", "many").returncode == Exit.USAGE
    host.set(KLR_PULSE_PORT="many")
    assert host.run("serve").returncode == Exit.SETTINGS_INVALID


def test_a_port_in_use_is_told(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = host.run("serve", "--port", str(port), timeout=20)
    assert ended.returncode == Exit.FAILED
    assert f"can't listen on 127.0.0.1 port {port}: Address already in use" in ended.stderr


def test_each_request_has_an_id_and_a_line_in_the_log(host: Host) -> None:
    host.decided()
    with serving(host) as served:
        given = served.get("/api/v1/cycles/7", X_Request_Id="ab-c_1.2")
        assert given.headers["x-request-id"] == "ab-c_1.2"
        made = served.get("/nowhere%0a%22injected", X_Request_Id="not well formed", Accept="application/json")
        assert re.fullmatch(r"[0-9a-f]{16}", made.headers["x-request-id"])
        assert made.json["request_id"] == made.headers["x-request-id"]
        served.get("/" + "x" * 5000)
        until(lambda: len(served.log("request.answered")) >= 3, what="the lines are there")
        first, second, third = served.log("request.answered")
        assert (first["status"], first["path"], first["request_id"]) == (404, "/api/v1/cycles/7", "ab-c_1.2")
        assert first["client"] == "127.0.0.1"
        assert second["path"] == "/nowhere%0a%22injected", "as it was sent: no line can be made up"
        assert len(third["path"]) < 250


def test_an_answer_waits_for_no_acknowledgement(host: Host) -> None:
    """Head and body are two packets: with Nagle's algorithm the second waits 40 ms for a delayed ACK (RFC 896, RFC 1122)."""
    with serving(host) as served:
        connection = served.connect()
        took = []
        for _ in range(30):  # the first few are acknowledged at once
            began = time.monotonic()
            connection.request("GET", "/health")
            connection.getresponse().read()
            took.append(time.monotonic() - began)
        connection.close()
        assert min(took[-10:]) < 0.03


def test_it_ends_well_and_soon_when_told(host: Host) -> None:
    with serving(host) as served:
        began = time.monotonic()
        assert served.stop() == Exit.DONE
        assert time.monotonic() - began < 5
    with serving(host) as served:
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(5) == Exit.DONE


def test_handed_a_socket_it_ends_when_idle_and_loses_no_request(host: Host) -> None:
    host.decided()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with handed_over(host, listener, "--idle-exit", "1s", "--port", "1") as served:
            assert served.get("/health").status == 200, "on the socket, whatever the port says"
            began = time.monotonic()
            assert served.process.wait(20) == Exit.DONE
            assert 0.9 < time.monotonic() - began < 5
            until(lambda: served.log("pulse.ended"), what="it says why")
            assert served.log("pulse.ended")[0]["message"] == "nobody has asked for a while"
        waiting = served.connect()
        waiting.request("GET", "/health")
        with handed_over(host, listener, "--idle-exit", "1s"):
            assert waiting.getresponse().status == 200, "what came in between waited"
            waiting.close()


def test_a_socket_meant_for_another_process_is_left_alone(host: Host) -> None:
    host.set(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    with serving(host) as served:
        assert served.get("/health").status == 200


def test_without_the_extra_it_says_what_to_install(host: Host, tmp_path: Path) -> None:
    (tmp_path / "uvicorn.py").write_text("raise ImportError(name='uvicorn')\n")
    host.set(PYTHONPATH=str(tmp_path))
    ended = host.run("serve", "--port", "0")
    assert ended.returncode == Exit.USAGE
    assert "install.sh --with pulse" in ended.stderr


def test_the_mode_is_that_of_the_installed_unit_or_the_settings(host: Host) -> None:
    host.decided()
    with serving(host) as served:
        assert served.get("/api/v1/health").json["mode"] == "enabled"
        (host.state / "maintenance_mode").touch()
        until(lambda: served.get("/api/v1/health").json["mode"] == "maintenance", what="it is seen", within=5)
        assert json.loads(served.get("/ready").body)["ready"] is True
