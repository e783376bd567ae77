"""Messages are found as soon as they are committed, whenever their words are indexed, and whoever committed them."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from orchestration.bridge.port import Store
from orchestration.bridge.state import Ask, Change, Facts
from orchestration.bridge.store.sqlite_words import index, index_part
from orchestration.bridge.store.transfer import SqliteSide, transfer
from orchestration.store import sqlite
from orchestration.store.sqlite import SqliteDatabase
from tests.contract.bridging import AGENT, WORKSPACE, new_id, note, opened_thread, post
from tests.contract.conftest import Open, store_at
from tests.waiting import until

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
AT = "2026-11-21T12:00:00.000000Z"
KILLED_POSTING = """
import asyncio, os, signal, sys
from tests.contract.bridging import post
from tests.contract.conftest import opened_at
async def main(file, thread_id):
    store = await opened_at(file)
    for number in range(20):
        await post(store, thread_id, f"needle {number}")
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main(*sys.argv[1:]))
"""
KILLED_INDEXING = """
import os, signal, sqlite3, sys
from orchestration.bridge.store.sqlite_words import index_part
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
index_part(db)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "kloros.db")


async def found(store: Store, words: str) -> list[str]:
    messages = await store.search(words, workspace_id=WORKSPACE, limit=10_000)
    return sorted(message.body for message in messages)


async def remove(store: Store, thread_id: str) -> None:
    def going(facts: Facts) -> Change[None]:
        return Change(removed=True, audit=(note(facts.now, "expire_thread"),))

    await store.change(Ask(workspace_id=WORKSPACE, thread_id=thread_id, agent_id=AGENT, removes=True), going)


def indexed(file: str) -> int:
    """Up to which number words are indexed."""
    with closing(sqlite3.connect(file)) as db:
        ((number,),) = db.execute("SELECT number FROM bridge_indexed").fetchall()
        return int(number)


def index_now(file: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        index(db)


def numbers(file: str) -> list[int]:
    with closing(sqlite3.connect(file)) as db:
        return [number for (number,) in db.execute("SELECT number FROM bridge_messages ORDER BY number")]


def documents(file: str) -> int:
    """How many messages the index has words of."""
    with closing(sqlite3.connect(file)) as db:
        db.execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab (main, bridge_words, 'row')")
        ((most,),) = db.execute("SELECT coalesce(max(doc), 0) FROM temp.words").fetchall()
        return int(most)


async def test_what_is_posted_is_found_at_once_whoever_has_posted_it(open_store: Open) -> None:
    store, elsewhere = await open_store(), await open_store()
    thread_id = await opened_thread(store)
    assert await found(store, "needle") == []
    for number, poster in enumerate((store, elsewhere, elsewhere, store), 1):
        await post(poster, thread_id, f"needle {number}")
        for searcher in (elsewhere, store):
            assert await found(searcher, f"needle {number}") == [f"needle {number}"]
    assert len(await found(store, "needle")) == 4


async def test_who_posts_and_searches_among_others_finds_what_they_posted(open_store: Open) -> None:
    stores = [await open_store(), await open_store()]
    thread_id = await opened_thread(stores[0])

    async def work(agent: int) -> None:
        for number in range(12):
            body = f"word{agent}x{number}"
            await post(stores[agent % 2], thread_id, body, sender=f"a{agent}")
            assert await found(stores[number % 2], body) == [body]

    async with asyncio.timeout(60):
        await asyncio.gather(*map(work, range(10)))
    assert not (await stores[0].verify()).faults


async def test_what_is_removed_is_found_no_more_and_what_gets_its_place_is(open_store: Open, place: str) -> None:
    """In SQLite messages get the numbers anew that the newest had, under which words may be indexed."""
    store = await open_store()
    stays, goes, unseen = [await opened_thread(store) for _ in range(3)]
    await post(store, stays, "needle that stays")
    await post(store, goes, "needle that goes")
    if "://" not in place:
        index_now(place)
    assert len(await found(store, "needle")) == 2
    for number in range(3):
        await post(store, unseen, f"needle {number} that nobody has searched for")
    await remove(store, unseen)
    await remove(store, goes)
    thread_id = await opened_thread(store)
    for number in range(3):
        await post(store, thread_id, f"thimble {number} that nobody has searched for")
    assert await found(store, "goes") == []
    assert await found(store, "needle") == ["needle that stays"]
    assert len(await found(store, "thimble")) == len(await found(store, "searched")) == 3
    await remove(store, thread_id)
    await remove(store, stays)
    assert await found(store, "that") == []
    await post(store, await opened_thread(store), "needle again")
    assert await found(store, "needle") == ["needle again"]


async def test_words_of_a_removed_thread_go_from_the_index_and_no_others(file: str) -> None:
    async with store_at(file) as store:
        known, unknown = await opened_thread(store), await opened_thread(store)
        await post(store, known, "one")
        await post(store, known, "one")
        index_now(file)
        assert len(await found(store, "one")) == documents(file) == 2
        await post(store, unknown, "one")
        await remove(store, known)
        assert (documents(file), indexed(file), numbers(file)) == (0, 2, [3])
        await remove(store, unknown)
        assert (indexed(file), numbers(file)) == (0, [])
        await post(store, await opened_thread(store), "one")
        assert await found(store, "one") == ["one"]
        index_now(file)
        assert await found(store, "one") == ["one"]
        assert (documents(file), indexed(file)) == (1, 1)


async def test_many_messages_are_indexed_in_parts(file: str) -> None:
    bodies = [f"many {number}" for number in range(2_100)] + [f"long {number} {'x ' * 30_000}" for number in range(40)]
    async with store_at(file) as store:
        thread_id = await opened_thread(store)
        await asyncio.gather(*(post(store, thread_id, body) for body in bodies))
        before = indexed(file)
        with closing(sqlite3.connect(file, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            parts = [before]
            while more := index_part(db):
                ((part,),) = db.execute("SELECT number FROM bridge_indexed").fetchall()
                parts.append(part)
            assert not more
            assert len(parts) > 3
            assert all(0 < last - first <= 1000 for first, last in pairwise(parts))
            assert all(last - first <= 17 for first, last in pairwise(parts) if first >= 2_100)
            db.execute("ROLLBACK")
        assert indexed(file) == before
        for _ in range(2):
            assert await found(store, "long") == sorted(bodies[2_100:])
            assert await found(store, "many") == sorted(bodies[:2_100])
            assert await found(store, "2099") == ["many 2099"]
            index_now(file)
        assert indexed(file) == len(bodies)


async def test_words_are_indexed_without_a_search_too(file: str) -> None:
    async with store_at(file) as store:
        thread_id = await opened_thread(store)
        for number in range(400):  # some by the bridge and some by its process, where the disk is slow
            await post(store, thread_id, f"needle {number}")
        until(lambda: documents(file) == indexed(file) > 0, "they are indexed")
        assert len(await found(store, "needle")) == 400


def killed(script: str, *told: str) -> None:
    done = subprocess.run([sys.executable, "-c", script, *told], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL


async def test_what_a_killed_process_has_posted_is_found(file: str) -> None:
    """Killed after its commits; another one when words were in the index but for the commit of those."""
    async with store_at(file) as store:
        thread_id = await opened_thread(store)
    killed(KILLED_POSTING, file, thread_id)
    killed(KILLED_INDEXING, file)
    assert (indexed(file), len(numbers(file))) == (0, 20)
    async with store_at(file) as store:
        for _ in range(2):
            assert await found(store, "needle") == sorted(f"needle {number}" for number in range(20))
            index_now(file)
    assert documents(file) == 20


async def test_a_file_of_the_program_before_is_searched_as_it_was_and_what_comes_is_added(file: str) -> None:
    migrations = sorted((Path(sqlite.__file__).parent / "migrations").glob("*.sql"))[:15]
    thread_id = new_id()
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.executescript("".join(one.read_text() for one in migrations))
        db.execute(
            "INSERT INTO bridge_threads"
            " VALUES (?, ?, 't', 'workflow', 'active', '', ?, 2, ?, ?, 0, '', '[]', 0, 0, 0, 0, ?, 1)",
            (thread_id, WORKSPACE, AGENT, AT, AT, "0" * 64),
        )
        for number in (1, 2):
            db.execute(
                "INSERT INTO bridge_messages"
                " VALUES (?, ?, ?, ?, ?, 'chat', ?, '{}', NULL, NULL, ?, '', 'active', NULL, 'd')",
                (number, thread_id, number, new_id("msg"), AGENT, f"needle {number}", AT),
            )
            db.execute("INSERT INTO bridge_words (rowid, words) VALUES (?, ?)", (number, f"needle {number}"))
        db.execute("PRAGMA user_version = 15")
    SqliteDatabase(file).close()
    assert indexed(file) == 2
    async with store_at(file) as store:
        assert await found(store, "needle") == ["needle 1", "needle 2"]
        await post(store, thread_id, "needle 3")
        assert await found(store, "needle") == ["needle 1", "needle 2", "needle 3"]
        assert indexed(file) == 2


async def test_a_copy_has_its_words_indexed(file: str, tmp_path: Path) -> None:
    copy = str(tmp_path / "copy.db")
    async with store_at(file) as store:
        thread_id = await opened_thread(store)
        await asyncio.gather(*(post(store, thread_id, f"needle {number}") for number in range(1_100)))
    SqliteDatabase(copy).close()
    with closing(SqliteSide(file)) as source, closing(SqliteSide(copy, filled=True)) as target:
        assert transfer(source, target).copied["messages"] == 1_100
    assert indexed(copy) == documents(copy) == 1_100
    async with store_at(copy) as store:
        assert len(await found(store, "needle")) == 1_100


async def test_a_search_waits_for_nobody_who_writes(file: str) -> None:
    async with store_at(file) as store:
        thread_id = await opened_thread(store)
        await post(store, thread_id, "needle 1")
        index_now(file)
        await post(store, thread_id, "needle 2")
        with closing(sqlite3.connect(file, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            async with asyncio.timeout(2):
                assert await found(store, "needle") == ["needle 1", "needle 2"]
            assert (documents(file), indexed(file)) == (1, 1)


async def test_what_is_not_indexed_yet_is_found_by_the_same_words(file: str) -> None:
    """Folded, cut and parted as the index has them; all of them are wanted, in any order."""
    bodies = ["Straße ＡＢＣ", "one-two_three", f"{'y' * 70} end", "two one", "on e"]
    asked = ["strasse abc", "three two", "y" * 64, "y" * 70, "one two", "one", "e on", "absent"]
    async with store_at(file) as store:
        thread_id = await opened_thread(store)
        for body in bodies:
            await post(store, thread_id, body)
        assert indexed(file) == 0
        before = [await found(store, words) for words in asked]
        index_now(file)
        assert indexed(file) == len(bodies)
        assert [await found(store, words) for words in asked] == before
        assert [len(one) for one in before] == [1, 1, 1, 1, 2, 2, 1, 0]
