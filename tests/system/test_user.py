"""`./install.sh --user`: one person's own, under their own systemd."""

from __future__ import annotations

import pytest

from tests.system.guest import Completed, Guest
from tests.system.installation import copy_source, shut_shipped
from tests.waiting import until

HOME = "/home/ada"
STATE = f"{HOME}/.local/state/kloros"


@pytest.fixture
def ada(guest: Guest) -> Guest:
    """A person without root, logged in, with the source in their home. The host's own installation is gone."""
    guest.sh("cd /root/kloros && ./install.sh --uninstall --purge")
    guest.sh("useradd --create-home --shell /bin/bash ada && loginctl enable-linger ada")
    copy_source(guest.path(f"{HOME}/kloros"))
    shut_shipped(guest, guest.path(f"{HOME}/kloros/systemd/orchestrator.toml"))
    guest.sh(f"chown -R ada: {HOME}/kloros")
    until(lambda: guest.path(f"/run/user/{uid(guest)}/systemd/private").exists(), what="ada's own systemd runs")
    return guest


def uid(guest: Guest) -> str:
    return guest.sh("id -u ada").out.strip()


def as_ada(guest: Guest, command: str, *, check: bool = True) -> Completed:
    login = f"cd {HOME}/kloros; export HOME={HOME} USER=ada XDG_RUNTIME_DIR=/run/user/{uid(guest)}"
    return guest.sh(f"{login}; {command}", user="ada", check=check, timeout=300)


def test_one_person_installs_ticks_and_removes_it(ada: Guest) -> None:
    ended = as_ada(ada, "./install.sh --user 2>&1")
    assert "!!" not in ended.out, ended
    assert as_ada(ada, "systemctl --user is-active kloros-orchestrator.timer").out == "active\n"
    as_ada(ada, "systemctl --user start kloros-orchestrator.service")
    assert ada.path(f"{STATE}/history.jsonl").exists()
    assert ada.path(f"{STATE}/kloros.prom").exists()
    assert not ada.path("/var/lib/kloros").exists()

    # Hints work without root too, and cycles run.
    as_ada(ada, "systemctl --user stop kloros-orchestrator.timer")
    as_ada(ada, "~/.local/bin/klorosctl intents add curiosity_user --priority 5 --reason because")
    manifest = ada.path(f"{STATE}/cycles/cycle_00001/manifest.json")
    until(lambda: manifest.exists() and '"succeeded"' in manifest.read_text(), what="the cycle succeeds")
    assert as_ada(ada, "systemctl --user list-units --failed --no-legend").out == ""

    said = as_ada(ada, "systemctl --user start kloros-orchestrator.timer; ~/.local/bin/klorosctl doctor", check=False).out
    assert "\nerror" not in f"\n{said}", said

    assert as_ada(ada, "systemctl --user is-active kloros-logrotate.timer").out == "active\n"
    as_ada(ada, f"truncate -s 65M {STATE}/alerts.jsonl {STATE}/consent.jsonl")
    as_ada(ada, "systemctl --user start kloros-logrotate.service")
    assert ada.path(f"{STATE}/alerts.jsonl.1").exists()
    assert ada.path(f"{STATE}/consent.jsonl.1").exists()

    again = as_ada(ada, "./install.sh --user 2>&1")
    assert "is here already" in again.out
    as_ada(ada, "~/.local/bin/klorosctl rollback-rollout --yes")
    assert ada.path(f"{STATE}/kloros.db").exists()
    assert not ada.path(f"{HOME}/.local/share/kloros").exists()
    assert as_ada(ada, "systemctl --user list-units --all 'kloros*' --no-legend --plain").out == ""
    as_ada(ada, "./install.sh --user --uninstall --purge")
    left = ada.sh(f"find {HOME} -path {HOME}/kloros -prune -o -iname '*kloros*' -print").out
    assert left == ""


def test_root_is_told_that_it_is_for_one_person(ada: Guest) -> None:
    ended = ada.sh("cd /root/kloros && ./install.sh --user", check=False)
    assert ended.code == 64
    assert "you are root" in ended.err


def test_a_person_without_root_is_told_what_to_type(ada: Guest) -> None:
    ended = as_ada(ada, "./install.sh", check=False)
    assert ended.code == 77
    assert "sudo ./install.sh" in ended.err
