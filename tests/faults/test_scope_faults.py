"""Each fault that a scope can meet, by name: what its hosts do then, and that it ends as if nothing had been."""

from __future__ import annotations

import json
import signal
import time
from contextlib import ExitStack

import psycopg
import pytest

from orchestration.exits import Exit
from tests.field.field import Field
from tests.field.network import send
from tests.field.play import Play
from tests.field.station import Station
from tests.waiting import until


@pytest.fixture
def play(field: Field) -> Play:
    return Play(field)


def reasons(host: Station) -> list[str]:
    """Do one tick there and give its reasons."""
    done = host.run("run_once", "--json")
    assert done.returncode == 0, done.stderr
    return [reason["reason"] for reason in json.loads(done.stdout.splitlines()[0])["reasons"]]


def ticks_again(host: Station) -> None:
    """Let it tick until one succeeds."""
    until(lambda: host.run("run_once").returncode == 0, f"{host.name} ticks again", within=10)


def seconds_of(host: Station) -> tuple[int, float]:
    """Do one tick there; its exit code, and how long it took."""
    began = time.monotonic()
    return host.run("run_once").returncode, time.monotonic() - began


def test_a_leader_whose_power_is_cut_is_followed_when_its_lease_has_run_out(play: Play) -> None:
    dead, epoch = play.leader, play.lease[1]
    successor = play.standbys[0]
    play.truth.promote(dead.name, "left")
    play.truth.promote(successor.name, "new")
    dead.run("run_once")
    dead.machine.cut_power()
    assert reasons(successor) == ["standby"], "its lease runs"
    play.expire()
    for _ in range(6):
        play.step(successor)
    assert play.lease == (successor.name, epoch + 1)
    assert successor.ack("new")["accepted"]
    dead.machine.boot()
    assert reasons(dead) == ["standby"]
    play.finish()


def test_a_leader_that_stops_in_good_order_is_followed_at_once(play: Play) -> None:
    leader, epoch, successor = play.leader, play.lease[1], play.standbys[0]
    assert leader.run("klorosctl", "leader", "yield").returncode == 0
    assert "standby" not in reasons(successor)
    assert play.lease == (successor.name, epoch + 1)
    play.finish()


def test_a_leader_behind_a_cut_link_gives_up_in_time_and_is_followed(play: Play) -> None:
    cut, epoch = play.leader, play.lease[1]
    successor = play.standbys[0]
    play.truth.promote(cut.name, "behind")
    cut.machine.cut()
    code, seconds = seconds_of(cut)
    assert code == Exit.STORE_UNREACHABLE
    assert seconds < 45, "systemd ends a tick after 50 s"
    assert cut.waiting() == ["behind.json"]
    play.expire()
    assert "standby" not in reasons(successor)
    assert play.lease == (successor.name, epoch + 1)
    cut.machine.mend()
    assert reasons(cut) == ["standby"]
    play.finish()


def test_a_tick_in_whose_middle_the_link_goes_silent_ends_in_time(play: Play) -> None:
    cut = play.leader
    play.truth.promote(cut.name, "behind")
    tick = play.until_message(cut, "run_once", 30, "STOP")
    assert tick is not None
    cut.machine.cut()
    play.go_on(cut)
    began = time.monotonic()
    until(lambda: tick.poll() is not None, "it ends", within=45)
    assert tick.returncode == Exit.STORE_UNREACHABLE
    assert time.monotonic() - began < 30
    play.expire()
    assert "standby" not in reasons(play.standbys[0])
    cut.machine.mend()
    play.finish()


def test_a_writer_that_pauses_is_ended_by_the_server_itself(play: Play) -> None:
    """Who is paused inside a transaction holds the lease's row; the server waits for him ten seconds, and no longer."""
    paused, epoch = play.leader, play.lease[1]
    successor = play.standbys[0]
    play.truth.promote(paused.name, "half")
    for number in range(20, 60):
        tick = play.until_message(paused, "run_once", number, "STOP")
        assert tick is not None, "it ends without ever having paused inside a transaction"
        if _is_inside(play):
            break
        play.go_on(paused)
        tick.wait(30)
    began = time.monotonic()
    until(lambda: not _is_inside(play), "the server ends its session", within=15)
    play.expire()
    assert "standby" not in reasons(successor)
    assert time.monotonic() - began < 20
    assert play.lease == (successor.name, epoch + 1)
    play.go_on(paused)
    until(lambda: not paused.left() and not paused.machine.running("strace"), "it ends")
    play.finish()


def _is_inside(play: Play) -> bool:
    asked = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
    return bool(play.field.ask(asked))


@pytest.mark.parametrize("offset", ["+1h", "-1h"])
def test_a_clock_that_is_an_hour_off_moves_nothing(play: Play, offset: str) -> None:
    lease = play.lease
    off = play.leader
    off.move_clock(offset)
    for serial, host in enumerate((off, *play.standbys)):
        play.truth.promote(host.name, "of-this-hour")
        play.truth.intend(host.name, "suggest_something", serial=serial)
    play.settle()
    assert play.lease == lease, "the server's clock decides"
    ((told,),) = play.field.ask(f"SELECT clock_offset_seconds FROM hosts WHERE host = '{off.name}'")
    assert abs(float(str(told)) - (3600 if offset == "+1h" else -3600)) < 5
    filed = play.field.ask("SELECT DISTINCT status FROM intents")
    assert filed == [("processed",)], "none is stale, nor of the future"
    ((ended,),) = play.field.ask("SELECT max(ended_at) FROM ticks")
    assert abs(time.time() - _seconds(str(ended))) < 600, "a tick's time is the scope's"
    play.finish()


def _seconds(text: str) -> float:
    from orchestration.store.instants import from_text

    return from_text(text).timestamp()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_the_database_restarts_between_and_in_the_middle_of_ticks(play: Play, mode: str) -> None:
    leader, standbys = play.leader, play.standbys
    play.truth.promote(leader.name, "before")
    tick = play.until_message(leader, "run_once", 30, "STOP")
    assert tick is not None
    play.field.databases.primary.stop(mode)
    for host in standbys:
        assert host.run("run_once").returncode == Exit.STORE_UNREACHABLE
    play.go_on(leader)
    until(lambda: tick.poll() is not None, "it ends")
    assert tick.returncode == Exit.STORE_UNREACHABLE
    assert leader.waiting() == ["before.json"]
    play.field.databases.primary.start()
    for host in play.field.hosts.values():  # the pooler may find out by the first of them that its sessions are over
        ticks_again(host)
    play.finish()


def test_a_failover_takes_the_lease_along(play: Play) -> None:
    lease = play.lease
    for host in play.field.hosts.values():
        play.truth.promote(host.name, "before")
    play.leader.run("run_once")
    play.field.databases.fail_over()
    assert play.lease == lease
    for host in play.field.hosts.values():
        play.truth.promote(host.name, "after")
        assert host.run("run_once").returncode == 0, "it finds the new primary, though the old one is silent"
    assert play.lease == lease
    play.field.databases.take_back()
    play.finish()


def test_a_replica_alone_is_no_database(play: Play) -> None:
    play.field.databases.primary.machine.cut()
    for host in play.field.hosts.values():
        done = host.run("run_once")
        assert done.returncode == Exit.STORE_UNREACHABLE, done.stderr
    play.field.databases.primary.machine.mend()
    play.finish()


def test_a_replica_that_is_away_holds_up_what_is_written_and_undoes_none_of_it(play: Play) -> None:
    """Commits wait for it: ticks end with 69, or wait; when it is back, all goes on."""
    play.truth.promote(play.leader.name, "waiting")
    replica = play.field.databases.replica
    replica.machine.cut()
    code, seconds = seconds_of(play.leader)
    assert code == Exit.STORE_UNREACHABLE
    assert seconds < 30, "it asks for an answer once only"
    replica.machine.mend()
    caught_up = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync' AND sent_lsn = flush_lsn"
    until(lambda: play.field.databases.primary.ask(caught_up), "the replica is back", within=60)
    play.finish()


def test_a_runner_that_is_killed_loses_its_cycle_and_the_work_is_done_again(play: Play) -> None:
    leader = play.leader
    hold = leader.home / "hold"
    hold.touch()
    for host in play.field.hosts.values():
        host.set(KLR_DREAM_COMMAND=f"bash -c 'while [ -e {hold} ]; do sleep 0.05; done'")
    play.truth.promote(leader.name, "tried")
    leader.run("run_once")
    leader.begin("run_cycle")
    until(lambda: leader.machine.running("while [ -e"), "the command runs")
    for pid in leader.machine.running("orchestration.run_cycle"):
        send(pid, signal.SIGKILL)
    until(lambda: not leader.left(), "the keeper ends the command")
    hold.unlink()
    play.expire()  # whoever leads then: the host reaps its own
    play.settle()
    states = play.field.ask("SELECT state FROM cycles WHERE job = 'dream' ORDER BY cycle")
    assert states == [("lost",), ("succeeded",)]
    play.finish()


def test_a_host_that_is_silent_loses_its_cycle_and_ends_it_when_it_is_back(field: Field) -> None:
    play = Play(field, silent=2)
    north = play.leader
    hold = north.home / "hold"
    hold.touch()
    for host in play.field.hosts.values():
        host.set(KLR_DREAM_COMMAND=f"bash -c 'while [ -e {hold} ]; do sleep 0.05; done'")
    play.truth.promote(play.standbys[0].name, "tried")
    play.step(play.standbys[0])
    north.run("run_once")
    north.begin("run_cycle")
    until(lambda: north.machine.running("while [ -e"), "the command runs")
    north.machine.cut()
    play.expire()
    east = play.standbys[0]
    silent = "SELECT 1 FROM cycles WHERE state = 'lost' AND result LIKE '%silent since%'"
    until(lambda: east.run("run_once").returncode == 0 and field.ask(silent), "the leader gives it up")
    assert north.machine.running("while [ -e"), "it knows nothing of it yet"
    north.machine.mend()
    assert reasons(north) == ["standby"]
    until(lambda: not north.left(), "it ends what was given up")
    hold.unlink()
    play.finish()


def test_every_session_may_end_at_any_time(play: Play) -> None:
    """As when a pooler restarts: each tick is another session's, and none of them has anything to lose."""
    for serial in range(3):
        for host in play.field.hosts.values():
            play.truth.promote(host.name, f"p{serial}")
            tick = play.until_message(host, "run_once", 6 + 5 * serial, "STOP")
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres' AND datname ="
            with psycopg.connect(play.field.databases.primary.url("postgres"), autocommit=True) as connection:
                connection.execute(f"{ended} '{play.field.database}'".encode())
            play.go_on(host)
            if tick is not None:
                assert tick.wait(45) in (0, Exit.STORE_UNREACHABLE), (host.home / "output").read_text()[-2000:]
    play.finish()


def test_a_server_without_a_connection_left_is_away_but_for_who_comes_through_the_pooler(play: Play) -> None:
    for host in play.field.hosts.values():
        play.truth.promote(host.name, "waiting")
    hosts = (play.leader, *play.standbys)
    with ExitStack() as stack:
        while _connected(stack, play.field.databases.primary.url("postgres")):
            pass
        codes = {host.name: host.run("run_once").returncode for host in hosts}
    assert codes == {"north": Exit.STORE_UNREACHABLE, "east": 0, "south": Exit.STORE_UNREACHABLE}
    play.finish()


def _connected(stack: ExitStack, url: str) -> bool:
    """Take one connection more; False when there is none left."""
    try:
        stack.enter_context(psycopg.connect(url))
    except psycopg.OperationalError as error:
        if "too many clients" not in str(error):
            raise
        return False
    return True
