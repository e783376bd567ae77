"""Claiming among hosts, on a real PostgreSQL: who may, takes it; nobody else does, and nobody waits for a writer."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from orchestration.cycles import claims, ledger
from orchestration.cycles.cycle import Cause, CycleEvent, CycleNumber, CycleState, Executor, JobName, Origin, Result
from orchestration.cycles.job import Job
from orchestration.settings import Needs, Settings
from orchestration.store.port import Row
from orchestration.store.postgres_database import PostgresDatabase
from tests.contract.postgres import Cluster

pytestmark = pytest.mark.xdist_group("postgres")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
Hosts = Callable[[str], PostgresDatabase]


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.new_database()


@pytest.fixture
def host(url: str) -> Iterator[Hosts]:
    """Give a host's store by its name; a new connection each time."""
    opened: list[PostgresDatabase] = []

    def host(here: str) -> PostgresDatabase:
        opened.append(PostgresDatabase(url, here=here))
        return opened[-1]

    yield host
    for db in opened:
        db.close()


def queue(
    db: PostgresDatabase, token: str, *hosts: str, job: JobName = JobName.DREAM, executor: Executor = Executor.LOCAL
) -> CycleNumber:
    made = Job(job, ("true",), "", timedelta(minutes=30), executor, hosts)
    with db.transaction():
        return ledger.enqueue(db, job=made, origin=Origin(Cause.PROMOTIONS, "tick-1"), token=token, now=NOON)


def claim(db: PostgresDatabase, unable: tuple[JobName, ...] = ()) -> CycleNumber | None:
    taken = ledger.claim_next(db, runner="{}", now=NOON, unable=unable)
    return None if taken is None else taken.cycle


def test_only_a_host_that_is_named_claims_it_and_is_noted(host: Hosts) -> None:
    a, b = host("a"), host("b")
    number = queue(a, "t", "b", "c")
    assert claim(a) is None
    assert claim(b) == number
    taken = ledger.get(a, number)
    assert taken is not None
    assert (taken.state, taken.host, taken.hosts) == (CycleState.RUNNING, "b", ("b", "c"))
    assert not claims.is_ours(taken, "a")
    assert claims.is_ours(taken, "b")


def test_any_host_claims_what_names_none(host: Hosts) -> None:
    b = host("b")
    number = queue(host("a"), "t")
    assert claim(b) == number


def test_what_slurm_runs_and_turns_of_agents_are_not_claimed(host: Hosts) -> None:
    a = host("a")
    queue(a, "slurm", executor=Executor.SLURM)
    queue(a, "wake", job=JobName.WAKE)
    assert claim(a) is None


def test_a_host_leaves_jobs_that_it_can_not_run_to_others(host: Hosts) -> None:
    a, b = host("a"), host("b")
    queue(a, "phase", job=JobName.PHASE)
    second = queue(a, "dream")
    assert claim(a, (JobName.PHASE,)) == second
    assert claim(a, (JobName.PHASE,)) is None
    assert claim(b) == second - 1


def test_who_claims_passes_over_what_another_is_taking_and_does_not_wait(host: Hosts, url: str) -> None:
    a = host("a")
    first, second = queue(a, "first"), queue(a, "second")
    with psycopg.connect(url) as other:
        other.execute("SELECT * FROM cycles WHERE cycle = %s FOR UPDATE", (first,))
        assert claim(a) == second
        assert claim(a) is None


def test_a_claim_does_not_wait_for_who_writes_for_the_scope(host: Hosts) -> None:
    """A leader that is paused inside a transaction keeps everybody from writing, but nobody from working."""
    a, b = host("a"), host("b")
    number = queue(a, "t")
    with a.transaction():
        assert claim(b) == number


def test_many_that_claim_at_once_take_each_cycle_once(host: Hosts) -> None:
    a = host("a")
    numbers = [queue(a, f"t{number}", *(("even",) if number % 2 else ())) for number in range(60)]
    found: list[tuple[str, CycleNumber]] = []
    lock, ready = threading.Lock(), threading.Barrier(6)

    def work(name: str, db: PostgresDatabase) -> None:
        ready.wait(30)
        misses = 0
        while misses < 3:  # a row that another was taking at that moment was passed over
            if (taken := claim(db)) is None:
                misses += 1
                continue
            with lock:
                found.append((name, taken))

    threads = [threading.Thread(target=work, args=(name, host(name))) for name in ("odd", "even") for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert Counter(number for _, number in found) == Counter(numbers)
    assert {name for name, number in found if numbers.index(number) % 2} == {"even"}


class Silent(PostgresDatabase):
    """The store of a host whose every claim is answered when the scope has taken the host for silent."""

    def rows(self, query: str, /, **parameters: Any) -> list[Row]:
        found = super().rows(query, **parameters)
        if query == "cycles.claim_next" and found:
            cycle = ledger.get(self, cast("CycleNumber", found[0]["cycle"]))
            assert cycle is not None
            with self.transaction():
                assert ledger.finish(self, cycle, CycleEvent.LOSE, Result(reason="silent"), now=NOON)
        return found


def test_a_claim_that_is_over_when_it_is_heard_of_is_left_alone(host: Hosts, url: str) -> None:
    a = host("a")
    numbers = [queue(a, token) for token in ("one", "other")]
    silent = Silent(url, here="b")
    try:
        assert claim(silent) is None
    finally:
        silent.close()
    found = [ledger.get(a, number) for number in numbers]
    assert [cycle and (cycle.state, cycle.host) for cycle in found] == [(CycleState.LOST, "b")] * 2


def test_a_claim_and_a_cancellation_at_once_agree(host: Hosts) -> None:
    """Who comes second finds that it is queued no more, also where neither waits for the other."""
    a, b = host("a"), host("b")
    number = queue(a, "t")
    with a.transaction():
        seen = ledger.get(a, number)
        assert seen is not None
        assert claim(b) == number
        assert not ledger.finish(a, seen, CycleEvent.CANCEL, Result(reason="too late"), now=NOON)
    running = ledger.get(a, number)
    assert running is not None
    assert running.state is CycleState.RUNNING


def settings(here: str, **needs: Any) -> Settings:
    given = SimpleNamespace(needs=Needs(**needs))
    scope = SimpleNamespace(name="default", host=here)
    made = SimpleNamespace(state_dir="/nowhere", database_url="postgresql://x", scope=scope, phase=given, dream=given)
    return cast("Settings", made)


def why(db: PostgresDatabase, number: CycleNumber, **needs: Any) -> str:
    cycle = ledger.get(db, number)
    assert cycle is not None
    return claims.why_queued(db, cycle, settings("a", **needs))


def ticked(url: str, name: str, at: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO hosts (host, machine_id, last_tick_at) VALUES (%s, '', %s)", (name, at))


def test_a_cycle_that_nobody_takes_says_for_whom_it_waits_and_since_when_these_are_silent(host: Hosts, url: str) -> None:
    db = host("a")
    number = queue(db, "t", "b", "c")
    assert why(db, number) == "queued for the hosts b, c; none of them has ever ticked"
    ticked(url, "b", "2026-11-21T11:00:00Z")
    told = "queued for the hosts b, c; none has ticked since it was queued: b ticked last 2026-11-21 11:00:00Z"
    assert why(db, number) == told
    ticked(url, "c", "2026-11-21T12:00:30Z")
    assert why(db, number) == (
        "queued for the hosts b, c; b ticked last 2026-11-21 11:00:00Z, c ticked last 2026-11-21 12:00:30Z"
    )
    assert why(db, queue(db, "u", "d")) == "queued for host d; it has never ticked"
    open_to_any = queue(db, "v")
    assert why(db, open_to_any).startswith("queued for any host; b ticked last")
    assert why(db, open_to_any, cpus=4096).partition("; not a: [dream.needs] asks for 4096 processors, it has ")[2]
    claim(db)
    assert why(db, open_to_any) == ""
