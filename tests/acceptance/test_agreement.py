"""Page, `latest.json`, `status` and metrics say the same of one store, in every state that a host gets into."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestration import configuration
from orchestration.host import clock, process_identity
from orchestration.pulse.document import as_json
from orchestration.pulse.survey import survey
from orchestration.store.sqlite import SqliteDatabase
from tests.acceptance.host import Host


def page(host: Host) -> dict[str, Any]:
    """Return the document that the page is made from."""
    db = SqliteDatabase(str(host.state / "kloros.db"), read_only=True)
    try:
        shown = survey(configuration.load(host.environ), db, clock.now(), boot_id=process_identity.boot_id())
    finally:
        db.close()
    document: dict[str, Any] = json.loads(json.dumps(as_json(shown)))
    return document


def status(host: Host) -> dict[str, Any]:
    done = host.run("klorosctl", "status", "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def published(host: Host) -> tuple[set[str], set[str]]:
    """Return the verdicts and the conditions that the metrics say hold."""
    text = host.textfile.read_text()
    verdicts = re.findall(r'^kloros_health_verdict\{verdict="(\w+)"\} 1\.0$', text, re.MULTILINE)
    conditions = re.findall(r'^kloros_health_condition\{condition="(\w+)"\} 1\.0$', text, re.MULTILINE)
    return set(verdicts), set(conditions)


def ended(host: Host, job: str, *states: str) -> None:
    """Record cycles that ended within the last minutes."""
    with sqlite3.connect(host.state / "kloros.db") as db:
        for number, state in enumerate(states):
            at = (datetime.now(UTC) - timedelta(minutes=9 - number)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            columns = "job, state, token, cause, origin, command, timeout_seconds, result"
            instants = "queued_at, started_at, ended_at, settled_at"
            origin, result = '{"cause": "intent", "tick_id": "", "promotions": []}', '{"reason": "made for a test"}'
            values = (job, state, f"{job}{number}", "intent", origin, "[]", 60, result, at, at, at, at)
            db.execute(f"INSERT INTO cycles ({columns}, {instants}) VALUES ({', '.join('?' * len(values))})", values)
    db.close()


def nothing(host: Host) -> None:
    pass


def park(host: Host) -> None:
    host.promote("hopeless")
    host.decided()
    host.run_queued()
    with sqlite3.connect(host.state / "kloros.db") as db:
        db.execute("UPDATE promotions SET state = 'parked', failures = 3")
    db.close()
    (host.state / "promotions_ack" / "hopeless_ack.json").unlink()


STATES: dict[str, tuple[Callable[[Host], object], str, set[str]]] = {
    "well": (nothing, "ok", set()),
    "maintenance": (lambda host: host.run("klorosctl", "maintenance", "on"), "degraded", {"maintenance"}),
    "lost": (lambda host: ended(host, "loop", "lost"), "degraded", {"cycle_lost"}),
    "parked": (park, "degraded", {"promotions_parked"}),
    "phase failing": (
        lambda host: ended(host, "phase", "failed", "lost", "timed_out"),
        "failing",
        {"phase_failing", "cycle_lost"},
    ),
    "dream failing": (lambda host: ended(host, "dream", *["failed"] * 5), "failing", {"dream_failing"}),
}


@pytest.mark.parametrize("state", STATES)
def test_everything_that_tells_of_health_tells_the_same(host: Host, state: str) -> None:
    bring_about, verdict, conditions = STATES[state]
    host.stepwise()
    host.decided()
    bring_about(host)
    host.decided()
    latest = json.loads((host.state / "latest.json").read_text())
    shown, said = page(host), status(host)
    assert {cause["condition"] for cause in latest["causes"]} == conditions
    assert latest["verdict"] == verdict
    for other in (shown, said):
        assert (other["verdict"], other["causes"]) == (latest["verdict"], latest["causes"])
    assert published(host) == ({latest["verdict"]}, {cause["condition"] for cause in latest["causes"]})
    assert shown["mode"] == latest["mode"]
    queues = {"promotions_unacked": shown["queues"]["promotions"]["count"], "promotions_parked": len(shown["parked"])}
    assert {name: said["queues"][name] for name in latest["queues"]} == latest["queues"]
    assert {**latest["queues"], **queues} == latest["queues"]
    assert [cycle["cycle"] for cycle in said["cycles"]] == [cycle["cycle"] for cycle in shown["cycles"]]
    assert said["last_tick"]["tick_id"] == shown["last_tick"]["tick_id"] == latest["tick_id"]


@pytest.mark.parametrize(("command", "mode"), [("halt", "halted"), ("disable", "disabled")])
def test_ticks_that_are_turned_away_are_told_the_same_everywhere(host: Host, command: str, mode: str) -> None:
    host.decided()
    if command == "halt":
        assert host.run("klorosctl", command).returncode == 0
    else:
        host.set(KLR_ORCHESTRATION_MODE="disabled")
    host.tick()
    latest = json.loads((host.state / "latest.json").read_text())
    shown, said = page(host), status(host)
    assert latest["verdict"] == shown["verdict"] == said["verdict"] == "stopped"
    assert latest["causes"] == shown["causes"] == said["causes"]
    assert latest["mode"] == shown["mode"] == mode
    assert mode in published(host)[1]


def test_ticks_that_stay_away_are_told_by_whoever_looks(host: Host) -> None:
    host.decided()
    earlier = datetime.now(UTC) - timedelta(minutes=9)
    with sqlite3.connect(host.state / "kloros.db") as db:
        db.execute("UPDATE counters SET value = ? WHERE name LIKE '%_timestamp_seconds'", (earlier.timestamp(),))
    db.close()
    shown, said = page(host), status(host)
    for found in (shown, said):
        assert found["verdict"] == "stopped"
        assert "tick_stale" in {cause["condition"] for cause in found["causes"]}
    assert [cause["since"] for cause in shown["causes"]] == [cause["since"] for cause in said["causes"]]
