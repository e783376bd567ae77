"""From the settings to the rules of the commands."""

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

if TYPE_CHECKING:
    from orchestration.settings import Bridge


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


def _program(command: tuple[str, ...], timeout: timedelta) -> Program:
    return Program(command, timeout)
