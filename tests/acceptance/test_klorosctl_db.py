"""`klorosctl db`: the bridge's database migrated, checked, and moved to PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
from collections.abc import Iterator

import psycopg
import pytest

from orchestration.bridge.store.sqlite import SqliteStore
from tests.acceptance.host import Host
from tests.contract import postgres
from tests.contract.bridging import opened_thread, post
from tests.contract.postgres import Cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if told := postgres.missing():
        pytest.skip(told)
    with postgres.running("fsync=off") as started:
        yield started


def ctl(host: Host, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = host.run("klorosctl", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def fill(host: Host) -> str:
    host.state.mkdir(mode=0o700, exist_ok=True)

    async def story() -> str:
        store = SqliteStore(str(host.state / "kloros.db"))
        thread_id = await opened_thread(store)
        for number in range(3):
            await post(store, thread_id, f"message {number}")
        await store.close()
        return thread_id

    return asyncio.run(story())


def test_a_database_is_made_and_found_in_order(host: Host) -> None:
    ctl(host, "db", "check", code=1)
    assert "the tables are those of this program" in ctl(host, "db", "migrate").stdout
    fill(host)
    found = json.loads(ctl(host, "db", "check", "--json").stdout)
    assert (found["chains"], found["entries"], found["faults"]) == (1, 4, 0)
    with sqlite3.connect(host.state / "kloros.db") as tampering:
        tampering.execute("UPDATE bridge_audit SET actor = 'somebody' WHERE link = 2")
    tampering.close()
    assert "1 faults" in ctl(host, "db", "check", code=1).stdout


@pytest.mark.xdist_group("postgres")
def test_threads_move_to_postgresql_once(host: Host, cluster: Cluster) -> None:
    url, thread_id = cluster.new_database(), fill(host)
    found = json.loads(ctl(host, "db", "copy", "--to", url, "--json").stdout)["copied"]
    assert (found["bridge_threads"], found["bridge_messages"], found["bridge_audit"]) == (1, 3, 4)
    with psycopg.connect(url) as connection:
        assert connection.execute(b"SELECT thread_id, last_seq FROM bridge_threads").fetchall() == [(thread_id, 3)]
    assert "rows in bridge_threads already" in ctl(host, "db", "copy", "--to", url, code=1).stderr
    host.environ["KLR_DATABASE_URL"] = url
    checked = json.loads(ctl(host, "db", "check", "--json").stdout)
    assert (checked["database"], checked["entries"], checked["faults"]) == ("PostgreSQL", 4, 0)


def test_what_is_no_database_is_refused(host: Host) -> None:
    fill(host)
    assert "no URL of a PostgreSQL database" in ctl(host, "db", "copy", "--to", "mysql://x", code=64).stderr
    assert "nothing" not in ctl(host, "db", "copy", "--to", "postgresql://nobody@127.0.0.1:1/x", code=69).stdout
