"""Idle reflection: once an interval, while nothing runs and the host is idle, before nothing else, and without loops."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestration.store.instants import to_text
from tests.acceptance.host import Host, script

HOUR = timedelta(hours=1)


@pytest.fixture
def idle(host: Host) -> Host:
    """A host that has been idle for an hour, however busy the machine of the test is."""
    host.stepwise()
    host.set(KLR_REFLECTION_MAX_LOAD="10000", KLR_REFLECTION_MAX_PRESSURE="100", KLR_REFLECTION_MAX_GPU="100")
    host.decided()
    age(host)
    return host


def age(host: Host, by: timedelta = HOUR) -> None:
    """Let time pass for what tells since when nothing has run."""
    for table, column in (
        ("ticks", "started_at"),
        ("cycles", "ended_at"),
        ("observer_events", "at"),
        ("intents", "seen_at"),
    ):
        for number, at in host.rows(f"SELECT rowid, {column} FROM {table} WHERE {column} IS NOT NULL"):
            moved = to_text(datetime.fromisoformat(at) - by)
            host.change(f"UPDATE {table} SET {column} = '{moved}' WHERE rowid = {number}")
    host.change("UPDATE facts SET value = '' WHERE name = 'observer.due'")


def reflected(host: Host) -> int:
    """Count the reflections that were asked for by a tick."""
    ((number,),) = host.rows("SELECT count(*) FROM observer_events WHERE rule = 'idle_reflection'")
    return int(number)


def digest(host: Host) -> dict[str, Any]:
    """Return the newest digest that an intent had as its data."""
    ((name,),) = host.rows("SELECT intent FROM observer_events ORDER BY at DESC LIMIT 1")
    (path,) = (host.state / "intents").rglob(name)
    intent = json.loads(path.read_text())
    assert (intent["intent_type"], intent["priority"], intent["emitted_by"]) == ("idle_reflection", 0, "kloros-observer")
    data: dict[str, Any] = intent["data"]
    return data


def reflect(host: Host, *lines: str) -> Path:
    """Have one reflection run these lines of shell, and settle it; returns its cycle's folder."""
    host.set(KLR_REFLECTION_COMMAND=f"sh {script(host.home, 'reflect', lines)}")
    record = host.decided()
    assert record["decision"] == "reflection"
    host.run_queued()
    return host.state / "cycles" / f"cycle_{record['cycle']:05d}"


def leave(name: str, intent_type: str, **fields: object) -> str:
    """Return the line of shell that leaves an intent."""
    content = json.dumps({"intent_type": intent_type, "priority": 4, "reason": name, **fields})
    return f"mkdir -p artifacts/intents; printf '%s' '{content}' >artifacts/intents/{name}.json"


def test_an_idle_host_reflects_once_and_the_default_job_writes_a_report(idle: Host) -> None:
    record = idle.decided()
    assert (record["decision"], record["cycle"]) == ("reflection", 1)
    assert digest(idle) == {
        kind: {"count": 0, "newest": []}
        for kind in ("open_failures", "parked_promotions", "stale_archives", "escrow_waiting")
    }
    idle.run_queued()
    assert idle.rows("SELECT job, state, cause FROM cycles") == [("reflection", "succeeded", "intent")]
    report = idle.state / "cycles" / "cycle_00001" / "artifacts" / "reflection.md"
    assert "Failures since the last success of their job: none" in report.read_text()
    ((result,),) = idle.rows("SELECT result FROM cycles")
    assert json.loads(result)["report"] == str(report)
    manifest = json.loads((idle.state / "cycles" / "cycle_00001" / "manifest.json").read_text())
    assert (manifest["job"], manifest["state"]) == ("reflection", "succeeded")
    assert idle.counter("kloros_cycles_total", 'job="reflection",result="succeeded"') == 1
    assert idle.counter("kloros_orchestrator_ticks_total", 'decision="reflection"') == 1
    assert idle.decided()["decision"] == "noop"
    assert reflected(idle) == 1


def test_the_digest_counts_what_is_open_and_names_the_newest(idle: Host) -> None:
    for number in range(1, 8):
        at = to_text(datetime.now(UTC) - timedelta(hours=2) + timedelta(minutes=number))
        idle.change(
            "INSERT INTO cycles (job, state, token, cause, origin, command, timeout_seconds, queued_at, ended_at,"
            f" settled_at, result) VALUES ('dream', 'failed', '{number}', 'intent',"
            ' \'{"cause": "intent", "tick_id": "", "promotions": []}\', \'[]\', 60,'
            f" '{at}', '{at}', '{at}', '{{\"reason\": \"exit code {number}\"}}')"
        )
    now = to_text(datetime.now(UTC))
    idle.change(
        "INSERT INTO promotions (stem, promotion_id, state, failures, reason, first_seen_at, changed_at)"
        f" VALUES ('stuck', 'stuck', 'parked', 5, '{'x' * 5000}', '{now}', '{now}')"
    )
    columns = "entry, kind, stem, promotion_id, cycle, rule, changes, before, evidence, four_eyes, status, created_at"
    for entry, status in (("a" * 12, "pending_review"), ("b" * 12, "approved")):
        idle.change(
            f"INSERT INTO escrow ({columns}) VALUES ('{entry}', 'promotion', 'bold', 'p', 1, 'over 50 %', '{{}}', '{{}}',"
            f" '{{}}', 0, '{status}', '{now}')"
        )
    idle.change("INSERT INTO counters VALUES ('kloros_loop_archives_stale', '', 1)")
    for number, new in ((1, 1), (2, 0), (3, 0)):
        idle.change(
            "INSERT INTO iterations (iteration, token, started_at, status, ended_at, archive_new, history_path)"
            f" VALUES ({number}, '{number}', '{now}', 'degraded', '{now}', {new}, '')"
        )
    folder = reflect(idle, 'cp "$KLR_DIGEST" artifacts/seen.json')
    found = digest(idle)
    assert (found["open_failures"]["count"], len(found["open_failures"]["newest"])) == (7, 5)
    assert found["open_failures"]["newest"][0] == "cycle 7 (dream) failed: exit code 7"
    assert found["parked_promotions"]["count"] == 1
    assert found["parked_promotions"]["newest"][0].startswith("stuck: xxx")
    assert found["stale_archives"] == {
        "count": 2, "newest": ["iteration 3 left no new archive", "iteration 2 left no new archive"]
    }  # fmt: skip
    assert found["escrow_waiting"] == {"count": 1, "newest": ["aaaaaaaaaaaa (bold): over 50 %"]}
    assert len(json.dumps(found)) < 5000
    assert json.loads((folder / "artifacts" / "seen.json").read_text()) == {"schema": "v1", **found}
    written = idle.run("klorosctl", "show", "8").stdout
    assert "reflection" in written
    environ = {**idle.environ, "KLR_CYCLE_DIR": str(idle.home / "by-hand")}
    idle.environ = environ
    assert idle.run("reflection.review").returncode == 0
    report = (idle.home / "by-hand" / "artifacts" / "reflection.md").read_text()
    for part in ("of their job: 7", "- and 2 more", "Parked promotions: 1", "approval: 1", r"aaaaaaaaaaaa (bold)", "| 8 | "):
        assert part in report


def test_the_report_raises_no_alert_by_what_it_tells_again(idle: Host) -> None:
    now = to_text(datetime.now(UTC))
    idle.change(
        "INSERT INTO promotions (stem, promotion_id, state, failures, reason, first_seen_at, changed_at)"
        f" VALUES ('stuck', 'stuck', 'parked', 5, 'FATAL: CUDA out of memory', '{now}', '{now}')"
    )
    assert idle.decided()["decision"] == "reflection"
    idle.run_queued()
    assert "FATAL: CUDA out of memory" in (idle.state / "cycles/cycle_00001/artifacts/reflection.md").read_text()
    assert idle.rows("SELECT rule FROM observer_events") == [("idle_reflection",)]
    shown = idle.run("klorosctl", "show", "1").stdout
    assert "open_failures 0, parked_promotions 1" in shown


def test_at_most_one_in_an_interval_and_none_that_says_the_same_within_the_hour(idle: Host) -> None:
    idle.set(KLR_REFLECTION_INTERVAL="30min")
    reflect(idle, "true")
    for minutes in (10, 15):
        age(idle, timedelta(minutes=minutes))
        assert idle.decided()["decision"] == "noop"
    age(idle, timedelta(minutes=10))
    assert idle.decided()["decision"] == "noop", "35 minutes later nothing is new"
    age(idle, timedelta(minutes=30))
    assert idle.decided()["decision"] == "reflection"
    idle.run_queued()
    now = to_text(datetime.now(UTC))
    idle.change(
        "INSERT INTO promotions (stem, promotion_id, state, failures, first_seen_at, changed_at)"
        f" VALUES ('stuck', 'stuck', 'parked', 5, '{now}', '{now}')"
    )
    age(idle, timedelta(minutes=31))
    assert idle.decided()["decision"] == "reflection", "31 minutes later something is"
    assert reflected(idle) == 3


def test_what_ran_in_a_future_that_never_came_holds_nothing_up(idle: Host) -> None:
    reflect(idle, "true")
    age(idle, -24 * 365 * HOUR)  # the clock was wrong, and was set back
    idle.change("DELETE FROM observer_events")
    assert idle.decided()["decision"] == "noop", "nobody knows since when nothing has run"
    idle.change(f"UPDATE ticks SET started_at = '{to_text(datetime.now(UTC) - HOUR)}'")
    idle.change("UPDATE facts SET value = '' WHERE name = 'observer.due'")
    assert idle.decided()["decision"] == "reflection"


def test_an_interval_of_nothing_turns_it_off(idle: Host) -> None:
    idle.set(KLR_REFLECTION_INTERVAL="0")
    assert idle.decided()["decision"] == "noop"
    assert reflected(idle) == 0


def test_a_busy_host_does_not_reflect(idle: Host) -> None:
    idle.set(KLR_REFLECTION_MAX_GPU="50")
    folder = idle.home / "bin"
    folder.mkdir()
    script(folder, "nvidia-smi", ['echo "$@" >"$0.asked"', "echo 90"])
    idle.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
    assert idle.decided()["decision"] == "noop"
    assert "utilization.gpu" in (folder / "nvidia-smi.asked").read_text()
    (folder / "nvidia-smi.asked").unlink()
    idle.decided()
    assert not (folder / "nvidia-smi.asked").exists(), "it is asked again after minutes, and not by each tick"
    script(folder, "nvidia-smi", ["echo 10"])
    age(idle)
    assert idle.decided()["decision"] == "reflection"


def test_a_gpu_that_only_the_runner_sees_holds_it_up_there_unless_a_person_asked(idle: Host) -> None:
    idle.set(KLR_REFLECTION_MAX_GPU="50", KLR_REFLECTION_COMMAND="true")
    assert idle.decided()["decision"] == "reflection"
    folder = idle.home / "bin"
    folder.mkdir()
    script(folder, "nvidia-smi", ["echo 90"])
    idle.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
    idle.run_queued()
    ((state, result),) = idle.rows("SELECT state, result FROM cycles")
    assert (state, json.loads(result)["reason"]) == ("cancelled", "a GPU is used to 90 %, the limit is 50 %")
    idle.intend("idle_reflection")
    assert idle.decided()["decision"] == "reflection"
    idle.run_queued()
    assert idle.rows("SELECT state FROM cycles") == [("cancelled",), ("succeeded",)]


def test_a_load_above_its_limit_holds_it_up(idle: Host) -> None:
    idle.set(KLR_REFLECTION_MAX_PRESSURE="0", KLR_REFLECTION_MAX_LOAD="0")
    if os.getloadavg()[0] > 0:
        assert idle.decided()["decision"] == "noop"
        assert reflected(idle) == 0


def test_promotions_and_intents_come_first(idle: Host) -> None:
    idle.set(KLR_DREAM_COMMAND="true")
    idle.promote("a")
    assert idle.decided()["decision"] == "dream_cycle"
    idle.run_queued()
    assert idle.rows("SELECT job FROM cycles") == [("dream",), ("reflection",)]


def test_promotions_that_wait_after_a_failure_hold_it_up(idle: Host) -> None:
    idle.set(KLR_DREAM_COMMAND="false", KLR_DREAM_BACKOFF="5h", KLR_REFLECTION_INTERVAL="2h")
    idle.promote("a")
    assert idle.decided()["decision"] == "dream_cycle"
    idle.run_queued()
    age(idle, 2.5 * HOUR)
    assert idle.decided()["decision"] == "noop"
    assert reflected(idle) == 0


def test_no_reflection_while_a_phase_is_due_or_about_to_be(idle: Host) -> None:
    idle.set(KLR_PHASE_COMMAND="false", **idle.window(opens_in=-HOUR, lasts=4 * HOUR))
    assert idle.decided()["decision"] == "phase"
    idle.run_queued()
    age(idle, timedelta(minutes=40))
    idle.set(KLR_PHASE_BACKOFF="2h")
    idle.decided()
    assert reflected(idle) == 0, "the PHASE waits after a failure, and comes first"
    idle.set(**idle.window(opens_in=timedelta(minutes=5)))
    age(idle)
    idle.decided()
    assert reflected(idle) == 0, "the window opens before a reflection would have to have ended"
    idle.set(**idle.window(opens_in=timedelta(minutes=15)))
    idle.decided()
    assert reflected(idle) == 1


def test_a_phase_that_was_taken_over_is_the_phase_of_its_date(idle: Host) -> None:
    idle.set(**idle.window(opens_in=-HOUR, lasts=4 * HOUR), KLR_PHASE_COMMAND="false", KLR_PHASE_BACKOFF="2h")
    assert idle.decided()["decision"] == "phase"
    idle.run_queued()
    ((day,),), now = idle.rows("SELECT phase_date FROM cycles"), to_text(datetime.now(UTC))
    idle.change(
        "INSERT OR REPLACE INTO phase_dates (local_date, result, reason, evidence, opens_at, closes_at, recorded_at)"
        f" VALUES ('{day}', 'succeeded', 'taken_over', 'test', '{now}', '{now}', '{now}')"
    )
    age(idle)
    assert idle.decided()["decision"] == "reflection"


def test_maintenance_holds_it_up(idle: Host) -> None:
    (idle.state / "maintenance_mode").touch()
    assert idle.decided()["decision"] == "noop"
    assert reflected(idle) == 0


def test_its_intents_are_taken_in_by_the_rules_of_all(idle: Host) -> None:
    folder = reflect(
        idle, leave("a", "suggest_rest", data={"hours": 8}), leave("b", "curiosity_bees", data={"topic": "bees"})
    )
    (line,) = (idle.state / "suggestions.jsonl").read_text().splitlines()
    assert json.loads(line)["emitted_by"] == "reflection of cycle 1"
    assert json.loads(line)["data"] == {"hours": 8}
    assert idle.rows("SELECT job, json_extract(origin, '$.topic') FROM cycles WHERE cycle = 2") == [("dream", "bees")]
    assert sorted(path.name for path in (folder / "artifacts" / "intents").iterdir()) == ["a.json", "b.json"]


def test_what_is_refused_is_told(idle: Host) -> None:
    many = [leave(f"c{number}", "suggest_rest", data={"n": number}) for number in range(7)]
    folder = reflect(
        idle,
        leave("a", "idle_reflection"),
        "mkdir -p artifacts/intents; echo '{' >artifacts/intents/b.json; ln -s /etc/passwd artifacts/intents/d.json",
        *many,
    )
    noted = idle.rows("SELECT name, status, reason FROM intents WHERE status <> 'processed' ORDER BY name")
    assert [(name, status) for name, status, _ in noted] == [
        (f"{folder.name}/{name}.json", status)
        for name, status in (("a", "failed"), ("b", "malformed"), ("c5", "failed"), ("c6", "failed"), ("d", "malformed"))
    ]
    reasons = [reason for _, _, reason in noted]
    assert "may not ask for a reflection" in reasons[0]
    assert "may leave 5 intents" in reasons[2]
    assert "symbolic link" in reasons[4]
    assert len((idle.state / "suggestions.jsonl").read_text().splitlines()) == 5
    idle.decided()
    assert idle.rows("SELECT count(*) FROM intents WHERE filed = 0") == [(0,)]
    listed = idle.run("klorosctl", "intents", "list")
    assert listed.returncode == 0


def test_what_is_no_file_of_a_reasonable_size_holds_nothing_up(idle: Host) -> None:
    reflect(
        idle,
        leave("z", "suggest_rest"),
        "mkfifo artifacts/intents/a.json; mkdir artifacts/intents/b.json; ln -s /dev/zero artifacts/intents/c.json",
        "head -c 3000000 /dev/zero >artifacts/intents/d.json",
        "for n in $(seq 200); do echo '{' >artifacts/intents/zz$n.json; done",
    )
    noted = dict(idle.rows("SELECT name, reason FROM intents WHERE status <> 'processed'"))
    for name in ("a", "b", "c", "d"):
        assert noted.pop(f"cycle_00001/{name}.json"), name
    assert "further files were not looked at" in noted.pop("cycle_00001/more")
    assert len(noted) == 95
    assert len((idle.state / "suggestions.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("folder", ["artifacts", "artifacts/intents"])
def test_a_folder_that_is_a_link_leads_nowhere(idle: Host, folder: str) -> None:
    elsewhere = idle.home / "elsewhere"
    (elsewhere / "intents").mkdir(parents=True)
    for place in (elsewhere, elsewhere / "intents"):
        (place / "a.json").write_text('{"intent_type": "suggest_rest", "priority": 4, "reason": "of another"}')
    reflect(idle, "mkdir -p artifacts", f"rm -rf {folder}; ln -s {elsewhere} {folder}")
    assert not (idle.state / "suggestions.jsonl").exists()
    ((reason,),) = idle.rows("SELECT reason FROM intents WHERE name LIKE 'cycle_00001/%'")
    assert reason.endswith("leads elsewhere by a symbolic link")


def test_a_failed_reflection_leaves_nothing_and_waits_for_the_next_interval(idle: Host) -> None:
    reflect(idle, leave("a", "suggest_rest"), "exit 3")
    assert idle.rows("SELECT job, state FROM cycles") == [("reflection", "failed")]
    assert not (idle.state / "suggestions.jsonl").exists()
    assert idle.decided()["decision"] == "noop"


def test_whoever_drops_a_reflection_gets_one(idle: Host) -> None:
    idle.set(KLR_REFLECTION_INTERVAL="0", KLR_REFLECTION_COMMAND="true")
    idle.intend("idle_reflection", priority=10)
    idle.intend("trigger_dream", priority=1)
    assert idle.decided()["decision"] == "dream_cycle"
    idle.run_queued()
    assert [job for (job,) in idle.rows("SELECT job FROM cycles")] == ["dream", "reflection"]


def test_waiting_for_a_reflection_gives_its_end(host: Host) -> None:
    host.set(KLR_REFLECTION_COMMAND="false")
    host.intend("idle_reflection")
    assert host.tick("--wait").returncode == 1
