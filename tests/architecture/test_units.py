"""The units against systemd's own checkers, against `Exit`, and against the settings' defaults."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from orchestration import supervise
from orchestration.configuration import SYSTEM_STATE_DIR
from orchestration.exits import Exit
from orchestration.host.journal import MESSAGE_IDS
from orchestration.serving import process
from orchestration.settings import Settings
from orchestration.store.postgres_database import PATIENCE

ROOT = Path(__file__).parents[2]
SYSTEMD = ROOT / "systemd"
UNITS = sorted(path for path in SYSTEMD.iterdir() if path.suffix in (".service", ".path", ".socket", ".timer"))
USER_UNITS = sorted((SYSTEMD / "user").iterdir())
SERVICES = [path for path in UNITS if path.suffix == ".service"]
DEFAULTS = Settings.model_validate({"state_dir": SYSTEM_STATE_DIR})
CONFINEMENT = re.compile(r"Protect|Private|Restrict|IPAddress|Device|Memory|SystemCallFilter|Capability|Remove|Lock|NoNew")


def directives(unit: Path) -> dict[str, list[str]]:
    """Every directive of a unit file with its values in order."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in unit.read_text().replace("\\\n", " ").splitlines():
        if not line.startswith(("#", "[")) and "=" in line:
            key, value = line.split("=", 1)
            found[key].append(value.strip())
    return found


def unit(name: str) -> dict[str, list[str]]:
    return directives(SYSTEMD / name)


def analyze(*arguments: str, units: Path) -> str:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (Debian package systemd)")
    ended = subprocess.run(
        ["systemd-analyze", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "SYSTEMD_UNIT_PATH": f"{units}:",
            "HOME": str(units),
            "XDG_RUNTIME_DIR": str(units),
        },
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return ended.stdout + ended.stderr + (f"exit {ended.returncode}" if ended.returncode else "")


def with_our_python(folder: Path, text_of: dict[str, str]) -> list[str]:
    """Lay units into a folder with an interpreter that exists here, since verify looks for it."""
    for name, text in text_of.items():
        (folder / name).write_text(re.sub(r"=(\S+/bin/python|/usr/sbin/logrotate) ", f"={sys.executable} ", text))
    return [str(folder / name) for name in text_of]


def test_systemd_finds_no_fault_in_any_unit(tmp_path: Path) -> None:
    paths = with_our_python(tmp_path, {path.name: path.read_text() for path in UNITS})
    assert analyze("verify", "--man=no", *paths, units=tmp_path) == ""


def test_units_for_one_person_have_no_fault_either(tmp_path: Path) -> None:
    made = {path.name: _for_one_person(path, home="/home/ada") for path in (*UNITS, *USER_UNITS)}
    paths = with_our_python(tmp_path, made)
    assert analyze("verify", "--user", "--man=no", *paths, units=tmp_path) == ""


@pytest.mark.parametrize("path", [*UNITS, *USER_UNITS], ids=lambda path: path.name)
def test_units_for_one_person_need_nothing_of_the_host(path: Path) -> None:
    made = _for_one_person(path, home="/home/ada")
    orders = "\n".join(line for line in made.splitlines() if not line.startswith("#"))
    for foreign in ("/opt/", "/var/lib", "/etc/", "User=", "Group=", "StateDirectory", "Protect", "Private"):
        assert foreign not in orders


def _for_one_person(path: Path, *, home: str) -> str:
    script = f'source "{ROOT}/install.sh"; set_places_user; user_unit "{path}"'
    return subprocess.run(
        ["bash", "-c", script], env={"HOME": home, "PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    ("name", "highest"),
    [
        ("kloros-orchestrator.service", 0.7),
        ("kloros-alert@.service", 0.5),
        ("kloros-pulse.service", 0.5),
        ("kloros-bridge.service", 1.8),
        ("kloros-supervisor.service", 4.0),
        ("kloros-cycle.service", 3.3),
        ("kloros-loop.service", 3.3),
        ("kloros-notice.service", 1.6),
        ("kloros-scope.service", 1.8),
    ],
)
def test_services_are_as_confined_as_they_were(name: str, highest: float) -> None:
    said = analyze("security", "--offline=yes", str(SYSTEMD / name), units=SYSTEMD)
    score = re.search(r"Overall exposure level for .*: ([\d.]+)", said)
    assert score, said
    assert float(score[1]) <= highest, said


@pytest.mark.parametrize("name", ["kloros-cycle.service", "kloros-loop.service"])
def test_each_relaxation_of_the_units_with_commands_says_why(name: str) -> None:
    strict, lax = unit("kloros-orchestrator.service"), unit(name)
    text = (SYSTEMD / name).read_text()
    comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for key in filter(CONFINEMENT.match, strict):
        if lax.get(key) != strict[key]:
            assert f"{key}=" in comments, f"{key}= differs without a word"


@pytest.mark.parametrize("name", ["kloros-orchestrator.service", "kloros-cycle.service", "kloros-loop.service"])
def test_success_is_what_exit_says(name: str) -> None:
    numbers = {int(number) for value in unit(name)["SuccessExitStatus"] for number in value.split()}
    assert numbers == {Exit.DISABLED, Exit.LOCK_HELD}


def test_a_tick_ends_before_the_next_one_is_due() -> None:
    tick = unit("kloros-orchestrator.service")
    assert int(tick["TimeoutStartSec"][0]) < 60
    assert tick["Type"] == ["oneshot"]


def test_operators_find_the_mode_as_their_notes_have_it() -> None:
    """Once, so that their sed changes nothing else."""
    assert (SYSTEMD / "kloros-orchestrator.service").read_text().count("KLR_ORCHESTRATION_MODE=") == 1
    assert "KLR_ORCHESTRATION_MODE=enabled" in unit("kloros-orchestrator.service")["Environment"]


def test_the_timer_neither_dies_nor_skips_the_repeated_hour() -> None:
    timer = unit("kloros-orchestrator.timer")
    assert timer["OnCalendar"] == ["*-*-* *:*:00 UTC"]
    assert timer["AccuracySec"] == ["1s"]
    assert not {"OnUnitActiveSec", "OnUnitInactiveSec", "OnBootSec"} & timer.keys()


def test_stopping_the_cycle_unit_outlasts_the_runners_grace() -> None:
    assert int(unit("kloros-cycle.service")["TimeoutStopSec"][0]) > DEFAULTS.cycles.term_grace.total_seconds()


def test_the_loop_stays_down_at_its_failure_limit_and_where_trying_again_can_not_help() -> None:
    loop = unit("kloros-loop.service")
    numbers = {int(number) for value in loop["RestartPreventExitStatus"] for number in value.split()}
    assert numbers == {Exit.FAILURE_LIMIT, Exit.HALTED, Exit.USAGE, Exit.SETTINGS_INVALID}
    assert loop["Restart"] == ["on-failure"]
    assert loop["OnFailure"] == ["kloros-alert@%n.service"]


def test_the_loop_is_watched_and_stopping_it_outlasts_its_cycle() -> None:
    loop = unit("kloros-loop.service")
    assert loop["Type"] == ["notify"]
    assert int(loop["WatchdogSec"][0]) > 30, "the longest that the loop is silent: git, asked about a work tree"
    (stop_timeout,) = [
        value.partition("=")[2] for value in loop["Environment"] if value.startswith("RUN_CYCLE_STOP_TIMEOUT")
    ]
    assert int(loop["TimeoutStopSec"][0]) > int(stop_timeout) + DEFAULTS.cycles.term_grace.total_seconds()
    assert loop["KillMode"] == ["mixed"], "systemd must not end the command that the loop lets finish"


def test_the_bridge_is_watched_and_stays_down_where_trying_again_can_not_help() -> None:
    bridge = unit("kloros-bridge.service")
    assert bridge["Type"] == ["notify"]
    assert int(bridge["WatchdogSec"][0]) >= 3 * process.STILL_ALIVE
    assert int(bridge["TimeoutStopSec"][0]) > process.GRACE + 5, "streams, answers, then the store's last commit"
    numbers = {int(number) for value in bridge["RestartPreventExitStatus"] for number in value.split()}
    assert numbers == {Exit.USAGE, Exit.SETTINGS_INVALID}
    assert bridge["Restart"] == ["on-failure"]


def test_each_relaxation_of_the_bridge_says_why() -> None:
    strict, lax = unit("kloros-pulse.service"), unit("kloros-bridge.service")
    text = (SYSTEMD / "kloros-bridge.service").read_text()
    comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for key in filter(CONFINEMENT.match, strict):
        same = set(strict[key]) <= set(lax.get(key, []))
        assert same or f"{key}=" in comments or key == "RestrictAddressFamilies", f"{key}= differs without a word"


def test_the_supervisor_is_watched_and_its_turns_outlive_it() -> None:
    found = unit("kloros-supervisor.service")
    assert found["Type"] == ["notify"]
    assert int(found["WatchdogSec"][0]) >= 3 * supervise.STILL_ALIVE
    assert int(found["TimeoutStopSec"][0]) > supervise.GRACE + 5, "what is under way, its claims, then the store"
    assert found["KillMode"] == ["process"], "a turn is ended by its own runner"
    numbers = {int(number) for value in found["RestartPreventExitStatus"] for number in value.split()}
    assert numbers == {Exit.USAGE, Exit.SETTINGS_INVALID}
    assert found["SuccessExitStatus"] == [str(int(Exit.LOCK_HELD))]
    assert found["Restart"] == ["on-failure"]


def test_each_relaxation_of_the_supervisor_says_why() -> None:
    strict, lax = unit("kloros-bridge.service"), unit("kloros-supervisor.service")
    text = (SYSTEMD / "kloros-supervisor.service").read_text()
    comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for key in filter(CONFINEMENT.match, strict):
        if key != "RestrictAddressFamilies":
            assert lax.get(key) == strict[key] or f"{key}=" in comments, f"{key}= differs without a word"


def test_the_lead_is_given_up_after_the_tick_that_may_be_at_work_and_before_the_network_goes() -> None:
    """Units are stopped in the opposite of the order in which they start."""
    found = unit("kloros-scope.service")
    assert found["Before"] == ["kloros-orchestrator.service"]
    assert "network-online.target" in found["After"][0].split()
    assert found["RemainAfterExit"] == ["yes"], "or it has nothing to stop"
    (stop,) = found["ExecStop"]
    assert stop.startswith("-"), "that it can't be given up is no failure of the stop"
    assert stop.endswith(" -m orchestration.klorosctl leader release")
    assert int(found["TimeoutStopSec"][0]) > 3 * PATIENCE["connect_timeout"]


def test_no_burst_can_fail_a_unit() -> None:
    for path in ("kloros-orchestrator.path", "kloros-cycle.path", "kloros-notice.path"):
        assert unit(path)["TriggerLimitIntervalSec"] == ["0"]
    for service in SERVICES:
        assert directives(service)["StartLimitIntervalSec"] == ["0"], service.name


def test_paths_of_the_units_are_the_settings_defaults() -> None:
    state = DEFAULTS.state_dir
    assert unit("kloros-orchestrator.path")["PathChanged"] == [f"{state}/intents", DEFAULTS.promotions_dir]
    assert unit("kloros-orchestrator.path")["PathExists"] == [f"{state}/kick/tick"]
    assert unit("kloros-cycle.path")["PathExists"] == [f"{state}/kick/cycle"]
    assert unit("kloros-notice.path")["PathExists"] == [f"{state}/kick/notice"]
    for service in SERVICES:
        assert directives(service)["WorkingDirectory"] == [state], service.name
    assert unit("kloros-orchestrator.service")["ReadWritePaths"] == [f"-{os.path.dirname(DEFAULTS.textfile)}"]


def test_state_folders_are_their_owners_alone() -> None:
    rows = [line.split() for line in (SYSTEMD / "tmpfiles.d/kloros.conf").read_text().splitlines() if line.startswith("d")]
    assert {(mode, user, group, age) for _, _, mode, user, group, age in rows} == {("0700", "kloros", "kloros", "-")}
    named = {os.path.relpath(path, DEFAULTS.state_dir) for _, path, *_ in rows}
    assert {"locks", "kick", "intents", "intents/processed", "signals", "promotions", "promotions_ack"} <= named


def test_the_alerts_message_id_is_its_own() -> None:
    found = re.findall(r"MESSAGE_ID=([0-9a-f]{32})", (SYSTEMD / "kloros-alert@.service").read_text())
    assert len(found) == 1
    assert found[0] not in MESSAGE_IDS.values()


@pytest.mark.parametrize(
    ("changed", "again"),
    [("nothing", False), ("promotions/new", True), ("intents/new", True), ("promotions", False), ("intents/old", False)],
)
def test_a_tick_follows_for_what_came_meanwhile_and_not_for_what_is_dated_after_now(
    tmp_path: Path, changed: str, again: bool
) -> None:
    """A folder from the future (a clock set back, `rsync -a`) is always newer than the tick: ticks without end."""
    for folder in ("kick", "promotions", "intents"):
        (tmp_path / folder).mkdir()
    future = "true" if again else "touch -d '+1 hour' promotions intents intents/old"
    meanwhile = f"[ {changed} = nothing ] || [ -e {changed} ] || : >{changed}"
    (after,) = unit("kloros-orchestrator.service")["ExecStopPost"]
    for script in (f"{future}; : >kick/.tick-started", "sleep 0.02", meanwhile):
        subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True)
    subprocess.run(["sh", "-c", after.removeprefix("-/bin/sh -c '").removesuffix("'")], cwd=tmp_path, check=False)
    assert (tmp_path / "kick" / "tick").exists() == again
