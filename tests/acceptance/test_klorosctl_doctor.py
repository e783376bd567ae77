"""`klorosctl doctor`: what is broken is an error with advice and exit 1; what only deserves a look is a warning."""

from __future__ import annotations

import json
import os
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestration.host import process_identity
from tests.acceptance.host import Host

SERVICE = "kloros-orchestrator.service"


def doctor(host: Host, *flags: str, code: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Return the checks by name."""
    done = host.run("klorosctl", *flags, "doctor", "--json")
    assert done.returncode == code, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert document["healthy"] is (code == 0)
    found: dict[str, list[dict[str, Any]]] = {}
    for check in document["checks"]:
        found.setdefault(check["name"], []).append(check)
    return found


def worst(checks: dict[str, list[dict[str, Any]]], name: str) -> dict[str, Any]:
    order = ["ok", "warning", "error"]
    return max(checks[name], key=lambda check: order.index(check["level"]))


def change(host: Host, statement: str, *values: object) -> None:
    with sqlite3.connect(host.state / "kloros.db") as connection:
        connection.execute(statement, values)
    connection.close()


def ago(**length: float) -> str:
    return (datetime.now(UTC) - timedelta(**length)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_it_is_well_before_the_first_tick_and_after_it(host: Host) -> None:
    assert {check["level"] for checks in doctor(host).values() for check in checks} <= {"ok", "warning"}
    host.decided()
    found = doctor(host)
    for name in ("settings", "mode", "folders", "orchestrator.lock", "runner.lock", "store", "runner", "ticks", "zone"):
        assert worst(found, name)["level"] == "ok", found[name]
    for name in ("clock", "units", "textfile", "journal", "disk"):
        assert name in found


def test_every_fault_comes_with_what_to_do(host: Host) -> None:
    host.set(KLR_ORCHESTRATION_MODE="disabled", KLR_TYPO="1")
    text = host.run("klorosctl", "doctor").stdout
    assert "do: klorosctl enable" in text
    assert "KLR_TYPO" in text
    found = [check for checks in doctor(host).values() for check in checks]
    assert all(check["advice"] for check in found if check["level"] != "ok")


def test_it_is_the_default_phase(host: Host) -> None:
    host.intend("trigger_phase", priority=9)
    assert host.tick("--wait").returncode == 0
    report = json.loads((host.state / "cycles/cycle_00001/artifacts/report.json").read_text())
    assert [domain["name"] for domain in report["domains"]] == ["doctor"]
    output = (host.state / "cycles/cycle_00001/logs/domain_01.log").read_text()
    assert "a runner is at cycle 1" in output


def test_a_folder_that_is_none_is_an_error(host: Host) -> None:
    host.state.mkdir()
    (host.state / "intents").write_text("not a folder")
    found = doctor(host, code=1)["folder"][0]
    assert found["evidence"] == f"{host.state / 'intents'}: is no folder"
    assert "ls -ld" in found["advice"]


def test_a_state_folder_that_is_none_is_one_fault(host: Host) -> None:
    host.state.write_text("not a folder")
    assert [check["evidence"] for check in doctor(host, code=1)["folder"]] == [f"{host.state}: is no folder"]


def test_invalid_settings_are_an_error_that_lists_them(host: Host) -> None:
    host.set(KLR_PHASE_TIME_ZONE="Mars/Olympus", KLR_DREAM_TIMEOUT="soon")
    found = worst(doctor(host, code=1), "settings")
    assert "Mars/Olympus" in found["evidence"]
    assert "soon" in found["evidence"]


def test_a_store_that_is_no_database_is_an_error(host: Host) -> None:
    host.state.mkdir()
    (host.state / "kloros.db").write_bytes(b"x" * 8192)
    assert worst(doctor(host, code=1), "store")["level"] == "error"


def test_a_runner_that_never_comes_is_an_error(host: Host) -> None:
    host.stepwise()
    host.promote("candidate")
    host.decided()
    assert worst(doctor(host), "runner")["level"] == "ok"
    change(host, "UPDATE cycles SET queued_at = ?", ago(minutes=5))
    found = worst(doctor(host, code=1), "runner")
    assert "queued for 5min" in found["evidence"]
    assert "run_cycle" in found["advice"]


def test_a_cycle_without_its_runner_is_told(host: Host) -> None:
    test_a_runner_that_never_comes_is_an_error(host)
    change(host, "UPDATE cycles SET state = 'running', started_at = queued_at")
    assert "no runner lives" in worst(doctor(host), "runner")["evidence"]
    assert "no runner lives" in host.run("klorosctl", "status").stdout
    assert "lost" in host.run("klorosctl", "cancel", "1").stdout


def test_ticks_that_stopped_are_told(host: Host) -> None:
    host.decided()
    change(host, "UPDATE ticks SET started_at = ?", ago(hours=1))
    assert worst(doctor(host), "ticks")["level"] == "warning"
    install(host)
    assert worst(doctor(host, "--user", code=1), "ticks")["level"] == "error"


def test_an_old_textfile_is_told(host: Host) -> None:
    import os

    host.decided()
    assert worst(doctor(host), "textfile")["level"] == "ok"
    old = datetime.now(UTC).timestamp() - 600
    os.utime(host.textfile, (old, old))
    assert "is 10min" in worst(doctor(host), "textfile")["evidence"]
    host.configure('\n[phase]\nmissed = "skip"\n')
    host.set(KLR_TEXTFILE="/nowhere/at/all/kloros.prom")
    assert "is not there" in worst(doctor(host), "textfile")["evidence"]


def test_parked_promotions_are_told(host: Host) -> None:
    host.set(KLR_DREAM_COMMAND="false", KLR_DREAM_PARK_AFTER="1")
    host.stepwise()
    host.promote("stubborn")
    host.decided()
    host.run_queued()
    found = worst(doctor(host), "promotions")
    assert (found["level"], "promotions list" in found["advice"]) == ("warning", True)


def install(host: Host) -> Path:
    """Install the units of this checkout for one person, without what starts them."""
    folder = host.home / ".config/systemd/user"
    folder.mkdir(parents=True)
    for unit in (Path(__file__).parents[2] / "systemd").glob("kloros-*"):
        text = unit.read_text().replace("/var/lib/kloros", str(host.state))
        (folder / unit.name).write_text(text.replace("[Service]\n", f"[Service]\nEnvironment=KLR_CONFIG={host.config}\n"))
    return folder


def test_a_unit_that_is_missing_is_an_error(host: Host) -> None:
    folder = install(host)
    assert all(check["level"] != "error" for check in doctor(host, "--user")["units"])
    (folder / "kloros-cycle.path").unlink()
    found = worst(doctor(host, "--user", code=1), "units")
    assert "kloros-cycle.path" in found["evidence"]
    assert "install.sh --user" in found["advice"]


def test_a_unit_of_another_version_is_told(host: Host, tmp_path: Path) -> None:
    folder = install(host)
    leader = tmp_path / "python"
    leader.write_text('#!/bin/sh\nexec /opt/kloros/versions/0.0.1-old/bin/python "$@"\n')
    service = folder / SERVICE
    service.write_text(service.read_text().replace("/opt/kloros/bin/python", str(leader)))
    found = worst(doctor(host, "--user"), "units")
    assert "versions/0.0.1-old" in found["evidence"]


@pytest.mark.parametrize("held", ["orchestrator.lock", "runner.lock"])
def test_a_lock_that_is_held_is_told_and_no_fault(host: Host, held: str) -> None:
    import fcntl

    host.decided()
    with open(host.state / "locks" / held, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        found = worst(doctor(host), held)
    assert (found["level"], found["evidence"].startswith("held by")) == ("ok", True)


def test_a_lock_that_another_process_took_than_the_one_in_its_record_is_told(host: Host) -> None:
    """Whoever takes it without writing a record leaves the one of the last tick, which is dead."""
    import fcntl

    host.decided()
    path = host.state / "locks" / "orchestrator.lock"
    noted = json.loads(path.read_text())
    with open(path, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        found = worst(doctor(host), "orchestrator.lock")
        assert found["level"] == "warning"
        assert found["evidence"] == f"held by another process; its record (pid {noted['pid']}) is old"
        assert found["advice"].startswith("lslocks ")
        alive = {"pid": os.getpid(), "start_time": process_identity.current().start_time}
        path.write_text(json.dumps({**noted, **alive}))
        found = worst(doctor(host), "orchestrator.lock")
        assert (found["level"], found["evidence"].startswith("held by a tick:")) == ("ok", True)
