"""decide(): being written; its types are those of action.py and observation.py."""

from __future__ import annotations

from orchestration.bridge.wake.action import Decision
from orchestration.bridge.wake.limits import Limits
from orchestration.bridge.wake.observation import Seen


def decide(seen: Seen, limits: Limits) -> Decision:
    """Ask the rules in order; the first that chooses decides."""
    raise NotImplementedError
