"""Two hosts over one PostgreSQL: one decides, the other stands by, and takes over when it must. Each host is a state folder."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from orchestration.exits import Exit
from tests.acceptance.host import Host
from tests.contract.postgres import Cluster

pytestmark = pytest.mark.xdist_group("postgres")


class Scoped:
    """A scope: its database, and its hosts by name."""

    def __init__(self, url: str, home: Path) -> None:
        self.url = url
        self._home = home

    def host(self, name: str) -> Host:
        """Make a host of the scope."""
        home = self._home / name
        home.mkdir()
        host = Host(home)
        host.set(KLR_DATABASE_URL=self.url, KLR_SCOPE_HOST=name, KLR_SLURM_PATIENCE="1s")
        return host

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Ask the database."""
        with psycopg.connect(self.url, autocommit=True, row_factory=dict_row) as connection:
            return connection.execute(query.encode()).fetchall()

    def do(self, statement: str) -> None:
        """Change the database."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def expire(self) -> None:
        """Let the lease have run out, as when its holder is dead."""
        self.do("UPDATE leases SET expires_at = clock_timestamp() - interval '1 second'")

    @property
    def lease(self) -> dict[str, Any]:
        (lease,) = self.ask("SELECT * FROM leases")
        return lease


@pytest.fixture
def scope(cluster: Cluster, tmp_path: Path) -> Scoped:
    return Scoped(cluster.new_database(), tmp_path)


@pytest.fixture
def two(scope: Scoped) -> tuple[Scoped, Host, Host]:
    return scope, scope.host("a"), scope.host("b")


Two = tuple[Scoped, Host, Host]


def test_one_decides_and_the_other_stands_by_and_names_it(two: Two) -> None:
    scope, a, b = two
    assert "no_intents" in a.reasons()
    record = b.decided()
    assert record["decision"] == "noop"
    (reason,) = record["reasons"]
    assert (reason["rule"], reason["reason"]) == ("lease", "standby")
    lease = scope.lease
    since, until = (f"{lease[at]:%Y-%m-%d %H:%M:%SZ}" for at in ("since", "expires_at"))
    assert reason["evidence"] == f"a leads since {since}, its lease runs until {until} (epoch 1)"
    assert not (b.state / "kloros.db").exists(), "its store is the scope's"
    told = scope.ask("SELECT host, role, last_tick_exit, release FROM hosts ORDER BY host")
    assert [(one["host"], one["role"], one["last_tick_exit"]) for one in told] == [("a", "leader", 0), ("b", "standby", 0)]
    assert scope.ask("SELECT host, epoch, decision FROM ticks ORDER BY tick") == [
        {"host": "a", "epoch": 1, "decision": "noop"},
        {"host": "b", "epoch": None, "decision": "noop"},
    ]
    assert 'kloros_orchestrator_skipped_total{reason="standby"} 1' in b.textfile.read_text()
    assert 'kloros_orchestrator_skipped_total{reason="standby"} 0' in a.textfile.read_text()


def test_a_lease_that_ran_out_is_taken_over(two: Two) -> None:
    scope, a, b = two
    a.decided()
    scope.expire()
    assert "no_intents" in b.reasons()
    assert a.reasons() == ["standby"]
    assert (scope.lease["holder"], scope.lease["epoch"]) == ("b", 2)


def test_a_database_that_is_away_ends_the_tick_with_69_and_what_waits_is_taken_up_afterwards(
    two: Two, cluster: Cluster
) -> None:
    _, a, b = two
    a.stepwise()
    b.stepwise()
    a.decided()
    b.decided()
    waiting = a.promote("p1")
    cluster.stop()
    try:
        before = a.file_contents()
        for host in (a, b):
            done = host.tick()
            assert done.returncode == Exit.STORE_UNREACHABLE, done.stderr
        assert a.file_contents() == before, "nothing is touched"
    finally:
        cluster.start()
    record = a.decided()
    assert record["decision"] == "dream_cycle"
    assert waiting.exists()


def test_a_disabled_and_a_halted_leader_gives_up_the_lead(two: Two) -> None:
    scope, a, b = two
    a.decided()
    done = a.run("klorosctl", "disable")
    assert done.returncode == 0, done.stderr
    assert "a led its scope and does no more; the next tick of another host takes the lead." in done.stdout
    b.decided()
    assert (scope.lease["holder"], scope.lease["epoch"]) == ("b", 2)
    done = b.run("klorosctl", "halt", "--json")
    assert json.loads(done.stdout)["halted"]
    assert scope.lease["holder"] == ""
    assert b.tick().returncode == Exit.HALTED


def test_a_tick_that_may_do_nothing_gives_up_the_lead_and_tells_that_its_host_lives(two: Two) -> None:
    scope, a, _ = two
    a.decided()
    scope.do("UPDATE hosts SET last_tick_at = last_tick_at - interval '1 hour'")
    a.set(KLR_ORCHESTRATION_MODE="disabled")
    assert a.tick().returncode == Exit.DISABLED
    assert scope.lease["holder"] == ""
    (told,) = scope.ask("SELECT last_tick_exit, clock_timestamp() - last_tick_at AS silent FROM hosts")
    assert told["last_tick_exit"] == Exit.DISABLED
    assert told["silent"] < timedelta(minutes=1)


def test_another_machine_under_the_same_name_is_refused_and_writes_nothing(two: Two) -> None:
    scope, a, b = two
    a.decided()
    scope.do("UPDATE hosts SET machine_id = 'of another machine'")
    before = (scope.ask("SELECT * FROM ticks"), scope.ask("SELECT * FROM hosts"), scope.lease)
    done = a.tick()
    assert done.returncode == Exit.SETTINGS_INVALID
    assert "another machine ticks as host 'a' of this scope; each host needs a name of its own" in done.stderr
    assert (scope.ask("SELECT * FROM ticks"), scope.ask("SELECT * FROM hosts"), scope.lease) == before
    assert b.reasons() == ["standby"]


def test_another_scope_in_this_database_is_refused(two: Two) -> None:
    _, a, b = two
    a.decided()
    b.set(KLR_SCOPE_NAME="other")
    done = b.tick()
    assert done.returncode == Exit.SETTINGS_INVALID
    assert "is the database of the scope 'default'" in done.stderr
