"""What only a server can get wrong: fences, pauses, broken connections, replicas, poolers; and what its errors say."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count

import psycopg
import pytest

from orchestration.bridge.store.postgres import PostgresStore
from orchestration.errors import (
    KlorosError,
    LeaseLost,
    SettingsInvalid,
    StoreEmpty,
    StoreOutdated,
    StoreUnreachable,
    Unwritable,
)
from orchestration.exits import Exit
from orchestration.store import libpq, postgres_schema
from orchestration.store.opening import Place, copy_of
from orchestration.store.postgres_database import PostgresDatabase
from tests.contract import postgres
from tests.contract.postgres import Cluster
from tests.contract.test_bridge_store_pooled import pooled
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("postgres")


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.new_database()


@pytest.fixture
def one(url: str) -> Iterator[PostgresDatabase]:
    db = PostgresDatabase(url, here="one")
    yield db
    db.close()


@pytest.fixture
def two(url: str, one: PostgresDatabase) -> Iterator[PostgresDatabase]:
    db = PostgresDatabase(url, here="two")
    yield db
    db.close()


def lead(url: str, holder: str, epoch: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE leases SET holder = %s, epoch = %s", (holder, epoch))


def remembered(db: PostgresDatabase, name: str = "a") -> list[object]:
    return [row["value"] for row in db.rows("facts.get", name=name)]


def remember(db: PostgresDatabase, value: str, name: str = "a") -> None:
    db.run("facts.set", name=name, value=value)


class TestFence:
    def test_who_leads_under_the_epoch_writes(self, url: str, one: PostgresDatabase) -> None:
        lead(url, "one", 7)
        one.fence(7)
        remember(one, "alone")
        with one.transaction():
            remember(one, "inside")
        assert remembered(one) == ["inside"]

    @pytest.mark.parametrize(("holder", "epoch"), [("one", 8), ("two", 7), ("two", 8), ("", 7)])
    def test_who_led_under_another_is_refused_and_writes_nothing(
        self, url: str, one: PostgresDatabase, holder: str, epoch: int
    ) -> None:
        lead(url, "one", 7)
        one.fence(7)
        remember(one, "before")
        lead(url, holder, epoch)
        with pytest.raises(LeaseLost, match=f"under epoch {epoch}; one did under 7") as told:
            remember(one, "late")
        assert told.value.exit is Exit.FAILED
        with pytest.raises(LeaseLost), one.transaction():
            pytest.fail("it may not begin")
        assert remembered(one) == ["before"], "it may look"
        with one.transaction(looking=True):
            assert remembered(one) == ["before"]
        one.fence(None)
        remember(one, "its own")
        assert remembered(one) == ["its own"]

    def test_a_takeover_waits_for_a_write_under_way(self, url: str, one: PostgresDatabase, two: PostgresDatabase) -> None:
        lead(url, "one", 7)
        one.fence(7)
        taken = threading.Event()

        def take() -> None:
            with two.transaction():
                assert remembered(two) == ["under 7"]
            taken.set()

        with one.transaction():
            thread = threading.Thread(target=take)
            thread.start()
            until(lambda: waiting(url) == 1)
            remember(one, "under 7")
            assert not taken.is_set()
        thread.join(20)
        assert taken.is_set()


class TestPause:
    def test_a_writer_that_pauses_inside_a_transaction_is_ended_by_the_server(self, url: str, one: PostgresDatabase) -> None:
        slow = PostgresDatabase(url, here="slow", idle_seconds=0.2)

        def write_slowly() -> None:
            with slow.transaction():
                remember(slow, "lost")
                remember(one, "taken over")  # waits, and goes on
                remember(slow, "too late")

        with pytest.raises(StoreUnreachable, match="idle-in-transaction"):
            write_slowly()
        assert remembered(one) == ["taken over"]
        remember(slow, "anew")
        assert remembered(one) == ["anew"]
        slow.close()

    def test_a_stopped_writer_keeps_nobody_for_long_and_writes_nothing_when_it_wakes(
        self, url: str, one: PostgresDatabase
    ) -> None:
        code = f"""
import sys
from orchestration.errors import KlorosError
from orchestration.store.postgres_database import PostgresDatabase
db = PostgresDatabase({url!r}, here="two", idle_seconds=0.2)
try:
    with db.transaction():
        db.run("facts.set", name="a", value="of the stopped")
        print("inside", flush=True)
        sys.stdin.readline()
        db.run("facts.set", name="b", value="of the stopped")
except KlorosError as error:
    sys.exit(error.exit)
"""
        writer = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "inside\n"
        writer.send_signal(signal.SIGSTOP)
        remember(one, "of the other")
        writer.send_signal(signal.SIGCONT)
        writer.communicate("go on\n", timeout=20)
        assert writer.returncode == Exit.STORE_UNREACHABLE
        assert (remembered(one), remembered(one, "b")) == (["of the other"], [])


class TestConnection:
    def test_one_that_was_killed_inside_a_transaction_is_unreachable_and_leaves_nothing(
        self, url: str, one: PostgresDatabase
    ) -> None:
        def write() -> None:
            with one.transaction():
                remember(one, "lost")
                kill_all(url)
                remember(one, "lost too")

        with pytest.raises(StoreUnreachable, match="terminating connection"):
            write()
        assert remembered(one) == []

    def test_one_that_was_killed_between_is_made_anew(self, url: str, one: PostgresDatabase) -> None:
        works: list[Callable[[], object]] = [lambda: remember(one, "x"), lambda: remembered(one), lambda: begin(one)]
        for work in works:
            kill_all(url)
            work()
        assert remembered(one) == ["x"]

    def test_what_writes_and_tells_is_asked_by_a_connection_that_stands(self, url: str, one: PostgresDatabase) -> None:
        lead(url, "", 1)
        kill_all(url)
        assert len(one.rows("leases.take", epoch=1, seconds=60.0)) == 1
        assert one.rows("leases.look")[0]["holder"] == "one"

    def test_what_writes_and_tells_is_asked_once_whatever_becomes_of_it(self, url: str, one: PostgresDatabase) -> None:
        one.connection.ask("CREATE SEQUENCE asked")
        one.connection.ask(
            "CREATE FUNCTION dies() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM nextval('asked'), pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$"
        )
        one.connection.ask("CREATE TRIGGER dies_ BEFORE UPDATE ON leases FOR EACH ROW EXECUTE FUNCTION dies()")
        with pytest.raises(StoreUnreachable, match="terminating connection"):
            one.rows("leases.take", epoch=0, seconds=60.0)
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT last_value, is_called FROM asked").fetchone() == (1, True)

    def test_a_transaction_of_which_a_statement_failed_does_not_pass_for_committed(self, one: PostgresDatabase) -> None:
        def write() -> None:
            with one.transaction():
                remember(one, "lost")
                with pytest.raises(StoreUnreachable, match="no number"):
                    one.run("ticks.fail", exit_code="no number", tick_id="x")

        with pytest.raises(StoreUnreachable, match="none of its transaction stands"):
            write()
        assert remembered(one) == []
        remember(one, "goes on")

    def test_a_restarted_server_is_found_again(self) -> None:
        with postgres.running("fsync=off") as cluster:
            url = cluster.new_database()
            db = PostgresDatabase(url, here="one")
            remember(db, "before")
            cluster.stop("immediate")
            with pytest.raises(StoreUnreachable, match=r"^PostgreSQL kloros_1: ") as told:
                remember(db, "meanwhile")
            assert told.value.exit is Exit.STORE_UNREACHABLE
            with pytest.raises(StoreUnreachable):
                PostgresDatabase(url, here="one")
            cluster.start()
            assert remembered(db) == ["before"]
            again = PostgresDatabase(url, here="one")
            remember(again, "after")
            assert remembered(db) == ["after"]
            again.close()
            db.close()

    @pytest.mark.parametrize(
        "address",
        [
            "postgresql://somebody:s3cret@127.0.0.1:1/kloros",
            "postgresql://somebody:s3c@s3cret@127.0.0.1:1/kloros",
            "postgresql://somebody:s3cret/x@127.0.0.1:1/kloros",
            "postgresql://somebody:s3cret%zz@127.0.0.1:1/kloros",
            "postgresql://somebody@127.0.0.1:1/kloros?password=s3cret",
            "postgresql://somebody@127.0.0.1:1/kloros?password=s3cret&nonsense=s3cret",
        ],
    )
    def test_no_message_tells_the_password(self, address: str) -> None:
        with pytest.raises(StoreUnreachable, match="KLR_DATABASE_URL") as told:
            PostgresDatabase(address)
        assert "s3cret" not in str(told.value)
        assert told.value.__cause__ is None

    def test_a_server_that_does_not_answer_is_given_up(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("orchestration.store.postgres_database.ANSWER_SECONDS", 0.2)
        db = PostgresDatabase(url, here="one")
        with psycopg.connect(url) as other:
            other.execute("LOCK TABLE facts")
            began = time.monotonic()
            with pytest.raises(StoreUnreachable, match=r"has not answered for 0\.2 s"):
                remembered(db)
            assert time.monotonic() - began < 10, "soon, and not when the server gives up"
        assert remembered(db) == []
        db.close()


class TestScope:
    def test_a_database_is_one_scope_s(self, url: str, one: PostgresDatabase) -> None:
        for read_only in (False, True):
            with pytest.raises(SettingsInvalid, match="of the scope 'default', and this host's is 'other'"):
                PostgresDatabase(url, scope="other", read_only=read_only)
        assert [row["scope"] for row in one.rows("postgres.scopes")] == ["default"]

    def test_of_two_scopes_at_once_one_gets_it(self, url: str) -> None:
        answers: list[object] = []

        def enter(scope: str) -> None:
            try:
                PostgresDatabase(url, scope=scope).close()
                answers.append(scope)
            except SettingsInvalid as refused:
                answers.append(refused.exit)

        threads = [threading.Thread(target=enter, args=(f"s{number}",)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert answers.count(Exit.SETTINGS_INVALID) == 5


class TestSchema:
    def test_readers_make_nothing(self, url: str) -> None:
        with pytest.raises(StoreEmpty):
            PostgresDatabase(url, read_only=True)
        with pytest.raises(StoreEmpty):
            copy_of(Place("", url, here="one"))
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)

    def test_one_that_the_bridge_alone_has_made_has_no_tables_of_ours_yet(self, url: str, one: PostgresDatabase) -> None:
        forget(url, postgres_schema.KERNEL_SINCE)
        with pytest.raises(StoreEmpty):
            PostgresDatabase(url, read_only=True)

    def test_a_reader_of_an_older_release_s_store_is_told_so(
        self, url: str, one: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        remember(one, "kept")
        monkeypatch.setattr(postgres_schema, "SCHEMA_VERSION", postgres_schema.SCHEMA_VERSION + 1)
        with pytest.raises(StoreOutdated, match="and this program works with"):
            PostgresDatabase(url, read_only=True)
        copy = copy_of(Place("", url, here="one"))
        assert [row["value"] for row in copy.rows("facts.get", name="a")] == ["kept"]
        copy.close()

    @pytest.mark.parametrize("read_only", [True, False])
    def test_a_newer_release_s_is_refused(self, url: str, one: PostgresDatabase, read_only: bool) -> None:
        with psycopg.connect(url) as connection:
            connection.execute("INSERT INTO kloros_schema (version) VALUES (99)")
        with pytest.raises(StoreUnreachable, match=r"schema version 99; this program knows \d+"):
            PostgresDatabase(url, read_only=read_only)


class TestServer:
    def test_a_replica_is_refused_by_that_name_and_passed_over_among_several(self, url: str, one: PostgresDatabase) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            name = connection.info.dbname
            connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
        for read_only in (False, True):
            with pytest.raises(StoreUnreachable, match=r"is a replica, or takes no writes: .*read-only"):
                PostgresDatabase(url, here="one", read_only=read_only)

    def test_of_several_servers_the_one_that_takes_writes_is_used(self, url: str, cluster: Cluster) -> None:
        with postgres.running("fsync=off", "default_transaction_read_only=on") as replica:
            writable = replica.url("postgres") + "&options=-c%20default_transaction_read_only%3Doff"
            with psycopg.connect(writable, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {url[len('postgresql:///') :].partition('?')[0]}".encode())
            several = url.replace(f"host={cluster.folder}", f"host=/nowhere,{replica.folder},{cluster.folder}")
            assert several != url
            db = PostgresDatabase(several, here="one")
            remember(db, "there")
            db.close()
            assert asyncio.run(threads_of_bridge(several)) == []
        db = PostgresDatabase(url, here="one")
        assert remembered(db) == ["there"]
        db.close()

    def test_one_that_became_read_only_meanwhile_is_told_to_be_a_replica(self, url: str, one: PostgresDatabase) -> None:
        with pytest.raises(StoreUnreachable, match="is a replica"), one.transaction(looking=True):
            one.run("facts.set", name="a", value="b")

    def test_a_full_disk_is_unwritable(self, url: str, one: PostgresDatabase) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "CREATE FUNCTION full() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$"
            )
            connection.execute("CREATE TRIGGER full_ BEFORE INSERT ON facts FOR EACH ROW EXECUTE FUNCTION full()")
        with pytest.raises(Unwritable, match="no space left"):
            remember(one, "x")

    def test_a_reader_s_write_does_not_reach_the_server(self, url: str, one: PostgresDatabase) -> None:
        reader = PostgresDatabase(url, here="one", read_only=True)
        with pytest.raises(Unwritable, match=r"only looked at here; facts\.set would change it"):
            remember(reader, "x")
        reader.close()


class TestWire:
    def test_nothing_is_printed_that_the_server_notices(
        self, url: str, one: PostgresDatabase, capfd: pytest.CaptureFixture[str]
    ) -> None:
        one.connection.ask("CREATE TABLE IF NOT EXISTS facts ()")
        assert capfd.readouterr() == ("", "")

    def test_text_stays_text_whatever_the_server_takes_a_backslash_for(self, url: str, one: PostgresDatabase) -> None:
        text = "\\'; DROP TABLE facts; -- \\\\' \\n"
        for setting in ("on", "off"):
            one.connection.ask(f"SET standard_conforming_strings = {setting}")
            remember(one, text)
            assert remembered(one) == [text]

    def test_a_character_that_postgresql_keeps_in_no_text_is_replaced(self, one: PostgresDatabase) -> None:
        remember(one, "a\0b")
        assert remembered(one) == ["a\ufffdb"]

    @pytest.mark.parametrize(
        ("expression", "value"),
        [
            ("CAST(7 AS smallint)", 7),
            ("CAST(-7 AS bigint)", -7),
            ("sum(CAST(5 AS bigint))", 5),
            ("avg(CAST(1 AS bigint)) / 2", 0.5),
            ("CAST('Infinity' AS double precision)", float("inf")),
            ("1 = 1", 1),
            ("1 = 2", 0),
            ("NULL", None),
            ("''", ""),
            ("CAST('2026-01-02' AS date)", "2026-01-02"),
        ],
    )
    def test_each_type_is_read_as_what_sqlite_gives(self, one: PostgresDatabase, expression: str, value: object) -> None:
        (answer,) = one.connection.ask(f"SELECT {expression} AS found")
        assert answer.rows == [{"found": value}]
        assert type(answer.rows[0]["found"]) is type(value)

    def test_a_host_without_libpq_is_told_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(libpq, "_loaded", [])
        monkeypatch.setattr(libpq, "_bundled", lambda _folders: ["/nowhere/libpq-1.so"])
        monkeypatch.setattr(libpq, "_SYSTEM", "libpq.so.none")
        with pytest.raises(StoreUnreachable, match=r"client library is not on this host: .*\n  apt-get install libpq5"):
            PostgresDatabase("postgresql:///x")

    def test_the_library_of_the_wheel_does_where_the_host_has_none(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(libpq, "_loaded", [])
        monkeypatch.setattr(libpq, "_SYSTEM", "libpq.so.none")
        db = PostgresDatabase(url, here="one")
        remember(db, "by the wheel's")
        assert remembered(db) == ["by the wheel's"]
        db.close()


@pytest.mark.anyio
async def test_a_pooler_may_hand_out_any_session(url: str, cluster: Cluster) -> None:
    async with pooled(url, cluster) as address:
        many = [PostgresDatabase(address, here=f"h{number}") for number in range(6)]
        lead(url, "h0", 3)
        many[0].fence(3)
        numbers = count(1)
        failures: list[KlorosError] = []

        def write(db: PostgresDatabase) -> None:
            try:
                for _ in range(20):
                    with db.transaction():
                        found = db.rows("facts.get", name="phase.sum")
                        db.run("facts.set", name="phase.sum", value=str(int(str(found[0]["value"])) + 1 if found else 1))
                    with db.transaction(looking=True):
                        db.rows("facts.get", name="phase.sum")
                    next(numbers)
            except KlorosError as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(db,)) for db in many]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failures == []
        assert remembered(many[1], "phase.sum") == ["120"]
        for db in many:
            db.close()


async def threads_of_bridge(url: str) -> list[object]:
    store = await PostgresStore.opened(url)
    try:
        return list(await store.search("x", workspace_id="kloros", limit=1))
    finally:
        await store.close()


def begin(db: PostgresDatabase) -> None:
    with db.transaction():
        pass


def waiting(url: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchone()
        assert found is not None
        return int(found[0])


def kill_all(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        sessions = "pg_stat_activity WHERE application_name LIKE 'kloros%'"
        connection.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM {sessions}".encode())


def forget(url: str, since: int) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("DELETE FROM kloros_schema WHERE version >= %s", (since,))
