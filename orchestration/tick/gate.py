"""What must hold before a tick, or a runner, does anything: the mode is `enabled`, and nobody pulled the kill switch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from orchestration.exits import Exit
from orchestration.tick.history import Refusal

if TYPE_CHECKING:
    from orchestration.settings import Settings

KILL_SWITCH = "killswitch"


def gate(settings: Settings) -> tuple[Exit, Refusal, str] | None:
    """Return why no tick may run: exit, reason, evidence; None when one may."""
    if settings.orchestration_mode != "enabled":
        evidence = f"KLR_ORCHESTRATION_MODE is {settings.orchestration_mode!r}, not 'enabled'; klorosctl enable sets it"
        return Exit.DISABLED, Refusal.DISABLED, evidence
    return halted(settings)


def halted(settings: Settings) -> tuple[Exit, Refusal, str] | None:
    """Return that the kill switch is set, as `gate` does; None when it is not."""
    path = os.path.join(settings.state_dir, KILL_SWITCH)
    if os.path.lexists(path):
        return Exit.HALTED, Refusal.HALTED, f"{path} exists; klorosctl unhalt removes it"
    return None
