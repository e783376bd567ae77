"""Two hosts over one PostgreSQL: one decides, the other stands by, and takes over when it must. A state folder is a host."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from orchestration import configuration, wiring
from orchestration.exits import Exit
from orchestration.host import process_identity
from orchestration.store.port import Database, Row, Value
from orchestration.tick.settle import settle_now
from orchestration.tick.tick import tick
from tests.acceptance.host import script
from tests.acceptance.looping import Looping
from tests.acceptance.moved_clock import library
from tests.acceptance.scopes import Two
from tests.contract.postgres import Cluster
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("postgres")


def test_one_decides_and_the_other_stands_by_and_names_it(two: Two) -> None:
    scope, a, b = two
    assert "no_intents" in a.reasons()
    ticked = b.tick("--json")
    assert ticked.returncode == 0, ticked.stderr
    record = json.loads(ticked.stdout)
    assert record["decision"] == "noop"
    (reason,) = record["reasons"]
    assert (reason["rule"], reason["reason"]) == ("lease", "standby")
    assert f"NOOP: standby: {reason['evidence']}" in ticked.stderr
    lease = scope.lease
    since, until = (f"{lease[at]:%Y-%m-%d %H:%M:%SZ}" for at in ("since", "expires_at"))
    assert reason["evidence"] == f"a leads since {since}, its lease runs until {until} (epoch 1)"
    assert not (b.state / "kloros.db").exists(), "its store is the scope's"
    told = scope.ask("SELECT host, role, last_tick_exit, release FROM hosts ORDER BY host")
    assert [(one["host"], one["role"], one["last_tick_exit"]) for one in told] == [("a", "leader", 0), ("b", "standby", 0)]
    assert scope.ask("SELECT host, epoch, decision FROM ticks ORDER BY tick") == [
        {"host": "a", "epoch": 1, "decision": "noop"},
        {"host": "b", "epoch": None, "decision": "noop"},
    ]
    assert 'kloros_orchestrator_skipped_total{reason="standby"} 1' in b.textfile.read_text()
    assert 'kloros_orchestrator_skipped_total{reason="standby"} 0' in a.textfile.read_text()


def test_a_lease_that_ran_out_is_taken_over(two: Two) -> None:
    scope, a, b = two
    a.decided()
    scope.expire()
    assert "no_intents" in b.reasons()
    assert a.reasons() == ["standby"]
    assert (scope.lease["holder"], scope.lease["epoch"]) == ("b", 2)


def test_a_standby_whose_tick_comes_just_before_the_lease_ends_waits_for_it(two: Two) -> None:
    scope, a, b = two
    a.decided()
    b.decided()
    scope.do("UPDATE leases SET expires_at = clock_timestamp() + interval '2 seconds'")
    assert "no_intents" in b.reasons()
    lease = scope.lease
    assert (lease["holder"], lease["epoch"]) == ("b", 2)
    (found,) = scope.ask("SELECT * FROM ticks ORDER BY tick DESC LIMIT 1")
    assert found["epoch"] == 2


@pytest.mark.parametrize("jump", ["+1h", "-1h"])
def test_a_host_whose_clock_is_an_hour_off_neither_takes_the_lead_too_early_nor_dates_its_ticks_wrongly(
    two: Two, jump: str
) -> None:
    scope, a, b = two
    a.decided()
    moved = {"LD_PRELOAD": library(), "FAKETIME": jump, "DONT_FAKE_MONOTONIC": "1"}
    b.set(**moved, **b.window(opens_in=timedelta(minutes=30)))
    assert b.reasons() == ["standby"]
    scope.expire()
    assert "outside_phase_window" in b.reasons(), "by its own clock it may be inside"
    told = scope.ask("SELECT host, clock_offset_seconds AS off FROM hosts ORDER BY host")
    assert abs(told[0]["off"]) < 2
    assert abs(told[1]["off"] - (3600 if jump == "+1h" else -3600)) < 5
    b.set(KLR_DREAM_COMMAND="true", KLR_SCOPE_LEASE="10min")
    b.promote("p1")
    b.stepwise()
    assert b.decided()["decision"] == "dream_cycle"
    assert b.run("run_cycle").returncode == 0
    off = "abs(extract(epoch FROM clock_timestamp() - {}::timestamptz))"
    (cycle,) = scope.ask(f"SELECT {off.format('started_at')} AS started, {off.format('ended_at')} AS ended FROM cycles")
    assert max(cycle.values()) < 60, "and so are cycles"
    ticks = scope.ask("SELECT abs(extract(epoch FROM clock_timestamp() - started_at::timestamptz)) AS off FROM ticks")
    assert max(one["off"] for one in ticks) < 60, "all ticks are dated by the server's clock"


def test_a_database_that_is_away_ends_the_tick_with_69_and_what_waits_is_taken_up_afterwards(
    two: Two, cluster: Cluster
) -> None:
    _, a, b = two
    a.stepwise()
    b.stepwise()
    a.decided()
    b.decided()
    waiting = a.promote("p1")
    cluster.stop()
    try:
        before = a.file_contents()
        for host in (a, b):
            done = host.tick()
            assert done.returncode == Exit.STORE_UNREACHABLE, done.stderr
        told = {"state/latest.json", "node-exporter/kloros.prom"}  # which say just that, see test_store_away.py
        after = a.file_contents()
        assert after.keys() == before.keys()
        assert {name for name, content in after.items() if content != before[name]} == told, "nothing else is touched"
    finally:
        cluster.start()
    record = a.decided()
    assert record["decision"] == "dream_cycle"
    assert waiting.exists()


def test_a_leader_that_was_paused_beyond_its_lease_writes_nothing_and_says_that_it_lost_it(two: Two) -> None:
    scope, a, b = two
    for host in (a, b):
        host.stepwise()
    a.decided()
    a.promote("p1")
    with scope.held_inside(a) as paused:
        paused.send_signal(signal.SIGSTOP)
    scope.expire()
    b.promote("p2")
    assert b.decided()["decision"] == "dream_cycle"
    before = scope.ask("SELECT * FROM cycles")
    paused.send_signal(signal.SIGCONT)
    output, errors = paused.communicate(timeout=60)
    assert paused.returncode == 0, errors
    record = json.loads(output)
    assert record["decision"] == "noop"
    (reason,) = record["reasons"]
    assert (reason["rule"], reason["reason"]) == ("lease", "lease_lost")
    assert reason["evidence"].startswith("led under epoch 1, but b leads since ")
    assert scope.ask("SELECT * FROM cycles") == before
    told = scope.ask("SELECT host, epoch, decision, exit_code FROM ticks ORDER BY tick DESC LIMIT 2")
    assert [(one["host"], one["epoch"], one["decision"], one["exit_code"]) for one in told] == [
        ("a", None, "noop", 0),
        ("b", 2, "dream_cycle", 0),
    ]
    assert "lease.lost" in errors


def test_a_tick_between_whose_looks_the_lead_was_taken_loses_nothing_that_waits(two: Two) -> None:
    scope, a, b = two
    a.stepwise()
    b.stepwise()
    a.decided()
    a.promote("p1")
    with scope.held_inside(a) as ticking:
        assert json.loads(b.run("klorosctl", "leader", "yield", "--json").stdout)["changed"]
    output, errors = ticking.communicate(timeout=60)
    assert json.loads(output)["reasons"][0]["reason"] == "lease_lost", errors
    assert a.reasons() == ["standby"], "it leaves the lead to others"
    assert b.decided()["decision"] == "dream_cycle", "for the promotion that lies on a"


def test_who_waits_for_its_cycle_settles_it_as_the_leader_and_has_the_answer_in_place(two: Two, tmp_path: Path) -> None:
    _, a, b = two
    for host in (a, b):
        host.set(KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", ["exit 0"]))
    b.decided()
    a.promote("p1")
    b.stepwise()
    done = a.tick("--wait", "--json")
    assert (json.loads(done.stdout.splitlines()[0])["reasons"], done.returncode)[0][0]["reason"] == "standby"
    b.run("klorosctl", "leader", "yield")
    done = a.tick("--wait", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[1])["state"] == "succeeded"
    assert a.ack("p1")["accepted"] is not None


def test_a_host_that_does_not_lead_settles_nothing(two: Two) -> None:
    scope, a, b = two
    for host in (a, b):
        host.stepwise()
        host.decided()
    scope.do(
        "INSERT INTO cycles"
        " (cycle, job, state, token, cause, origin, command, timeout_seconds, queued_at, started_at, ended_at, result, host)"
        """ VALUES (1, 'phase', 'failed', 't', 'window', '{"cause": "window", "tick_id": "", "promotions": [],
        "topic": "", "intent": ""}', '["true"]', 60, '2026-11-21T00:00:00.000000Z', '2026-11-21T00:00:00.000000Z',
        '2026-11-21T00:00:00.000000Z', '{"reason": "exit code 1"}', 'b')"""
    )
    unsettled = "SELECT 1 FROM cycles WHERE settled_at IS NULL"
    for host, left in ((b, 1), (a, 0)):
        with wiring.kernel(configuration.load(host.environ), host.environ) as kernel, kernel.lock.held("test"):
            settle_now(kernel)
        assert len(scope.ask(unsettled)) == left


def test_a_lead_that_is_lost_after_the_decision_leaves_the_decision_as_it_was_committed(two: Two) -> None:
    scope, a, b = two
    for host in (a, b):
        host.stepwise()
        host.decided()
    intent = a.intend("trigger_phase_synthesis")
    settings = configuration.load(a.environ)

    def lose(_entry: str) -> None:
        scope.do("UPDATE leases SET holder = 'b', epoch = epoch + 1, since = clock_timestamp()")

    with wiring.kernel(settings, a.environ) as kernel:
        record = tick(kernel._replace(start=lose), "20261121T000000Z-deadbeef")
    assert (record.decision, record.exit) == ("phase", Exit.DONE)
    assert scope.ask("SELECT tick_id, decision, exit_code FROM ticks ORDER BY tick DESC LIMIT 1") == [
        {"tick_id": "20261121T000000Z-deadbeef", "decision": "phase", "exit_code": 0}
    ]
    assert len(scope.ask("SELECT 1 FROM cycles")) == 1
    assert intent.exists()
    b.decided()
    a.decided()
    assert not intent.exists(), "the next leader has it moved"


def test_cycles_of_a_silent_host_are_ended_and_it_reaps_them_when_it_comes_back(two: Two, tmp_path: Path) -> None:
    scope, a, b = two
    started = tmp_path / "started"
    a.set(KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", [f"echo $$ >{started}", "exec sleep 600"]))
    b.stepwise()
    a.promote("p1")
    assert a.decided()["decision"] == "dream_cycle"
    until(started.exists, what="the cycle runs")
    (cycle,) = scope.ask("SELECT state, host FROM cycles")
    assert cycle == {"state": "running", "host": "a"}
    runner = [pid for pid in a.processes() if "run_cycle" in Path(f"/proc/{pid}/cmdline").read_text()]
    for pid in runner:
        os.kill(pid, signal.SIGSTOP)  # it can't see by itself that its cycle was ended
    scope.expire()
    scope.do("UPDATE hosts SET last_tick_at = clock_timestamp() - interval '14 minutes' WHERE host = 'a'")
    b.decided()
    assert scope.ask("SELECT state FROM cycles") == [{"state": "running"}], "it is not silent yet"
    scope.do("UPDATE hosts SET last_tick_at = clock_timestamp() - interval '15 minutes' WHERE host = 'a'")
    b.decided()
    (cycle,) = scope.ask("SELECT state, result, settled_at, token FROM cycles")
    assert cycle["state"] == "lost"
    assert json.loads(cycle["result"])["reason"].startswith("its host a has been silent since ")
    assert scope.ask("SELECT to_reap FROM hosts WHERE host = 'a'") == [{"to_reap": json.dumps([cycle["token"]])}]
    command = int(started.read_text())
    assert process_identity.start_time(command) is not None, "nobody there saw it"
    assert a.reasons() == ["standby"]
    assert process_identity.start_time(command) is None
    assert scope.ask("SELECT to_reap FROM hosts WHERE host = 'a'") == [{"to_reap": "[]"}]
    for pid in runner:
        os.kill(pid, signal.SIGCONT)
    until(lambda: not a.processes(), what="its runner ends")
    assert scope.ask("SELECT state FROM cycles WHERE cycle = 1") == [{"state": "lost"}], "what came too late changes nothing"


def test_a_runner_sees_that_its_cycle_was_ended_and_ends_the_command(two: Two, tmp_path: Path) -> None:
    scope, a, b = two
    started = tmp_path / "started"
    a.set(KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", [f"echo $$ >{started}", "exec sleep 600"]))
    b.stepwise()
    a.promote("p1")
    a.decided()
    until(started.exists, what="the cycle runs")
    scope.expire()
    scope.do("UPDATE hosts SET last_tick_at = clock_timestamp() - interval '1 hour' WHERE host = 'a'")
    b.decided()
    command = int(started.read_text())
    until(lambda: process_identity.start_time(command) is None, what="its command is ended")
    until(lambda: not a.processes(), what="its runner ends")
    assert scope.ask("SELECT state FROM cycles WHERE cycle = 1") == [{"state": "lost"}]


def test_a_disabled_and_a_halted_leader_gives_up_the_lead(two: Two) -> None:
    scope, a, b = two
    a.decided()
    done = a.run("klorosctl", "disable")
    assert done.returncode == 0, done.stderr
    assert "a led its scope and does no more; the next tick of another host takes the lead." in done.stdout
    b.decided()
    assert (scope.lease["holder"], scope.lease["epoch"]) == ("b", 2)
    done = b.run("klorosctl", "halt", "--json")
    assert json.loads(done.stdout)["halted"]
    assert scope.lease["holder"] == ""
    assert b.tick().returncode == Exit.HALTED


def test_a_leader_that_can_not_write_leaves_the_lead_to_a_host_that_can(two: Two) -> None:
    scope, a, b = two
    a.decided()
    shutil.rmtree(a.state / "scope")
    (a.state / "scope").write_text("in the way")
    assert a.tick().returncode == Exit.UNWRITABLE
    assert scope.lease["holder"] == "a", "nobody else is there"
    b.decided()
    done = a.tick()
    assert done.returncode == Exit.UNWRITABLE
    assert "a can't write, so it leaves the lead of its scope to b or another" in done.stderr
    b.decided()
    assert scope.lease["holder"] == "b"


def test_a_tick_that_may_do_nothing_gives_up_the_lead_and_tells_that_its_host_lives(two: Two) -> None:
    scope, a, _ = two
    a.decided()
    scope.do("UPDATE hosts SET last_tick_at = last_tick_at - interval '1 hour'")
    a.set(KLR_ORCHESTRATION_MODE="disabled")
    assert a.tick().returncode == Exit.DISABLED
    assert scope.lease["holder"] == ""
    (told,) = scope.ask("SELECT last_tick_exit, clock_timestamp() - last_tick_at AS silent FROM hosts")
    assert told["last_tick_exit"] == Exit.DISABLED
    assert told["silent"] < timedelta(minutes=1)


def test_a_host_that_was_restarted_leads_under_a_new_epoch(two: Two) -> None:
    """So that two copies of one machine, with its name and its id, fence each other off."""
    scope, a, b = two
    a.decided()
    b.decided()
    scope.do("UPDATE hosts SET boot_id = 'of the boot before' WHERE host = 'a'")
    a.decided()
    assert (scope.lease["holder"], scope.lease["epoch"]) == ("a", 2)
    scope.do("UPDATE hosts SET boot_id = 'of the boot before' WHERE host = 'b'")
    assert b.reasons() == ["standby"]
    a.decided()
    assert (scope.lease["holder"], scope.lease["epoch"]) == ("a", 2)


def test_another_machine_under_the_same_name_is_refused_and_writes_nothing(two: Two) -> None:
    scope, a, b = two
    a.decided()
    scope.do("UPDATE hosts SET machine_id = 'of another machine'")
    before = (scope.ask("SELECT * FROM ticks"), scope.ask("SELECT * FROM hosts"), scope.lease)
    done = a.tick()
    assert done.returncode == Exit.SETTINGS_INVALID
    assert "another machine ticks as host 'a' of this scope; each host needs a name of its own" in done.stderr
    assert (scope.ask("SELECT * FROM ticks"), scope.ask("SELECT * FROM hosts"), scope.lease) == before
    assert b.reasons() == ["standby"]


def test_another_scope_in_this_database_is_refused(two: Two) -> None:
    _, a, b = two
    a.decided()
    b.set(KLR_SCOPE_NAME="other")
    done = b.tick()
    assert done.returncode == Exit.SETTINGS_INVALID
    assert "is the database of the scope 'default'" in done.stderr


def test_loops_of_two_hosts_have_numbers_of_their_own_and_never_run_at_once(two: Two) -> None:
    scope, a, b = two
    a.decided()
    b.decided()
    loops = {host: Looping(host) for host in (a, b)}
    with ExitStack() as stack:
        running = []
        for one in loops.values():
            flags = ("--command", one.command("sleep 0.2", f"pwd >>{scope.home}/ran"), "--iterations", "3", "--sleep", "0")
            running.append(stack.enter_context(one.running(*flags)))

        def ended() -> bool:
            for host in (a, b):
                host.tick()  # the leader's timer settles what ended on the other
            return all(process.poll() is not None for process in running)

        until(ended, what="both loops end", within=60)
    assert [process.returncode for process in running] == [0, 0], [one.errors.read_text() for one in loops.values()]
    told = scope.ask("SELECT iteration, host, status FROM iterations ORDER BY iteration")
    assert [one["iteration"] for one in told] == [1, 2, 3, 4, 5, 6]
    assert sorted(one["host"] for one in told) == ["a"] * 3 + ["b"] * 3
    spans = scope.ask("SELECT started_at, ended_at, host FROM cycles WHERE job = 'loop' ORDER BY started_at")
    assert len(spans) == 6
    for before, after in pairwise(spans):
        assert before["ended_at"] <= after["started_at"], "every cycle is exclusive of each other, on whatever host"
    assert len((scope.home / "ran").read_text().split()) == 6


def test_a_cycle_of_another_hosts_loop_keeps_a_decision_from_starting_one_beside_it(two: Two) -> None:
    scope, a, b = two
    for host in (a, b):
        host.stepwise()
        host.decided()
    a.promote("p1")
    settings = configuration.load(a.environ)
    loop = (
        "INSERT INTO cycles (cycle, job, state, token, cause, origin, command, timeout_seconds, queued_at, host) VALUES"
        """ (1, 'loop', 'running', 't', 'loop', '{"cause": "loop", "tick_id": "", "promotions": [], "topic": "",
         "intent": ""}', '["true"]', 60, '2026-11-21T00:00:00.000000Z', 'b')"""
    )
    with wiring.kernel(settings, a.environ) as kernel:
        # what is asked after the look whether a cycle is active
        between = Between(kernel.db, "cycles.ended_for_cause", lambda: scope.do(loop))
        record = tick(kernel._replace(db=between), "20261121T000000Z-deadbeef")
    assert between.came
    assert (record.decision, record.reasons[-1]) == ("noop", "cycle_active")
    assert len(scope.ask("SELECT 1 FROM cycles")) == 1


class Between:
    """A store in which something happens just before a query is asked for the first time."""

    def __init__(self, db: Database, query: str, happens: Callable[[], None]) -> None:
        self._db, self._query, self._happens = db, query, happens
        self.is_shared, self.came = db.is_shared, False

    def rows(self, query: str, /, **parameters: Value) -> list[Row]:
        if query == self._query and not self.came:
            self.came = True
            self._happens()
        return self._db.rows(query, **parameters)

    def run(self, query: str, /, **parameters: Value) -> int:
        return self._db.run(query, **parameters)

    def transaction(self, *, looking: bool = False) -> AbstractContextManager[None]:
        return self._db.transaction(looking=looking)

    def close(self) -> None:
        self._db.close()
