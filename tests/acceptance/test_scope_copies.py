"""`klorosctl db backup`, `restore` and `check` of a PostgreSQL in which the ticks of several hosts remember."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from orchestration.errors import LeaseLost
from orchestration.exits import Exit
from orchestration.store.counters import gauges
from orchestration.store.postgres_database import PostgresDatabase
from tests.acceptance.host import Host
from tests.acceptance.test_klorosctl_db import ctl, told
from tests.contract.postgres import Cluster
from tests.contract.test_kernel_queries import ASKED, NAMES, RARELY, World

pytestmark = pytest.mark.xdist_group("postgres")

Rows = dict[str, list[tuple[Any, ...]]]
NAME = os.uname().nodename
NOT_PUT_BACK = {"leases", "shared_revision", "escrow_files", "kloros_schema"}


@pytest.fixture
def url(cluster: Cluster) -> str:
    """A scope of two hosts, with rows in every table of it, the first of which leads."""
    url = cluster.new_database()
    world = World(3)
    one, two = (PostgresDatabase(url, here=name) for name in ("one", "two"))
    one.rows("leases.take", epoch=0, seconds=3600)
    for db in (one, two, one):
        db.rows("hosts.check_in", machine_id=db.here, boot_id="b", release="1", offset=0.5, lately=60.0, role="standby")
        for _ in range(3):
            world.note(db.rows("cycles.recent", limit=1000))
            with db.transaction():
                for name in NAMES:
                    if name not in RARELY:
                        db.rows(name, **ASKED[name](world))
    one.connection.ask("""UPDATE cycles SET host = 'one' WHERE host = '' AND started_at IS NOT NULL;
        UPDATE cycles SET settled_at = NULL WHERE state IN ('queued', 'running');
        UPDATE cycles SET phase_date = NULL;
        INSERT INTO shared_files (host, folder, name, state, mark, sha256, content, changed_at)
        VALUES ('two', 'acks', 'a.json', 'given', '', '5a', decode('00ff', 'hex'), 1.5)""")
    for db in (one, two):
        db.close()
    return url


@pytest.fixture
def host(tmp_path: Path, url: str) -> Host:
    made = Host(tmp_path)
    made.set(KLR_DATABASE_URL=url, KLR_SCOPE_HOST="one")
    return made


def rows(url: str) -> Rows:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        text = sql.SQL("SELECT * FROM {} t ORDER BY t::text")
        return {
            name: connection.execute(text.format(sql.Identifier(name))).fetchall()
            for (name,) in found
            if name not in NOT_PUT_BACK and not name.startswith("bridge_")
        }


def change(url: str, *statements: str) -> None:
    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def lease(url: str) -> tuple[Any, ...]:
    with psycopg.connect(url) as connection:
        (found,) = connection.execute("SELECT holder, epoch FROM leases").fetchall()
        return found


def test_a_scope_is_kept_and_put_back_with_all_of_its_hosts(host: Host, url: str) -> None:
    before = rows(url)
    assert {name for name, found in before.items() if not found} <= {"legacy_acks"}
    (made,) = told(host, "backup")
    assert {name: made["rows"][name] for name in before} == {name: len(found) for name, found in before.items()}
    change(url, "UPDATE cycles SET state = 'lost'", "DELETE FROM ticks WHERE tick > 3", "DELETE FROM shared_files")
    change(url, "INSERT INTO facts VALUES ('', 'phase.hints.99999', '{}')", "DELETE FROM promotions")
    kept = told(host, "restore", made["path"], "--yes")["kept"]
    after = rows(url)
    forgotten = {name: after.pop(name) for name in ("baseline_files",)}
    assert {name: before[name] for name in after} == after
    assert [row for row in forgotten["baseline_files"] if row[2] is None] == [], "each host writes its files again"
    told(host, "restore", kept, "--yes")
    assert {found[2] for found in rows(url)["cycles"]} == {"lost"}


def test_who_led_before_writes_nothing_after(host: Host, url: str) -> None:
    (made,) = told(host, "backup")
    change(url, "UPDATE leases SET epoch = 41")
    leader = PostgresDatabase(url, here="one")
    leader.fence(41)
    gauges(leader, n=1)
    leader.close()
    told(host, "restore", made["path"], "--yes")
    assert lease(url) == ("", 42)
    leader.rows("leases.take", epoch=42, seconds=60)
    with pytest.raises(LeaseLost):
        gauges(leader, n=2)
    leader.close()


def test_a_scope_is_put_into_an_empty_database(host: Host, url: str, cluster: Cluster) -> None:
    before = rows(url)
    (made,) = told(host, "backup")
    host.set(KLR_DATABASE_URL=(other := cluster.new_database()))
    told(host, "restore", made["path"], "--yes")
    after = rows(other)
    assert {name: found for name, found in after.items() if name != "baseline_files"} == {
        name: found for name, found in before.items() if name != "baseline_files"
    }
    assert lease(other) == ("", 2)
    assert all(one["sound"] for one in told(host, "check"))


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("INSERT INTO leases (scope) VALUES ('another')", "2 leases: a scope has one"),
        (
            "UPDATE ticks SET epoch = 9 WHERE tick = 2; UPDATE ticks SET epoch = 8 WHERE tick = 3",
            "tick 3: it was stored after",
        ),
        ("UPDATE cycles SET host = '' WHERE state = 'running'", "it was started, and on no host"),
        ("UPDATE cycles SET settled_at = ended_at, state = 'running' WHERE ended_at IS NOT NULL", "and has not ended"),
        (
            "UPDATE cycles SET phase_date = '2026-11-21', state = 'succeeded' WHERE cycle IN (1, 2)",
            "2026-11-21: two PHASEs succeeded for this date",
        ),
        ("UPDATE baseline_versions SET previous_sha = 'x' WHERE version = 2", "version 2: it does not follow"),
    ],
)
def test_what_does_not_hold_in_a_scope_is_found(host: Host, url: str, statement: str, fault: str) -> None:
    assert [one["sound"] for one in told(host, "check")] == [True]
    change(url, *statement.split(";"))
    (found,) = told(host, "check", code=Exit.FAILED)
    assert any(fault in one for one in found["faults"]), found["faults"]


def test_all_that_a_host_had_alone_is_copied_and_goes_on_in_the_scope(tmp_path: Path, cluster: Cluster) -> None:
    alone, url = Host(tmp_path), cluster.new_database()
    alone.promote("p-1")
    alone.stepwise()
    for _ in range(2):
        alone.tick()
        alone.run_queued()
    alone.tick()
    copied = told(alone, "copy", "--to", url)["rows"]
    had = len(alone.rows("SELECT 1 FROM ticks"))
    assert (copied["cycles"], copied["ticks"], copied["promotions"], copied["threads"]) == (1, had, 1, 0)
    found = rows(url)
    assert [row[0] for row in found["promotions"]] == [f"{NAME}@p-1"]
    assert {row[10] for row in found["ticks"]} == {NAME}
    assert "has rows already" not in ctl(alone, "copy", "--to", url).stderr, "the bridge had none"
    assert rows(url) == found
