"""install.sh on a bare Debian 12: what it leaves, and that doing it again changes nothing."""

from __future__ import annotations

import re

from tests.system.guest import Guest
from tests.system.installation import SOURCE, Installed, copy_source, run_installer
from tests.system.operator import CONFIG, CYCLE, DISABLE_BY_SED, STATE, Operator
from tests.waiting import until


def test_a_bare_debian_gets_all_it_needs(installed: Installed) -> None:
    assert "apt-get install python3 python3-venv" in installed.output
    assert "!!" not in installed.output, installed.output
    assert "klorosctl status" in installed.output


def test_the_units_are_enabled_and_running(guest: Guest) -> None:
    for unit in ("kloros-orchestrator.timer", "kloros-orchestrator.path", "kloros-cycle.path"):
        assert guest.sh(f"systemctl is-enabled {unit}; systemctl is-active {unit}").out.split() == ["enabled", "active"]
    assert "kloros-orchestrator.service" in guest.sh("systemctl list-timers kloros-orchestrator.timer").out


def test_systemd_252_has_no_word_against_the_units(guest: Guest) -> None:
    assert str(guest.sh("systemd-analyze verify /etc/systemd/system/kloros-*").out) == ""


def test_confinement_in_force_is_as_tight_as_promised(guest: Guest) -> None:
    for unit, highest in (("kloros-orchestrator.service", 1.5), ("kloros-cycle.service", 3.5)):
        said = guest.sh(f"systemd-analyze security --no-pager {unit} | tail -1").out
        assert float(re.findall(r": ([\d.]+)", said)[0]) <= highest, said


def test_folders_are_for_kloros_alone(guest: Guest) -> None:
    listed = guest.sh(
        f"stat -c '%U %a %n' {STATE} {STATE}/locks {STATE}/kick {STATE}/intents {STATE}/intents/processed {STATE}/signals"
    ).out
    assert {tuple(line.split()[:2]) for line in listed.splitlines()} == {("kloros", "700")}


def test_the_program_logs_to_the_journal_natively(guest: Guest) -> None:
    guest.sh("/opt/kloros/bin/python -c 'import systemd._journal'")


def test_klorosctl_is_at_home_in_a_shell(guest: Guest) -> None:
    assert guest.path("/usr/local/share/man/man1/klorosctl.1").exists()
    completed = guest.sh(
        "source /usr/local/share/bash-completion/completions/klorosctl;"
        "COMP_WORDS=(klorosctl dis) COMP_CWORD=1; _klorosctl_completion klorosctl; echo ${COMPREPLY[@]}"
    )
    assert "disable" in completed.out


def test_the_doctor_knows_the_units_of_its_version(guest: Guest, operator: Operator) -> None:
    until(lambda: operator.ticks(), what="a tick", within=75)
    assert _units_in(guest.sh("klorosctl doctor", check=False).out) == "ok"
    guest.sh(DISABLE_BY_SED)
    assert _units_in(guest.sh("klorosctl doctor", check=False).out) == "ok"
    guest.sh("sed -i s/TimeoutStartSec=50/TimeoutStartSec=55/ /etc/systemd/system/kloros-orchestrator.service")
    assert _units_in(guest.sh("klorosctl doctor", check=False).out) == "warning"


def _units_in(report: str) -> str:
    """What the doctor says of the units."""
    return next(line.split()[0] for line in report.splitlines() if " units " in line)


def test_logrotate_accepts_its_file_and_rotates_as_kloros(guest: Guest, operator: Operator) -> None:
    operator.without_timer()
    guest.sh("systemctl start kloros-orchestrator.service")
    before = operator.ticks()
    guest.sh("logrotate --force /etc/logrotate.d/kloros")
    guest.sh("systemctl start kloros-orchestrator.service")
    rotated = guest.sh(f"stat -c %U {STATE}/history.jsonl {STATE}/history.jsonl.1").out.split()
    assert rotated == ["kloros", "kloros"]
    assert [tick["tick_id"] for tick in operator.ticks()] != [tick["tick_id"] for tick in before]


def test_installing_again_changes_nothing(guest: Guest, operator: Operator) -> None:
    guest.write(CONFIG, guest.path(CONFIG).read_text() + "# mine\n")
    snapshot = "find /opt/kloros /etc -path '*kloros*' -type f | sort | xargs -d '\\n' sha256sum"
    before = guest.sh(snapshot).out
    again = run_installer(guest)
    assert "is here already" in again.out
    assert guest.sh(snapshot).out == before
    assert operator.state_of("kloros-orchestrator.timer") == "active"


def test_what_an_operator_switched_off_stays_off(guest: Guest, operator: Operator) -> None:
    guest.sh("systemctl disable --now kloros-orchestrator.timer")
    guest.sh(DISABLE_BY_SED)
    run_installer(guest)
    assert operator.state_of("kloros-orchestrator.timer") == "inactive"
    assert "KLR_ORCHESTRATION_MODE=disabled" in operator.property_of("kloros-orchestrator.service", "Environment")


def test_without_a_compiler_it_installs_and_says_what_is_lost(guest: Guest, operator: Operator) -> None:
    guest.sh("dpkg --purge --force-depends libsystemd-dev && rm -rf /opt/kloros /root/.cache")
    # No package of that name to be had either, as behind a mirror that lacks it.
    guest.write("/etc/apt/preferences.d/none", "Package: libsystemd-dev\nPin: release *\nPin-Priority: -1\n")
    ended = run_installer(guest)
    assert "!!" in ended.out
    assert "JSON lines" in ended.out
    guest.sh("systemctl start kloros-orchestrator.service")
    lines = [entry["MESSAGE"] for entry in guest.journal("_SYSTEMD_UNIT=kloros-orchestrator.service")]
    assert any(str(line).startswith("{") and "NOOP" in str(line) for line in lines), lines


def test_uninstalling_keeps_the_state_and_purging_does_not(guest: Guest, operator: Operator) -> None:
    guest.sh("systemctl start kloros-orchestrator.service")
    run_installer(guest, "--uninstall")
    assert not guest.path("/opt/kloros").exists()
    assert not guest.path("/usr/local/bin/klorosctl").is_symlink()
    assert guest.sh("systemctl list-unit-files 'kloros*' --no-legend", check=False).out == ""
    assert guest.path(f"{STATE}/kloros.db").exists()
    assert guest.path(CONFIG).exists()

    assert run_installer(guest).code == 0
    until(lambda: operator.state_of("kloros-orchestrator.timer") == "active", what="it ticks again")
    guest.sh("systemctl start kloros-orchestrator.service")

    run_installer(guest, "--uninstall", "--purge")
    assert not guest.path(STATE).exists()
    assert not guest.path("/etc/kloros").exists()
    assert guest.sh("id kloros", check=False).code != 0
    ours = "-not -path '/root/kloros*' -not -path '/tmp/*' -not -path '/var/log/journal/*'"
    left = guest.sh(f"find / -xdev -iname '*kloros*' {ours}").out
    assert left == "", left


def test_an_upgrade_leaves_no_tick_without_its_program(guest: Guest, operator: Operator) -> None:
    """Ticks start all through an upgrade; each of them runs, the old version or the new one."""
    operator.configure("").without_timer()
    guest.sh(f"sed -i 's/^version = .*/version = \"9.9.9\"/' {SOURCE}/pyproject.toml")
    ticking = guest.spawn(f"while [ ! -e /run/enough ]; do : >{STATE}/kick/tick; sleep 0.1; done")
    ended = run_installer(guest)
    guest.sh("touch /run/enough")
    ticking.wait(timeout=30)
    assert "9.9.9-" in ended.out
    assert "9.9.9-" in guest.path("/opt/kloros/bin/python").read_text()
    assert len(list(guest.path("/opt/kloros/versions").iterdir())) == 2, "the version before stays, to go back to"
    assert operator.property_of("kloros-orchestrator.path", "Result") == "success"
    failed = guest.journal("-u", "kloros-orchestrator.service", "-p", "err")
    assert failed == []


def test_a_cycle_that_runs_through_an_upgrade_ends_well(guest: Guest, operator: Operator) -> None:
    working = f"touch {STATE}/working; while [ ! -e {STATE}/go ]; do sleep 0.05; done"
    operator.configure(f"[dream]\ncommand = ['sh', '-c', '{working}']\n").without_timer()
    operator.drop("curiosity_upgrade")
    until(lambda: guest.path(f"{STATE}/working").exists(), what="cycle 1 is at work")
    for number, versions in (("9.9.8", 2), ("9.9.9", 3)):
        guest.sh(f"sed -i 's/^version = .*/version = \"{number}\"/' {SOURCE}/pyproject.toml")
        ended = run_installer(guest)
        assert len(list(guest.path("/opt/kloros/versions").iterdir())) == versions
    assert "stays until the cycle that runs from it has ended" in ended.out
    guest.path(f"{STATE}/go").touch()
    assert operator.ended_cycle(1)["state"] == "succeeded"
    until(lambda: operator.state_of(CYCLE) == "inactive", what="the runner has ended as well")
    assert "is here already" in run_installer(guest).out
    assert sorted(path.name[:5] for path in guest.path("/opt/kloros/versions").iterdir()) == ["9.9.8", "9.9.9"]


def test_copying_the_source_is_what_a_clone_would_be(guest: Guest) -> None:
    """Guards the tests above: the guest installs from the same files as a stranger would."""
    copy_source(guest.path("/tmp/again"))
    assert guest.sh(f"diff -r /tmp/again {SOURCE}").out == ""
