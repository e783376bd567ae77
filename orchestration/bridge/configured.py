"""From the settings to the rules of the commands, and of waking."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

from orchestration.bridge.commanding.desk import Rules
from orchestration.bridge.filtering import Judge
from orchestration.bridge.filters import Act, Filters, Pattern
from orchestration.bridge.guards import Limits
from orchestration.bridge.outside import Program
from orchestration.bridge.summarising import Writer
from orchestration.bridge.wake.limits import Limits as WakeLimits
from orchestration.bridge.wake.limits import Means
from orchestration.bridge.wake.state import Way
from orchestration.cycles.backoff import Backoff

if TYPE_CHECKING:
    from orchestration.settings import Agent, Bridge, Wake


def rules(bridge: Bridge) -> Rules:
    """Make the rules that `[bridge]` sets."""
    return Rules(
        limits=Limits(
            agent_per_minute=bridge.agent_posts_per_minute,
            thread_per_minute=bridge.thread_posts_per_minute,
            max_turns=bridge.max_turns,
            max_repeats=bridge.max_repeats,
        ),
        filters=Filters(tuple(Pattern(name, re.compile(one.pattern), Act(one.act)) for name, one in bridge.filters.items())),
        judge=Judge(_program(bridge.filter_command, bridge.filter_timeout)) if bridge.filter_command else None,
        writer=Writer(_program(bridge.summary_command, bridge.summary_timeout)) if bridge.summary_command else None,
    )


def wake_limits(wake: Wake) -> WakeLimits:
    """Make the limits that `[wake]` sets."""
    same = {name: getattr(wake, name) for name in WakeLimits._fields if name != "backoff"}
    return WakeLimits(**same, backoff=Backoff(wake.backoff))


def means(agent: Agent) -> Means:
    """Tell what a profile lets this host do for its agent."""
    turns = {Way.SPAWN, Way.RESUME} if agent.runtime != "tmux" else set()
    if agent.runtime == "command" and not agent.resume:
        turns.discard(Way.RESUME)
    return Means(frozenset({Way.LIVE, *turns}), agent.timeout)


def _program(command: tuple[str, ...], timeout: timedelta) -> Program:
    return Program(command, timeout)
