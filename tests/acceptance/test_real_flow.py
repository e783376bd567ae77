"""The real flow, by messages alone: the executioner reports that it is done, the reviewer is woken and reports a finding,
the executioner is woken and pushes the fix, the reviewer verifies it and resolves the thread.

Both are the real Codex, with a scripted model and the served bridge; the real supervisor wakes them. Nobody else does
anything after the first message.
"""

from __future__ import annotations

import os
import random
import re
import signal
from collections import Counter
from contextlib import suppress
from functools import partial

import pytest

from orchestration.bridge.wake.state import Outcome
from tests.acceptance import review
from tests.acceptance.flow import EXECUTIONER, REVIEWER, Flow, flow, resolved, screens, supervising
from tests.acceptance.host import Host
from tests.contract.postgres import Cluster
from tests.waiting import until

_TRIGGER = re.compile(r"trg_[0-9a-f]{32}")


def came_to_its_end(here: Flow) -> None:
    """Everything was said once, read, and worked on once; every trigger and attempt has its end, and is in the audit."""
    assert here.events() == review.COURSE
    assert review.pushed(here.host.home) == [
        "Wait a power of two",
        "Retry waits twice as long each time",
        "Say how long to wait",
    ]
    thread = here.thread()
    assert (thread["status"], thread["status_reason"]) == ("resolved", "verified by the reviewer")
    cursors = {one["agent_id"]: one["last_read_seq"] for one in thread["participants"]}
    for agent, answers in ((EXECUTIONER, "finding_reported"), (REVIEWER, "fix_pushed")):
        (seq,) = (one["seq"] for one in here.messages() if one["metadata"].get("event_type") == answers)
        assert cursors[agent] >= seq
    triggers = [one for agent in here.agents for one in here.triggers(agent)]
    assert all(one.outcome for one in triggers), triggers
    assert all(attempt.outcome for one in triggers for attempt in one.attempts), triggers
    told = Counter(one["operation"] for one in here.audit() if one["outcome"] == "done")
    assert told["post_message"] == 1 + len(review.COURSE)
    assert told["queue_trigger"] == told["settle_trigger"] == len(triggers)
    assert here.host.run("klorosctl", "audit", "verify").returncode == 0


def live_in_terminals(here: Flow) -> None:
    """Start both, each as Codex's own terminal program in a pane, and see them wait for a prompt."""
    for name in here.agents:
        started = here.host.run("klorosctl", "agent", "start", "--agent", name)
        assert started.returncode == 0, started.stderr
    until(lambda: all("Ask Codex" in text for text in screens(here.host).values()), what="Codex waits for a prompt")


def test_in_the_terminals_in_which_they_live(host: Host) -> None:
    with flow(host) as here:
        live_in_terminals(here)
        with supervising(host):
            here.begin()
            resolved(here)
        came_to_its_end(here)
        for name in here.agents:
            assert set(here.outcomes(name)) == {"triggered"}
            turns = here.model.turns(name)
            assert len(turns) == len(here.woken(name))
            assert len({turn.session_id for turn in turns}) == 1
            assert turns[1].earlier == (turns[0].prompt,)
            assert all(f"You are {name}." in turn.prompt for turn in turns)
            stopped = host.run("klorosctl", "agent", "stop", "--agent", name)
            assert stopped.returncode == 0, stopped.stderr
        until(lambda: not any(map(here.processes, here.agents)), what="nothing of them is left")


def test_no_terminal_is_prompted_twice_when_the_supervisor_is_killed(host: Host) -> None:
    with flow(host) as here:
        live_in_terminals(here)
        here.begin()
        _killed_again_and_again(here, random.Random(11))
        with supervising(host):
            resolved(here)
        came_to_its_end(here)
        for name in here.agents:
            prompts = [(turn.session_id, _TRIGGER.findall(turn.prompt)[0]) for turn in here.model.turns(name)]
            assert len(set(prompts)) == len(prompts)


def test_by_resume(host: Host) -> None:
    with flow(host) as here:
        sessions = {name: one.execute("Wait to be woken.").session_id for name, one in here.agents.items()}
        with supervising(host):
            here.begin()
            resolved(here)
        came_to_its_end(here)
        for name, session_id in sessions.items():
            assert set(here.outcomes(name)) == {"fallback_resumed"}
            turns = here.model.turns(name)
            assert {turn.session_id for turn in turns} == {session_id}
            assert len(turns) == 1 + len(here.woken(name))


def test_by_spawn(host: Host) -> None:
    with flow(host, KLR_WAKE_RESUMES="0") as here:
        with supervising(host):
            here.begin()
            resolved(here)
        came_to_its_end(here)
        for name in here.agents:
            assert set(here.outcomes(name)) == {"fallback_spawned"}
            turns = here.model.turns(name)
            assert len({turn.session_id for turn in turns}) == len(turns) == len(here.woken(name))


def test_who_was_spawned_is_resumed(host: Host) -> None:
    with flow(host) as here:
        with supervising(host):
            here.begin()
            resolved(here)
        came_to_its_end(here)
        for name in here.agents:
            first, *others = here.outcomes(name)
            assert first == "fallback_spawned"
            assert set(others) == {"fallback_resumed"}
            assert len({turn.session_id for turn in here.model.turns(name)}) == 1


def test_the_second_runtime_is_killed_in_the_midst_of_its_turn(host: Host) -> None:
    with flow(host) as here, supervising(host):
        with here.model.held(REVIEWER, after="ack_read"):
            here.begin()
            until(lambda: _stands_after(here, "ack_read"), what="the reviewer has read", within=40)
            for pid in here.processes(REVIEWER):
                os.kill(pid, signal.SIGKILL)
        resolved(here)
        came_to_its_end(here)
        first, *others = (attempt for one in here.triggers(REVIEWER) for attempt in one.attempts)
        assert first.outcome is Outcome.FAILED
        assert all(one.outcome is not Outcome.FAILED for one in others)


def _stands_after(here: Flow, tool: str) -> bool:
    return any(one.turn.agent == REVIEWER and one.done and one.done[-1] == tool for one in list(here.model.asked))


def _killed_again_and_again(here: Flow, chance: random.Random) -> int:
    """Kill one supervisor after the other until the agents are done; returns how many it took."""
    killed = 0
    while not here.is_resolved():
        with supervising(here.host) as supervisor:
            until(partial(supervisor.log, "supervisor.started"), what="it is there")
            with suppress(AssertionError):
                until(here.is_resolved, what="it lives on", within=chance.uniform(0, 1.5))
            supervisor.process.kill()
        killed += 1
        assert killed < 60
    return killed


def test_the_supervisor_is_killed_again_and_again(host: Host, place: str) -> None:
    variables = {"KLR_DATABASE_URL": place} if place.startswith("postgresql:") else {}
    with flow(host, **variables) as here:
        here.begin()
        assert _killed_again_and_again(here, random.Random(7)) >= 2
        with supervising(host):
            resolved(here)
        came_to_its_end(here)
        for name in here.agents:
            turns = here.model.turns(name)
            assert len(turns) <= sum(len(one.attempts) for one in here.woken(name))


@pytest.mark.xdist_group("postgres")
def test_on_postgresql(host: Host, cluster: Cluster) -> None:
    with flow(host, KLR_DATABASE_URL=cluster.new_database()) as here:
        with supervising(host):
            here.begin()
            resolved(here)
        came_to_its_end(here)
        for name in here.agents:
            assert len(here.model.turns(name)) == len(here.woken(name))
