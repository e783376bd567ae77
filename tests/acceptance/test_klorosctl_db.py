"""`klorosctl db`: migrated, checked, copied, restored; over the real file and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from orchestration.bridge.caller import Role
from orchestration.bridge.store import transfer
from orchestration.bridge.store.transfer_postgres import PostgresSide
from orchestration.bridge.wake.state import Outcome
from orchestration.exits import Exit
from orchestration.store import postgres
from tests.acceptance.bridging import Bridge, caller, play
from tests.acceptance.host import Host
from tests.contract.postgres import Cluster
from tests.contract.waking import LEASE, NOON, attempt, wakes_at

EXECUTIONER, REVIEWER, ADA = caller("executioner"), caller("reviewer"), caller("operator:ada", Role.OPERATOR)
ALL = {table.name for table in transfer.TABLES}


def ctl(host: Host, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return host.ctl("db", *arguments, code=code)


def told(host: Host, *arguments: str, code: int = 0) -> Any:
    return host.answer("db", *arguments, code=code)


def talk(place: str) -> str:
    """Have a row in every table, texts in several scripts among them; returns the thread."""

    async def scene(bridge: Bridge) -> str:
        await bridge.thread(EXECUTIONER, REVIEWER)
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        for body in ("Zeile „eins“\n'quoted' %s :name \\", "ολίγα 漢字 🐙", "plain"):
            await bridge.post(EXECUTIONER, thread_id, body, metadata={"a": [1, None, "ä"]}, idempotency_key=body)
        await bridge.event(REVIEWER, thread_id, "finding_reported", "F-1")
        session = {"agent_id": "reviewer", "workspace_id": "kloros", "session_id": "s-1", "runtime": "codex"}
        rest: dict[str, Any] = {"management_mode": "unmanaged", "resumable": True, "status": "active"}
        await bridge.ask(REVIEWER, "heartbeat_session", **session, **rest)
        asked = {"thread_id": thread_id, "target_agent_id": "executioner", "reason": "a finding"}
        queued = await bridge.ask(REVIEWER, "trigger_participant", **asked)
        await wake(place, queued.trigger_id)
        await bridge.ask(EXECUTIONER, "ack_read", thread_id=thread_id, last_read_seq=2)
        await bridge.code(caller("stranger"), "get_thread", thread_id=thread_id)
        return thread_id

    return play(place, scene)


async def wake(place: str, trigger_id: str) -> None:
    """Have something in every table of waking too, with and without an end."""
    wakes = await wakes_at(place)
    for number, ended in ((1, NOON), (2, None)):
        claim = await wakes.claim(trigger_id, holder="a supervisor", lease=LEASE)
        assert claim is not None
        begun = replace(attempt(claim, number), ended_at=ended, outcome=Outcome.FAILED if ended else None)
        assert await wakes.begin(claim, begun)
        assert await wakes.release(claim, due_at=NOON, deferred=True)
    await wakes.claim(trigger_id, holder="another", lease=LEASE)
    await wakes.hold_session("s-1", holder="a supervisor", lease=LEASE)
    await wakes.pause("kloros", "executioner", paused=True, actor="operator:ada")
    await wakes.close()


def revoke(path: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        at = "2026-11-21T08:00:00.000000Z"
        db.execute("INSERT INTO bridge_revocations VALUES ('t-1', ?, ?, 'operator:ada')", (at, at))


@pytest.fixture
def store(host: Host) -> str:
    host.state.mkdir(mode=0o700)
    return str(host.state / "kloros.db")


def searched(place: str, words: str) -> list[str]:
    async def scene(bridge: Bridge) -> list[str]:
        found = await bridge.ask(REVIEWER, "search_messages", query=words)
        return [one.body for one in found.messages]

    return play(place, scene)


@pytest.mark.xdist_group("postgres")
def test_the_bridge_moves_to_postgresql_row_by_row_and_goes_on_there(host: Host, store: str, cluster: Cluster) -> None:
    thread_id = talk(store)
    revoke(store)
    url = cluster.new_database()
    answer = told(host, "copy", "--to", url)
    assert answer["rows"].keys() == ALL
    assert all(answer["rows"].values())
    assert (answer["rows"]["messages"], answer["not_copied"]) == (4, 0)
    with closing(transfer.SqliteSide(store)) as ours, closing(PostgresSide(url)) as theirs:
        assert transfer.differences(ours, theirs) == []
    assert searched(url, "ολίγα") == ["ολίγα 漢字 🐙"]

    async def goes_on(bridge: Bridge) -> None:
        assert (
            await bridge.post(EXECUTIONER, thread_id, "plain", metadata={"a": [1, None, "ä"]}, idempotency_key="plain")
        ).seq == 3
        assert (await bridge.post(EXECUTIONER, thread_id, "on")).seq == 5
        assert (await bridge.store.verify()).faults == ()

    play(url, goes_on)
    host.set(KLR_DATABASE_URL=url)
    assert all(one["sound"] for one in told(host, "check"))
    again = ctl(host, "copy", code=Exit.FAILED)
    assert "has rows already" in again.stderr


@pytest.mark.xdist_group("postgres")
def test_a_copy_that_differs_is_not_kept(store: str, cluster: Cluster) -> None:
    talk(store)
    url = cluster.new_database()
    asyncio.run(postgres.migrate(url))
    ours, theirs = transfer.SqliteSide(store), _Forgetful(url, filled=True)
    with closing(ours), closing(theirs), pytest.raises(transfer.CopyDiffers, match=r"bridge_messages thr_\w+, 4"):
        transfer.transfer(ours, theirs)
    with closing(PostgresSide(url)) as left:
        assert transfer.is_empty(left)


class _Forgetful(PostgresSide):
    """Loses the last message."""

    def write(self, table: transfer.Table, lines: list[Any]) -> None:
        super().write(table, lines[:-1] if table.name == "messages" else lines)


@pytest.mark.xdist_group("postgres")
def test_what_is_written_while_copying_is_told(store: str, cluster: Cluster) -> None:
    thread_id = talk(store)
    url = cluster.new_database()
    asyncio.run(postgres.migrate(url))

    async def post(bridge: Bridge) -> None:
        await bridge.post(EXECUTIONER, thread_id, "late")

    with closing(transfer.SqliteSide(store)) as ours, closing(_Slow(url, lambda: play(store, post))) as theirs:
        moved = transfer.transfer(ours, theirs)
    assert (moved.copied["messages"], moved.newer) == (4, 1)


class _Slow(PostgresSide):
    """Something happens before the audit is copied."""

    def __init__(self, url: str, meanwhile: Callable[[], None]) -> None:
        super().__init__(url, filled=True)
        self._meanwhile = meanwhile

    def write(self, table: transfer.Table, lines: list[Any]) -> None:
        if table.name == "audit":
            self._meanwhile()
        super().write(table, lines)


@pytest.mark.xdist_group("postgres")
def test_postgresql_is_backed_up_and_restored(host: Host, store: str, cluster: Cluster) -> None:
    url = cluster.new_database()
    thread_id = talk(url)
    host.set(KLR_DATABASE_URL=url)
    ctl(host, "migrate")
    (of_bridge,) = told(host, "backup")
    assert Path(of_bridge["path"]).name.startswith("bridge-")
    assert of_bridge["rows"]["messages"] == 4
    assert not [path for path in (host.state / "backups").iterdir() if path.suffix != ".db"]

    async def later(bridge: Bridge) -> None:
        await bridge.post(EXECUTIONER, thread_id, "to be undone")

    play(url, later)
    assert not told(host, "restore", of_bridge["path"])["restored"]
    assert searched(url, "undone") == ["to be undone"]
    gc.collect()  # a connection whose opening was cancelled is closed with the cycle that holds it
    with psycopg.connect(url):
        assert "1 other connections" in ctl(host, "restore", of_bridge["path"], "--yes", code=Exit.FAILED).stderr
    kept = told(host, "restore", of_bridge["path"], "--yes")["kept"]
    assert searched(url, "undone") == []
    assert searched(url, "ολίγα") == ["ολίγα 漢字 🐙"]
    with closing(transfer.SqliteSide(of_bridge["path"])) as ours, closing(PostgresSide(url)) as theirs:
        assert transfer.differences(ours, theirs) == []
    gc.collect()
    told(host, "restore", kept, "--yes")
    assert searched(url, "undone") == ["to be undone"]


def test_the_file_is_backed_up_and_restored(host: Host, store: str) -> None:
    thread_id = talk(store)
    (made,) = told(host, "backup", "--keep", "1")
    (newer,) = told(host, "backup", "--keep", "1")
    assert newer["removed"] == [made["path"]]

    async def later(bridge: Bridge) -> None:
        await bridge.post(EXECUTIONER, thread_id, "to be undone")

    play(store, later)
    kept = told(host, "restore", newer["path"], "--yes")["kept"]
    assert searched(store, "undone") == []
    told(host, "restore", kept, "--yes")
    assert searched(store, "undone") == ["to be undone"]
    Path(store).unlink()
    told(host, "restore", newer["path"], "--yes")
    assert searched(store, "ολίγα") == ["ολίγα 漢字 🐙"]


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        ("DELETE FROM bridge_messages WHERE seq = 2", "not numbered 1, 2, … up to the last"),
        ("UPDATE bridge_participants SET last_read_seq = 99", "past the last message"),
        ("UPDATE bridge_audit SET actor = 'mallory' WHERE entry = 3", "not what was written"),
        ("INSERT INTO bridge_findings VALUES ('thr_gone', 'F', 's', 1, 'm', 'r')", "it is not there"),
        ("UPDATE bridge_wake_attempts SET thread_id = 'thr_gone'", "it is not there"),
        ("UPDATE bridge_triggers SET status = 'done'", "ended in one table and not in the other"),
    ],
)
def test_what_is_not_sound_is_found(host: Host, place: str, edit: str, fault: str) -> None:
    talk(place)
    host.state.mkdir(mode=0o700)
    if "://" in place:
        with psycopg.connect(place, autocommit=True) as connection:
            connection.execute(edit.encode())
        host.set(KLR_DATABASE_URL=place)
    else:
        with closing(sqlite3.connect(place)) as db, db:
            db.execute(edit)
        Path(place).rename(host.state / "kloros.db")
    before = sorted(path.read_bytes() for path in host.state.glob("*.db"))
    found = told(host, "check", code=Exit.FAILED)[-1]
    assert not found["sound"]
    assert fault in found["faults"][0]
    assert sorted(path.read_bytes() for path in host.state.glob("*.db")) == before


def test_a_damaged_copy_is_not_restored(host: Host, store: str) -> None:
    talk(store)
    (made,) = told(host, "backup")
    with closing(sqlite3.connect(made["path"])) as db, db:
        db.execute("DELETE FROM bridge_messages WHERE seq = 1")
    assert "damaged" in ctl(host, "restore", made["path"], "--yes", code=Exit.STORE_UNREACHABLE).stderr
    Path(made["path"]).write_bytes(b"no database")
    ctl(host, "restore", made["path"], "--yes", code=Exit.STORE_UNREACHABLE)
    assert searched(store, "plain") == ["plain"]


@pytest.mark.xdist_group("postgres")
def test_migrating_tells_where_from_and_where_to(host: Host, store: str, cluster: Cluster) -> None:
    url = cluster.new_database()
    host.set(KLR_DATABASE_URL=url)
    assert "db migrate" in told(host, "check", code=Exit.FAILED)[-1]["faults"][0]
    first, second = told(host, "migrate"), told(host, "migrate")
    assert [(one["before"], one["schema"], one["changed"]) for one in first] == [(0, postgres.SCHEMA_VERSION, True)]
    assert not any(one["changed"] for one in second)
    host.set(KLR_DATABASE_URL="postgresql://ada:s3cret@127.0.0.1:1/kloros")
    failed = ctl(host, "migrate", code=Exit.STORE_UNREACHABLE)
    assert "s3cret" not in failed.stdout + failed.stderr
