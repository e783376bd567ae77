"""The bridge's threads moved from SQLite to PostgreSQL: all of them, the same, and none twice."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from orchestration.bridge.refusal import Refused
from orchestration.bridge.state import Ask, Change, Finding, Revocation, Session, Trigger
from orchestration.bridge.store.copying import copy_to_postgres
from orchestration.bridge.wire import ManagementMode, SessionStatus
from orchestration.errors import KlorosError, StoreUnreachable
from tests.contract.bridging import AGENT, WORKSPACE, new_id, note, opened_thread, post
from tests.contract.conftest import opened_at
from tests.contract.postgres import Cluster

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("postgres")]
NOW = datetime(2026, 11, 21, 12, 0, 0, 120000, tzinfo=UTC)


async def filled(path: str) -> list[str]:
    """Put something into every table."""
    store = await opened_at(path)
    ids = [await opened_thread(store, AGENT, "zoe.reviewer") for _ in range(3)]
    answers = [await post(store, ids[n % 3], f"message {n}\t\\N ✓ 'quoted' Größe", key=f"k{n}") for n in range(30)]
    finding = Finding(finding_id="F-1", state="fix_pushed", reports=2, message_id=answers[0].message_id, reported_by=AGENT)
    session = Session(
        workspace_id=WORKSPACE,
        agent_id=AGENT,
        session_id="s",
        runtime="codex",
        management_mode=ManagementMode.MANAGED,
        resumable=True,
        status=SessionStatus.IDLE,
        heartbeat_at=NOW,
    )
    trigger = Trigger(
        trigger_id=new_id("trg"),
        thread_id=ids[0],
        target=AGENT,
        reason="r",
        prompt="p",
        requested_by=AGENT,
        created_at=NOW,
    )
    revocation = Revocation(token_id="t", expires_at=NOW + timedelta(hours=1), revoked_at=NOW, revoked_by=AGENT)
    change = Change[None](
        findings=(finding,),
        session=session,
        trigger=trigger,
        revocation=revocation,
        audit=(replace(note(NOW, "all", ids[0]), before={"ü": 1.5}),),
    )
    await store.change(Ask(workspace_id=WORKSPACE, thread_id=ids[0], agent_id=AGENT), lambda facts: change)
    with pytest.raises(Refused):
        await post(store, new_id(), "nowhere")
    await store.close()
    return ids


async def test_everything_is_there_and_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    path, url = str(tmp_path / "kloros.db"), cluster.new_database()
    ids = await filled(path)
    copied = await copy_to_postgres(path, url)
    assert all(table.rows for table in copied)
    before, after = await opened_at(path), await opened_at(url)
    for thread_id in ids:
        reading = await before.read(thread_id, reader=AGENT, since_seq=0, limit=100)
        assert await after.read(thread_id, reader=AGENT, since_seq=0, limit=100) == reading
        assert await after.participants(thread_id) == await before.participants(thread_id)
        assert await after.triggers(thread_id) == await before.triggers(thread_id)
        assert await after.findings(thread_id) == await before.findings(thread_id)
    assert await after.audit(workspace_id=None, limit=100) == await before.audit(workspace_id=None, limit=100)
    assert await after.sessions(WORKSPACE) == await before.sessions(WORKSPACE)
    assert await after.revoked(NOW) == await before.revoked(NOW) == {"t"}
    assert len(await after.search("größe", workspace_id=WORKSPACE)) == 30
    assert await after.verify() == await before.verify()
    assert (await post(after, ids[0], "message 0", key="k0")).seq == 1
    assert (await post(after, ids[0], "new")).seq == 11
    assert not (await after.verify()).faults
    for store in (before, after):
        await store.close()


async def test_a_database_in_use_is_left_alone(cluster: Cluster, tmp_path: Path) -> None:
    path, url = str(tmp_path / "kloros.db"), cluster.new_database()
    await filled(path)
    store = await opened_at(url)
    thread_id = await opened_thread(store)
    await store.close()
    with pytest.raises(KlorosError, match="rows in bridge_threads already"):
        await copy_to_postgres(path, url)
    with psycopg.connect(url) as connection:
        assert connection.execute(b"SELECT thread_id FROM bridge_threads").fetchall() == [(thread_id,)]


async def test_what_does_not_come_back_alike_is_not_copied(cluster: Cluster, tmp_path: Path) -> None:
    path, url = str(tmp_path / "kloros.db"), cluster.new_database()
    await filled(path)
    await (await opened_at(url)).close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            b"CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.reason := 'x'; RETURN NEW; END $$"
        )
        connection.execute(b"CREATE TRIGGER spoil BEFORE INSERT ON bridge_triggers FOR EACH ROW EXECUTE FUNCTION spoil()")
    with pytest.raises(KlorosError, match="row 1 of bridge_triggers is not what was written"):
        await copy_to_postgres(path, url)
    with psycopg.connect(url) as connection:
        assert connection.execute(b"SELECT count(*) FROM bridge_messages").fetchone() == (0,)


async def test_a_file_of_another_release_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    path = str(tmp_path / "kloros.db")
    await filled(path)
    with sqlite3.connect(path) as older:
        older.execute("PRAGMA user_version = 3")
    older.close()
    with pytest.raises(StoreUnreachable, match="schema version 3"):
        await copy_to_postgres(path, cluster.new_database())
