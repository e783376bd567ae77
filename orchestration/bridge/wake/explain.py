"""`why-not-woken`: why an agent was woken or left asleep for a thread, in one sentence with the evidence. Pure.

It asks the same rules as the supervisor and says what the one that decided has seen; nothing is worked out twice.
"""

from __future__ import annotations

from typing import Final

from orchestration.bridge.wake import trigger
from orchestration.bridge.wake.action import (
    AwaitAck,
    AwaitTurn,
    Claim,
    Decision,
    Defer,
    Deliver,
    Finish,
    Press,
    Queue,
    Release,
    Rest,
    Resume,
    Settle,
    Spawn,
)
from orchestration.bridge.wake.state import Case, Status, Wake
from orchestration.bridge.wake.words import count, utc

_NEXT: Final = {
    Queue: "is about to be woken",
    Claim: "is about to be woken, by the supervisor that claims the trigger next",
    Release: "waits to be woken",
    Defer: "waits to be woken",
    Deliver: "is about to be told in its terminal",
    Press: "has the prompt in its terminal, and is about to be looked at again",
    Resume: "is about to be resumed",
    Spawn: "is about to be started anew",
    AwaitAck: "was told in its terminal",
    AwaitTurn: "is being woken",
    Finish: "could not be woken at this attempt",
}


def sentence(case: Case | None, decision: Decision | None, *, agent_id: str, thread_id: str) -> str:
    """Say it in one sentence.

    Args:
        case: None: there is no such thread. decision: None with it.
    """
    if case is None or decision is None:
        return f"{agent_id} is not woken for {thread_id}: there is no such thread."
    return f"{case.agent_id} {_standing(case, decision)} in {case.thread_id}: {decision.why.evidence}{_history(case)}."


def evidence(decision: Decision) -> tuple[str, ...]:
    """List what every rule saw that was asked, in order, one line each."""
    return tuple(f"{one.rule}: {one.reason} ({one.evidence})" for one in decision.findings)


def _standing(case: Case, decision: Decision) -> str:
    action = decision.action
    if isinstance(action, Rest):
        again = f" before {utc(action.until)}" if action.until else ""
        return f"is not woken{again}"
    if isinstance(action, Settle):
        return {
            Status.DONE: "needs no waking any more",
            Status.DEAD_LETTERED: "can't be woken",
            Status.CANCELLED: "is not woken any more",
        }.get(action.status, "is not woken")
    if isinstance(action, Release | Defer):
        return f"{_NEXT[type(action)]} until {utc(action.due_at)}"
    return _NEXT[type(action)]


def _history(case: Case) -> str:
    wake = case.wake
    if wake is None:
        return ""
    made = trigger.counted(wake)
    if wake.status in trigger.OPEN:
        return (
            f" (trigger {wake.trigger_id}, {count(len(made), 'attempt')} so far)"
            if made
            else f" (trigger {wake.trigger_id})"
        )
    return f" (last trigger {_ended(wake)})"


def _ended(wake: Wake) -> str:
    code = f", {wake.code}" if wake.code else ""
    return f"{wake.trigger_id}: {wake.outcome or wake.status}{code} at {utc(wake.ended_at)}"
