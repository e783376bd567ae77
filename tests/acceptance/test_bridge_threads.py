"""Where a thread stands, what the loop guards do to it, how it is summed up, and what its audit is worth."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from orchestration.bridge.caller import Role
from orchestration.bridge.commands import Rules
from orchestration.bridge.filtering import Judge
from orchestration.bridge.filters import Act, Filters, Pattern
from orchestration.bridge.guards import Limits
from orchestration.bridge.outside import Program
from orchestration.bridge.summarising import Writer
from tests.acceptance.bridging import QUIET, Bridge, bridge, caller, play

EXECUTIONER, REVIEWER = caller("executioner"), caller("reviewer")
LEAD, OPERATOR = caller("lead", Role.COORDINATOR), caller("ada", Role.OPERATOR)
GUARDED = Rules(limits=Limits(agent_per_minute=0, thread_per_minute=0))


def test_a_change_of_status_is_told_in_thread_and_audit_and_once_only(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        asked = {"thread_id": thread_id, "status": "blocked", "reason": "waits for a key"}
        first = await bridge.ask(EXECUTIONER, "update_thread_status", **asked)
        again = await bridge.ask(REVIEWER, "update_thread_status", **asked)
        assert (first.changed, again.changed, again.updated_at) == (True, False, first.updated_at)
        (told,) = (await bridge.ask(REVIEWER, "read_messages", thread_id=thread_id)).messages
        assert (told.kind, told.sender, told.body) == ("system", "executioner", "active → blocked: waits for a key")
        assert told.metadata["event_type"] == "thread_escalated"
        rows = (await bridge.audit(thread_id=thread_id))[1:]
        after = {"status": "blocked", "reason": "waits for a key"}
        assert [(row.before, row.after) for row in rows] == [({"status": "active", "reason": ""}, after), (after, after)]

    play(place, scene)


def test_a_blocked_thread_is_closed_by_override_alone(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        await bridge.ask(OPERATOR, "update_thread_status", thread_id=thread_id, status="blocked", reason="stop")
        close = {"thread_id": thread_id, "status": "closed"}
        tries = (
            (EXECUTIONER, {**close, "reason": "done"}, "INVALID_THREAD_TRANSITION"),
            (EXECUTIONER, {**close, "reason": "human_override: me"}, "INSUFFICIENT_AUTHORITY"),
            (LEAD, {**close, "reason": "human_override: me"}, "INSUFFICIENT_AUTHORITY"),
            (EXECUTIONER, {"thread_id": thread_id, "status": "active"}, "INSUFFICIENT_AUTHORITY"),
            (LEAD, {"thread_id": thread_id, "status": "resolved"}, "INVALID_THREAD_TRANSITION"),
            (LEAD, {**close, "reason": "coordinator_override: x", "expected_status": "active"}, "CONFLICT"),
            (LEAD, {**close, "reason": "coordinator_override: enough"}, "done"),
            (LEAD, {"thread_id": thread_id, "status": "active"}, "INVALID_THREAD_TRANSITION"),
        )
        for who, asked, code in tries:
            assert await bridge.code(who, "update_thread_status", **asked) == code, asked
        thread = await bridge.ask(EXECUTIONER, "get_thread", thread_id=thread_id)
        assert (thread.status, thread.status_reason) == ("closed", "coordinator_override: enough")
        assert await bridge.code(EXECUTIONER, "post_message", thread_id=thread_id, body="x") == "CONFLICT"
        assert (
            await bridge.code(EXECUTIONER, "trigger_participant", thread_id=thread_id, target_agent_id="reviewer", reason="")
            == "CONFLICT"
        )

    play(place, scene)


def test_twenty_turns_without_progress_block_the_thread(place: str, capfd: pytest.CaptureFixture[str]) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        pair = (EXECUTIONER, REVIEWER)
        for number in range(10):
            await bridge.post(pair[number % 2], thread_id)
        await bridge.event(REVIEWER, thread_id, "something_new")
        await bridge.post(OPERATOR, thread_id, "go on")  # a person is no turn
        posted = [await bridge.post(pair[number % 2], thread_id) for number in range(20)]
        assert [one.thread_status for one in posted] == ["active"] * 19 + ["blocked"]
        thread = await bridge.ask(EXECUTIONER, "get_thread", thread_id=thread_id)
        assert thread.status == "blocked"
        assert thread.status_reason.startswith("loop_guard: 20 turns")
        last = (await bridge.ask(EXECUTIONER, "read_messages", thread_id=thread_id, limit=200)).messages[-1]
        assert (last.kind, last.seq, last.metadata["event_type"]) == ("system", posted[-1].seq + 1, "thread_escalated")
        assert thread.status_reason in last.body
        row = (await bridge.audit(thread_id=thread_id))[-1]
        assert (row.operation, row.rule, row.after) == (
            "loop_guard",
            "guards.loop",
            {"status": "blocked", "reason": thread.status_reason},
        )
        assert (
            await bridge.code(EXECUTIONER, "update_thread_status", thread_id=thread_id, status="active")
            == "INSUFFICIENT_AUTHORITY"
        )
        assert await bridge.code(OPERATOR, "update_thread_status", thread_id=thread_id, status="active") == "done"
        assert (await bridge.post(EXECUTIONER, thread_id)).thread_status == "active"

    play(place, scene, GUARDED)
    assert "thread.blocked" in capfd.readouterr().err


def test_a_change_of_status_is_progress(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        for status in ("blocked", "active", "blocked"):
            for _ in range(15):
                assert (await bridge.post(EXECUTIONER, thread_id)).thread_status != status
            await bridge.ask(REVIEWER, "update_thread_status", thread_id=thread_id, status=status)

    play(place, scene, GUARDED)


def test_the_guards_count_on_after_a_restart(place: str) -> None:
    async def scenes() -> None:
        async with bridge(place, GUARDED) as first:
            thread_id = await first.thread(EXECUTIONER, REVIEWER)
            for _ in range(19):
                await first.post(EXECUTIONER, thread_id)
        async with bridge(place, GUARDED) as second:
            assert (await second.post(REVIEWER, thread_id)).thread_status == "blocked"

    asyncio.run(scenes())


def test_the_same_finding_three_times_blocks_the_thread(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        statuses = []
        for kind in ("reported", "verified", "reported", "rejected", "reported"):
            statuses.append((await bridge.event(REVIEWER, thread_id, f"finding_{kind}", "F-1")).thread_status.value)
            await bridge.event(EXECUTIONER, thread_id, "fix_pushed", "F-1")
        assert statuses == ["active"] * 4 + ["blocked"]
        thread = await bridge.ask(EXECUTIONER, "get_thread", thread_id=thread_id)
        assert thread.status_reason == "loop_guard: finding F-1 was reported or rejected 3 times without being verified"

    play(place, scene, GUARDED)


def test_a_summary_tells_what_is_open_and_is_the_same_each_time(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        third = caller("third")
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER, third)
        await bridge.event(REVIEWER, thread_id, "finding_reported", "F-1")
        second = await bridge.event(REVIEWER, thread_id, "finding_reported", "F-2")
        unnamed = await bridge.event(REVIEWER, thread_id, "finding_reported", to="executioner")
        await bridge.event(EXECUTIONER, thread_id, "fix_pushed", "F-1")
        await bridge.event(REVIEWER, thread_id, "finding_verified", "F-1")
        await bridge.event(REVIEWER, thread_id, "finding_rejected", "F-2")
        await bridge.event(EXECUTIONER, thread_id, "fix_pushed", in_reply_to=unnamed.message_id)
        found = await bridge.ask(EXECUTIONER, "summarize_thread", thread_id=thread_id)
        assert found == await bridge.ask(EXECUTIONER, "summarize_thread", thread_id=thread_id)
        assert [(one.finding_id, one.message_id, one.state) for one in found.open_items] == [
            ("F-2", second.message_id, "finding_rejected"),
            (unnamed.message_id, unnamed.message_id, "fix_pushed"),
        ]
        for words in ("3 reported, 1 fixed, 0 to be reviewed again, 1 verified, 1 rejected; 2 open", second.message_id,
                      "executioner (2), reviewer (5)", "Unread: executioner 5, reviewer 2, third 6"):  # fmt: skip
            assert words in found.summary
        short = await bridge.ask(EXECUTIONER, "summarize_thread", thread_id=thread_id, max_messages=1)
        assert "Last to speak: executioner (1)." in short.summary
        bodies = [one.body for one in (await bridge.ask(third, "summarize_thread", thread_id=thread_id)).open_items]
        assert bodies == ["finding_reported F-2", ""]  # the second was meant for somebody else

    play(place, scene)


def script(folder: Path, text: str) -> Program:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return Program((str(path),), timedelta(seconds=20))


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ('echo "By a model: $(grep -c hello "$KLR_THREAD")"', "By a model: 1"),
        ("exit 3", None),
        ("true", None),
    ],
)
def test_a_program_may_write_the_summary_and_ours_stands_when_it_does_not(
    place: str, tmp_path: Path, text: str, summary: str | None
) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        await bridge.post(EXECUTIONER, thread_id)
        found = (await bridge.ask(REVIEWER, "summarize_thread", thread_id=thread_id)).summary
        assert found == summary if summary else found.startswith("“Retry” is active, with 1 message.")

    play(place, scene, Rules(limits=QUIET.limits, writer=Writer(script(tmp_path, text))))


def test_a_program_may_judge_what_is_posted(place: str, tmp_path: Path) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        codes = [
            await bridge.code(EXECUTIONER, "post_message", thread_id=thread_id, body=body)
            for body in ("fine", "a password", "a broken judge")
        ]
        assert codes == ["done", "INVALID_ARGUMENT", "UNAVAILABLE"]
        assert [row.outcome for row in await bridge.audit(thread_id=thread_id)][1:] == codes

    judge = Judge(script(tmp_path, 'grep -q broken "$KLR_MESSAGE" && exit 7; ! grep -q password "$KLR_MESSAGE"'))
    play(place, scene, Rules(limits=QUIET.limits, judge=judge))


def test_what_a_filter_removes_is_kept_nowhere(place: str) -> None:
    filters = Filters(
        (
            Pattern("key", re.compile("AKIA[0-9]+"), Act.MASK),
            Pattern("long", re.compile("w"), Act.MASK),
            Pattern("never", re.compile("plutonium"), Act.REFUSE),
        )
    )

    async def scene(bridge: Bridge) -> None:
        made = await bridge.ask(EXECUTIONER, "create_thread", workspace_id="kloros", title="On AKIA1", participants=["b"])
        thread_id = made.thread_id
        await bridge.event(EXECUTIONER, thread_id, "finding_reported", "AKIA2")
        await bridge.event(EXECUTIONER, thread_id, "found AKIA3")
        blocked = {"thread_id": thread_id, "status": "blocked", "reason": "AKIA4"}
        await bridge.ask(EXECUTIONER, "update_thread_status", **blocked)
        await bridge.ask(EXECUTIONER, "update_thread_status", thread_id=thread_id, status="active")
        wake = {"thread_id": thread_id, "target_agent_id": "b", "reason": "AKIA5", "trigger_prompt": "AKIA6"}
        await bridge.ask(EXECUTIONER, "trigger_participant", **wake)
        for asked in ({"body": "plutonium"}, {"body": "w" * 60_000}):
            code = await bridge.code(EXECUTIONER, "post_message", thread_id=thread_id, **asked)
            assert code == ("INVALID_ARGUMENT" if "plutonium" in asked["body"] else "PAYLOAD_TOO_LARGE")
        kept = [
            await bridge.ask(OPERATOR, "get_thread", thread_id=thread_id),
            await bridge.ask(OPERATOR, "read_messages", thread_id=thread_id),
            await bridge.store.triggers(thread_id),
            await bridge.store.findings(thread_id),
            await bridge.store.thread(thread_id),
            await bridge.audit(),
        ]
        assert "AKIA" not in repr(kept)
        assert "plutonium" not in repr(kept)
        assert "[removed]" in repr(kept)

    play(place, scene, Rules(limits=QUIET.limits, filters=filters))


def test_heartbeats_are_kept_and_audited_when_something_changes(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        beat = {"session_id": "s-1", "runtime": "codex"}
        for status in ("active", "active", "idle"):
            bridge.clock.passes(10)
            told = await bridge.ask(REVIEWER, "heartbeat_session", **beat, status=status)
        seen = {
            one.agent_id: (one.last_heartbeat_at, one.session_status)
            for one in (await bridge.ask(EXECUTIONER, "list_participants", thread_id=thread_id)).participants
        }
        assert seen == {"executioner": (None, None), "reviewer": (told.recorded_at, "idle")}
        rows = [row for row in await bridge.audit() if row.operation == "heartbeat_session"]
        assert [row.after and row.after["status"] for row in rows] == ["active", "idle"]

    play(place, scene)


def test_a_thread_takes_so_many_participants(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(*(caller(f"a{number}") for number in range(64)))
        asked = {"thread_id": thread_id, "agent_id": "one-more"}
        assert await bridge.code(LEAD, "add_participant", **asked) == "CONFLICT"
        assert not (await bridge.ask(LEAD, "add_participant", thread_id=thread_id, agent_id="a1")).changed
        await bridge.ask(LEAD, "remove_participant", thread_id=thread_id, agent_id="a1")
        assert await bridge.code(LEAD, "add_participant", **asked) == "done"
        names = [f"a{number}" for number in range(64)]
        assert await bridge.code(EXECUTIONER, "create_thread", title="x", participants=names) == "INVALID_ARGUMENT"
        assert await bridge.code(EXECUTIONER, "create_thread", title="x", participants=names[1:]) == "done"
        assert await bridge.code(LEAD, "create_thread", title="x", participants=names) == "done"

    play(place, scene)


def test_a_trigger_is_queued_for_a_participant_and_nobody_else(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        asked = {"thread_id": thread_id, "reason": "news", "trigger_prompt": "Read it."}
        queued = await bridge.ask(EXECUTIONER, "trigger_participant", **asked, target_agent_id="reviewer")
        (trigger,) = await bridge.store.triggers(thread_id)
        assert (trigger.trigger_id, trigger.target, trigger.prompt) == (queued.trigger_id, "reviewer", "Read it.")
        assert await bridge.code(EXECUTIONER, "trigger_participant", **asked, target_agent_id="nobody") == "NOT_FOUND"

    play(place, scene)


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE bridge_audit SET actor = 'mallory' WHERE entry = 3",
        "UPDATE bridge_audit SET state_after = NULL WHERE operation = 'update_thread_status'",
        "UPDATE bridge_audit SET outcome = 'done', rule = '' WHERE outcome = 'FORBIDDEN'",
        "DELETE FROM bridge_audit WHERE entry = 2",
        "DELETE FROM bridge_audit WHERE entry = (SELECT max(entry) FROM bridge_audit)",
    ],
)
def test_an_edit_of_the_audit_is_found(tmp_path: Path, edit: str) -> None:
    place = str(tmp_path / "kloros.db")

    async def write(bridge: Bridge) -> None:
        thread_id = await bridge.thread(EXECUTIONER, REVIEWER)
        await bridge.post(EXECUTIONER, thread_id)
        await bridge.code(caller("stranger"), "get_thread", thread_id=thread_id)
        await bridge.ask(EXECUTIONER, "update_thread_status", thread_id=thread_id, status="resolved")
        found = await bridge.store.verify()
        assert (found.entries, found.faults) == (4, ())

    async def verify(bridge: Bridge) -> int:
        return len((await bridge.store.verify()).faults)

    play(place, write)
    with sqlite3.connect(place) as connection:
        connection.execute(edit)
    connection.close()
    assert play(place, verify) == 1
