"""The supervisor as a process, over both stores, with an agent that is a program and runs through the cycle runner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestration.exits import Exit
from orchestration.host import clock
from tests.acceptance.agent_of_paper import turns_in
from tests.acceptance.bridging import Bridge, caller, play
from tests.acceptance.host import Host
from tests.acceptance.serving import residents
from tests.acceptance.supervising import agent, supervising
from tests.contract.postgres import Cluster
from tests.contract.postgres import running as running_postgres
from tests.waiting import until

EXECUTIONER, REVIEWER = caller("executioner"), caller("reviewer")


@pytest.fixture
def place(host: Host, place: str) -> str:
    """The store of the host: its own file, or a PostgreSQL."""
    if "://" in place:
        host.set(KLR_DATABASE_URL=place)
    else:
        host.state.mkdir(mode=0o700)
        place = str(host.state / "kloros.db")
    host.configure(agent(place, host.home / "turns"))
    return place


@pytest.fixture
def own(host: Host) -> str:
    """The host's own store, where it makes no difference which one there is."""
    host.state.mkdir(mode=0o700)
    place = str(host.state / "kloros.db")
    host.configure(agent(place, host.home / "turns"))
    return place


def say(place: str, thread_id: str = "", body: str = "done") -> str:
    """Have the executioner say something to the reviewer."""

    async def scene(bridge: Bridge) -> str:
        bridge.clock.at = clock.now()
        found = thread_id or await bridge.thread(EXECUTIONER, REVIEWER)
        await bridge.post(EXECUTIONER, found, body)
        return found

    return play(place, scene)


def triggers(host: Host, *given: str) -> list[dict[str, Any]]:
    done = host.run("klorosctl", "triggers", "list", "--json", *given)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_a_message_wakes_a_sleeping_agent_which_answers(host: Host, place: str) -> None:
    host.decided()
    thread_id = say(place)
    with supervising(host) as running:
        until(lambda: [one["outcome"] for one in triggers(host)] == ["fallback_spawned"], what="the agent was woken")
        (one,) = triggers(host)
        assert [(a["way"], a["outcome"]) for a in one["attempts"]] == [("spawn", "fallback_spawned")]
        assert one["attempts"][0]["cycle"] == 1
        assert one["attempts"][0]["session_id"].startswith("s-")
        messages = json.loads(host.run("klorosctl", "inspect-thread", "--thread-id", thread_id, "--json").stdout)["messages"]
        assert [(m["sender"], m["body"]) for m in messages] == [("executioner", "done"), ("reviewer", "seen")]
        until(lambda: running.log("tick.idle"), what="there is nothing more to do")
        assert running.log("tick.completed")[0]["queued"] == 1
        assert running.stop() == Exit.DONE
    assert len(turns_in(host.home / "turns")) == 1
    host.decided()
    assert host.counter("kloros_wake_attempts_total", 'result="fallback_spawned"') == 1
    assert host.counter("kloros_wake_wait_duration_seconds_count") == 1
    page = host.run("klorosctl", "pulse", "build", "--out", str(host.home / "page"))
    assert page.returncode == 0, page.stderr
    shown = json.loads((host.home / "page" / "data" / "dashboard.json").read_text())["wakes"]
    assert (shown["funnel"]["made"], shown["funnel"]["fallback_spawned"], shown["serving"]) == (1, 1, False)
    assert "Waking of agents" in (host.home / "page" / "index.html").read_text()


def test_while_the_kill_switch_is_set_nobody_is_woken(host: Host, own: str) -> None:
    host.decided()
    say(own)
    assert host.run("klorosctl", "halt", "--reason", "look").returncode == 0
    assert host.run("supervise", "--once").returncode == Exit.HALTED
    with supervising(host) as running:
        until(lambda: running.log("tick.refused"), what="it says why it does nothing")
        assert not triggers(host)
        assert host.run("klorosctl", "unhalt").returncode == 0
        until(lambda: triggers(host), what="it goes on by itself")


def test_a_second_supervisor_of_a_host_leaves(host: Host, own: str) -> None:
    host.decided()
    with supervising(host) as running:
        until(lambda: running.log("supervisor.started"), what="it runs")
        assert host.run("supervise").returncode == Exit.LOCK_HELD
        until(lambda: running.log("tick.idle"), what="it has nothing to do")
        assert residents(running.process.pid) <= 60 * 1024**2
    assert host.run("supervise", "--once").returncode == Exit.DONE
    host.set(KLR_ORCHESTRATION_MODE="disabled")
    assert host.run("supervise", "--once").returncode == Exit.DISABLED


def test_why_not_woken_says_what_the_rules_see(host: Host, own: str) -> None:
    host.decided()
    thread_id = say(own)
    asked = ("why-not-woken", "--thread", thread_id, "--agent")
    told = json.loads(host.run("klorosctl", *asked, "reviewer", "--json").stdout)
    assert told["action"] == "queue"
    assert "reviewer is about to be woken" in told["sentence"]
    assert "no supervisor of this host" in told["supervisor"]
    told = json.loads(host.run("klorosctl", *asked, "executioner", "--json").stdout)
    assert (told["action"], told["reason"]) == ("rest", "nothing_unread")
    assert host.run("klorosctl", *asked, "stranger").returncode == 0
    shown = host.run("klorosctl", *asked, "reviewer").stdout
    assert len(shown.splitlines()) == 2, "one sentence, and one of the supervisor that is missing"
    assert "unread: " in host.run("klorosctl", *asked, "reviewer", "--rules").stdout
    assert host.run("klorosctl", "halt", "--reason", "so").returncode == 0
    assert "And this host wakes nobody: " in host.run("klorosctl", *asked, "reviewer").stdout
    assert host.run("klorosctl", "unhalt").returncode == 0
    unknown = host.run("klorosctl", "why-not-woken", "--agent", "reviewer", "--thread", f"thr_{'0' * 32}")
    assert unknown.returncode == Exit.USAGE
    assert not triggers(host), "it changes nothing"


def test_an_operator_cancels_and_has_it_tried_again(host: Host, place: str) -> None:
    host.decided()
    host.config.write_text(host.config.read_text().replace("agents.reviewer", "agents.somebody"))
    thread_id = say(place)

    async def scene(bridge: Bridge) -> None:
        bridge.clock.at = clock.now()
        await bridge.ask(EXECUTIONER, "trigger_participant", thread_id=thread_id, target_agent_id="reviewer", reason="look")

    play(place, scene)
    (one,) = triggers(host, "--open")
    assert (one["status"], one["requested_by"]) == ("queued", "executioner")
    cancel = host.run("klorosctl", "triggers", "cancel", one["trigger_id"], "--reason", "not now")
    assert cancel.returncode == 0, cancel.stderr
    assert not triggers(host, "--open")
    again = host.run("klorosctl", "triggers", "retry", one["trigger_id"], "--force-override", "--json")
    assert json.loads(again.stdout)["forced"], again.stderr
    shown = host.run("klorosctl", "triggers", "show", one["trigger_id"])
    assert "forced" in shown.stdout
    audited = json.loads(host.run("klorosctl", "audit", "list", "--thread-id", thread_id, "--json").stdout)
    steered = [one for one in audited if one["actor"].startswith("operator:")]
    assert len(steered) == 2, audited
    assert host.run("klorosctl", "triggers", "show", "trg_none").returncode == Exit.USAGE


def test_a_turn_of_a_cancelled_trigger_is_ended_although_no_supervisor_lives(host: Host) -> None:
    host.decided()
    host.configure('\n[agents.reviewer]\nruntime = "command"\nspawn = ["/usr/bin/sleep", "600"]\n')
    say(str(host.state / "kloros.db"))
    with supervising(host) as supervisor:
        until(lambda: _turns(host), what="the turn runs")
        supervisor.kill()
    (one,) = triggers(host, "--open")
    cancelled = host.run("klorosctl", "triggers", "cancel", one["trigger_id"], "--reason", "not now")
    assert cancelled.returncode == 0, cancelled.stderr
    until(lambda: not host.processes(), what="nothing of the turn is left")
    shown = host.run("klorosctl", "triggers", "show", one["trigger_id"]).stdout
    assert "broken off" in shown
    assert "under way" not in shown


def _turns(host: Host) -> bool:
    """Say whether the program of a turn runs."""
    commands = (Path(f"/proc/{pid}/cmdline") for pid in host.processes())
    return any(path.read_bytes().startswith(b"/usr/bin/sleep\0") for path in commands if path.exists())


def test_what_can_not_be_cancelled_or_tried_again_is_an_error(host: Host, own: str) -> None:
    host.decided()
    say(own)
    with supervising(host):
        (one,) = until(lambda: _ended(host, 1), what="it is ended")
    for verb in ("cancel", "retry"):
        done = host.run("klorosctl", "triggers", verb, one["trigger_id"], "--reason", "so")
        assert (done.returncode, "stays done" in done.stderr) == (Exit.FAILED, True), done.stderr


def test_a_silent_supervisor_is_told_and_one_that_was_stopped_is_not(host: Host, own: str) -> None:
    host.decided()
    with supervising(host) as running:
        until(lambda: host.rows("SELECT 1 FROM facts WHERE name = 'wake.signs'"), what="it has told how it stands")
        running.kill()
    moved = "json_set(value, '$.at', '2026-01-01T00:00:00.000000Z')"
    host.change(f"UPDATE facts SET value = {moved} WHERE name = 'wake.signs'")
    host.decided()
    latest = json.loads((host.state / "latest.json").read_text())
    assert "supervisor_silent" in {one["condition"] for one in latest["causes"]}
    with supervising(host) as running:
        until(lambda: running.log("tick.idle"), what="it has told again")
        assert running.stop() == Exit.DONE
    host.decided()
    latest = json.loads((host.state / "latest.json").read_text())
    assert "supervisor_silent" not in {one["condition"] for one in latest["causes"]}


def test_a_database_that_is_away_is_waited_for_and_ending_takes_no_longer(host: Host) -> None:
    host.decided()
    host.set(KLR_DATABASE_URL=f"postgresql:///kloros?host={host.home}")
    with supervising(host) as running:
        until(lambda: running.log("tick.failed"), what="it says what is out of reach")
        assert running.process.poll() is None
        assert running.stop() == Exit.DONE


def test_two_hosts_share_one_postgresql_and_nobody_is_woken_twice(tmp_path: Path, cluster: Cluster) -> None:
    place, turns = cluster.new_database(), tmp_path / "turns"
    hosts = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        hosts.append(Host(tmp_path / name))
        hosts[-1].set(KLR_DATABASE_URL=place)
        hosts[-1].decided()
        hosts[-1].configure(agent(place, turns))
    with supervising(hosts[0]) as one, supervising(hosts[1]) as other:
        until(lambda: one.log("tick.idle") and other.log("tick.idle"), what="both look")
        for _ in range(5):
            say(place)
        ended = until(lambda: _ended(hosts[0], 5), what="all are ended", within=60)
        assert one.stop() == other.stop() == Exit.DONE
    assert {one["outcome"] for one in ended} == {"fallback_spawned"}
    assert sorted(turns_in(turns)) == sorted(one["trigger_id"] for one in ended)


def _ended(host: Host, many: int) -> list[dict[str, Any]]:
    found = triggers(host)
    return found if len(found) == many and all(one["ended_at"] for one in found) else []


def test_a_database_that_goes_away_and_comes_back_is_told_and_waited_out(host: Host) -> None:
    with running_postgres() as cluster:
        place = cluster.new_database()
        host.set(KLR_DATABASE_URL=place)
        host.decided()
        host.configure(agent(place, host.home / "turns"))
        with supervising(host) as supervisor:
            until(lambda: supervisor.log("tick.idle"), what="it works")
            cluster.stop("immediate")
            until(lambda: supervisor.log("tick.failed"), what="it says what is out of reach")
            assert "out of reach" in supervisor.log("tick.failed")[0]["message"]
            cluster.start()
            say(place)
            until(lambda: _ended(host, 1), what="the agent is woken")
            assert len(supervisor.log("tick.failed")) == 1, "told once"
            assert supervisor.stop() == Exit.DONE
    assert len(turns_in(host.home / "turns")) == 1
