"""The supervisor killed anywhere: no prompt is lost, and none is given twice.

Once at each of its effects, with terminals and turns on paper: before and after every call to the store, every prompt that
is put in and every turn that is begun. And as a process, at random instants, while messages come and real turns run:
24 kills by default (`KLR_SUPERVISOR_KILLS`).
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestration.bridge.wake.observation import Turned
from orchestration.bridge.wake.state import Outcome, Status
from orchestration.host import clock
from tests.acceptance.agent_of_paper import turns_in
from tests.acceptance.bridging import Bridge, caller
from tests.acceptance.bridging import play as play_bridge
from tests.acceptance.host import Host
from tests.acceptance.looping import PAUSE
from tests.acceptance.supervising import agent, supervising
from tests.acceptance.waking import World, play
from tests.waiting import until

KILLS = int(os.environ.get("KLR_SUPERVISOR_KILLS", "24"))
MOST_EFFECTS = 60


class Killed(BaseException):
    """The supervisor is no more."""


class Mortal:
    """Stands before what a supervisor works with, and ends it at its effect number `at`, before or after it."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.left, self.after, self.dead = at, after, False

    def of(self, real: Any) -> Any:
        mortal = self

        class Before:
            def __getattr__(self, name: str) -> Any:
                found = getattr(real, name)
                return mortal._watched(found) if asyncio.iscoroutinefunction(found) else found

        return Before()

    def _watched(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def called(*given: Any, **named: Any) -> Any:
            if self.dead:
                raise Killed
            self.left -= 1
            if self.left == 0 and not self.after:
                self.dead = True
                raise Killed
            answer = await call(*given, **named)
            if self.left <= 0:
                self.dead = True
                raise Killed
            return answer

        return called


def lapse(place: str | Path) -> None:
    """Let the time pass that leases take."""
    with closing(sqlite3.connect(place, timeout=10)) as db, db:
        for table in ("bridge_wake_states", "bridge_session_writers"):
            db.execute(f"UPDATE {table} SET lease_until = '2000-01-01T00:00:00.000000Z' WHERE lease_until IS NOT NULL")


async def to_its_end(world: World) -> None:
    """Have one supervisor after the other work until the trigger has ended; the agent reads once it was prompted."""
    for _ in range(12):
        async with world.supervisor() as watched:
            await watched.one_pass()
            if world.paper.turns:
                world.paper.ends(Turned.SUCCEEDED, session_id="s-1")
                await world.reads()
            elif world.paper.runtime.prompts:
                await world.reads()
            await watched.one_pass()
        (wake, *_) = await world.wakes()
        if wake.status is Status.DONE:
            return
        lapse(world.place)
        world.clock.passes(9)
        await world.beats(status="idle") if world.paper.runtime.prompts else None
    raise AssertionError("it comes to no end")


async def killed_once(world: World, way: str, mortal: Mortal, *, more: bool) -> None:
    """Have a supervisor killed, others go on, and see what came of the message; `more`: another comes meanwhile."""
    await world.said()
    if way == "live":
        await world.beats()
    async with world.supervisor(mortal=mortal) as watched:
        for _ in range(2):
            with suppress(Killed):
                await watched.one_pass()
            if world.paper.turns:
                world.paper.ends(Turned.SUCCEEDED, session_id="s-1")
            if world.paper.turns or world.paper.runtime.prompts:
                await world.reads()
    if more:
        await world.said("another")
    lapse(world.place)
    await to_its_end(world)
    (wake, *others) = await world.wakes()
    told = Counter(text.split("]")[0] for _, text in world.paper.runtime.prompts)
    told.update(turn.prompt.split("]")[0] for turn, _ in world.paper.turns.values())
    assert set(told.values()) == {1}, (told, wake)
    assert more or not others, "one message is one trigger"
    assert wake.outcome in (Outcome.TRIGGERED, Outcome.FALLBACK_SPAWNED, Outcome.ALREADY_ACTIVE), wake
    assert all(one.outcome is not None for one in wake.attempts)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("way", ["live", "spawn"])
@pytest.mark.parametrize("more", [False, True], ids=["one message", "another meanwhile"])
def test_at_any_effect_the_next_one_goes_on_and_nothing_is_given_twice(
    tmp_path: Path, way: str, after: bool, more: bool
) -> None:
    for at in range(1, MOST_EFFECTS):
        mortal = Mortal(at, after=after)
        play(str(tmp_path / f"{at}.db"), partial(killed_once, way=way, mortal=mortal, more=more))
        if not mortal.dead:
            break
    assert 8 < at < MOST_EFFECTS - 1, "it was killed at every effect until it made no more"


def say(place: str, thread_id: str, body: str) -> str:
    executioner, reviewer = caller("executioner"), caller("reviewer")

    async def scene(bridge: Bridge) -> str:
        bridge.clock.at = clock.now()
        found = thread_id or await bridge.thread(executioner, reviewer)
        await bridge.post(executioner, found, body)
        return found

    return play_bridge(place, scene)


def unread(place: str, thread_id: str) -> int:
    async def scene(bridge: Bridge) -> int:
        for one in await bridge.store.participants(thread_id):
            if one.agent_id == "reviewer":
                return one.unread
        return -1

    return play_bridge(place, scene)


def test_killed_at_random_while_turns_run_nothing_is_lost_and_nobody_is_prompted_twice(memory: Path) -> None:
    host = Host(memory)
    host.decided()
    place, turns = str(host.state / "kloros.db"), host.home / "turns"
    host.configure(agent(place, turns) + '\n[wake]\ncooldown = "0s"\ninterval = "0.2s"\n')
    chance = random.Random(7)
    threads = [say(place, "", "begin") for _ in range(2)]
    deadline = time.monotonic() + 20 * KILLS
    for turn in range(KILLS):
        assert time.monotonic() < deadline, "too slow"
        if turn % 2:
            say(place, chance.choice(threads), f"message {turn}")
        with supervising(host) as running:
            if turn % 3:
                until(lambda: running.log("tick.completed") or running.log("tick.idle"), what="it works")
                PAUSE.wait(chance.uniform(0.0, 0.4))
            else:
                until(lambda: running.log("supervisor.started"), what=f"it has begun: {running.lines}")
                PAUSE.wait(chance.uniform(0.0, 0.25))
            assert running.process.poll() is None, running.lines
            running.kill()
        lapse(place)
    with supervising(host) as running:
        until(lambda: running.log("supervisor.started"), what="it has begun, and ends in order when told to")
        until(lambda: not any(unread(place, one) for one in threads), what="all is read", within=120)
        until(lambda: not host.rows("SELECT 1 FROM bridge_triggers WHERE status = 'queued'"), what="all is ended", within=60)
        assert running.stop() == 0
    told = Counter(turns_in(turns))
    assert told
    attempts = host.rows("SELECT trigger_id, number, way, outcome, code, detail FROM bridge_wake_attempts")
    doubled = {trigger_id for trigger_id, times in told.items() if times > 1}
    assert not doubled, [one for one in attempts if one[0] in doubled]
    assert not host.rows("SELECT 1 FROM bridge_wake_attempts WHERE outcome IS NULL")
    assert not host.rows("SELECT 1 FROM bridge_triggers WHERE status = 'dead_lettered'")
    assert not host.rows("SELECT 1 FROM cycles WHERE state IN ('queued', 'running', 'lost')")
