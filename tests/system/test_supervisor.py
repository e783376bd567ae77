"""The supervisor on a real systemd: confined by its unit, watched, started again; and turns that outlive it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.guest import Guest
from tests.system.installation import Installed, running, with_extra
from tests.system.operator import Operator
from tests.system.test_bridge import Bridge
from tests.waiting import until

SERVICE = "kloros-supervisor.service"
# Says who it is and in what, waits for leave, and names its session; the prompt comes on standard input.
AGENT = """#!/bin/sh
cd /var/lib/kloros
{ id -un; cat; } >>told
while [ -e wait ]; do sleep 0.1; done
echo '{"session_id": "s-1"}'
"""
SETTINGS = """
[wake]
cooldown = "0s"
[agents.reviewer]
runtime = "command"
spawn = ["/usr/local/bin/reviewer"]
"""


@pytest.fixture(scope="module")
def with_bridge(installed: Installed) -> Installed:
    return Installed(stack=with_extra(installed, "bridge"), output=installed.output, seconds=installed.seconds)


@pytest.fixture
def guest(with_bridge: Installed) -> Iterator[Guest]:
    with running(with_bridge.stack, "kloros-supervisor") as guest:
        yield guest


def test_it_wakes_under_its_unit_is_watched_and_its_turns_outlive_it(guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure(SETTINGS)
    guest.write("/usr/local/bin/reviewer", AGENT, mode=0o755)
    bridge = Bridge(guest)
    guest.write(f"/etc/systemd/system/{SERVICE}.d/watch.conf", "[Service]\nWatchdogSec=11\nTimeoutAbortSec=1\n")
    guest.sh(f"systemctl daemon-reload && systemctl enable --quiet --now {SERVICE}")
    assert operator.state_of(SERVICE) == "active", "it is active as soon as it is ready"

    token = guest.sh("klorosctl token issue --agent executioner --ttl 1h 2>/dev/null").out.strip()

    def say(body: str) -> None:
        asked = {"workspace_id": "kloros", "title": body, "participants": ["reviewer"]}
        status, made = bridge.call("/v1/mcp/create_thread", asked, token)
        assert status == 200, made
        posted = {"thread_id": json.loads(made)["thread_id"], "body": body}
        assert bridge.call("/v1/mcp/post_message", posted, token)[0] == 200

    def outcomes() -> list[Any]:
        return [one["outcome"] for one in json.loads(guest.sh("klorosctl triggers list --json").out)]

    def pid() -> int:
        return int(operator.property_of(SERVICE, "MainPID"))

    say("done")
    until(lambda: outcomes() == ["fallback_spawned"], what="the agent was woken")
    told = guest.sh("cat /var/lib/kloros/told").out
    assert told.startswith("kloros\n"), "as the unit's user"
    assert "waits for you" in told
    (line,) = until(
        lambda: guest.journal(f"_SYSTEMD_UNIT={SERVICE}", "EVENT=wake.attempted"), what="its line is in the journal"
    )
    assert line["AGENT_ID"] == "reviewer"

    guest.sh("su kloros -s /bin/sh -c ': >/var/lib/kloros/wait'")
    say("and this")
    until(lambda: guest.sh("grep -c 'waits for you' /var/lib/kloros/told").out.strip() == "2", what="the turn runs")
    first = pid()
    guest.sh(f"systemctl restart {SERVICE}")
    assert pid() not in (0, first)
    assert "/usr/local/bin/reviewer" in guest.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").out, "the turn goes on"
    guest.sh("rm /var/lib/kloros/wait")
    until(lambda: outcomes() == ["fallback_spawned"] * 2, what="the next one has read how it ended")
    assert guest.sh("grep -c 'waits for you' /var/lib/kloros/told").out.strip() == "2", "nobody was woken twice"

    first = pid()
    guest.sh(f"systemctl kill --signal=STOP {SERVICE}")
    until(lambda: pid() not in (0, first), what="the watchdog has it started again", within=60)
    until(lambda: operator.state_of(SERVICE) == "active", what="it is ready again")
    began = time.monotonic()
    guest.sh(f"systemctl stop {SERVICE}")
    assert time.monotonic() - began < 15
    assert operator.property_of(SERVICE, "Result") == "success"
