"""Leading, on a real PostgreSQL: who looks at once with others never leads with them, and who led writes nothing more."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from orchestration.errors import LeaseLost, SettingsInvalid, StoreEmpty
from orchestration.host import clock
from orchestration.scope.leading import CheckedIn, Leading, Role, hosts, machine_id
from orchestration.scope.lease import Standing, permit, remaining, standing
from orchestration.store.postgres_database import PostgresDatabase
from tests.contract.postgres import Cluster

pytestmark = pytest.mark.xdist_group("postgres")
LENGTH = timedelta(seconds=65)


@pytest.fixture
def url(cluster: Cluster) -> str:
    return cluster.new_database()


@pytest.fixture
def host(url: str, tmp_path: Path) -> Iterator[Callable[[str], Leading]]:
    """Give a host of the scope by its name; a new connection each time."""
    opened: list[PostgresDatabase] = []

    def host(here: str) -> Leading:
        opened.append(PostgresDatabase(url, here=here))
        return Leading(opened[-1], here, LENGTH, str(tmp_path))

    yield host
    for db in opened:
        db.close()


def sql(url: str, text: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(text.encode())


def expire(url: str) -> None:
    """Let the lease have run out, as it does when its holder is dead."""
    sql(url, "UPDATE leases SET expires_at = clock_timestamp() - interval '1 second'")


def turn(host: Leading) -> bool:
    return host.take_turn(host.wait(sleep=never)).leads


def never(_seconds: float) -> None:
    raise AssertionError("it waits")


def remember(host: Leading, value: str) -> None:
    with host.db.transaction():
        host.db.run("facts.set", name="phase.test", value=value)


def remembered(host: Leading) -> str:
    return str(host.db.rows("facts.get", name="phase.test")[0]["value"])


Hosts = Callable[[str], Leading]


def test_the_first_host_takes_it_and_keeps_it_and_the_others_stand_by(host: Hosts) -> None:
    a, b = host("a"), host("b")
    assert turn(a)
    assert not turn(b)
    first = a.look()
    assert turn(a)
    second = a.look()
    assert (second.holder, second.epoch, second.since) == ("a", 1, first.since), "a renewal changes neither"
    assert first.expires_at is not None
    assert second.expires_at is not None
    assert second.expires_at > first.expires_at
    assert timedelta(seconds=64) < remaining(second) <= LENGTH
    assert standing(b.look(), "b") is Standing.THEIRS


def test_who_looks_where_no_host_has_ticked_is_told_so(host: Hosts, url: str) -> None:
    a = host("a")
    sql(url, "DELETE FROM leases")
    with pytest.raises(StoreEmpty, match="no host of this scope has ticked yet"):
        a.look()


def test_what_has_run_out_goes_to_the_next_and_the_former_holder_writes_nothing_more(host: Hosts, url: str) -> None:
    a, b = host("a"), host("b")
    assert turn(a)
    remember(a, "of a")
    expire(url)
    remember(a, "of a, late but not replaced")
    assert turn(b)
    assert b.look().epoch == 2
    with pytest.raises(LeaseLost, match="b leads default under epoch 2"):
        remember(a, "of a, replaced")
    with pytest.raises(LeaseLost):
        a.db.run("facts.set", name="phase.test", value="of a, replaced, without a transaction")
    assert remembered(b) == "of a, late but not replaced"
    assert a.stand_aside().holder == "b"
    remember(a, "as a standby")
    assert not turn(a)


def test_a_host_whose_own_lease_ran_out_takes_it_under_a_new_epoch(host: Hosts, url: str) -> None:
    late, same = host("a"), host("a")
    assert turn(late)
    expire(url)
    assert turn(same)
    assert same.look().epoch == 2
    with pytest.raises(LeaseLost):
        remember(late, "of the former epoch")


def test_a_takeover_waits_for_a_write_that_is_under_way(host: Hosts, url: str) -> None:
    a, b = host("a"), host("b")
    assert turn(a)
    done: list[bool] = []
    with a.db.transaction():
        taking = threading.Thread(target=lambda: done.append(bool(b.pin("b"))))
        taking.start()
        until_waiting(url)
        assert not done
        a.db.run("facts.set", name="phase.test", value="under way")
    taking.join(10)
    assert done == [True]
    assert remembered(b) == "under way"
    with pytest.raises(LeaseLost):
        remember(a, "after it")


def until_waiting(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        while not connection.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchone():
            pass


def test_hosts_that_race_never_lead_together(host: Hosts, url: str) -> None:
    """Eight hosts, each with a connection of its own, all at once, and the lease taken from them again and again."""
    rounds, names = 30, [f"h{number}" for number in range(8)]
    racing = [host(name) for name in names]
    turn(racing[0])
    start = threading.Barrier(len(names))
    led: Counter[int] = Counter()
    faults: list[BaseException] = []

    def race(one: Leading) -> None:
        try:
            for _ in range(rounds):
                if start.wait(30) == 0:
                    expire(url)
                start.wait(30)
                seen = one.wait(sleep=never)
                start.wait(30)
                found = one.take_turn(seen)
                if found.leads:
                    led[found.lease.epoch] += 1
                start.wait(30)
                one.db.fence(None)
        except BaseException as fault:
            faults.append(fault)
            start.abort()

    threads = [threading.Thread(target=race, args=(one,)) for one in racing]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []
    assert led == Counter(range(2, rounds + 2)), "one leader in each epoch"


def test_a_look_from_before_another_took_it_takes_nothing(host: Hosts, url: str) -> None:
    a, b, c = host("a"), host("b"), host("c")
    assert turn(a)
    expire(url)
    seen = b.wait(sleep=never)
    assert turn(c)
    found = b.take_turn(seen)
    assert (found.leads, found.lease.holder) == (False, "c"), "and it is told who was quicker"
    seen = c.wait(sleep=never)
    sql(url, "UPDATE leases SET holder = 'd', epoch = epoch + 1")
    assert not c.take_turn(seen).leads, "nor does a renewal"


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(hours=-1), timedelta(days=400)])
def test_the_servers_clock_counts_whatever_the_hosts_says(host: Hosts, ahead: timedelta) -> None:
    a, b = host("a"), host("b")
    assert turn(a)
    clock.follow(-ahead)
    try:
        seen = b.wait(sleep=never)
        assert abs(seen.clock_offset - ahead) < timedelta(seconds=2)
        assert not b.take_turn(seen).leads
        b.check_in(seen, boot_id="boot", release="1")
    finally:
        clock.follow(timedelta(0))
    assert abs(hosts(a.db)[0].clock_offset - ahead) < timedelta(seconds=2)
    assert turn(a)


def test_a_standby_waits_for_a_lease_about_to_end_and_has_it_then(host: Hosts, url: str) -> None:
    a, b = host("a"), host("b")
    assert turn(a)
    sql(url, "UPDATE leases SET expires_at = clock_timestamp() + interval '20 seconds'")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            expire(url)

    assert b.take_turn(b.wait(sleep=sleep)).leads
    assert slept == [1.0, 1.0, 1.0], "it asks once a second"


def test_a_renewal_ends_the_wait(host: Hosts, url: str) -> None:
    a, b = host("a"), host("b")
    assert turn(a)
    sql(url, "UPDATE leases SET expires_at = clock_timestamp() + interval '20 seconds'")

    def sleep(_seconds: float) -> None:
        assert turn(a)

    assert not b.take_turn(b.wait(sleep=sleep)).leads


def test_what_is_released_is_free_at_once_for_any_host(host: Hosts) -> None:
    a, b = host("a"), host("b")
    assert not a.wait(sleep=never).lease.holder
    assert not a.release(), "nobody had it"
    assert turn(a)
    assert not b.release(), "it is not b's"
    assert a.release()
    assert not a.release()
    assert turn(b)
    assert b.look().epoch == 2


def test_who_released_it_may_have_it_again(host: Hosts) -> None:
    a = host("a")
    assert turn(a)
    assert a.release()
    assert turn(a)


def test_who_yields_leaves_it_to_the_others_for_a_while(host: Hosts, url: str) -> None:
    a, b = host("a"), host("b")
    assert turn(a)
    assert a.hand_over(a.look())
    assert not a.hand_over(a.look()), "nobody has it"
    assert not turn(a)
    assert turn(b)
    assert permit(a.look(), "a").value == "open", "the next to take it ends the while"
    assert b.hand_over(b.look())
    sql(url, "UPDATE leases SET yielded_until = clock_timestamp()")
    assert turn(b), "nobody else came"


def test_yielding_what_another_has_by_now_changes_nothing(host: Hosts, url: str) -> None:
    a, b = host("a"), host("b")
    assert turn(a)
    seen = a.look()
    expire(url)
    assert turn(b)
    assert not a.hand_over(seen)
    assert b.look().holder == "b"


def test_a_pin_takes_it_from_all_others_and_keeps_it_from_them(host: Hosts, url: str) -> None:
    a, b = host("a"), host("b")
    assert turn(a)
    assert b.pin("b")
    assert not b.pin("b"), "so it is already"
    with pytest.raises(LeaseLost):
        remember(a, "pinned elsewhere")
    a.db.fence(None)
    assert not turn(a)
    assert turn(b)
    expire(url)
    assert not turn(a), "though it has run out"
    assert turn(b)
    assert not b.hand_over(b.look()), "nobody else could have it"
    assert b.unpin()
    assert not b.unpin()
    assert b.look().holder == "b", "who leads goes on"
    expire(url)
    assert turn(a)


def test_what_an_operator_said_since_the_look_counts(host: Hosts, url: str) -> None:
    a = host("a")
    assert turn(a)
    expire(url)
    seen = a.wait(sleep=never)
    assert a.hand_over(seen.lease)
    assert not a.take_turn(seen).leads, "it was yielded"
    sql(url, "UPDATE leases SET yielded_until = clock_timestamp()")
    seen = a.wait(sleep=never)
    assert host("b").pin("b")
    assert not a.take_turn(seen).leads, "it was pinned to another"


def test_pinning_who_leads_changes_nothing_of_his_lead(host: Hosts) -> None:
    a = host("a")
    assert turn(a)
    before = a.look()
    assert a.pin("a")
    assert a.look()._replace(now=before.now) == before._replace(pinned_to="a")
    remember(a, "goes on")


def test_a_host_tells_of_itself(host: Hosts) -> None:
    a = host("a")
    assert a.check_in(a.wait(sleep=never), boot_id="boot", release="1.2") == CheckedIn((), is_restarted=False)
    assert turn(a)
    a.ended(0, leads=True)
    (told,) = hosts(a.db)
    assert (told.host, told.role, told.release, told.boot_id) == ("a", Role.LEADER, "1.2", "boot")
    assert told.last_tick_exit == 0
    assert told.silent_for < timedelta(seconds=10)
    assert a.check_in(a.wait(sleep=never), boot_id="next", release="1.3").is_restarted
    assert not a.check_in(a.wait(sleep=never), boot_id="next", release="1.3").is_restarted
    (again,) = hosts(a.db)
    assert (again.boot_id, again.release, again.first_seen_at) == ("next", "1.3", told.first_seen_at)
    assert again.last_tick_at > told.last_tick_at


def test_two_machines_under_one_name_are_refused_but_one_may_replace_another(host: Hosts, url: str) -> None:
    a = host("a")
    seen = a.wait(sleep=never)
    a.check_in(seen, boot_id="boot", release="1")
    sql(url, "UPDATE hosts SET machine_id = 'of another'")
    with pytest.raises(SettingsInvalid, match="another machine ticks as host 'a' of this scope"):
        a.check_in(seen, boot_id="boot", release="1")
    sql(url, "UPDATE hosts SET last_tick_at = clock_timestamp() - interval '6 minutes'")
    a.check_in(seen, boot_id="boot", release="1")


def test_a_copy_of_a_machine_that_has_its_name_and_id_is_refused_by_its_boots(host: Hosts, url: str) -> None:
    a = host("a")
    seen = a.wait(sleep=never)
    for boot in ("first", "first", "second", "second"):  # a restart, or the copy: nobody can tell yet
        a.check_in(seen, boot_id=boot, release="1")
    with pytest.raises(SettingsInvalid, match="another machine ticks as host 'a' of this scope"):
        a.check_in(seen, boot_id="first", release="1")
    a.check_in(seen, boot_id="second", release="1")
    a.check_in(seen, boot_id="third", release="1")
    sql(url, "UPDATE hosts SET last_tick_at = clock_timestamp() - interval '6 minutes'")
    a.check_in(seen, boot_id="second", release="1")


def test_a_fence_holds_through_a_broken_connection(host: Hosts, url: str) -> None:
    a, b = host("a"), host("b")
    assert turn(a)
    expire(url)
    assert turn(b)
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    sql(url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
    with pytest.raises(LeaseLost):
        remember(a, "on a new connection")


def test_where_there_is_no_machine_id_the_state_folder_has_one(tmp_path: Path) -> None:
    state, path = str(tmp_path), str(tmp_path / "machine-id")
    assert machine_id(state, path=path) == "", "looking makes nothing"
    made = machine_id(state, make=True, path=path)
    assert len(made) == 32
    assert machine_id(state, make=True, path=path) == machine_id(state, path=path) == made
    (tmp_path / "machine-id").write_text("")
    assert machine_id(state, path=path) == made, "an empty one is none"
    (tmp_path / "machine-id").write_text("0123\n")
    assert machine_id(state, path=path) == "0123"
