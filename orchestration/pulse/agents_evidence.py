"""What shows that a condition of the bridge or of waking holds. Pure; imported where a bridge or a supervisor ever told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

from orchestration.pulse.judgement import Condition, Signs, span

BRIDGE_TELLS_WITHIN = timedelta(minutes=3)
"""A server of the bridge tells once a minute at least."""
UNREAD_AFTER = timedelta(hours=1)
"""A message that nobody reads for so long was not delivered, whatever the reason."""
SUPERVISOR_TELLS_WITHIN = timedelta(minutes=3)
"""A supervisor tells once a minute at least."""
WAKE_WAITS = timedelta(minutes=10)
"""A trigger is attempted within seconds; with every deferral, retry and fallback it ends within minutes, but for a turn that
runs, which is no waiting."""


def _bridge_silent(signs: Signs) -> str:
    bridge = signs.bridge
    if bridge is None or not bridge.serving or signs.now - bridge.told_at <= BRIDGE_TELLS_WITHIN:
        return ""
    return f"the bridge has told nothing of its threads for {span(signs.now - bridge.told_at)}, and was not stopped"


def _threads_blocked(signs: Signs) -> str:
    bridge = signs.bridge
    if bridge is None or not bridge.blocked:
        return ""
    many = "1 thread is" if bridge.blocked == 1 else f"{bridge.blocked} threads are"
    return f"{many} blocked until a person has looked, {bridge.blocked_thread} for longest"


def _messages_unread(signs: Signs) -> str:
    bridge = signs.bridge
    if bridge is None or bridge.unread_since is None or signs.now - bridge.unread_since <= UNREAD_AFTER:
        return ""
    age = span(signs.now - bridge.unread_since)
    return f"{bridge.unread_by} has not read for {age} what was said in {bridge.unread_thread}; {bridge.behind} are behind"


def _supervisor_silent(signs: Signs) -> str:
    wake = signs.wake
    if wake is None or not wake.serving or signs.now - wake.told_at <= SUPERVISOR_TELLS_WITHIN:
        return ""
    return f"the supervisor has told nothing for {span(signs.now - wake.told_at)}, and was not stopped: nobody wakes agents"


def _wakes_dead_lettered(signs: Signs) -> str:
    wake = signs.wake
    if wake is None or not wake.dead:
        return ""
    many = "1 trigger was" if wake.dead == 1 else f"{wake.dead} triggers were"
    return f"{many} given up, {wake.dead_trigger} first: the agents were not woken"


def _wakes_waiting(signs: Signs) -> str:
    wake = signs.wake
    if wake is None or wake.waiting_since is None or signs.now - wake.waiting_since <= WAKE_WAITS:
        return ""
    age = span(signs.now - wake.waiting_since)
    return f"the trigger for {wake.waiting_agent} has waited for {age} for an attempt; {wake.waiting} are open"


def _agents_unmanaged(signs: Signs) -> str:
    wake = signs.wake
    if wake is None or not wake.unmanaged:
        return ""
    return f"{wake.unmanaged_agent} can't be woken: it has no runtime that may be used ({wake.unmanaged} given up for that)"


def _prompts_collided(signs: Signs) -> str:
    wake = signs.wake
    if wake is None or not wake.collided:
        return ""
    return f"somebody typed at {wake.collided_agent} for too long; {wake.collided} prompts within an hour took another way"


EVIDENCE: Final[Mapping[Condition, Callable[[Signs], str]]] = {
    Condition.BRIDGE_SILENT: _bridge_silent,
    Condition.THREADS_BLOCKED: _threads_blocked,
    Condition.MESSAGES_UNREAD: _messages_unread,
    Condition.SUPERVISOR_SILENT: _supervisor_silent,
    Condition.WAKES_DEAD_LETTERED: _wakes_dead_lettered,
    Condition.WAKES_WAITING: _wakes_waiting,
    Condition.AGENTS_UNMANAGED: _agents_unmanaged,
    Condition.PROMPTS_COLLIDED: _prompts_collided,
}
