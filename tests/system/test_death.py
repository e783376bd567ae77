"""Killed at a bad moment: the tick, the runner, the whole guest. Rule 4 of the design, on a real systemd."""

from __future__ import annotations

import pytest

from tests.system.guest import Guest
from tests.system.operator import CYCLE, STATE, TICK, Operator
from tests.waiting import until

# Leaves a grandchild in a session of its own that ignores SIGTERM, and works until it is told to end.
STUBBORN = """
[dream]
command = ["sh", "-c", '''
setsid sh -c 'trap "" TERM; while :; do sleep 60; done' &
touch $KLR_STATE_DIR/working
while [ ! -e $KLR_STATE_DIR/go ]; do sleep 0.05; done
''']
backoff = ["0s"]
[cycles]
term_grace = "1s"
"""


def survivors(guest: Guest) -> list[str]:
    """Processes in the guest that a cycle's command started, by the token in their environment."""
    return guest.sh("grep -lsa KLR_CYCLE_TOKEN= /proc/[0-9]*/environ", check=False).out.split()


def start_working(guest: Guest, operator: Operator) -> None:
    """Have cycle 1 run, and stay running."""
    operator.without_timer().configure(STUBBORN)
    operator.drop("curiosity_death")
    until(lambda: guest.path(f"{STATE}/working").exists(), what="cycle 1 is at work")
    until(lambda: operator.state_of(TICK) == "inactive", what="the tick has ended")
    assert survivors(guest)


def state_of_cycle(operator: Operator, number: int) -> str:
    manifest = operator.manifest(number)
    return str(manifest["state"]) if manifest else ""


def test_killing_the_tick_does_not_touch_the_cycle(guest: Guest, operator: Operator) -> None:
    start_working(guest, operator)
    guest.write(f"/etc/systemd/system/{TICK}.d/slow.conf", "[Service]\nExecStartPost=/bin/sleep 60\nTimeoutStartSec=55\n")
    guest.sh(f"systemctl daemon-reload; systemctl start --no-block {TICK}")
    until(lambda: operator.property_of(TICK, "SubState") == "start-post", what="a tick runs")
    guest.sh(f"systemctl kill --signal=KILL {TICK}")
    until(lambda: operator.state_of(TICK) == "failed", what="the tick is dead")
    assert operator.state_of(CYCLE) == "active"
    guest.path(f"/etc/systemd/system/{TICK}.d/slow.conf").unlink()
    guest.sh("systemctl daemon-reload")
    guest.path(f"{STATE}/go").touch()
    until(lambda: state_of_cycle(operator, 1) == "succeeded", what="the cycle succeeds")
    until(lambda: not survivors(guest), what="nothing of it is left")


def test_killing_ticks_at_random_moments_loses_nothing(guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure("[intents]\nmax_pending = 1000\nper_tick = 1000\n")
    names = set()
    # A tick takes about a tenth of a second; each one is killed a little later than the one before.
    for number in range(15):
        names.add(operator.drop("suggest_something"))
        guest.sh(f"systemctl start --no-block {TICK}; sleep 0.{number:02}; systemctl kill --signal=KILL {TICK}", check=False)
    guest.path(f"{STATE}/kick/tick").touch()

    def handled() -> bool:
        return operator.processed("processed") >= names

    until(handled, what="every intent is handled", within=30)
    lines = guest.path(f"{STATE}/suggestions.jsonl").read_text().splitlines()
    assert len(lines) == len(names)


def test_killing_the_runner_leaves_no_child_and_the_cycle_is_lost(guest: Guest, operator: Operator) -> None:
    start_working(guest, operator)
    guest.sh(f"kill -9 $(systemctl show {CYCLE} --property=MainPID --value)")
    until(lambda: not survivors(guest), what="nothing of it is left", within=15)
    guest.sh(f"systemctl start {TICK}")
    until(lambda: state_of_cycle(operator, 1) == "lost", what="cycle 1 is lost")
    alerts = guest.path(f"{STATE}/alerts.jsonl")
    until(lambda: alerts.exists() and "unit_failed" in alerts.read_text(), what="an alert")


def test_stopping_the_cycle_unit_leaves_nothing(guest: Guest, operator: Operator) -> None:
    start_working(guest, operator)
    guest.sh(f"systemctl stop {CYCLE}")
    assert survivors(guest) == []
    guest.sh(f"systemctl start {TICK}")
    assert operator.ended_cycle(1)["state"] in ("lost", "cancelled")


@pytest.mark.parametrize("moment", ["cycle at work", "kick on its way", "tick at work"])
def test_after_a_power_cut_the_next_boot_goes_on(moment: str, guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure(STUBBORN.replace("while [ ! -e $KLR_STATE_DIR/go ]", "while false"))
    if moment == "cycle at work":
        start_working(guest, operator)
        operator.configure(STUBBORN.replace("while [ ! -e $KLR_STATE_DIR/go ]", "while false"))
    elif moment == "kick on its way":
        # Queued and kicked, but nothing took the kick.
        guest.sh("systemctl stop kloros-cycle.path")
        operator.drop("curiosity_death")
        until(lambda: guest.path(f"{STATE}/kick/cycle").exists(), what="the kick is left")
    else:
        # It is over before anybody can be sure to have seen it; what it queues would be at work then, and lost.
        guest.sh("systemctl stop kloros-cycle.path")
        before = len(operator.starts_of(TICK))
        operator.drop("curiosity_death")
        until(
            lambda: operator.state_of(TICK) == "activating" or len(operator.starts_of(TICK)) > before,
            what="a tick starts",
            within=10,
        )
    guest.kill9()
    guest.boot()
    guest.sh(f"systemctl start {TICK}")
    assert operator.ended_cycle(1)["state"] == ("lost" if moment == "cycle at work" else "succeeded")
    until(lambda: not survivors(guest), what="nothing of it is left")
    operator.drop("curiosity_afterwards")
    until(lambda: state_of_cycle(operator, 2) == "succeeded", what="the next cycle succeeds", within=30)
    assert guest.sh(f"sqlite3 {STATE}/kloros.db 'pragma integrity_check'", check=False).out in ("ok\n", "")
