"""Disabling, as operators do it."""

from __future__ import annotations

import pytest

from tests.system.guest import Guest
from tests.system.operator import DISABLE_BY_SED, STATE, TICK, Operator
from tests.waiting import until

DROP_IN = f"""
mkdir -p /etc/systemd/system/{TICK}.d
printf '[Service]\\nEnvironment=KLR_ORCHESTRATION_MODE=disabled\\n' >/etc/systemd/system/{TICK}.d/override.conf
systemctl daemon-reload
"""


@pytest.mark.parametrize("how", ["klorosctl disable", DROP_IN, DISABLE_BY_SED], ids=["klorosctl", "drop-in", "sed"])
def test_disabled_ticks_do_nothing_and_fail_nothing(how: str, guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure("")
    guest.sh(f"systemctl start {TICK}")
    guest.sh(how)
    count = len(operator.ticks())
    name = operator.drop("suggest_something")
    until(lambda: len(operator.ticks()) > count, what="a tick is turned away, and recorded")
    until(lambda: operator.state_of(TICK) == "inactive", what="it has ended")
    assert operator.property_of(TICK, "ExecMainStatus") == "2"
    assert operator.property_of(TICK, "Result") == "success"
    assert guest.path(f"{STATE}/intents/{name}").exists()
    assert operator.ticks()[-1]["exit_code"] == 2
    assert guest.sh("systemctl list-units --failed --no-legend").out == ""


def test_what_klorosctl_disables_it_enables(guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure("")
    guest.sh("klorosctl disable && klorosctl enable")
    name = operator.drop("suggest_something")
    until(lambda: name in operator.processed("processed"), what="the intent is handled")


def test_the_kill_switch_halts(guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure("")
    guest.sh("klorosctl halt")
    guest.sh(f"systemctl start {TICK}", check=False)
    assert operator.property_of(TICK, "ExecMainStatus") == "20"
    guest.sh("klorosctl unhalt")
    guest.sh(f"systemctl start {TICK}")
    assert operator.property_of(TICK, "ExecMainStatus") == "0"


def test_root_and_kloros_share_the_state(guest: Guest, operator: Operator) -> None:
    """What root does with klorosctl leaves nothing behind that the timer's tick can't use."""
    operator.without_timer().configure("")
    for command in ("status", "explain", "tick", "doctor", "intents add suggest_root --priority 5 --reason because"):
        guest.sh(f"klorosctl {command}", check=command != "doctor")
    guest.sh(f"systemctl start {TICK}")
    foreign = guest.sh(f"find {STATE} ! -user kloros").out
    assert foreign == ""
    until(lambda: any("suggest_root" in name for name in operator.processed("processed")), what="root's intent is handled")
