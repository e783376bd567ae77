"""What a supervisor does, over both stores, with the real rules; terminals and turns are on paper."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestration.bridge.refusal import Code as Refusal
from orchestration.bridge.refusal import Refused
from orchestration.bridge.state import Session
from orchestration.bridge.wake.observation import Turned
from orchestration.bridge.wake.port import WakeFailed
from orchestration.bridge.wake.state import Case, Code, Outcome, Status, Wake, Way
from orchestration.bridge.wake.supervisor import AT_ONCE
from orchestration.bridge.wake.telling import Counted
from tests.acceptance.waking import EXECUTIONER, PANE, REVIEWER, Paper, PaperRuntime, World, play


def test_a_live_terminal_is_prompted_once_and_its_reading_settles_it(place: str) -> None:
    async def scene(world: World) -> None:
        await world.said()
        await world.beats()
        async with world.supervisor() as watched:
            assert await watched.did() == {"queued": 1, "claimed": 1, "attempted": 1}
            ((session_id, prompt),) = world.paper.runtime.prompts
            assert session_id == PANE
            assert world.thread_id in prompt
            assert await watched.did() == {}
            await world.reads()
            assert await watched.did() == {"finished": 1, "settled": 1}
            assert await watched.did() == {}
        (wake,) = await world.wakes()
        assert (wake.status, wake.outcome, wake.agent_id) == (Status.DONE, Outcome.TRIGGERED, "reviewer")
        assert len(world.paper.runtime.prompts) == 1

    play(place, scene)


def test_a_terminal_that_does_not_acknowledge_is_never_prompted_again_and_then_a_turn_runs(place: str) -> None:
    async def scene(world: World) -> None:
        await world.said()
        await world.beats()
        await world.beats("0199a213-81c0-7800-8aa1-bbab2a035a53", management_mode="unmanaged")
        async with world.supervisor() as watched:
            await watched.one_pass()
            for _ in range(3):
                world.clock.passes(8.1)
                await watched.one_pass()
            assert len(world.paper.runtime.prompts) == 1
            assert len(world.paper.runtime.pressed) == 2, "two retries, which put nothing in"
            assert len(world.paper.turns) == 1
            assert (await world.wakes())[0].attempts[-1].cycle == 1, "while it runs, too"
            world.paper.ends(Turned.SUCCEEDED)
            await watched.one_pass()
        (wake,) = await world.wakes()
        assert wake.outcome in (Outcome.FALLBACK_RESUMED, Outcome.FALLBACK_SPAWNED)
        assert wake.attempts[-1].cycle == 1, "the attempt knows the cycle that ran its turn"

    play(place, scene)


def test_a_person_who_types_defers_it_and_after_a_minute_another_way_is_taken(place: str) -> None:
    async def scene(world: World) -> None:
        await world.said()
        await world.beats()
        async with world.supervisor() as watched:
            for _ in range(13):
                world.paper.runtime.typed_at = world.clock.at
                await world.beats()
                await watched.one_pass()
                world.clock.passes(5)
            assert not world.paper.turns, "a minute has not passed yet, or has just"
            await watched.one_pass()
            assert not world.paper.runtime.prompts
            assert len(world.paper.turns) == 1
        (wake,) = await world.wakes()
        assert wake.deferrals == 13
        assert [one.code for one in wake.attempts].count(Code.DEFER_TIMEOUT) == 1, "the collision"
        assert {one.outcome for one in wake.attempts} == {Outcome.DEFERRED, None}

    play(place, scene)


def test_a_dormant_agent_is_spawned_and_three_failures_are_a_dead_letter_that_bounces(place: str) -> None:
    async def scene(world: World) -> None:
        await world.said()
        async with world.supervisor() as watched:
            for _ in range(40):
                await watched.one_pass()
                if world.paper.turns:
                    world.paper.ends(Turned.FAILED, detail="exit code 1")
                world.clock.passes(60)
        (wake,) = await world.wakes()
        assert (wake.status, wake.outcome) == (Status.DEAD_LETTERED, Outcome.DEAD_LETTERED)
        assert wake.detail.endswith("the last one: the turn failed: exit code 1")
        assert len(world.paper.turns) == 3
        read = await world.bridge.ask(REVIEWER, "read_messages", thread_id=world.thread_id)
        assert [one.kind.value for one in read.messages] == ["chat", "system"]

    play(place, scene)


def test_who_is_at_work_gets_the_words_as_a_message_and_is_woken_if_it_leaves_without_reading(place: str) -> None:
    async def scene(world: World) -> None:
        world.thread_id = await world.bridge.thread(EXECUTIONER, REVIEWER)
        await world.beats("at-work", management_mode="unmanaged", status="active", resumable=False)
        asked = {
            "thread_id": world.thread_id,
            "target_agent_id": "reviewer",
            "reason": "a finding",
            "trigger_prompt": "Hurry",
        }
        await world.bridge.ask(EXECUTIONER, "trigger_participant", **asked)
        async with world.supervisor() as watched:
            await watched.one_pass()
            (wake,) = await world.wakes()
            assert (wake.status, wake.outcome, wake.attempts) == (Status.DONE, Outcome.ALREADY_ACTIVE, ())
            read = await world.bridge.ask(REVIEWER, "read_messages", thread_id=world.thread_id)
            (message,) = read.messages
            assert (message.to, message.kind.value) == ("reviewer", "chat")
            assert message.body.endswith("> a finding\nWhat you were to be told:\n> Hurry")
            world.clock.passes(10)
            assert not await watched.did()
            world.clock.passes(91)
            await watched.one_pass()
        assert len(world.paper.turns) == 1

    play(place, scene)


def test_a_terminal_that_comes_back_is_told_once_and_the_thread_is_not_flooded(place: str) -> None:
    async def scene(world: World) -> None:
        world.paper.ways = frozenset({Way.LIVE})
        await world.said()
        async with world.supervisor(unheeded=2) as watched:
            for number in (1, 2):
                world.paper.runtime.since = world.clock.at
                for beat in range(20):
                    if not beat % 5:
                        await world.beats(f"tmux:1:%{number}", resumable=False)
                    await watched.one_pass()
                    world.clock.passes(4)
        assert [session for session, _ in world.paper.runtime.prompts] == ["tmux:1:%1", "tmux:1:%2"]
        read = await world.bridge.ask(REVIEWER, "read_messages", thread_id=world.thread_id)
        assert [one.kind.value for one in read.messages] == ["chat", "system", "system"]

    play(place, scene)


def test_a_case_that_fails_fails_no_other(place: str) -> None:
    async def scene(world: World) -> None:
        await world.said()
        await world.beats()
        world.thread_id = ""
        await world.said()
        first = iter([True])

        async def only_the_first() -> None:
            if next(first, False):
                raise RuntimeError("broken")

        world.paper.runtime.delivering = only_the_first
        async with world.supervisor() as watched:
            passed = await watched.one_pass()
        assert (passed.failed, passed.cases) == (1, 2)
        assert len(world.paper.runtime.prompts) == 1

    play(place, scene)


def test_what_cannot_be_delivered_is_recorded_with_its_code(place: str) -> None:
    async def scene(world: World) -> None:
        await world.said()
        await world.beats()
        world.paper.runtime.fails = WakeFailed(Code.PANE_DEAD, "its pane has gone")
        async with world.supervisor() as watched:
            await watched.one_pass()
        assert (await world.outcomes())[0] == "live failed PANE_DEAD"

    play(place, scene)


def test_the_next_supervisor_waits_for_what_a_dead_one_has_put_in(place: str) -> None:
    """Killed after the prompt was put in: the other one puts in nothing, and sees the acknowledgement."""

    async def scene(world: World) -> None:
        await world.said()
        await world.beats()
        async with world.supervisor(lease=timedelta(seconds=0.3)) as first:
            await first.one_pass()
        async with world.supervisor(lease=timedelta(seconds=30)) as second:
            await _lapsed(world)
            assert await second.did() == {"claimed": 1}
            await world.reads()
            assert await second.did() == {"finished": 1, "settled": 1}
        assert len(world.paper.runtime.prompts) == 1

    play(place, scene)


def test_the_next_supervisor_finds_the_turn_of_a_dead_one_by_its_token(place: str) -> None:
    async def scene(world: World) -> None:
        await world.said()
        async with world.supervisor(lease=timedelta(seconds=0.3)) as first:
            await first.one_pass()
        assert len(world.paper.turns) == 1
        async with world.supervisor() as second:
            await _lapsed(world)
            assert await second.did() == {"claimed": 1}
            world.paper.ends(Turned.SUCCEEDED, session_id="s-9")
            assert await second.did() == {"finished": 1, "settled": 1}
        (wake,) = await world.wakes()
        assert [one.session_id for one in wake.attempts] == ["s-9"]
        assert len(world.paper.turns) == 1

    play(place, scene)


def test_nothing_is_put_in_when_the_claim_was_lost_while_it_was_begun(place: str) -> None:
    """The process stood still between the record and the act, for longer than its lease."""

    async def scene(world: World) -> None:
        await world.said()
        await world.beats()

        class Slow(Paper):
            async def terminal(self, session: Session) -> PaperRuntime | None:
                if any(wake.attempts for wake in await world.wakes()):
                    world.clock.passes(60)
                return await super().terminal(session)

        paper = Slow()
        async with world.supervisor(paper) as watched:
            assert (await watched.did())["attempted"] == 1
        assert not paper.runtime.prompts

    play(place, scene)


@pytest.mark.parametrize("what", ["an operator cancels it", "it is told to end"])
def test_nothing_is_begun_when_meanwhile(place: str, what: str) -> None:
    async def scene(world: World) -> None:
        await world.said()
        await world.beats()

        class Interrupted(Paper):
            async def prompt(self, case: Case, wake: Wake, way: Way) -> str:
                if "cancels" in what:
                    await watched.store.steer(wake.trigger_id, Status.CANCELLED, actor="operator:ada", reason="no need")
                else:
                    watched.itself.stopping.set()
                return await super().prompt(case, wake, way)

        paper = Interrupted()
        async with world.supervisor(paper) as watched:
            assert "attempted" not in await watched.did()
        assert not paper.runtime.prompts
        assert not (await world.wakes())[0].attempts

    play(place, scene)


def test_told_to_end_it_gives_its_claims_back_and_begins_nothing(place: str) -> None:
    async def scene(world: World) -> None:
        await world.said()
        await world.beats()
        async with world.supervisor() as watched:
            await watched.one_pass()
            (wake,) = await world.wakes()
            assert wake.status is Status.CLAIMED
            await watched.itself.end(within=1)
            (wake,) = await world.wakes()
            assert wake.status is Status.QUEUED
            await watched.one_pass()
        assert len(world.paper.runtime.prompts) == 1

    play(place, scene)


def test_while_nothing_may_be_done_other_hosts_may_have_what_it_had(place: str) -> None:
    async def scene(world: World) -> None:
        await world.said()
        await world.beats()
        refused = ""
        async with world.supervisor(refused=lambda: refused) as watched:
            await watched.itself._try(Silent())
            assert (await world.wakes())[0].status is Status.CLAIMED
            refused = "the kill switch is set"
            await watched.itself._try(Silent())
            assert (await world.wakes())[0].status is Status.QUEUED
            world.thread_id = ""
            await world.said()
            await watched.itself._try(Silent())
            assert not await world.wakes()

    play(place, scene)


def test_a_turn_whose_trigger_a_person_cancels_is_ended(place: str) -> None:
    async def scene(world: World) -> None:
        await world.said()
        async with world.supervisor(lease=timedelta(seconds=0.3)) as watched:
            await watched.one_pass()
            (wake,) = await world.wakes()
            await watched.store.steer(wake.trigger_id, Status.CANCELLED, actor="operator:ada", reason="no need")
            await watched.itself._claims.renew(wake.trigger_id)
        assert world.paper.cancelled == [f"{wake.trigger_id}-1"]

    play(place, scene)


def test_an_agent_without_a_profile_here_is_left_to_others(place: str) -> None:
    async def scene(world: World) -> None:
        await world.said()
        world.paper.agents = frozenset()
        async with world.supervisor() as watched:
            await watched.one_pass()
            await watched.one_pass()
        assert not world.paper.turns

    play(place, scene)


def test_an_agent_without_a_profile_that_lives_in_a_terminal_here_is_told_there(place: str) -> None:
    async def scene(world: World) -> None:
        await world.said()
        await world.beats()
        world.paper.agents = frozenset()
        async with world.supervisor() as watched:
            assert await watched.did() == {"queued": 1, "claimed": 1, "attempted": 1}
        assert [session_id for session_id, _ in world.paper.runtime.prompts] == [PANE]

    play(place, scene)


def test_two_supervisors_share_the_work_and_nobody_is_prompted_twice(place: str) -> None:
    async def scene(world: World) -> None:
        await world.beats()
        papers = Paper(), Paper()
        for _ in range(12):
            world.thread_id = ""
            await world.said()
        async with world.supervisor(papers[0], host="one") as one, world.supervisor(papers[1], host="other") as other:
            for _ in range(3):
                await asyncio.gather(one.one_pass(), other.one_pass())
        told = Counter(text.split("]")[0] for paper in papers for _, text in paper.runtime.prompts)
        assert len(told) == 12
        assert set(told.values()) == {1}

    play(place, scene)


def test_a_store_that_goes_away_while_a_case_is_seen_to_fails_the_pass(place: str) -> None:
    async def scene(world: World) -> None:
        await world.said()
        async with world.supervisor() as watched:

            async def away(*given: Any, **named: Any) -> Any:
                raise Refused(Refusal.UNAVAILABLE, "no connection", rule="store.reachable")

            watched.store.queue = away
            with pytest.raises(Refused):
                await watched.itself.one_pass()
            del watched.store.queue
            assert (await watched.did())["queued"] == 1

    play(place, scene)


def test_at_most_so_many_agents_are_seen_to_at_one_time(place: str) -> None:
    async def scene(world: World) -> None:
        at_once = most = 0
        full = asyncio.Event()

        async def slow() -> None:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            if most >= AT_ONCE:
                full.set()
            await full.wait()
            at_once -= 1

        world.paper.runtime.delivering = slow
        await world.beats()
        for _ in range(2 * AT_ONCE):
            world.thread_id = ""
            await world.said()
        async with world.supervisor() as watched:
            await watched.one_pass()
        assert len(world.paper.runtime.prompts) == 2 * AT_ONCE
        assert most == AT_ONCE

    play(place, scene)


def test_a_store_out_of_reach_is_told_and_waited_out(place: str) -> None:
    async def scene(world: World) -> None:
        await world.said()
        await world.beats()
        async with world.supervisor() as watched:
            asked = 0
            cases = watched.store.cases

            async def away(**given: Any) -> Any:
                nonlocal asked
                asked += 1
                if asked < 3:
                    raise Refused(Refusal.UNAVAILABLE, "no connection", rule="store.reachable")
                return await cases(**given)

            watched.store.cases = away
            running = asyncio.create_task(watched.itself.run(Silent()))
            async with asyncio.timeout(30):
                while not world.paper.runtime.prompts:
                    assert not running.done(), running
                    await asyncio.sleep(0.01)
            watched.itself.stopping.set()
            await running
        assert asked >= 3

    play(place, scene)


class Silent:
    """Where nothing is told."""

    async def tell(self, counted: Counted, *, news: bool) -> None: ...


async def _lapsed(world: World) -> None:
    """Come back once the lease of the newest trigger is over by the database's clock."""
    async with asyncio.timeout(10):
        while True:
            (wake, *_) = await world.wakes()
            if wake.lease_until is None or wake.lease_until < datetime.now(UTC):
                world.clock.at = max(world.clock.at, datetime.now(UTC))
                return
            await asyncio.sleep(0.02)
