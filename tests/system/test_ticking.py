"""The timer and the path units, on a real systemd."""

from __future__ import annotations

import time

import pytest

from tests.system.guest import Guest
from tests.system.latency import arrivals, p95, quiet, waits
from tests.system.operator import STATE, TICK, Operator
from tests.waiting import until


def test_the_timer_ticks_on_the_minute(guest: Guest, operator: Operator) -> None:
    def on_the_minute() -> list[float]:
        # The first tick after a boot may come at once (Persistent=); the one after it is on the minute.
        return [start for start in operator.starts_of(TICK) if start > booted and start % 60 < 1.5]

    booted = time.time()
    until(on_the_minute, what="a tick in the first second of a minute", within=75)
    assert until(lambda: operator.ticks(), what="its record")


def test_restarting_the_timer_does_not_stop_it(guest: Guest, operator: Operator) -> None:
    guest.sh("systemctl restart kloros-orchestrator.timer")
    assert operator.property_of("kloros-orchestrator.timer", "NextElapseUSecRealtime")


def test_a_boot_ticks_at_once(guest: Guest, operator: Operator) -> None:
    operator.without_timer()
    # Last elapsed an hour ago, as after an hour of downtime.
    guest.sh("touch -d '1 hour ago' /var/lib/systemd/timers/stamp-kloros-orchestrator.timer")
    before = len(operator.starts_of(TICK))
    began = time.time()
    guest.reboot()
    starts = until(lambda: operator.starts_of(TICK)[before:], what="a tick", within=10)
    assert starts[0] - began < 10


@pytest.mark.parametrize("what", ["intent", "promotion", "kick"])
def test_what_arrives_starts_a_tick_within_a_second(what: str, guest: Guest, operator: Operator) -> None:
    operator.configure("[dream]\ncommand = ['true']\n").without_timer()
    assert p95(waits(operator, arrivals(operator)[what], times=8)) <= 1.0


def test_what_arrives_during_a_tick_gets_its_own(guest: Guest, operator: Operator) -> None:
    """systemd does not watch while the tick runs: the unit's own look afterwards must find it."""
    operator.configure("").without_timer()
    # A tick that has looked already and has not ended yet.
    guest.write(
        "/etc/systemd/system/kloros-orchestrator.service.d/slow.conf",
        f"[Service]\nExecStartPost=/bin/sh -c 'touch {STATE}/looked; while [ ! -e {STATE}/go ]; do sleep 0.05; done'\n",
    )
    guest.sh("systemctl daemon-reload")
    guest.sh(f"systemctl start --no-block {TICK}")
    until(lambda: guest.path(f"{STATE}/looked").exists(), what="a tick has looked")
    name = operator.drop("suggest_something")
    assert operator.processed("processed") == set()
    guest.write(f"{STATE}/go", "")
    until(lambda: name in operator.processed("processed"), what="the intent is handled", within=5)


def test_a_burst_fails_no_unit_and_loses_nothing(guest: Guest, operator: Operator) -> None:
    operator.configure("[intents]\nmax_pending = 1000\nper_tick = 1000\ndedup_within = '0s'\n").without_timer()
    names = {operator.drop("suggest_something") for _ in range(60)}
    for _ in range(300):
        guest.path(f"{STATE}/kick/tick").touch()
        guest.path(f"{STATE}/promotions/.noise").touch()
    until(lambda: operator.processed("processed") >= names, what="all intents are handled", within=60)
    quiet(operator)
    assert guest.sh("systemctl list-units --failed --no-legend").out == ""
    assert operator.property_of("kloros-orchestrator.path", "ActiveState") == "active"


def test_ticks_that_settle_end(guest: Guest, operator: Operator) -> None:
    """No tick may start the next one for ever: after the last thing has been handled, it is quiet."""
    operator.configure("").without_timer()
    operator.drop("suggest_something")
    until(lambda: operator.processed("processed"), what="the intent is handled")
    quiet(operator)
    count = len(operator.starts_of(TICK))
    assert count <= 6


def test_a_disk_that_keeps_the_kick_does_not_make_ticks_without_end(guest: Guest, operator: Operator) -> None:
    operator.configure("").without_timer()
    guest.path(f"{STATE}/kick/tick").touch()
    until(lambda: not guest.path(f"{STATE}/kick/tick").exists(), what="the kick is taken")
    quiet(operator)
    before = len(operator.starts_of(TICK))
    # A kick that can't be removed: root's, in a folder that is root's.
    guest.sh(f"chown root {STATE}/kick && chmod 0755 {STATE}/kick && touch {STATE}/kick/tick")
    until(lambda: len(operator.starts_of(TICK)) > before, what="a tick")
    with pytest.raises(AssertionError):
        until(lambda: len(operator.starts_of(TICK)) > before + 2, what="a third tick", within=6)
    assert operator.property_of("kloros-orchestrator.path", "ActiveState") == "active"
