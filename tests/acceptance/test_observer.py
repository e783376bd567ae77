"""The observer: each rule makes its intent once, with its evidence, and what it asks for is done by the rules of all."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestration.cycles import sightings
from orchestration.exits import Exit
from orchestration.host.lock import FileLock
from orchestration.store.instants import from_text, to_text
from tests.acceptance.host import Host, script

RULE = 'watch = "promotions"\nintent = "alert_x"\n'


@pytest.fixture
def watched(host: Host) -> Host:
    """A host on which nothing starts by itself, after its first tick."""
    host.stepwise()
    host.decided()
    return host


def made(host: Host) -> list[dict[str, Any]]:
    """Return every intent that rules made, as the files tell, oldest first; and see that the store tells the same."""
    files = sorted((host.state / "intents").rglob("*.json"), key=lambda path: path.name)
    found = [json.loads(path.read_text()) for path in files]
    ours = [(path, one) for path, one in zip(files, found, strict=True) if one["emitted_by"] == "kloros-observer"]
    noted = host.rows("SELECT intent, evidence FROM observer_events WHERE written = 1 ORDER BY intent")
    assert [(name, json.loads(evidence)) for name, evidence in noted] == [(path.name, one["data"]) for path, one in ours]
    return [one for _, one in ours]


def told(one: dict[str, Any]) -> tuple[str, int, str]:
    return one["intent_type"], one["priority"], one["data"]["rule"]


def shift(host: Host, table: str, column: str, by: timedelta) -> None:
    """Move the past of a table."""
    for number, at in host.rows(f"SELECT rowid, {column} FROM {table}"):
        moved = to_text(datetime.fromisoformat(at) - by)
        host.change(f"UPDATE {table} SET {column} = '{moved}' WHERE rowid = {number}")
    host.change("DELETE FROM facts WHERE name = 'observer.due'")


def run_dream(host: Host, *lines: str) -> None:
    """Run one D-REAM cycle of these lines of shell."""
    host.set(KLR_DREAM_COMMAND=f"sh {script(host.home, 'dream', lines)}")
    host.intend("trigger_dream", topic=str(time.monotonic_ns()))
    assert host.decided()["decision"] == "dream_cycle"
    assert host.run("run_cycle").returncode == 0


def test_three_promotions_at_once_ask_for_a_phase_and_it_starts_when_they_are_tried(watched: Host) -> None:
    watched.set(KLR_DREAM_COMMAND="true")
    for name in ("a", "b"):
        watched.promote(name)
    watched.decided()
    watched.decided()
    assert made(watched) == []
    watched.promote("c")
    watched.decided()
    assert watched.decided()["decision"] == "noop"
    (one,) = made(watched)
    assert told(one) == ("trigger_phase_promotion_cluster", 7, "promotion_cluster")
    assert {entry["what"] for entry in one["data"]["newest"]} == {"a", "b", "c"}
    assert one["data"]["count"] == 3
    assert one["sha256"]
    for _ in range(6):
        assert watched.run("run_cycle").returncode == 0
        watched.decided()
    jobs = [job for (job,) in watched.rows("SELECT job FROM cycles ORDER BY cycle")]
    assert jobs[-1] == "phase"
    assert set(jobs[:-1]) == {"dream"}
    assert watched.rows("SELECT cause, phase_date FROM cycles WHERE job = 'phase'") == [("intent", None)]
    assert len(made(watched)) == 1


def test_a_cluster_is_told_again_only_after_its_cooldown(watched: Host) -> None:
    for name in ("a", "b", "c"):
        watched.promote(name)
    watched.decided()
    watched.decided()
    for name in ("d", "e", "f"):
        watched.promote(name)
    for _ in range(3):
        watched.decided()
    assert len(made(watched)) == 1
    shift(watched, "observer_events", "at", timedelta(hours=1))
    watched.decided()
    assert [one["data"]["count"] for one in made(watched)] == [3, 6]
    watched.decided()
    assert len(made(watched)) == 2


def test_invalid_promotions_are_no_cluster(watched: Host) -> None:
    for name in ("a", "b", "c"):
        watched.promote(name, fitness="none")
    for _ in range(3):
        watched.decided()
    assert made(watched) == []


def test_a_failed_phase_raises_an_alert(watched: Host) -> None:
    watched.set(KLR_PHASE_COMMAND="sh -c 'exit 3'")
    watched.intend("trigger_phase")
    assert watched.decided()["decision"] == "phase"
    watched.run_queued()
    (one,) = made(watched)
    assert told(one) == ("alert_phase_failed", 6, "phase_failed")
    assert one["data"]["newest"][0]["what"] == "cycle 1 failed: exit code 3"
    (line,) = (watched.state / "alerts.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "1 PHASE ended without success within 24 h: cycle 1 failed: exit code 3"
    for _ in range(2):
        watched.decided()
    assert len(made(watched)) == 1


def test_a_succeeded_phase_and_a_failed_dream_raise_none(watched: Host) -> None:
    watched.set(KLR_PHASE_COMMAND="sh -c 'echo {} > artifacts/report.json'")
    watched.intend("trigger_phase")
    watched.decided()
    watched.run_queued()
    run_dream(watched, "exit 3")
    watched.decided()
    assert watched.rows("SELECT job, state FROM cycles") == [("phase", "succeeded"), ("dream", "failed")]
    assert made(watched) == []


def test_a_silent_heartbeat_raises_an_alert_once_and_a_live_one_none(watched: Host, tmp_path: Path) -> None:
    dead, live = tmp_path / "dead", tmp_path / "live"
    for path, age in ((dead, 400), (live, 5)):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    watched.configure(f'[observer.heartbeats]\ntrader = "{dead}"\nfeed = "{live}"\nnew = "{tmp_path}/absent"\n')
    watched.decided()
    watched.decided()
    (one,) = made(watched)
    assert told(one) == ("alert_heartbeat_silent", 8, "heartbeat_silent")
    assert (one["data"]["program"], one["data"]["file"]) == ("trader", str(dead))
    shift(watched, "observer_events", "at", timedelta(hours=1))
    watched.decided()
    assert len(made(watched)) == 2


def test_a_file_that_is_missing_is_silent_from_when_that_was_seen(watched: Host, tmp_path: Path) -> None:
    watched.configure(f'[observer.heartbeats]\ntrader = "{tmp_path}/absent"\n')
    watched.decided()
    assert made(watched) == []
    earlier = to_text(datetime.now(UTC) - timedelta(minutes=6))
    value = json.dumps({f"{tmp_path}/absent": ["", earlier]})
    watched.change(f"UPDATE facts SET value = '{value}' WHERE name = 'observer.untold'")
    watched.change("DELETE FROM facts WHERE name = 'observer.due'")
    watched.decided()
    (one,) = made(watched)
    assert f"trader is silent: {tmp_path}/absent is not there since" in one["reason"]


def test_a_file_of_the_future_that_nobody_touches_falls_silent(watched: Host, tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    beat.touch()
    os.utime(beat, (time.time() + 10**8,) * 2)
    watched.configure(f'[observer.heartbeats]\ntrader = "{beat}"\n')
    watched.decided()
    since = to_text(datetime.now(UTC) - timedelta(minutes=6))
    earlier = f"UPDATE facts SET value = json_set(value, '$.\"{beat}\"[1]', '{since}') WHERE name = 'observer.untold'"
    os.utime(beat, (time.time() + 10**8 + 1,) * 2)
    watched.change(earlier)
    watched.change("DELETE FROM facts WHERE name = 'observer.due'")
    watched.decided()
    assert made(watched) == [], "it was touched again, so the program lives"
    watched.change(earlier)
    watched.change("DELETE FROM facts WHERE name = 'observer.due'")
    watched.decided()
    (one,) = made(watched)
    assert f"{beat} was not touched since {since[:19]}" in one["reason"]


def test_a_file_that_cant_be_looked_at_is_silent_and_says_why(watched: Host, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    watched.configure(f'[observer.heartbeats]\ntrader = "{loop}"\n[observer.rules.heartbeat_silent]\nwithin = 0.000001\n')
    watched.decided()
    watched.decided()
    (one,) = made(watched)
    assert "can't be looked at (Too many levels of symbolic links) since" in one["reason"]


def test_more_than_ten_ticks_that_find_the_lock_held_make_a_suggestion(watched: Host) -> None:
    with FileLock(str(watched.state / "locks" / "orchestrator.lock")).held("test"):
        for _ in range(10):
            assert watched.tick().returncode == Exit.LOCK_HELD
    watched.decided()
    assert made(watched) == []
    with FileLock(str(watched.state / "locks" / "orchestrator.lock")).held("test"):
        assert watched.tick().returncode == Exit.LOCK_HELD
    watched.decided()
    (one,) = made(watched)
    assert told(one) == ("suggest_lock_contention", 5, "lock_contention")
    assert one["data"]["count"] == 11
    assert len((watched.state / "suggestions.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("RuntimeError: CUDA out of memory.", ("alert_gpu_out_of_memory", 9, "gpu_out_of_memory")),
        ("03:00 CRITICAL trainer: giving up", ("alert_critical_line", 10, "critical_line")),
    ],
)
def test_a_line_in_the_output_of_a_cycle_raises_an_alert(watched: Host, line: str, expected: tuple[str, int, str]) -> None:
    run_dream(watched, "echo all is well")
    watched.decided()
    assert made(watched) == []
    run_dream(watched, f"echo '{line}'", "echo more", f"echo '{line}' >&2")
    watched.decided()
    (one,) = made(watched)
    assert told(one) == expected
    assert (one["data"]["count"], one["data"]["newest"][0]["what"]) == (2, f"cycle 2: {line}")
    assert json.loads((watched.state / "alerts.jsonl").read_text())["reason"] == one["reason"]
    watched.decided()
    assert len(made(watched)) == 1


def test_rules_are_added_changed_and_turned_off_by_name(watched: Host) -> None:
    watched.configure(
        "[observer.rules.critical_line]\nenabled = false\n"
        '[observer.rules.gpu_out_of_memory]\npriority = 3\npattern = "MEMORY"\n'
        '[observer.rules.disk]\nwatch = "output"\nintent = "trigger_dream_disk"\npattern = "^No space"\nat_least = 2\n'
    )
    run_dream(watched, "echo CRITICAL; echo MEMORY; echo No space; echo not No space; echo No space left")
    assert watched.decided()["decision"] == "dream_cycle"
    assert sorted(told(one) for one in made(watched)) == [
        ("alert_gpu_out_of_memory", 3, "gpu_out_of_memory"),
        ("trigger_dream_disk", 5, "disk"),
    ]
    topic = json.loads(watched.rows("SELECT origin FROM cycles ORDER BY cycle DESC")[0][0])["topic"]
    assert topic == "2 lines were seen in cycles' output within 1 h: cycle 1: No space"


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ('watch = "output"\nintent = "alert_x"', "pattern belongs to a rule that watches output"),
        ('watch = "promotions"\nintent = "alert_x"\npattern = "x"', "pattern belongs to a rule that watches output"),
        ('watch = "output"\nintent = "alert_x"\npattern = "("', "pattern is no regular expression"),
        ('watch = "promotions"\nintent = "idle_reflection"', "no rule may ask for a reflection"),
        ('watch = "moon"\nintent = "alert_x"', "observer.rules.x.watch = 'moon'"),
        ('watch = "promotions"\nintent = "alert_x"\ncooldown = 0', "observer.rules.x.cooldown"),
        ('intent = "alert_x"', "x is none of the program's rules (there are promotion_cluster, "),
        (f"{RULE}[observer.rules.promotion_clustr]\nat_least = 5", "did you mean promotion_cluster?"),
        (f'{RULE}[observer.heartbeats]\nx = "beat"', 'for example heartbeats = {trader = "/run/trader/heartbeat"}'),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(host: Host, rule: str, fault: str) -> None:
    host.configure(f"[observer.rules.x]\n{rule}\n")
    checked = host.run("klorosctl", "config", "check")
    assert checked.returncode == Exit.SETTINGS_INVALID
    assert fault in checked.stderr


def test_a_dry_run_says_what_would_be_asked_for_and_leaves_nothing(watched: Host) -> None:
    watched.set(KLR_DREAM_COMMAND="true")
    for name in ("a", "b", "c"):
        watched.promote(name)
    watched.decided()
    assert watched.run("run_cycle").returncode == 0
    before = watched.file_contents()
    shown = json.loads(watched.run("run_once", "--dry-run", "--json").stdout)
    assert shown["first"]["asked_for"] == ["of the rule promotion_cluster"]
    assert shown["decision"] == "phase"
    assert watched.file_contents() == before
    assert watched.decided()["decision"] == "phase"


def test_intents_that_cant_be_written_hold_up_nobody_and_are_written_later(watched: Host) -> None:
    run_dream(watched, "echo CRITICAL")
    for path in sorted((watched.state / "intents").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (watched.state / "intents").rmdir()
    (watched.state / "intents").symlink_to(watched.home / "nowhere" / "at all")
    done = watched.tick("--json")
    assert "an intent of the observer is held" in done.stderr
    assert watched.rows("SELECT written FROM observer_events") == [(0,)]
    (watched.state / "intents").unlink()
    watched.decided()
    assert [told(one) for one in made(watched)] == [("alert_critical_line", 10, "critical_line")]


@pytest.mark.parametrize("who", ["run_once", "run_cycle"])
def test_the_output_of_a_lost_cycle_is_looked_through_by_whoever_finds_it(watched: Host, who: str) -> None:
    watched.set(KLR_DREAM_COMMAND="true")
    watched.intend("trigger_dream")
    watched.decided()
    output = watched.state / "cycles" / "cycle_00001" / "logs" / "output.log"
    output.parent.mkdir(parents=True)
    output.write_text("CUDA error: out of memory\n")
    watched.change("UPDATE cycles SET state = 'running', started_at = queued_at, runner = '{}'")
    if who == "run_cycle":
        watched.change(
            "INSERT INTO cycles (job, state, token, cause, origin, command, timeout_seconds, queued_at)"
            " SELECT job, 'queued', 'more', cause, origin, command, timeout_seconds, queued_at FROM cycles"
        )
    assert watched.run(who).returncode == 0
    assert watched.rows("SELECT state FROM cycles WHERE cycle = 1") == [("lost",)]
    watched.decided()
    (one,) = made(watched)
    assert told(one) == ("alert_gpu_out_of_memory", 9, "gpu_out_of_memory")


def test_a_pattern_without_end_does_not_hold_the_tick_s_lock_for_long(watched: Host) -> None:
    watched.configure("[observer.rules.endless]\nwatch = 'output'\npattern = '(a+)+$'\nintent = 'alert_endless'\n")
    watched.set(KLR_DREAM_COMMAND="true")
    watched.intend("trigger_dream")
    watched.decided()
    output = watched.state / "cycles" / "cycle_00001" / "logs" / "output.log"
    output.parent.mkdir(parents=True)
    output.write_text("a" * 60 + "b\n")
    watched.change("UPDATE cycles SET state = 'running', started_at = queued_at, runner = '{}'")
    done = watched.tick()
    assert "all took more than 1 s" in done.stderr
    ((started, ended),) = watched.rows("SELECT started_at, ended_at FROM ticks ORDER BY tick DESC LIMIT 1")
    took = from_text(str(ended)) - from_text(str(started))
    assert took < timedelta(seconds=sightings.MOST_SECONDS / 2)
