"""kloros-loop.service on a real systemd: started, watched, stopped, given up, each with a real command."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from tests.system import layers
from tests.system.guest import Guest
from tests.system.operator import STATE, Operator, rows_of
from tests.waiting import until

LOOP = "kloros-loop.service"
TREE = "/srv/agent"
LOGS = f"{TREE}/logs/run_cycle"


class Agent:
    """A work tree with a command, and the loop that runs it."""

    def __init__(self, guest: Guest, operator: Operator) -> None:
        self.guest = guest
        self.operator = operator
        operator.without_timer()
        guest.sh(f"mkdir -p {TREE}/tools {TREE}/state/planner_digest_archives")

    def runs(self, script: str, toml: str = "") -> None:
        """Set what the loop runs, as docs/how-to/continuous-loop.md has it, and start it."""
        self.guest.write(f"{TREE}/tools/run_cycle.sh", f"#!/bin/sh\n{script}\n", mode=0o755)
        self.guest.sh(f"chown -R kloros: {TREE}")
        self.operator.configure(f'[loop]\nworking_dir = "{TREE}"\ngoal = "a goal"\nsleep = 0\nmax_backoff = 0\n{toml}')
        self.drop_in("ReadWritePaths=/srv/agent")
        self.guest.sh(f"systemctl enable --now {LOOP}")

    def drop_in(self, *lines: str) -> None:
        name = f"/etc/systemd/system/{LOOP}.d/test{len(lines)}.conf"
        self.guest.write(name, "\n".join(["[Service]", *lines, ""]))
        self.guest.sh("systemctl daemon-reload")

    def rows(self) -> list[dict[str, Any]]:
        """Every row of the history."""
        return rows_of(self.guest.path(f"{TREE}/state/run_cycle_history.jsonl"))

    def latest(self) -> dict[str, Any]:
        """What the loop says of itself now."""
        path = self.guest.path(f"{LOGS}/latest.json")
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def pid(self) -> int:
        """The loop's pid inside the guest."""
        return int(self.operator.property_of(LOOP, "MainPID"))


@pytest.fixture
def agent(guest: Guest, operator: Operator) -> Agent:
    return Agent(guest, operator)


GOOD = 'echo "$RUN_CYCLE_ITERATION" >state/planner_digest_archives/$RUN_CYCLE_ITERATION; sleep 0.2'


def numbers(rows: list[dict[str, Any]]) -> list[int]:
    return [row["iteration"] for row in rows]


def test_it_starts_iterates_and_finishes_the_cycle_at_work_when_stopped(agent: Agent, guest: Guest) -> None:
    agent.runs(f"{GOOD}; while [ -e state/slow ]; do touch state/begun; sleep 0.05; done; echo whole >state/ended")
    assert agent.operator.state_of(LOOP) == "active", "systemctl returns when the loop has said READY=1"
    until(lambda: len(agent.rows()) >= 2, what="two iterations", within=60)
    assert {row["status"] for row in agent.rows()} == {"success"}
    guest.path(f"{TREE}/state/slow").touch()
    until(lambda: guest.path(f"{TREE}/state/begun").exists(), what="a slow cycle is at work")
    guest.path(f"{TREE}/state/ended").unlink()
    running = agent.latest()["current"]["iteration"]
    stopping = guest.spawn(f"systemctl stop {LOOP}")
    until(lambda: agent.operator.state_of(LOOP) == "deactivating", what="it is told to stop")
    guest.path(f"{TREE}/state/slow").unlink()
    assert stopping.wait(60) == 0
    assert guest.path(f"{TREE}/state/ended").exists(), "the command was not let finish"
    last = agent.rows()[-1]
    assert (last["iteration"], last["status"]) == (running, "success")
    assert agent.operator.property_of(LOOP, "Result") == "success"
    assert agent.operator.property_of(LOOP, "ExecMainStatus") == "0"
    assert numbers(agent.rows()) == list(range(1, running + 1))


def test_a_loop_that_hangs_is_started_again_and_no_iteration_is_doubled(agent: Agent, guest: Guest) -> None:
    agent.drop_in("WatchdogSec=3", "RestartSec=0", "TimeoutAbortSec=1")
    agent.runs(GOOD)
    until(lambda: len(agent.rows()) >= 2, what="two iterations", within=60)
    hung = agent.pid()
    guest.sh(f"kill -{signal.SIGSTOP.name[3:]} {hung}")
    count = len(agent.rows())
    until(lambda: agent.pid() not in (0, hung), what="systemd starts it again", within=30)
    assert agent.operator.property_of(LOOP, "NRestarts") == "1"
    until(lambda: len(agent.rows()) >= count + 3, what="iterations go on", within=60)
    guest.sh(f"systemctl stop {LOOP}")
    rows = agent.rows()
    assert numbers(rows) == list(range(1, len(rows) + 1))
    assert sum(row["status"] == "lost" for row in rows) <= 1
    assert {row["status"] for row in rows} <= {"success", "lost"}
    archives = os.listdir(guest.path(f"{TREE}/state/planner_digest_archives"))
    assert {str(row["iteration"]) for row in rows if row["status"] == "success"} <= set(archives)


def test_at_its_failure_limit_it_stays_down_and_somebody_is_told(agent: Agent, guest: Guest) -> None:
    agent.drop_in("RestartSec=0", "Description=")
    agent.runs("exit 7", "max_failures = 2\n")
    until(lambda: agent.operator.state_of(LOOP) == "failed", what="it gives up", within=60)
    assert agent.operator.property_of(LOOP, "ExecMainStatus") == "3"
    assert [(row["status"], row["return_code"]) for row in agent.rows()] == [("failed", 7)] * 2
    alerts = guest.path(f"{STATE}/alerts.jsonl")
    until(lambda: alerts.exists() and LOOP in alerts.read_text(), what="the alert is there")
    alert = next(json.loads(line) for line in alerts.read_text().splitlines() if LOOP in line)
    assert (alert["kind"], alert["unit"], alert["exit_status"]) == ("unit_failed", LOOP, "3")
    assert agent.operator.property_of(LOOP, "NRestarts") == "0"
    assert len(guest.journal("_SYSTEMD_UNIT=init.scope", f"UNIT={LOOP}")) > 0
    assert len(agent.operator.starts_of(LOOP)) == 1, "it was started once"


def test_the_stop_file_ends_it_well_and_it_stays_down(agent: Agent, guest: Guest) -> None:
    agent.runs(GOOD, 'stop_file = "state/stop"\n')
    until(lambda: agent.rows(), what="an iteration", within=60)
    guest.path(f"{TREE}/state/stop").touch()
    until(lambda: agent.operator.state_of(LOOP) == "inactive", what="it ends")
    assert agent.operator.property_of(LOOP, "Result") == "success"
    rows = agent.rows()
    assert numbers(rows) == list(range(1, len(rows) + 1))
    assert len(agent.operator.starts_of(LOOP)) == 1


def test_rotation_while_it_runs_loses_and_doubles_no_row(agent: Agent, guest: Guest) -> None:
    agent.runs(GOOD)
    page = (layers.ROOT / "docs/how-to/continuous-loop.md").read_text()
    recipe = page.partition("```logrotate\n")[2].partition("```")[0]
    assert "size 64M" in recipe
    own = "/etc/logrotate.d/kloros"
    guest.write("/etc/logrotate.d/kloros-loop", recipe.replace("size 64M", "size 1"))
    guest.write("/etc/logrotate.d/kloros-consent", guest.path(own).read_text().replace("size 64M", "size 1"))
    guest.sh(f"rm {own}")
    for rotated in range(3):
        until(agent.rows, what="a row since the last rotation", within=60)
        guest.sh("logrotate /etc/logrotate.d/kloros-loop && logrotate /etc/logrotate.d/kloros-consent")
        assert guest.path(f"{TREE}/state/run_cycle_history.jsonl.1").exists(), rotated
    guest.sh(f"systemctl stop {LOOP}")
    assert guest.path(f"{STATE}/consent.jsonl.1").exists()
    history = f"{TREE}/state/run_cycle_history.jsonl"
    everything = guest.sh(f"zcat {history}.*.gz; cat {history}.1; cat {history} 2>/dev/null; true").out.splitlines()
    found = sorted(json.loads(line)["iteration"] for line in everything)
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= 3
    consents = agent.operator.ctl("consent list --limit 1000")
    assert sorted(one["iteration"] for one in consents) == found
