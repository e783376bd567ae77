"""Pulse on a real systemd: started by its first request, read-only to the state, gone when nobody asks."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.system.guest import Guest
from tests.system.installation import Installed, running, with_extra
from tests.system.operator import STATE, TICK, Operator
from tests.system.served import Served
from tests.waiting import until

SOCKET, SERVICE = "kloros-pulse.socket", "kloros-pulse.service"


class Pulse(Served):
    """The served page of one guest."""

    def __init__(self, guest: Guest, *, idle_exit: str) -> None:
        super().__init__(guest, SERVICE)
        drop_in = f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{self.port}\n"
        guest.write(f"/etc/systemd/system/{SOCKET}.d/port.conf", drop_in)
        guest.write(
            f"/etc/systemd/system/{SERVICE}.d/idle.conf", f"[Service]\nEnvironment=KLR_PULSE_IDLE_EXIT={idle_exit}\n"
        )
        guest.sh(f"systemctl daemon-reload && systemctl enable --quiet --now {SOCKET}")

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Ask; returns status and body."""
        return self.ask("GET", path, headers=headers)


@pytest.fixture(scope="module")
def with_pulse(installed: Installed) -> Installed:
    return Installed(stack=with_extra(installed, "pulse"), output=installed.output, seconds=installed.seconds)


@pytest.fixture
def guest(with_pulse: Installed) -> Iterator[Guest]:
    with running(with_pulse.stack, "kloros-pulse") as guest:
        yield guest


def test_the_first_request_starts_it_and_idleness_ends_it(guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure("")
    guest.sh(f"systemctl start {TICK}")
    pulse = Pulse(guest, idle_exit="2s")
    assert pulse.pid() == 0, "nothing is resident before anybody asks"

    status, page = pulse.get("/", Accept="text/html")
    assert (status, page.count("<h1")) == (200, 1)
    first = pulse.pid()
    assert first != 0
    assert 'kloros_orchestrator_ticks_total{decision="noop"}' in pulse.get("/metrics")[1]
    status, ready = pulse.get("/ready")
    assert (status, json.loads(ready)["reasons"]) == (200, []), ready

    until(lambda: pulse.pid() == 0, what="it ends when nobody asks")
    assert operator.property_of(SERVICE, "Result") == "success"
    assert operator.state_of(SOCKET) == "active"
    assert pulse.get("/health")[0] == 200
    assert pulse.pid() not in (0, first)
    assert not guest.journal(f"UNIT={SERVICE}", "PRIORITY=3"), "it never failed"


def test_it_reads_while_ticks_write_and_can_write_nothing_itself(guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure(
        '[dream]\ncommand = ["sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.2; done"]\n'
    )
    guest.sh(f"systemctl start {TICK}")
    pulse = Pulse(guest, idle_exit="0")
    pulse.get("/health")

    operator.promote("gen1_one")
    until(lambda: operator.manifest(1) is not None, what="the cycle is on record")
    for _ in range(40):
        status, text = pulse.get("/api/v1/health")
        assert status == 200, text
        assert pulse.get("/metrics")[0] == 200
    operator.ended_cycle(1)
    guest.sh(f"systemctl start {TICK}")
    failed = [tick for tick in operator.ticks() if tick["exit_code"] not in (0, 75)]
    assert not failed, "no tick was ever kept from its store"
    assert pulse.get("/api/v1/cycles/1/log")[1].splitlines() == ["1", "2", "3", "4", "5"]

    # What the process sees of its own file systems: everything is mounted read-only, the state folder too.
    mounts = guest.sh(f"cat /proc/{pulse.pid()}/mountinfo").out
    options = {line.split()[4]: line.split()[5] for line in mounts.splitlines()}
    covering = max((point for point in options if (STATE + "/").startswith(point.rstrip("/") + "/")), key=len)
    assert "ro" in options[covering].split(","), (covering, options[covering])


def test_a_store_that_a_killed_writer_left_open_is_read_too(guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure("")
    guest.sh(f"systemctl start {TICK}")
    hold = (
        "import os, signal, sqlite3; db = sqlite3.connect('kloros.db', isolation_level=None);"
        "db.execute(\"INSERT INTO counters VALUES ('kloros_probe_total', '', 7)\"); os.kill(os.getpid(), signal.SIGKILL)"
    )
    guest.sh(f"cd {STATE} && /opt/kloros/bin/python -c {json.dumps(hold)}", user="kloros", check=False)
    assert guest.path(f"{STATE}/kloros.db-wal").stat().st_size > 0
    pulse = Pulse(guest, idle_exit="0")
    status, text = pulse.get("/api/v1/health")
    assert status == 200, text
    guest.sh(f"rm -f {STATE}/kloros.db-shm")
    until(
        lambda: pulse.get("/ready")[0] == 503 or guest.sh(f"systemctl start {TICK}"), what="it says so, or a tick mends it"
    )
    guest.sh(f"systemctl start {TICK}")
    assert pulse.get("/ready")[0] == 200


def test_a_host_that_others_reach_needs_a_token(guest: Guest, operator: Operator) -> None:
    operator.without_timer().configure("")
    guest.sh(f"systemctl start {TICK}")
    pulse = Pulse(guest, idle_exit="0")
    guest.write(f"/etc/systemd/system/{SOCKET}.d/port.conf", f"[Socket]\nListenStream=\nListenStream=0.0.0.0:{pulse.port}\n")
    guest.sh(f"systemctl daemon-reload && systemctl restart {SOCKET}")
    with closing(http.client.HTTPConnection("127.0.0.1", pulse.port, timeout=3)) as waiting:
        waiting.request("GET", "/health")
        said = until(lambda: _refusals(guest), what="it says why it does not start")

    assert "can be reached from other hosts, and there is no token" in said[0]
    assert "docs/how-to/pulse.md" in said[0]
    until(lambda: operator.property_of(SERVICE, "ExecMainStatus") == "78", what="it has ended")

    guest.write("/etc/kloros/pulse-token", "0123456789abcdefghij\n", mode=0o600)
    guest.write(
        f"/etc/systemd/system/{SERVICE}.d/token.conf", "[Service]\nLoadCredential=pulse-token:/etc/kloros/pulse-token\n"
    )
    guest.sh(f"systemctl daemon-reload && systemctl stop {SERVICE} {SOCKET}; systemctl start {SOCKET}")
    assert until(lambda: pulse.get("/health"), what="it answers")[0] == 401
    assert pulse.get("/health", Authorization="Bearer 0123456789abcdefghij")[0] == 200
    log = guest.sh(f"journalctl --no-pager -u {SERVICE}").out
    assert not re.search("0123456789abc", log), "a token is never logged"


def _refusals(guest: Guest) -> list[str]:
    return [str(entry["MESSAGE"]) for entry in guest.journal("EVENT=settings.refused")]
