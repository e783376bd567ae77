"""Nothing is lost, left out, given twice or out of order, whatever is broken while many write and read over HTTP.

Hypothesis makes up who writes, who reads and what breaks when, as a state machine whose rules are faults and recoveries:
what it finds it makes as short as it can. What happens between two steps is up to the processes themselves, so a history
that fails may pass when it is played again; Hypothesis then calls it flaky, and shows it nevertheless. Every history is
played to its end, whatever was found on the way: where it ends must not be up to the processes as well.

    KLR_TEST_MODEL_HISTORIES=500 ./tests/run acceptance -k bridge_model      a long run
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.acceptance.bridge_world import WRITERS, Conversation, Following, Ground, Polling, Writing
from tests.acceptance.host import Host
from tests.contract.postgres import Cluster

HISTORIES = int(os.environ.get("KLR_TEST_MODEL_HISTORIES", "12"))
"""How many histories are played over each store."""
STEPS = 15
_CUT = (
    b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
_SLOW_COMMITS = b"""
    CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON bridge_messages DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION slowly();
"""
_SLOWER = """
    CREATE OR REPLACE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM pg_sleep(random() * {}); RETURN NULL; END';
"""

BRIDGES = st.sampled_from([0, 1])
AFTER = st.sampled_from([0, 1, 10, 40])
SHORTLY = st.sampled_from([0.05, 0.2, 0.6])
WRITING = st.builds(Writing, bridge=BRIDGES, hangs_up=st.sampled_from([0, 1, 5]))
POLLING = st.builds(
    Polling, bridge=BRIDGES, limit=st.sampled_from([3, 20, 200]), wait_seconds=st.sampled_from([0.0, 0.1, 1.0])
)
FOLLOWING = st.builds(Following, bridge=BRIDGES, stays=st.sampled_from([5, 50, 10_000]))


class History(RuleBasedStateMachine):
    """What may happen over either store; `after` says how many messages writers are told of before."""

    def __init__(self, ground: Ground) -> None:
        super().__init__()
        self.ground = ground
        self.conversation: Conversation | None = None
        self.written_at: set[int] = set()
        self.down: set[int] = set()
        self.asides: list[threading.Thread] = []
        """What goes on for a while beside the next steps."""

    @initialize(
        writers=st.lists(WRITING, min_size=1, max_size=WRITERS),
        readers=st.lists(POLLING | FOLLOWING, min_size=1, max_size=4),
    )
    def they_begin(self, writers: list[Writing], readers: list[Polling | Following]) -> None:
        self.conversation = Conversation(self.ground, writers=writers, readers=readers)
        self.written_at = {one.bridge for one in writers}

    def works(self) -> bool:
        """Whether some writer has a bridge that can work."""
        return bool(self.written_at - self.down)

    def get_on(self, count: int) -> None:
        assert self.conversation is not None
        if count and self.works() and not self.conversation.failed:
            try:
                self.ground.await_ready(self.down)
                self.conversation.some_more(count)
            except AssertionError as error:
                self.conversation.failed.append(error)

    @rule(after=AFTER, how=POLLING | FOLLOWING)
    def a_reader_joins(self, after: int, how: Polling | Following) -> None:
        self.get_on(after)
        assert self.conversation is not None
        self.conversation.join(how)

    @rule(after=AFTER, bridge=BRIDGES, kill=st.booleans())
    def a_bridge_ends(self, after: int, bridge: int, kill: bool) -> None:
        self.get_on(after)
        if bridge not in self.down:
            self.ground.bridges[bridge].end(kill=kill)
            self.down.add(bridge)

    @precondition(lambda self: self.down)
    @rule(after=AFTER)
    def bridges_start(self, after: int) -> None:
        self.get_on(after)
        self.start_bridges()

    @rule(after=AFTER, bridge=BRIDGES, seconds=SHORTLY)
    def a_bridge_stands_still(self, after: int, bridge: int, seconds: float) -> None:
        self.get_on(after)
        if bridge not in self.down:
            self.ground.bridges[bridge].stand_still(seconds)

    def aside(self, work: Any, *arguments: Any) -> None:
        self.asides.append(threading.Thread(target=work, args=arguments, daemon=True))
        self.asides[-1].start()

    def start_bridges(self) -> None:
        for bridge in self.down:
            self.ground.bridges[bridge].start()
        self.down.clear()

    def teardown(self) -> None:
        for one in self.asides:
            one.join(30)
        try:
            self.recover()
            if self.conversation is not None:
                self.conversation.check()
                self.conversation.some_more(10)
                self.conversation.end()
        finally:
            if self.conversation is not None:
                self.conversation.close()

    def recover(self) -> None:
        """Put everything in order that steps have left broken."""
        self.start_bridges()
        self.ground.await_ready()


class OverSqlite(History):
    """What more may happen to a file."""

    def __init__(self, ground: Ground, path: str) -> None:
        super().__init__(ground)
        self.path = path

    @rule(after=AFTER, seconds=SHORTLY)
    def the_file_is_held(self, after: int, seconds: float) -> None:
        self.get_on(after)
        self.aside(self._hold, seconds)

    def _hold(self, seconds: float) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=30)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            threading.Event().wait(seconds)
            holder.execute("ROLLBACK")


class OverPostgres(History):
    """What more may happen to a server."""

    def __init__(self, ground: Ground, cluster: Cluster, place: str) -> None:
        super().__init__(ground)
        self.cluster, self.place = cluster, place
        self.is_stopped = False

    def works(self) -> bool:
        return super().works() and not self.is_stopped

    @precondition(lambda self: not self.is_stopped)
    @rule(after=AFTER, seconds=SHORTLY)
    def the_row_is_held(self, after: int, seconds: float) -> None:
        self.get_on(after)
        self.aside(self._hold, seconds)

    @precondition(lambda self: not self.is_stopped)
    @rule(after=AFTER)
    def connections_are_killed(self, after: int) -> None:
        self.get_on(after)
        with psycopg.connect(self.place, autocommit=True) as other:
            other.execute(_CUT)

    @precondition(lambda self: not self.is_stopped)
    @rule(seconds=st.sampled_from([0.0, 0.01, 0.1]))
    def commits_become_slow(self, seconds: float) -> None:
        self.slow_down(seconds)

    def slow_down(self, seconds: float) -> None:
        with psycopg.connect(self.place, autocommit=True) as other:
            other.execute(_SLOWER.format(seconds).encode())

    @precondition(lambda self: not self.is_stopped)
    @rule(after=AFTER, mode=st.sampled_from(["fast", "immediate"]))
    def the_server_stops(self, after: int, mode: str) -> None:
        self.get_on(after)
        self.cluster.stop(mode)
        self.is_stopped = True

    @precondition(lambda self: self.is_stopped)
    @rule()
    def the_server_starts(self) -> None:
        self.start_server()

    def start_server(self) -> None:
        self.cluster.start()
        self.is_stopped = False

    def recover(self) -> None:
        if self.is_stopped:
            self.start_server()
        self.slow_down(0.0)
        super().recover()

    def _hold(self, seconds: float) -> None:
        assert self.conversation is not None
        with suppress(psycopg.Error), psycopg.connect(self.place) as holder:  # it may be killed like any other
            holder.execute(b"SELECT * FROM bridge_threads WHERE thread_id = %s FOR UPDATE", (self.conversation.thread_id,))
            threading.Event().wait(seconds)


def played(make: Any) -> None:
    """Play histories on one ground, one after the other."""
    how = settings(
        max_examples=HISTORIES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(make, settings=how)


@contextmanager
def grounded(host: Host) -> Iterator[Ground]:
    """Have two bridges, and see in the end that the audit is whole and has everything once."""
    ground = Ground(host)
    try:
        ground.await_ready()
        yield ground
        verified = host.run("klorosctl", "audit", "verify", "--json")
        assert verified.returncode == 0, verified.stdout
        found = json.loads(verified.stdout)
        assert found["whole"]
        assert found["entries"] == ground.messages, "every message is in the audit, once"
        print(f"{found['entries']} messages in {found['chains']} threads")
    finally:
        ground.close()


def test_nothing_is_lost_over_sqlite(host: Host) -> None:
    with grounded(host) as ground:
        played(lambda: OverSqlite(ground, str(host.state / "kloros.db")))


@pytest.mark.xdist_group("postgres")
def test_nothing_is_lost_over_postgresql(host: Host, cluster: Cluster) -> None:
    place = cluster.new_database()
    host.set(KLR_DATABASE_URL=place)
    with grounded(host) as ground:
        with psycopg.connect(place, autocommit=True) as other:
            other.execute(_SLOW_COMMITS)
        played(lambda: OverPostgres(ground, cluster, place))
