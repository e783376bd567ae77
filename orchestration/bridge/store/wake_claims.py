"""A wake store's steps about claims.

What is written for one first finds, in a statement that locks the trigger's row, that it holds; else it is not written.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from orchestration.bridge.store import rows, wake_rows
from orchestration.bridge.store.wake_steps import Lost, Steps, ask, server_time
from orchestration.bridge.wake.state import Attempt, Claim, Code
from orchestration.bridge.wake.trigger import leaves_a_session


def claimed(trigger_id: str, holder: str, lease: timedelta, shown: Sequence[str] | None) -> Steps[Claim | None]:
    """Claim a trigger, and take into it what was shown as a part of it.

    Raises:
        Lost: what was shown is not so any more; the next look shows it.
    """
    now = yield from server_time()
    asked = {"trigger_id": trigger_id, "holder": holder, "now": rows.text(now), "until": rows.text(now + lease)}
    found = yield from ask("wakes.claim", **asked)
    if not found:
        return None
    followers = yield from ask("wakes.followers", trigger_id=trigger_id)
    already = {str(row["trigger_id"]) for row in followers}
    if shown is not None and not already <= set(shown):
        raise Lost
    for one in shown or ():
        if one not in already:
            detail = f"taken into {trigger_id}"
            if not (yield from ask("wakes.follow", trigger_id=one, leader=trigger_id, detail=detail)):
                raise Lost
    return Claim(trigger_id, holder, int(found[0]["fence"]), now + lease)


def renewed(claim: Claim, lease: timedelta) -> Steps[Claim | None]:
    """Prolong a claim."""
    now = yield from server_time()
    found = yield from ask("wakes.renew", **held(claim, now), until=rows.text(now + lease))
    return Claim(claim.trigger_id, claim.holder, claim.fence, now + lease) if found else None


def released(claim: Claim, due_at: datetime, deferred_at: datetime | None, code: Code | None) -> Steps[bool]:
    """Give a claim back."""
    now = yield from server_time()
    found = yield from ask(
        "wakes.release",
        **held(claim, now),
        due_at=rows.text(due_at),
        code=code and code.value,
        deferred=int(deferred_at is not None),
        deferred_at=None if deferred_at is None else rows.text(deferred_at),
    )
    return bool(found)


def begun(claim: Claim, attempt: Attempt) -> Steps[bool]:
    """Write an attempt that is about to be made; one that has an end is not made again."""
    now = yield from server_time()
    if not (yield from ask("wakes.hold", **held(claim, now))):
        return False
    return bool((yield from ask("wakes.attempt", **wake_rows.attempt_row(claim, attempt))))


def ended(claim: Claim, attempt: Attempt) -> Steps[bool]:
    """Write how an attempt ended; one that has an end keeps it."""
    now = yield from server_time()
    if not (yield from ask("wakes.hold", **held(claim, now))):
        return False
    written = yield from ask("wakes.attempt", **wake_rows.attempt_row(claim, attempt))
    if written and attempt.ended_at and leaves_a_session(attempt):
        known = {"trigger_id": claim.trigger_id, "session_id": attempt.session_id, "ended_at": rows.text(attempt.ended_at)}
        yield from ask("wake_sessions.know", **known)
    return True


def held(claim: Claim, now: datetime) -> dict[str, str | int]:
    """Name a claim for a statement that has to find that it holds."""
    return {"trigger_id": claim.trigger_id, "holder": claim.holder, "fence": claim.fence, "now": rows.text(now)}
