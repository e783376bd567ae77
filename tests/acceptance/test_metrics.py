"""What a tick leaves for Prometheus and for other programs, whatever it did: decided, was turned away, had no folder."""

from __future__ import annotations

import fcntl
import json
import stat
import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestration.exits import Exit
from tests.acceptance.host import Host

LAST_TICK = "kloros_orchestrator_last_tick_timestamp_seconds"
LAST_ATTEMPT = "kloros_orchestrator_last_attempt_timestamp_seconds"


def value(host: Host, name: str, **labels: str) -> float:
    """Return one sample of the textfile, which must be there."""
    found = [
        sample.value
        for family in text_string_to_metric_families(host.textfile.read_text())
        for sample in family.samples
        if (sample.name, sample.labels) == (name, labels)
    ]
    assert len(found) == 1, f"{name} {labels}: {found}"
    return float(found[0])


def latest(host: Host) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((host.state / "latest.json").read_text())
    return content


def test_a_noop_tick_is_counted_with_its_reasons(host: Host) -> None:
    before = datetime.now(UTC).timestamp()
    host.decided()
    host.decided()
    assert value(host, "kloros_orchestrator_ticks_total", decision="noop") == 2
    assert value(host, "kloros_orchestrator_ticks_total", decision="phase") == 0
    assert value(host, "kloros_orchestrator_skipped_total", reason="no_unacked_promotions") == 2
    assert value(host, "kloros_orchestrator_tick_duration_seconds_count") == 2
    assert value(host, "kloros_orchestrator_tick_duration_seconds_bucket", le="+Inf") == 2
    assert before <= value(host, LAST_TICK) <= datetime.now(UTC).timestamp()
    assert stat.S_IMODE(host.textfile.stat().st_mode) == 0o644
    linted = subprocess.run(["promtool", "check", "metrics"], input=host.textfile.read_bytes(), check=False)
    assert linted.returncode == 0


@pytest.mark.parametrize(
    ("exit_code", "reason"), [(Exit.DISABLED, "disabled"), (Exit.HALTED, "halted"), (Exit.LOCK_HELD, "lock_held")]
)
def test_a_tick_that_was_turned_away_is_visible_and_does_not_look_like_one_that_ran(
    host: Host, exit_code: Exit, reason: str
) -> None:
    host.decided()
    ticked, attempted = value(host, LAST_TICK), value(host, LAST_ATTEMPT)
    if exit_code is Exit.DISABLED:
        host.set(KLR_ORCHESTRATION_MODE="disabled")
    if exit_code is Exit.HALTED:
        (host.state / "killswitch").touch()
    with open(host.state / "locks" / "orchestrator.lock") as lock:
        if exit_code is Exit.LOCK_HELD:
            fcntl.flock(lock, fcntl.LOCK_EX)
        assert host.tick().returncode == exit_code
    assert value(host, "kloros_orchestrator_skipped_total", reason=reason) == 1
    assert value(host, "kloros_orchestrator_lock_contention_total") == (exit_code is Exit.LOCK_HELD)
    assert value(host, "kloros_orchestrator_ticks_total", decision="noop") == 1
    assert value(host, LAST_TICK) == ticked
    assert value(host, LAST_ATTEMPT) > attempted
    assert latest(host)["reasons"][0]["reason"] == reason
    assert latest(host)["mode"] == {"lock_held": "enabled"}.get(reason, reason)


def test_no_folder_for_the_metrics_is_one_warning_and_no_failure(host: Host) -> None:
    host.textfile.parent.rmdir()
    lines = [json.loads(line) for _ in range(3) for line in host.tick().stderr.splitlines()]
    assert [line["event"] for line in lines].count("textfile.missing") == 1
    assert [line["event"] for line in lines].count("tick.idle") == 3
    assert not host.textfile.parent.exists(), "the folder is node_exporter's"


def test_a_cycle_is_active_while_it_waits_for_its_runner_and_counted_once_it_ended(host: Host) -> None:
    host.stepwise()
    host.decided()
    host.promote("better")
    assert host.decided()["decision"] == "dream_cycle"
    assert value(host, "kloros_cycle_active", job="dream") == 1
    assert value(host, "kloros_cycle_active", job="phase") == 0
    assert value(host, "kloros_promotions_unacked") == 1
    assert latest(host)["active_cycle"]["state"] == "queued"
    assert latest(host)["queues"]["promotions_unacked"] == 1
    host.run_queued()
    assert value(host, "kloros_promotions_total", verdict="accepted") == 1
    assert value(host, "kloros_cycle_active", job="dream") == 0
    assert value(host, "kloros_cycles_total", job="dream", result="succeeded") == 1
    assert value(host, "kloros_cycle_duration_seconds_count", job="dream") == 1
    assert value(host, "kloros_promotions_unacked") == 0
    assert latest(host)["active_cycle"] is None
    assert [cycle["state"] for cycle in latest(host)["cycles"]] == ["succeeded"]


def test_a_parked_promotion_is_a_gauge_of_its_own(host: Host) -> None:
    host.set(KLR_DREAM_COMMAND="/bin/false", KLR_DREAM_PARK_AFTER="1")
    host.promote("unlucky")
    host.tick("--wait")
    host.decided()
    assert value(host, "kloros_promotions_parked") == 1
    assert value(host, "kloros_promotions_unacked") == 0
    assert value(host, "kloros_cycles_total", job="dream", result="failed") == 1


def test_invalid_promotions_and_intents_are_counted_by_what_became_of_them(host: Host) -> None:
    host.decided()
    host.promote("invalid", fitness=-1)
    host.intend("suggest_something")
    host.intend("curiosity_later", reason="waits while maintenance lasts")
    (host.state / "maintenance_mode").touch()
    host.decided()
    assert value(host, "kloros_promotions_total", verdict="invalid") == 1
    assert value(host, "kloros_intents_total", status="processed") == 1
    assert value(host, "kloros_intents_pending") == 1
    assert latest(host)["queues"]["intents_pending"] == 1
    assert latest(host)["mode"] == "maintenance"


def test_what_waits_tells_since_when(host: Host) -> None:
    host.set(KLR_MAX_INTENT_QUEUE="7")
    (host.state / "maintenance_mode").parent.mkdir(parents=True)
    (host.state / "maintenance_mode").touch()
    before = datetime.now(UTC).timestamp()
    host.promote("first")
    host.intend("curiosity_later")
    host.decided()
    oldest = [value(host, f"kloros_{what}_oldest_timestamp_seconds") for what in ("promotions", "intents")]
    assert all(before - 1 <= one <= datetime.now(UTC).timestamp() for one in oldest)
    host.promote("second")
    host.intend("curiosity_later_still")
    host.decided()
    assert [value(host, f"kloros_{what}_oldest_timestamp_seconds") for what in ("promotions", "intents")] == oldest
    assert value(host, "kloros_intents_max") == 7
    for folder in ("promotions", "intents"):
        for path in (host.state / folder).glob("*.json"):
            path.unlink()
    host.decided()
    assert [value(host, f"kloros_{what}_oldest_timestamp_seconds") for what in ("promotions", "intents")] == [0, 0]


def test_a_phase_leaves_its_date_and_the_instant_of_its_success(host: Host) -> None:
    host.decided()
    assert value(host, "kloros_phase_last_success_timestamp_seconds") == 0
    before = datetime.now(UTC).timestamp()
    host.set(KLR_PHASE_COMMAND="/bin/sh -c 'echo {} > $KLR_CYCLE_DIR/artifacts/report.json'")
    host.intend("trigger_phase_now")
    assert host.tick("--wait").returncode == 0
    host.decided()
    assert before <= value(host, "kloros_phase_last_success_timestamp_seconds") <= datetime.now(UTC).timestamp()
    assert value(host, "kloros_cycles_total", job="phase", result="succeeded") == 1


def test_what_a_dead_process_left_is_counted_by_kind(host: Host) -> None:
    host.decided()
    (host.state / ".latest.json.4194304.1.tmp").touch()
    host.decided()
    assert value(host, "kloros_orchestrator_reaped_total", kind="temporary_file") == 1


def test_latest_says_how_things_stand(host: Host) -> None:
    record = host.decided()
    found = latest(host)
    assert found.items() >= record.items()
    ours = {"schema", "mode", "active_cycle", "next_window", "queues", "cycles", "verdict", "causes"}
    assert found.keys() - record.keys() == ours
    assert found["schema"] == "v1"
    assert found["mode"] == "enabled"
    opens = datetime.fromisoformat(found["next_window"]["opens_at"])
    assert 0 < (opens - datetime.now(UTC)).total_seconds() <= 3 * 3600
    assert stat.S_IMODE((host.state / "latest.json").stat().st_mode) == 0o640
