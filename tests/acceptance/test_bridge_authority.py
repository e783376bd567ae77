"""Each method by each kind of caller: who is let in, what the others are told, and what the audit says of both."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from orchestration.bridge.caller import Caller, Role
from orchestration.bridge.methods import METHODS
from tests.acceptance.bridging import HOME, Bridge, caller, play

AWAY = "elsewhere"
CALLERS = {
    "creator": ("opener", Role.PARTICIPANT, HOME),
    "member": ("reviewer", Role.PARTICIPANT, HOME),
    "stranger": ("passer-by", Role.PARTICIPANT, HOME),
    "coordinator": ("lead", Role.COORDINATOR, HOME),
    "auditor": ("checker", Role.AUDITOR, HOME),
    "auditor who is listed": ("listed", Role.AUDITOR, HOME),
    "operator": ("ada", Role.OPERATOR, HOME),
    "operator of the host": ("ada", Role.OPERATOR, AWAY),
    "participant elsewhere": ("reviewer", Role.PARTICIPANT, AWAY),
    "coordinator elsewhere": ("lead", Role.COORDINATOR, AWAY),
    "auditor elsewhere": ("checker", Role.AUDITOR, AWAY),
}
READS = {"get_thread", "summarize_thread", "read_messages", "list_participants", "search_messages"}
FOR_ALL = {"create_thread", "heartbeat_session", "list_threads"}
OF_THREADS = {method.name for method in METHODS} - FOR_ALL


def expected(method: str, who: str) -> str:
    """Say it once more, in the words of the issue and not of the table."""
    is_elsewhere, is_auditor = who.endswith("elsewhere"), who.startswith("auditor")
    if method == "get_audit" and not (is_auditor or who.startswith("operator")):
        return "INSUFFICIENT_AUTHORITY"  # for auditors
    if is_elsewhere and method in OF_THREADS:
        return "NOT_FOUND"  # as if it did not exist
    if who.startswith("operator") and method == "ack_read":
        return "FORBIDDEN"  # has no cursor
    if who.startswith("operator") or method == "get_audit":
        return "done"
    if is_auditor:
        return "done" if method in READS | {"list_threads"} else "INSUFFICIENT_AUTHORITY"
    if who == "coordinator":
        return "FORBIDDEN" if method == "ack_read" else "done"
    if method in FOR_ALL:
        return "done"
    if who == "stranger":
        return "FORBIDDEN"
    if who == "member" and method in {"add_participant", "remove_participant"}:
        return "INSUFFICIENT_AUTHORITY"
    return "done"


def arguments(method: str, who: Caller, thread_id: str) -> dict[str, Any]:
    match method:
        case "create_thread":
            return {"workspace_id": who.workspace_id, "title": "Another"}
        case "list_threads":
            return {}
        case "heartbeat_session":
            return {"session_id": "s-1", "runtime": "codex"}
        case "search_messages":
            return {"thread_id": thread_id, "query": "hello"}
        case "update_thread_status":
            return {"thread_id": thread_id, "status": "blocked", "reason": "wait"}
        case "post_message":
            return {"thread_id": thread_id, "body": "more"}
        case "ack_read":
            return {"thread_id": thread_id, "last_read_seq": 1}
        case "trigger_participant":
            return {"thread_id": thread_id, "target_agent_id": "reviewer", "reason": "news"}
        case "add_participant":
            return {"thread_id": thread_id, "agent_id": "newcomer"}
        case "remove_participant":
            return {"thread_id": thread_id, "agent_id": "third"}
        case _:
            return {"thread_id": thread_id}


@pytest.mark.parametrize("who", CALLERS)
def test_each_method_lets_in_whom_the_issue_lets_in(place: str, who: str) -> None:
    async def scene(bridge: Bridge) -> None:
        names = ("opener", "reviewer", "third", "listed")
        for method in METHODS:
            thread_id = await bridge.thread(*(caller(name) for name in names))
            await bridge.post(caller("opener"), thread_id)
            before = [await look(bridge, thread_id), len(await bridge.audit(thread_id=thread_id))]
            asking = caller(*CALLERS[who])
            found = await bridge.code(asking, method.name, **arguments(method.name, asking, thread_id))
            assert found == expected(method.name, who), method.name
            rows = [row for row in await bridge.audit() if row.request_id == asking.request_id]
            if found == "done":
                assert len(rows) == (0 if method.read_only else 1), method.name
            else:
                assert [(row.outcome, row.after) for row in rows] == [(found, None)], method.name
                assert await look(bridge, thread_id) == before[0], method.name
            for row in rows:
                told = (row.actor, row.role, row.operation)
                assert told == (asking.agent_id, asking.role, method.name)
            if found == "NOT_FOUND":
                assert [row.rule for row in rows] == ["workspace.fence"]
                assert len(await bridge.audit(thread_id=thread_id)) == before[1]

    play(place, scene)


async def look(bridge: Bridge, thread_id: str) -> Any:
    operator = caller("ada", Role.OPERATOR)
    thread = await bridge.ask(operator, "get_thread", thread_id=thread_id)
    return thread, await bridge.ask(operator, "read_messages", thread_id=thread_id)


@pytest.mark.parametrize("role", [Role.PARTICIPANT, Role.COORDINATOR, Role.AUDITOR])
def test_what_is_elsewhere_is_told_in_the_words_for_what_is_not(place: str, role: Role) -> None:
    async def scene(bridge: Bridge) -> None:
        there = await bridge.thread(caller("reviewer", workspace_id=AWAY))
        nowhere = "thr_" + "0" * 32
        for method in sorted(OF_THREADS):
            told = []
            for thread_id in (there, nowhere):
                asking = caller("reviewer", role)
                try:
                    await bridge.ask(asking, method, **arguments(method, asking, thread_id))
                except Exception as error:
                    told.append({name: value for name, value in vars(error).items() if name != "rule"})
            assert len(told) == 2
            assert told[0] == told[1]

    play(place, scene)


def test_a_payload_that_names_somebody_else_is_refused_and_audited(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        thread_id = await bridge.thread(caller("executioner"), caller("reviewer"))
        claims: dict[str, dict[str, Any]] = {
            "create_thread": {"workspace_id": HOME, "title": "t", "created_by": "reviewer"},
            "update_thread_status": {"thread_id": thread_id, "status": "blocked", "agent_id": "reviewer"},
            "post_message": {"thread_id": thread_id, "body": "x", "agent_id": "reviewer"},
            "read_messages": {"thread_id": thread_id, "agent_id": "reviewer"},
            "ack_read": {"thread_id": thread_id, "last_read_seq": 0, "agent_id": "reviewer"},
            "heartbeat_session": {"session_id": "s", "runtime": "codex", "agent_id": "reviewer"},
        }
        for method, asked in claims.items():
            asking = caller("executioner")
            assert await bridge.code(asking, method, **asked) == "CLAIM_MISMATCH", method
            assert await bridge.code(caller("executioner"), method, **{**asked, **own(asked)}) == "done", method
            rows = [row for row in await bridge.audit() if row.request_id == asking.request_id]
            assert [(row.outcome, row.rule) for row in rows] == [("CLAIM_MISMATCH", "authority.claim")], method

    def own(asked: dict[str, Any]) -> dict[str, Any]:
        return {name: "executioner" for name in ("agent_id", "created_by") if name in asked}

    play(place, scene)


@pytest.mark.parametrize(
    ("method", "role"),
    list(product(["create_thread", "list_threads", "heartbeat_session"], [Role.PARTICIPANT, Role.COORDINATOR])),
)
def test_another_workspace_named_is_a_mismatch(place: str, method: str, role: Role) -> None:
    async def scene(bridge: Bridge) -> None:
        asking = caller("lead", role)
        asked = {"workspace_id": AWAY, **({"title": "t"} if method == "create_thread" else {})}
        more = {"session_id": "s", "runtime": "codex"} if method == "heartbeat_session" else {}
        assert await bridge.code(asking, method, **asked, **more) == "WORKSPACE_MISMATCH"
        assert [row.outcome for row in await bridge.audit()] == ["WORKSPACE_MISMATCH"]

    play(place, scene)


def test_who_leaves_or_is_taken_out_is_a_stranger_from_then_on(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        opener, reviewer = caller("opener"), caller("reviewer")
        thread_id = await bridge.thread(opener, reviewer)
        assert (await bridge.ask(reviewer, "remove_participant", thread_id=thread_id, agent_id="reviewer")).changed
        assert await bridge.code(reviewer, "read_messages", thread_id=thread_id) == "FORBIDDEN"
        assert (await bridge.ask(opener, "add_participant", thread_id=thread_id, agent_id="reviewer")).changed
        assert not (await bridge.ask(opener, "add_participant", thread_id=thread_id, agent_id="reviewer")).changed
        assert await bridge.code(reviewer, "read_messages", thread_id=thread_id) == "done"
        assert (await bridge.ask(opener, "remove_participant", thread_id=thread_id, agent_id="opener")).changed
        assert await bridge.code(opener, "add_participant", thread_id=thread_id, agent_id="opener") == "FORBIDDEN"

    play(place, scene)


def test_a_participant_lists_and_searches_only_its_own_threads(place: str) -> None:
    async def scene(bridge: Bridge) -> None:
        mine, other = caller("mine"), caller("other")
        threads = {name: await bridge.thread(caller(name)) for name in ("mine", "other")}
        for name, thread_id in threads.items():
            await bridge.post(caller(name), thread_id, "retry backoff")

        async def listed(who: Caller, **asked: Any) -> set[str]:
            return {one.thread_id for one in (await bridge.ask(who, "list_threads", **asked)).threads}

        async def found(who: Caller) -> set[str]:
            return {one.thread_id for one in (await bridge.ask(who, "search_messages", query="backoff")).messages}

        everything = set(threads.values())
        for who in (mine, other):
            assert await listed(who) == await found(who) == {threads[who.agent_id]}
        for role in (Role.COORDINATOR, Role.AUDITOR, Role.OPERATOR):
            assert await listed(caller("x", role)) == await found(caller("x", role)) == everything
            assert await listed(caller("x", role), participant="mine") == {threads["mine"]}
        assert await bridge.code(mine, "list_threads", participant="other") == "INSUFFICIENT_AUTHORITY"
        away = caller("x", Role.COORDINATOR, AWAY)
        assert await listed(away) == await found(away) == set()

    play(place, scene)
