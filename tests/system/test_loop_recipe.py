"""The continuous loop as a unit, set up as docs/how-to/continuous-loop.md says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.system.guest import Guest
from tests.system.operator import STATE, Operator, rows_of
from tests.waiting import until

LOOP = "kloros-loop.service"
HISTORY = "/srv/agent/state/run_cycle_history.jsonl"
SCRIPT = """#!/bin/sh
echo "$RUN_CYCLE_GOAL" >> ran
while [ -e hang ]; do touch hangs; sleep 0.1; done
[ ! -e broken ]
"""


@pytest.fixture
def agent(guest: Guest, operator: Operator) -> Guest:
    """A guest with a work tree for the loop, which may write there."""
    guest.sh("mkdir -p /srv/agent/tools")
    guest.write("/srv/agent/goals.txt", "one\ntwo\n")
    guest.write("/srv/agent/tools/run_cycle.sh", SCRIPT, mode=0o755)
    guest.sh("chown -R kloros: /srv/agent")
    operator.configure(
        '[loop]\nworking_dir = "/srv/agent"\ngoal_file = "goals.txt"\nsleep = "1s"\nmax_backoff = "1s"\nmax_failures = 2\n'
    )
    guest.write(f"/etc/systemd/system/{LOOP}.d/override.conf", "[Service]\nReadWritePaths=/srv/agent\nRestartSec=1\n")
    guest.sh(f"systemctl daemon-reload && systemctl enable --now {LOOP}")
    return guest


def rows(guest: Guest) -> list[dict[str, Any]]:
    return rows_of(guest.path(HISTORY))


def shown(guest: Guest, name: str) -> str:
    return guest.sh(f"systemctl show -p {name} --value {LOOP}").out.strip()


def hang(agent: Guest) -> None:
    """Have iterations hang, and wait until one does: the one at work now may have looked already."""
    agent.sh("touch /srv/agent/hang")
    until(lambda: agent.path("/srv/agent/hangs").exists(), what="an iteration hangs")
    assert "running" in agent.sh("cat /srv/agent/logs/run_cycle/latest.json").out


@pytest.mark.xdist_group("guest-loop")
def test_it_is_watched_started_again_and_left_down_at_its_failure_limit(agent: Guest) -> None:
    until(lambda: len(rows(agent)) >= 2, what="two iterations")
    assert [row["goal"] for row in rows(agent)][:2] == ["one", "two"]
    assert {row["status"] for row in rows(agent)} == {"degraded"}

    hang(agent)
    killed = shown(agent, "MainPID")
    agent.sh(f"kill -9 {killed}")
    until(lambda: shown(agent, "MainPID") not in (killed, "0") and shown(agent, "ActiveState") == "active", what="a new one")
    agent.sh("rm /srv/agent/hang")
    until(lambda: [row["status"] for row in rows(agent)][-1] == "degraded", what="it goes on")
    assert [row["status"] for row in rows(agent)].count("lost") == 1

    agent.sh("touch /srv/agent/broken")
    until(lambda: shown(agent, "ActiveState") == "failed", what="it gives up")
    assert shown(agent, "ExecMainStatus") == "3"
    assert [row["status"] for row in rows(agent)][-2:] == ["failed", "failed"]
    until(lambda: LOOP in agent.sh(f"cat {STATE}/alerts.jsonl", check=False).out, what="the alert")
    assert shown(agent, "ActiveState") == "failed", "nobody starts it again"


@pytest.mark.xdist_group("guest-loop")
def test_stopping_it_finishes_the_cycle_and_rolling_back_leaves_it_down(agent: Guest) -> None:
    hang(agent)
    stopping = agent.spawn(f"systemctl disable --now {LOOP}")
    until(lambda: shown(agent, "ActiveState") == "deactivating", what="it is told to stop")
    agent.sh("rm /srv/agent/hang")
    assert stopping.wait(60) == 0
    assert rows(agent)[-1]["status"] == "degraded"
    assert shown(agent, "Result") == "success"
    agent.reboot()
    assert shown(agent, "ActiveState") == "inactive"
