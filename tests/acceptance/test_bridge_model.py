"""Nothing is lost, left out, given twice or out of order, whatever is broken while many write and read over HTTP."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
from collections.abc import Callable, Mapping

import psycopg
import pytest

from tests.acceptance.bridge_world import World, world
from tests.acceptance.host import Host
from tests.acceptance.serving import until
from tests.contract.postgres import Cluster

Fault = Callable[[World], None]
SEEDS = (1, 2)
_CUT = (
    b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
_SLOW_COMMITS = b"""
    CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM pg_sleep(random() * 0.01); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON bridge_messages DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION slowly();
"""


def kill_a_bridge(made: World) -> None:
    made.bridges[0].end(kill=True)
    made.bridges[0].start()


def restart_a_bridge(made: World) -> None:
    made.bridges[1].end(kill=False)
    made.bridges[1].start()


def carried_out(made: World, host: Host, faults: Mapping[str, Fault], seed: int) -> None:
    names = sorted(faults)
    random.Random(seed).shuffle(names)
    for name in names:
        made.some_more()
        faults[name](made)
    for bridge in made.bridges:
        until(bridge.ready, what=f"it is ready again after {names}")
    made.some_more()
    messages = made.end()
    verified = host.run("klorosctl", "audit", "verify", "--json")
    assert verified.returncode == 0, verified.stdout
    found = json.loads(verified.stdout)
    assert found["whole"]
    assert found["entries"] == len(messages) + 1, "every message is in the audit, once"


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_over_sqlite(host: Host, seed: int) -> None:
    path = host.state / "kloros.db"

    def hold_the_file(_made: World) -> None:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        threading.Event().wait(0.5)
        holder.execute("ROLLBACK")
        holder.close()

    faults = {"hold": hold_the_file, "hold again": hold_the_file, "kill": kill_a_bridge, "restart": restart_a_bridge}
    with world(host, seed=seed) as made:
        carried_out(made, host, faults, seed)


@pytest.mark.xdist_group("postgres")
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_over_postgresql(host: Host, cluster: Cluster, seed: int) -> None:
    place = cluster.new_database()
    host.set(KLR_DATABASE_URL=place)

    def hold_the_row(made: World) -> None:
        with psycopg.connect(place) as holder:
            holder.execute(b"SELECT * FROM bridge_threads WHERE thread_id = %s FOR UPDATE", (made.thread_id,))
            threading.Event().wait(0.5)

    def cut_connections(_made: World) -> None:
        with psycopg.connect(place, autocommit=True) as other:
            for _ in range(5):
                other.execute(_CUT)
                threading.Event().wait(0.05)

    def restart_the_server(_made: World) -> None:
        cluster.stop()
        cluster.start()

    def crash_the_server(_made: World) -> None:
        cluster.stop("immediate")
        cluster.start()

    faults = {
        "hold": hold_the_row, "cut": cut_connections, "restart PostgreSQL": restart_the_server,
        "crash PostgreSQL": crash_the_server, "kill": kill_a_bridge, "restart": restart_a_bridge,
    }  # fmt: skip
    with world(host, seed=seed) as made:
        with psycopg.connect(place, autocommit=True) as other:
            other.execute(_SLOW_COMMITS)
        carried_out(made, host, faults, seed)
        assert made.statuses.get(503), "an outage is told as one"
