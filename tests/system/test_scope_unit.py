"""A scope on a real systemd: by the documentation's drop-in, confined ticks reach a database over the network; and a host
that stops gives up the lead."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import psycopg
import pytest

from tests.contract import postgres
from tests.system.guest import Guest
from tests.system.installation import Installed, running, with_extra
from tests.system.operator import TICK, Operator

PAGE = (Path(__file__).parents[2] / "docs/how-to/adapt-the-units.md").read_text()


@pytest.fixture(scope="module")
def installed(installed: Installed) -> Installed:
    """The program with what it takes to reach PostgreSQL."""
    return Installed(stack=with_extra(installed, "postgres"), output=installed.output, seconds=installed.seconds)


@pytest.fixture
def guest(installed: Installed) -> Iterator[Guest]:
    with running(installed.stack, "kloros-scope") as guest:
        yield guest


@pytest.fixture
def address() -> Iterator[str]:
    """A database on the host's loopback, which the guest shares."""
    if told := postgres.missing():
        pytest.skip(told)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with postgres.running("fsync=off", "listen_addresses=127.0.0.1", f"port={port}") as cluster:
        with psycopg.connect(f"{cluster.url('postgres')}&port={port}", autocommit=True) as connection:
            connection.execute("CREATE DATABASE scope")
        yield f"postgresql://postgres@127.0.0.1:{port}/scope"


def lease(address: str) -> tuple[Any, ...] | None:
    with psycopg.connect(address) as connection:
        return connection.execute("SELECT holder, epoch FROM leases").fetchone()


def test_a_host_of_a_scope_ticks_over_the_network_and_gives_up_the_lead_when_it_stops(
    guest: Guest, operator: Operator, address: str
) -> None:
    operator.without_timer().configure(f'database_url = "{address}"\n[scope]\nhost = "lab-1"\n')
    assert guest.sh(f"systemctl start {TICK}", check=False).code != 0, "it has no network"
    assert guest.sh(f"systemctl show -P ExecMainStatus {TICK}").out == "69\n"

    found = re.search(r"## Reach PostgreSQL over the network\n.*?\n( *\[Service\]\n.*?)\n\n", PAGE, re.DOTALL)
    assert found
    drop_in = dedent(found[1]).replace("192.0.2.10 192.0.2.11", "127.0.0.1")
    guest.write(f"/etc/systemd/system/{TICK}.d/scope.conf", drop_in)
    guest.sh("systemctl daemon-reload && systemctl enable --now kloros-scope.service")
    guest.sh(f"systemctl start {TICK}")
    assert lease(address) == ("lab-1", 1)

    guest.sh("systemctl stop kloros-scope.service")
    assert lease(address) == ("", 1)
    guest.sh(f"systemctl start kloros-scope.service {TICK}")
    assert lease(address) == ("lab-1", 2)

    guest.poweroff()
    assert lease(address) == ("", 2)
    guest.boot()
    guest.sh(f"systemctl start {TICK}")
    assert lease(address) == ("lab-1", 3)
