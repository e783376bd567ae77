"""A wake store's steps about who may write to a runtime's session."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from orchestration.bridge.store import rows
from orchestration.bridge.store.wake_steps import Steps, ask, server_time

_FORGET_SESSIONS: Final = timedelta(days=30)


def session_held(session_id: str, holder: str, lease: timedelta) -> Steps[int | None]:
    """Become the writer of a session."""
    now = yield from server_time()
    asked = {"session_id": session_id, "holder": holder, "now": rows.text(now), "until": rows.text(now + lease)}
    found = yield from ask("wakes.hold_session", **asked)
    return int(found[0]["fence"]) if found else None


def session_left(session_id: str, holder: str) -> Steps[None]:
    """Let go of it, and forget those that nobody has written to for a month."""
    now = yield from server_time()
    yield from ask("wakes.leave_session", session_id=session_id, holder=holder, now=rows.text(now))
    yield from ask("wakes.forget_sessions", before=rows.text(now - _FORGET_SESSIONS))
