"""What a wake store does, as steps: each function asks for one statement after the other, and an adapter carries them out in
one transaction. So SQLite and PostgreSQL do the same, and what is different is in their SQL.

What is written for a claim first finds that the claim holds, in a statement that locks the trigger's row, and is not written
when it does not. What ends, makes or steers a trigger has the thread's row locked before, and its line in the thread's
chain of audit is in the same transaction.

Several open triggers of an agent in one thread are worked on one after the other, and told together where that is possible:
what a look has shown as one prompt is one trigger from its claim on (`shown`), and what came later waits for its turn.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from orchestration.bridge.caller import GUARD, Role
from orchestration.bridge.state import Ask, AuditNote, Change, Facts, Post, Snapshot, Trigger
from orchestration.bridge.store import rows, wake_rows
from orchestration.bridge.store.batch import Batch, Loaded, settle
from orchestration.bridge.thread import OPEN_FOR_POSTS
from orchestration.bridge.wake.state import Attempt, Case, Claim, Code, Outcome, Status, Wake
from orchestration.bridge.wake.trigger import OPEN, Event, after, counted, leaves_a_session
from orchestration.bridge.wire import Message, MessageKind

_Answer = TypeVar("_Answer")
_Key: TypeAlias = tuple[str, str]
_Place: TypeAlias = tuple[datetime, str, str]

SUPERVISOR: Final = "kloros:supervisor"
"""Who acts, in the audit, when no person does."""
UNDELIVERED: Final = "wake_failed"
"""The type of the event that a dead letter leaves in its thread."""
_MOST_TIMES: Final = 20
_ALL_AGAIN: Final = timedelta(minutes=10)
_MOST_TOUCHED: Final = 2000
_FORGET_SESSIONS: Final = timedelta(days=30)
_FORGET_SILENT: Final = timedelta(days=90)
"""Each new session leaves a row, and every look at an agent reads them all; `[wake] resume_within` is hours."""


class Lost(Exception):
    """Somebody else was faster; nothing is to be written."""


class Statement(NamedTuple):
    """Give the rows of a named query; one of an adapter's own dialect has no area in its name."""

    query: str
    asked: Mapping[str, str | int | None]


class Known(NamedTuple):
    """Lock what an ask is about, and give what is known of it (`Loaded`)."""

    ask: Ask


class Written(NamedTuple):
    """Write what a batch has changed."""

    batch: Batch


Steps: TypeAlias = Generator[Statement | Known | Written, Any, _Answer]


def _asked(query: str, /, **asked: str | int | None) -> Steps[list[Any]]:
    found: list[Any] = yield Statement(query, asked)
    return found


def _now() -> Steps[datetime]:
    (row,) = yield from _asked("now")
    return rows.instant(row["now"])


# ---- claims


def claimed(trigger_id: str, holder: str, lease: timedelta, shown: Sequence[str] | None) -> Steps[Claim | None]:
    """Claim a trigger, and take into it what was shown as a part of it.

    Raises:
        Lost: what was shown is not so any more; the next look shows it.
    """
    now = yield from _now()
    asked = {"trigger_id": trigger_id, "holder": holder, "now": rows.text(now), "until": rows.text(now + lease)}
    found = yield from _asked("wakes.claim", **asked)
    if not found:
        return None
    followers = yield from _asked("wakes.followers", trigger_id=trigger_id)
    already = {str(row["trigger_id"]) for row in followers}
    if shown is not None and not already <= set(shown):
        raise Lost
    for one in shown or ():
        if one not in already:
            detail = f"taken into {trigger_id}"
            if not (yield from _asked("wakes.follow", trigger_id=one, leader=trigger_id, detail=detail)):
                raise Lost
    return Claim(trigger_id, holder, int(found[0]["fence"]), now + lease)


def renewed(claim: Claim, lease: timedelta) -> Steps[Claim | None]:
    """Prolong a claim."""
    now = yield from _now()
    found = yield from _asked("wakes.renew", **_held(claim, now), until=rows.text(now + lease))
    return Claim(claim.trigger_id, claim.holder, claim.fence, now + lease) if found else None


def released(claim: Claim, due_at: datetime, deferred_at: datetime | None, code: Code | None) -> Steps[bool]:
    """Give a claim back."""
    now = yield from _now()
    found = yield from _asked(
        "wakes.release",
        **_held(claim, now),
        due_at=rows.text(due_at),
        code=code and code.value,
        deferred=int(deferred_at is not None),
        deferred_at=None if deferred_at is None else rows.text(deferred_at),
    )
    return bool(found)


def begun(claim: Claim, attempt: Attempt) -> Steps[bool]:
    """Write an attempt that is about to be made; one that has an end is not made again."""
    now = yield from _now()
    if not (yield from _asked("wakes.hold", **_held(claim, now))):
        return False
    return bool((yield from _asked("wakes.attempt", **wake_rows.attempt_row(claim, attempt))))


def ended(claim: Claim, attempt: Attempt) -> Steps[bool]:
    """Write how an attempt ended; one that has an end keeps it."""
    now = yield from _now()
    if not (yield from _asked("wakes.hold", **_held(claim, now))):
        return False
    written = yield from _asked("wakes.attempt", **wake_rows.attempt_row(claim, attempt))
    if written and attempt.ended_at and leaves_a_session(attempt):
        known = {"trigger_id": claim.trigger_id, "session_id": attempt.session_id, "ended_at": rows.text(attempt.ended_at)}
        yield from _asked("wake_sessions.know", **known)
    return True


def _held(claim: Claim, now: datetime) -> dict[str, str | int]:
    return {"trigger_id": claim.trigger_id, "holder": claim.holder, "fence": claim.fence, "now": rows.text(now)}


# ---- what is audited


def queued(wake: Wake, at: datetime) -> Steps[bool]:
    """Make a trigger, unless its thread is gone or the agent has an open one there."""
    loaded = yield Known(Ask(workspace_id=None, thread_id=wake.thread_id))
    if wake.thread_id not in loaded.threads:
        return False
    if (yield from _asked("wakes.open_of_case", thread_id=wake.thread_id, agent_id=wake.agent_id)):
        return False
    trigger = Trigger(
        trigger_id=wake.trigger_id,
        thread_id=wake.thread_id,
        target=wake.agent_id,
        reason=wake.reason,
        prompt=wake.prompt,
        requested_by=wake.requested_by,
        created_at=wake.created_at,
        traceparent=wake.traceparent,
    )
    told = {"trigger_id": wake.trigger_id, "target": wake.agent_id, "status": Status.QUEUED.value}
    note = _Note("queue_trigger", wake.trigger_id, after=told)
    yield from _audited(loaded, wake.thread_id, note, at, trigger=trigger)
    if wake.renewed_at is not None:
        at_then = rows.text(wake.renewed_at)
        yield from _asked("wakes.renew_state", trigger_id=wake.trigger_id, at=at_then, forced=int(wake.forced))
    elif wake.due_at != wake.created_at or wake.forced:
        at_then, forced = rows.text(wake.due_at), int(wake.forced)
        yield from _asked("wakes.hurry", trigger_id=wake.trigger_id, at=at_then, forced=forced)
    return True


class Ending(NamedTuple):
    """How a trigger ends, and what its thread is told."""

    status: Status
    outcome: Outcome
    code: Code | None
    detail: str
    bounce: str
    words: str


def settled(claim: Claim, end: Ending, at: datetime) -> Steps[bool]:
    """End a trigger, and tell its thread if it is still one in which anything is told."""
    found = yield from _asked("wakes.of", trigger_id=claim.trigger_id)
    if not found:
        return False
    thread_id, agent_id = str(found[0]["thread_id"]), str(found[0]["agent_id"])
    loaded = yield Known(Ask(workspace_id=None, thread_id=thread_id))
    now = yield from _now()
    if thread_id not in loaded.threads or not (yield from _asked("wakes.hold", **_held(claim, now))):
        return False
    attempts = [wake_rows.attempt(row) for row in (yield from _asked("wakes.attempts", trigger_id=claim.trigger_id))]
    taken_in = [str(row["trigger_id"]) for row in (yield from _open_followers(claim.trigger_id))]
    how = {"outcome": end.outcome.value, "code": end.code and end.code.value, "detail": end.detail}
    yield from _asked("wakes.end", trigger_id=claim.trigger_id, ended_at=rows.text(at), **how)
    yield from _asked("wakes.end_trigger", trigger_id=claim.trigger_id, status=end.status.value)
    yield from _asked("wakes.forget_silent", before=rows.text(at - _FORGET_SILENT))
    told: Snapshot = {
        "trigger_id": claim.trigger_id,
        "target": agent_id,
        "status": end.status.value,
        "outcome": end.outcome.value,
        "code": end.code and end.code.value,
        "holder": claim.holder,
        "taken_in": taken_in,
        "attempts": [_told(one) for one in attempts],
    }
    note = _Note("settle_trigger", claim.trigger_id, after=told)
    metadata: dict[str, Any] = {"trigger_id": claim.trigger_id, "agent_id": agent_id}
    says: list[_Says] = []
    if end.bounce:
        undelivered = {"event_type": UNDELIVERED, **metadata, "code": end.code and end.code.value}
        says.append(_Says(MessageKind.SYSTEM, end.bounce, undelivered))
    if end.words:
        says.append(_Says(MessageKind.CHAT, end.words, metadata, to=agent_id))
    yield from _audited(loaded, thread_id, note, at, says=says, traceparent=str(found[0]["traceparent"]))
    return True


def steered(trigger_id: str, status: Status, actor: str, reason: str, forced: bool, at: datetime) -> Steps[bool]:
    """Cancel or retry a trigger for an operator; False when there is none."""
    found = yield from _asked("wakes.of", trigger_id=trigger_id)
    if not found:
        return False
    loaded = yield Known(Ask(workspace_id=None, thread_id=str(found[0]["thread_id"])))
    found = yield from _asked("wakes.of", trigger_id=trigger_id)
    if not found:
        return False
    row = found[0]
    before, now = Status(row["status"]), rows.text(at)
    if after(before, Event.CANCEL if status is Status.CANCELLED else Event.RETRY) is not status:
        return True
    if status is Status.CANCELLED:
        yield from _asked("wakes.free", trigger_id=trigger_id)
        yield from _asked("wakes.end", trigger_id=trigger_id, outcome=None, code=None, detail=reason, ended_at=now)
        yield from _asked("wakes.end_trigger", trigger_id=trigger_id, status=status.value)
    elif before is Status.QUEUED:
        if rows.instant(row["due_at"]) <= at and (row["forced"] or not forced):
            return True
        yield from _asked("wakes.hurry", trigger_id=row["leader"] or trigger_id, at=now, forced=int(forced))
    else:
        yield from _asked("wakes.renew_state", trigger_id=trigger_id, at=now, forced=int(forced))
        yield from _asked("wakes.renew_followers", trigger_id=trigger_id)
        yield from _asked("wakes.renew_trigger", trigger_id=trigger_id)
    told = {"trigger_id": trigger_id, "target": row["agent_id"], "status": status.value, "reason": reason}
    note = _Note(
        "cancel_trigger" if status is Status.CANCELLED else "retry_trigger",
        trigger_id,
        actor=actor,
        role=Role.OPERATOR,
        before={"status": before.value},
        after={**told, "forced": forced} if forced else told,
    )
    yield from _audited(loaded, str(row["thread_id"]), note, at)
    return True


def all_paused() -> Steps[frozenset[tuple[str, str]]]:
    """Give who is left alone."""
    found = yield from _asked("wakes.paused")
    return frozenset((str(row["workspace_id"]), str(row["agent_id"])) for row in found)


def pausing(workspace_id: str, agent_id: str, is_paused: bool, actor: str, at: datetime) -> Steps[bool]:
    """Have an agent left alone, or no longer."""
    loaded = yield Known(Ask(workspace_id=workspace_id))
    asked = {"workspace_id": workspace_id, "agent_id": agent_id}
    if is_paused:
        found = yield from _asked("wakes.pause", **asked, actor=actor, at=rows.text(at))
    else:
        found = yield from _asked("wakes.resume", **asked)
    if not found:
        return False
    operation = "pause_agent" if is_paused else "resume_agent"
    told = {"agent_id": agent_id, "paused": is_paused}
    note = _Note(operation, f"{operation}:{agent_id}", actor=actor, role=Role.OPERATOR, after=told)
    yield from _written(
        loaded, Ask(workspace_id=workspace_id), at, lambda facts: Change(audit=(note.of(facts, workspace_id),))
    )
    return True


class _Says(NamedTuple):
    """A message of the bridge."""

    kind: MessageKind
    body: str
    metadata: Mapping[str, Any]
    to: str | None = None


@dataclass(frozen=True, slots=True)
class _Note:
    """What the audit says of it."""

    operation: str
    request_id: str
    actor: str = SUPERVISOR
    role: Role = Role.COORDINATOR
    before: Snapshot | None = None
    after: Snapshot | None = None

    def of(self, facts: Facts, workspace_id: str, thread_id: str | None = None) -> AuditNote:
        return AuditNote(
            at=facts.now,
            workspace_id=workspace_id,
            actor=self.actor,
            role=self.role,
            request_id=self.request_id,
            operation=self.operation,
            thread_id=thread_id,
            before=self.before,
            after=self.after,
        )


def _audited(
    loaded: Loaded,
    thread_id: str,
    note: _Note,
    at: datetime,
    *,
    trigger: Trigger | None = None,
    says: Sequence[_Says] = (),
    traceparent: str = "",
) -> Steps[None]:
    """Write a line into a thread's chain, and with it a trigger, or messages of the bridge."""

    def plan(facts: Facts) -> Change[None]:
        thread = facts.thread
        if thread is None:
            raise Lost
        told = says if thread.status in OPEN_FOR_POSTS else ()
        messages = (
            Message(
                message_id=f"msg_{int(at.timestamp() * 1000):012x}{secrets.token_hex(10)}",
                thread_id=thread_id,
                seq=facts.next_seq + place,
                sender=GUARD,
                to=one.to,
                kind=one.kind,
                body=one.body,
                metadata=dict(one.metadata),
                created_at=facts.now,
                traceparent=traceparent,
            )
            for place, one in enumerate(told)
        )
        posts = tuple(Post(message=message, thread_status=thread.status) for message in messages)
        return Change(trigger=trigger, posts=posts, audit=(note.of(facts, thread.workspace_id, thread_id),))

    yield from _written(loaded, Ask(workspace_id=None, thread_id=thread_id), at, plan)


def _written(loaded: Loaded, ask: Ask, at: datetime, plan: Any) -> Steps[None]:
    batch = Batch(loaded)
    batch.add(ask, plan, at)
    settle(batch.outcomes[0])
    yield Written(batch)


def _open_followers(trigger_id: str) -> Steps[list[Any]]:
    found = yield from _asked("wakes.followers", trigger_id=trigger_id)
    return [row for row in found if row["trigger_status"] == Status.QUEUED]


def _told(attempt: Attempt) -> dict[str, Any]:
    """Tell of an attempt in the audit: what its thread's archive keeps of it."""
    return {
        "number": attempt.number,
        "way": attempt.way.value,
        "began_at": rows.text(attempt.began_at),
        "outcome": attempt.outcome and attempt.outcome.value,
        "code": attempt.code and attempt.code.value,
    }


# ---- sessions


def session_held(session_id: str, holder: str, lease: timedelta) -> Steps[int | None]:
    """Become the writer of a session."""
    now = yield from _now()
    asked = {"session_id": session_id, "holder": holder, "now": rows.text(now), "until": rows.text(now + lease)}
    found = yield from _asked("wakes.hold_session", **asked)
    return int(found[0]["fence"]) if found else None


def session_left(session_id: str, holder: str) -> Steps[None]:
    """Let go of it, and forget those that nobody has written to for a month."""
    now = yield from _now()
    yield from _asked("wakes.leave_session", session_id=session_id, holder=holder, now=rows.text(now))
    yield from _asked("wakes.forget_sessions", before=rows.text(now - _FORGET_SESSIONS))


# ---- looking


@dataclass(slots=True)
class Seen:
    """What a store remembers from one look to the next, so that a look costs what has changed and not what is there.

    Nothing enters a thread without a row in its audit, so those that have new rows are the ones to look at again. All are
    looked at when it begins, and every ten minutes, whatever the audit says. Losing it costs one slow look.
    """

    unread: dict[_Key, datetime] = field(default_factory=dict)
    """Since when something waits for an agent in a thread; what stands in the store decides."""
    entry: int = -1
    """Every entry of the audit up to this one is accounted for."""
    ahead: tuple[int, int] | None = None
    """The newest entry at the last look, and the first transaction that had not begun then."""
    all_at: datetime | None = None
    shown: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By trigger: what was shown as a part of it."""

    def is_new(self, newest: int, at: datetime) -> bool:
        """Say whether all threads have to be looked at."""
        return self.all_at is None or newest < self.entry or not timedelta(0) <= at - self.all_at < _ALL_AGAIN

    def advance(self, newest: int, oldest: int, next_one: int) -> None:
        """Account for what was newest at the last look, once whoever was at work then has ended."""
        if self.ahead is None or oldest >= self.ahead[1]:
            if self.ahead is not None:
                self.entry = self.ahead[0]
            self.ahead = (newest, next_one)


def looked(
    seen: Seen, agents: frozenset[str] | None, last: _Place | None, limit: int, at: datetime
) -> Steps[tuple[Case, ...]]:
    """Give the cases to decide on."""
    yield from _refreshed(seen, at)
    lines: dict[_Key, list[Wake]] = {}
    for row in (yield from _asked("wakes.open")):
        wake = wake_rows.wake(row)
        lines.setdefault((wake.thread_id, wake.agent_id), []).append(wake)
    first = {line[0].trigger_id for line in lines.values()}
    seen.shown = {trigger_id: others for trigger_id, others in seen.shown.items() if trigger_id in first}
    since = dict(seen.unread)
    for key, line in lines.items():
        since[key] = min(since.get(key, line[0].created_at), line[0].created_at)
    order = sorted((moment, *key) for key, moment in since.items() if agents is None or key[1] in agents)
    chosen = [place[1:] for place in order if last is None or place > last][:limit]
    found = yield from _cases(seen, chosen, lines)
    for key in chosen:
        case = found.get(key)
        if case is None or not case.unread:
            seen.unread.pop(key, None)
    return tuple(case for case in found.values() if case.unread or (case.wake and case.wake.status in OPEN))


def one_looked_at(seen: Seen, thread_id: str, agent_id: str) -> Steps[Case | None]:
    """Give one case."""
    line = [wake_rows.wake(row) for row in (yield from _asked("wakes.open_of_case", thread_id=thread_id, agent_id=agent_id))]
    key = (thread_id, agent_id)
    found = yield from _cases(seen, [key], {key: line} if line else {})
    return found.get(key)


def place_of(case: Case) -> _Place:
    """Give where a case stands in the order of cases."""
    open_since = case.wake.created_at if case.wake and case.wake.status in OPEN else None
    moments = [moment for moment in (case.unread_since, open_since) if moment is not None]
    return (min(moments), case.thread_id, case.agent_id)


def _refreshed(seen: Seen, at: datetime) -> Steps[None]:
    (newest,) = yield from _asked("newest")
    if seen.is_new(newest["entry"], at):
        found = yield from _asked("unread")
        seen.unread = {(row["thread_id"], row["agent_id"]): rows.instant(row["since"]) for row in found}
        seen.entry, seen.ahead, seen.all_at = newest["entry"] - _MOST_TOUCHED, None, at
    else:
        touched = [str(row["thread_id"]) for row in (yield from _asked("touched", since=seen.entry))]
        for part in range(0, len(touched), _MOST_TOUCHED):
            yield from _looked_at_again(seen, touched[part : part + _MOST_TOUCHED])
    seen.advance(newest["entry"], newest["oldest"], newest["next"])


def _looked_at_again(seen: Seen, touched: list[str]) -> Steps[None]:
    found = yield from _asked("unread_of", ids=rows.written(touched))
    changed = set(touched)
    for key in [key for key in seen.unread if key[0] in changed]:
        del seen.unread[key]
    seen.unread.update({(row["thread_id"], row["agent_id"]): rows.instant(row["since"]) for row in found})


def _cases(seen: Seen, keys: Sequence[_Key], lines: Mapping[_Key, list[Wake]]) -> Steps[dict[_Key, Case]]:
    """Put cases together, in the order of the keys."""
    if not keys:
        return {}
    written = rows.written(keys)
    places = {(row["thread_id"], row["agent_id"]): row for row in (yield from _asked("places", keys=written))}
    agents = rows.written(sorted({(place["workspace_id"], place["agent_id"]) for place in places.values()}))
    ended = {
        (row["thread_id"], row["agent_id"]): wake_rows.wake(row) for row in (yield from _asked("ended_of", keys=written))
    }
    leading = {key: lines[key][0] if key in lines else ended.get(key) for key in keys}
    wakes = yield from _with_attempts([wake for wake in leading.values() if wake is not None], lines, seen)
    sessions, paused, attempted, failed = yield from _of_agents(written, agents)
    return {
        key: wake_rows.case(
            places[key],
            sessions=sessions.get((places[key]["workspace_id"], key[1]), ()),
            wake=wakes.get(key),
            attempted=attempted.get(key, ()),
            failed=failed.get((places[key]["workspace_id"], key[1]), ()),
            paused=(places[key]["workspace_id"], key[1]) in paused,
        )
        for key in keys
        if key in places
    }


def _of_agents(
    keys: str, agents: str
) -> Steps[tuple[dict[_Key, list[Any]], set[_Key], dict[_Key, list[datetime]], dict[_Key, list[datetime]]]]:
    sessions: dict[_Key, list[Any]] = {}
    attempted: dict[_Key, list[datetime]] = {}
    failed: dict[_Key, list[datetime]] = {}
    for row in (yield from _asked("sessions", keys=agents)):
        sessions.setdefault((row["workspace_id"], row["agent_id"]), []).append(rows.session(row))
    paused = {(row["workspace_id"], row["agent_id"]) for row in (yield from _asked("pauses", keys=agents))}
    for row in (yield from _asked("attempted", keys=keys, most=_MOST_TIMES)):
        attempted.setdefault((row["thread_id"], row["agent_id"]), []).append(rows.instant(row["began_at"]))
    for row in (yield from _asked("failed", keys=agents, most=_MOST_TIMES)):
        failed.setdefault((row["workspace_id"], row["agent_id"]), []).append(rows.instant(row["ended_at"]))
    return sessions, paused, attempted, failed


def _with_attempts(found: Sequence[Wake], lines: Mapping[_Key, list[Wake]], seen: Seen) -> Steps[dict[_Key, Wake]]:
    """Add attempts to triggers, and what is told with them; of the line behind, as much as they can still take in."""
    told = yield from _filled(found)
    wakes: dict[_Key, Wake] = {}
    for one, attempts, followers in told:
        key = (one.thread_id, one.agent_id)
        others = list(followers)
        if one.status is Status.QUEUED and not counted(_with(one, attempts)):
            never_claimed = [other for other in lines.get(key, ())[1:] if not other.fence]
            others += wake_rows.fitting(one, followers, never_claimed)
        if one.status in OPEN:
            seen.shown[one.trigger_id] = tuple(other.trigger_id for other in others)
        wakes[key] = wake_rows.together(_with(one, attempts), others)
    return wakes


def _filled(found: Iterable[Wake]) -> Steps[list[tuple[Wake, list[Attempt], list[Wake]]]]:
    ids = rows.written([one.trigger_id for one in found])
    attempts: dict[str, list[Attempt]] = {}
    followers: dict[str, list[Wake]] = {}
    for row in (yield from _asked("attempts_of", ids=ids)):
        attempts.setdefault(row["trigger_id"], []).append(wake_rows.attempt(row))
    for row in (yield from _asked("followers_of", ids=ids)):
        followers.setdefault(row["leader"], []).append(wake_rows.wake(row))
    return [(one, attempts.get(one.trigger_id, []), followers.get(one.trigger_id, [])) for one in found]


def listed(thread_id: str | None, agent_id: str | None, status: Status | None, limit: int) -> Steps[tuple[Wake, ...]]:
    """Give triggers, newest first."""
    asked = {"thread_id": thread_id, "agent_id": agent_id, "status": status and status.value, "limit": limit}
    found = [wake_rows.wake(row) for row in (yield from _asked("wakes.listed", **asked))]
    return tuple(_with(one, attempts) for one, attempts, _ in (yield from _filled(found)))


def shown(trigger_id: str) -> Steps[Wake | None]:
    """Give one trigger."""
    found = [wake_rows.wake(row) for row in (yield from _asked("wakes.of", trigger_id=trigger_id))]
    for one, attempts, followers in (yield from _filled(found)):
        return wake_rows.together(_with(one, attempts), followers)
    return None


def _with(wake: Wake, attempts: Sequence[Attempt]) -> Wake:
    return replace(wake, attempts=tuple(attempts))


class WakeSteps:
    """The methods of a `WakeStore` but for waiting; an adapter carries the steps out."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._seen = Seen()
        self._looking = asyncio.Lock()

    async def _done(self, steps: Callable[[], Steps[_Answer]], *, looking: bool = False) -> _Answer:
        """Carry steps out in one transaction; those that only look see one moment.

        Raises:
            Refused: UNAVAILABLE. Lost: nothing was written.
        """
        raise NotImplementedError

    async def cases(
        self, *, agents: Iterable[str] | None = None, after: Case | None = None, limit: int = 10_000
    ) -> tuple[Case, ...]:
        """Look for what is to be decided on."""
        wanted = None if agents is None else frozenset(agents)
        place = None if after is None else place_of(after)
        async with self._looking:  # what an older moment shows is not to undo what a newer one has
            return await self._done(lambda: looked(self._seen, wanted, place, limit, self._clock()), looking=True)

    async def case(self, thread_id: str, agent_id: str) -> Case | None:
        """Look at one."""
        return await self._done(lambda: one_looked_at(self._seen, thread_id, agent_id), looking=True)

    async def queue(self, wake: Wake) -> bool:
        """Make a trigger."""
        try:
            return await self._done(lambda: queued(wake, self._clock()))
        except Lost:
            return False

    async def claim(self, trigger_id: str, *, holder: str, lease: timedelta) -> Claim | None:
        """Claim one, as it was shown."""
        told = self._seen.shown.get(trigger_id)
        try:
            return await self._done(lambda: claimed(trigger_id, holder, lease, told))
        except Lost:
            return None

    async def renew(self, claim: Claim, *, lease: timedelta) -> Claim | None:
        """Prolong it."""
        return await self._done(lambda: renewed(claim, lease))

    async def begin(self, claim: Claim, attempt: Attempt) -> bool:
        """Write that an attempt begins."""
        return await self._done(lambda: begun(claim, attempt))

    async def end(self, claim: Claim, attempt: Attempt) -> bool:
        """Write that it has ended."""
        return await self._done(lambda: ended(claim, attempt))

    async def release(self, claim: Claim, *, due_at: datetime, deferred: bool = False, code: Code | None = None) -> bool:
        """Give a claim back."""
        deferred_at = self._clock() if deferred else None
        return await self._done(lambda: released(claim, due_at, deferred_at, code))

    async def settle(
        self,
        claim: Claim,
        *,
        status: Status,
        outcome: Outcome,
        code: Code | None = None,
        detail: str = "",
        bounce: str = "",
        words: str = "",
    ) -> bool:
        """End a trigger."""
        end = Ending(status, outcome, code, detail, bounce, words)
        try:
            return await self._done(lambda: settled(claim, end, self._clock()))
        except Lost:
            return False

    async def steer(self, trigger_id: str, status: Status, *, actor: str, reason: str, forced: bool = False) -> Wake | None:
        """Cancel or retry one."""
        try:
            there = await self._done(lambda: steered(trigger_id, status, actor, reason, forced, self._clock()))
        except Lost:
            return None
        return await self.wake(trigger_id) if there else None

    async def hold_session(self, session_id: str, *, holder: str, lease: timedelta) -> int | None:
        """Become the writer of a session."""
        return await self._done(lambda: session_held(session_id, holder, lease))

    async def leave_session(self, session_id: str, *, holder: str) -> None:
        """Let go of it."""
        await self._done(lambda: session_left(session_id, holder))

    async def pause(self, workspace_id: str, agent_id: str, *, paused: bool, actor: str) -> bool:
        """Have an agent left alone."""
        return await self._done(lambda: pausing(workspace_id, agent_id, paused, actor, self._clock()))

    async def paused(self) -> frozenset[tuple[str, str]]:
        """Give who is left alone."""
        return await self._done(all_paused, looking=True)

    async def wakes(
        self, *, thread_id: str | None = None, agent_id: str | None = None, status: Status | None = None, limit: int = 50
    ) -> tuple[Wake, ...]:
        """List triggers."""
        return await self._done(lambda: listed(thread_id, agent_id, status, limit), looking=True)

    async def wake(self, trigger_id: str) -> Wake | None:
        """Give one."""
        return await self._done(lambda: shown(trigger_id), looking=True)
