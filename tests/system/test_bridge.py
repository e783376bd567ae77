"""The bridge on a real systemd: confined by its unit, watched, over the host's own store, with Pulse beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.system.guest import Guest
from tests.system.installation import Installed, run_installer, running, with_extra
from tests.system.operator import STATE, TICK, Operator
from tests.system.served import Served
from tests.system.test_rollout import newer_release, version_of
from tests.waiting import until

SERVICE = "kloros-bridge.service"


class Bridge(Served):
    """The bridge of one guest."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest, SERVICE)
        guest.write(f"/etc/systemd/system/{SERVICE}.d/port.conf", f"[Service]\nEnvironment=KLR_BRIDGE_PORT={self.port}\n")
        guest.sh(f"systemctl daemon-reload && systemctl enable --quiet --now {SERVICE}")

    def call(self, path: str, document: object, token: str) -> tuple[int, str]:
        """Post a document with a token; returns status and body."""
        return self.ask("POST", path, json.dumps(document), {"authorization": f"Bearer {token}"})


@pytest.fixture(scope="module")
def with_bridge(installed: Installed) -> Installed:
    return Installed(stack=with_extra(installed, "bridge"), output=installed.output, seconds=installed.seconds)


@pytest.fixture
def guest(with_bridge: Installed) -> Iterator[Guest]:
    with running(with_bridge.stack, "kloros-bridge") as guest:
        yield guest


def test_agents_talk_through_the_confined_unit(guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure("")
    bridge = Bridge(guest)
    assert operator.state_of(SERVICE) == "active", "it is active as soon as it is ready"
    token = guest.sh("klorosctl token issue --agent executioner --ttl 1h 2>/dev/null").out.strip()
    status, made = bridge.call("/v1/mcp/create_thread", {"workspace_id": "kloros", "title": "t"}, token)
    assert status == 200, made
    posted = {"thread_id": json.loads(made)["thread_id"], "body": "done"}
    assert bridge.call("/v1/mcp/post_message", posted, token)[0] == 200
    assert bridge.ask("GET", "/ready") == (200, '{"ready":true,"reasons":{}}')
    assert bridge.ask("GET", "/")[0] == 200, "Pulse is beside it"
    assert guest.sh("stat -c '%a %U' /var/lib/kloros/keys/tokens.json").out.strip() == "600 kloros"
    assert token.split(".")[2] not in guest.sh(f"journalctl --no-pager -u {SERVICE} -o json").out
    wanted = (f"_SYSTEMD_UNIT={SERVICE}", "EVENT=request.answered", "OPERATION=post_message")
    (line,) = until(lambda: guest.journal(*wanted), what="its line is in the journal")
    assert (line["AGENT_ID"], line["STATUS"]) == ("executioner", "200")

    token_id = json.loads(guest.sh("klorosctl token list --json").out)[0]["token_id"]
    guest.sh(f"klorosctl token revoke {token_id}")
    until(lambda: bridge.call("/v1/mcp/list_threads", {}, token)[0] == 401, what="the running bridge knows")

    first = bridge.pid()
    guest.sh(f"systemctl kill --signal=KILL {SERVICE}")
    until(lambda: bridge.pid() not in (0, first), what="it is started again")
    until(lambda: operator.state_of(SERVICE) == "active", what="it is ready again")
    assert bridge.ask("GET", "/ready")[0] == 200
    guest.sh(f"systemctl stop {SERVICE}")
    assert operator.property_of(SERVICE, "Result") == "success"


def test_where_many_post_a_second_process_of_the_confined_unit_writes(guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure("")
    names = ("AGENT_POSTS_PER_MINUTE", "THREAD_POSTS_PER_MINUTE", "MAX_TURNS")
    limits = "".join(f"Environment=KLR_BRIDGE_{name}=0\n" for name in names)
    guest.write(f"/etc/systemd/system/{SERVICE}.d/limits.conf", f"[Service]\n{limits}")
    bridge = Bridge(guest)
    token = guest.sh("klorosctl token issue --agent executioner --ttl 1h 2>/dev/null").out.strip()
    made = json.loads(bridge.call("/v1/mcp/create_thread", {"workspace_id": "kloros", "title": "t"}, token)[1])
    posted: list[int] = []

    def post(number: int) -> None:
        asked = {"thread_id": made["thread_id"], "body": f"message {number}"}
        status, answer = bridge.call("/v1/mcp/post_message", asked, token)
        assert status == 200, answer
        posted.append(json.loads(answer)["seq"])

    def processes() -> list[str]:
        told = f"cat /sys/fs/cgroup$(systemctl show --value -p ControlGroup {SERVICE})/cgroup.procs"
        return guest.sh(told).out.split()

    def is_there() -> bool:
        list(clients.map(post, range(40)))
        return len(processes()) == 2

    with ThreadPoolExecutor(8) as clients:
        until(is_there, what="the second process")
        list(clients.map(post, range(200)))
    assert sorted(posted) == list(range(1, len(posted) + 1))
    (other,) = set(processes()) - {str(bridge.pid())}
    assert "sqlite_process" in guest.sh(f"tr '\\0' ' ' < /proc/{other}/cmdline").out
    assert not guest.journal(f"_SYSTEMD_UNIT={SERVICE}", "EVENT=bridge.failed")
    guest.sh(f"kill -KILL {other}")
    for number in range(5):
        post(number)
    assert sorted(posted) == list(range(1, len(posted) + 1))
    guest.sh(f"systemctl stop {SERVICE}")
    assert operator.property_of(SERVICE, "Result") == "success"


def test_a_bridge_that_hangs_is_started_anew_and_one_that_stays_away_is_on_the_page(
    guest: Guest, operator: Operator
) -> None:
    operator.without_timer().configure("")
    guest.write(f"/etc/systemd/system/{SERVICE}.d/soon.conf", "[Service]\nWatchdogSec=8\n")
    bridge = Bridge(guest)
    token = guest.sh("klorosctl token issue --agent executioner --ttl 1h 2>/dev/null").out.strip()
    assert bridge.call("/v1/mcp/create_thread", {"title": "t"}, token)[0] == 200
    guest.sh(f"systemctl start {TICK}")
    until(lambda: _told(guest), what="it tells how threads stand")

    hung = bridge.pid()
    guest.sh(f"kill -STOP {hung}")
    until(lambda: bridge.pid() not in (0, hung), what="the watchdog ends it, and it is started again", within=40)
    until(lambda: operator.state_of(SERVICE) == "active", what="it is ready again")
    assert bridge.call("/v1/mcp/list_threads", {}, token)[0] == 200
    assert any("watchdog" in str(line["MESSAGE"]).lower() for line in guest.journal(f"UNIT={SERVICE}"))

    guest.write(f"/etc/systemd/system/{SERVICE}.d/away.conf", "[Service]\nRestart=no\n")
    guest.sh(f"systemctl daemon-reload && systemctl kill --signal=KILL {SERVICE}")
    until(lambda: operator.state_of(SERVICE) == "failed", what="it stays away")
    _age(guest)
    assert "bridge_silent" in _condemned(guest)
    guest.sh("klorosctl pulse build --out /tmp/page")
    assert "The bridge is silent" in guest.path("/tmp/page/index.html").read_text()

    guest.sh(f"systemctl start {SERVICE}")
    assert bridge.ask("GET", "/ready")[0] == 200
    until(lambda: "bridge_silent" not in _condemned(guest), what="a tick finds it well")
    assert "The bridge is silent" not in bridge.ask("GET", "/")[1]


def _told(guest: Guest) -> bool:
    """Whether a bridge that serves has told how its threads stand."""
    return guest.sh(_FACT.format("SELECT count(*) FROM facts WHERE name = 'bridge.signs'")).out.strip() == "1"


def _age(guest: Guest) -> None:
    """Let five minutes pass since the bridge has told anything."""
    at = "strftime('%Y-%m-%dT%H:%M:%fZ', value ->> '$.at', '-5 minutes')"
    guest.sh(_FACT.format(f"UPDATE facts SET value = json_set(value, '$.at', {at}) WHERE name = 'bridge.signs'"))


_FACT = (
    "/opt/kloros/bin/python -c 'import sqlite3, sys;"
    ' store = sqlite3.connect("/var/lib/kloros/kloros.db", isolation_level=None);'
    ' print(*(store.execute(sys.argv[1]).fetchone() or ()))\' "{}"'
)


def _condemned(guest: Guest) -> list[str]:
    """Tick, and return the conditions that the verdict rests on."""
    guest.sh(f"systemctl start {TICK}")
    return [one["condition"] for one in json.loads(guest.path(f"{STATE}/latest.json").read_text())["causes"]]


@pytest.mark.parametrize("schema", [False, True])
def test_a_rollback_takes_the_bridge_along(guest: Guest, operator: Operator, schema: bool) -> None:
    """Also where the store is set back, which nobody serves from meanwhile."""
    operator.without_timer().configure("")
    guest.sh(f"systemctl start {TICK}")
    bridge, before = Bridge(guest), version_of(guest)
    newer_release(guest, schema=schema)
    run_installer(guest)

    def running_version() -> str:
        return guest.sh(f"tr '\\0' ' ' < /proc/{bridge.pid()}/cmdline").out.split("/versions/")[1].split("/")[0]

    until(lambda: operator.state_of(SERVICE) == "active", what="it is ready in the newer version")
    assert running_version().startswith("9.9.9-")
    guest.sh("klorosctl rollback-rollout --yes")
    assert running_version() == before
    until(lambda: operator.state_of(SERVICE) == "active", what="it is ready in the older version")
    assert bridge.ask("GET", "/ready")[0] == 200
    assert [path.name for path in guest.path("/opt/kloros/versions").iterdir()] == [before]
