"""The main job on a real systemd: PHASE in its window, promotions answered, every step in the journal."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import timedelta

from tests.system.guest import Guest
from tests.system.operator import CYCLE, STATE, TICK, Operator
from tests.waiting import until

PHASE = """
[phase]
command = ["sh", "-c", "mkdir -p $KLR_CYCLE_DIR/artifacts && echo '{}' >$KLR_CYCLE_DIR/artifacts/report.json"]
"""


def test_a_phase_in_its_window(guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure(PHASE, window_opens_in=timedelta(minutes=-5))
    guest.sh(f"systemctl start {TICK}")
    manifest = operator.ended_cycle(1)
    assert (manifest["job"], manifest["state"]) == ("phase", "succeeded")
    signals = list(guest.path(f"{STATE}/signals").iterdir())
    assert [oct(path.stat().st_mode & 0o7777) for path in signals] == ["0o640"]
    signal = json.loads(signals[0].read_text())
    assert re.fullmatch(r"klr_phase_complete_phase_cycle_\d{8}_\d{6}\.json", signals[0].name)
    assert signal["sha256"] == hashlib.sha256(guest.path(signal["report"]).read_bytes()).hexdigest()

    # The tick that follows at once, without the timer, settles it and starts no second PHASE for this date.
    until(lambda: operator.ticks()[-1]["decision"] == "noop", what="a tick follows")
    last = operator.ticks()[-1]
    assert "phase_done_today" in [found["reason"] for found in last["reasons"]]
    assert operator.manifest(2) is None


def test_the_default_phase_runs_the_doctor_inside_the_cycle_unit(guest: Guest, operator: Operator) -> None:
    """With the timer running, since the doctor calls a stopped one an error; its warnings fail nothing."""
    operator.configure("", window_opens_in=timedelta(minutes=-5))
    guest.path(f"{STATE}/kick/tick").touch()
    manifest = operator.ended_cycle(1, within=60)
    output = guest.path(f"{STATE}/cycles/cycle_00001/logs/output.log").read_text()
    assert manifest["state"] == "succeeded", output


def test_promotions_are_answered_without_a_timer(guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure("")
    operator.promote("gen1_fine", learning_rate=0.01)
    operator.promote("gen1_out_of_bounds", learning_rate=7.0)
    acks = guest.path(f"{STATE}/promotions_ack")
    until(lambda: len(list(acks.glob("*_ack.json"))) == 2, what="both are answered", within=30)
    said = {path.name: json.loads(path.read_text())["accepted"] for path in acks.glob("*_ack.json")}
    assert said == {"gen1_fine_ack.json": True, "gen1_out_of_bounds_ack.json": False}
    assert guest.sh("systemctl list-units --failed --no-legend").out == ""


def test_a_tick_is_one_line_in_the_journal_with_native_fields(guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure("")
    guest.sh(f"systemctl start {TICK}")
    tick = operator.ticks()[-1]
    entries = guest.journal(f"TICK_ID={tick['tick_id']}")
    assert len(entries) == 1, entries
    entry = entries[0]
    assert entry["SYSLOG_IDENTIFIER"] == "kloros-orchestrator"
    assert entry["_SYSTEMD_UNIT"] == TICK
    assert entry["DECISION"].lower() == "noop"
    assert "no_intents" in entry["REASON"]
    assert re.fullmatch(r"[0-9a-f]{32}", entry["MESSAGE_ID"])
    assert "\n" not in entry["MESSAGE"]
    # The line that `journalctl -u kloros-orchestrator.service` shows is the readable one.
    assert entry["MESSAGE"] in guest.sh(f"journalctl --no-pager -u {TICK}").out


def test_a_cycle_is_in_the_journal_by_its_number(guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure(PHASE, window_opens_in=timedelta(minutes=-5))
    guest.sh(f"systemctl start {TICK}")
    until(lambda: (m := operator.manifest(1)) and m["state"] == "succeeded", what="the PHASE succeeds")
    until(lambda: len(operator.ticks()) >= 2, what="it is settled")
    entries = guest.journal("CYCLE=1")
    assert {entry["_SYSTEMD_UNIT"] for entry in entries} == {TICK, CYCLE}
    assert len({entry["MESSAGE_ID"] for entry in entries}) >= 3


def test_a_manual_tick_is_the_one_in_the_readme(guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure("")
    record = json.loads(operator.tick("--json").splitlines()[0])
    assert record["decision"] == "noop"
    assert operator.ticks()[-1]["tick_id"] == record["tick_id"]


def test_waiting_for_a_cycle_that_systemd_runs(guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure('[phase]\ncommand = ["false"]\n', window_opens_in=timedelta(minutes=-5))
    ended = guest.sh(
        "sudo -u kloros KLR_ORCHESTRATION_MODE=enabled /opt/kloros/bin/python -m orchestration.run_once --wait", check=False
    )
    assert ended.code == 10, ended


def test_a_failing_unit_is_an_alert(guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure("nonsense = 1")
    guest.sh(f"systemctl start {TICK}", check=False)
    assert operator.property_of(TICK, "ExecMainStatus") == "78"
    entry = until(lambda: guest.journal("MESSAGE_ID=066e76bcf03a48ae852c2a6e8110fe29"), what="the alert")[-1]
    assert entry["PRIORITY"] == "3"
    assert entry["KLOROS_UNIT"] == TICK
    assert entry["MESSAGE"] == f"unit {TICK} failed (exit-code, exit status 78)"
    alerts = guest.path(f"{STATE}/alerts.jsonl")
    until(lambda: alerts.exists() and alerts.read_text(), what="alerts.jsonl")
    lines = alerts.read_text().splitlines()
    alert = json.loads(lines[-1])
    assert (alert["unit"], alert["exit_status"]) == (TICK, "78")


def test_a_fault_that_lasts_is_told_once_an_hour(guest: Guest, operator: Operator) -> None:
    operator.without_timer()
    alert, alerts = "kloros-alert@lasting.service", guest.path(f"{STATE}/alerts.jsonl")
    for _ in range(2):
        guest.sh(f"systemctl start {alert}")
    guest.sh(f"touch -d '61 minutes ago' {STATE}/.alert-lasting-")
    guest.sh(f"systemctl start {alert}")
    told = [line for line in alerts.read_text().splitlines() if json.loads(line)["unit"] == "lasting"]
    assert len(told) == 2
