"""A wake store's steps that look for what is to be decided on, and change nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from orchestration.bridge.store import rows, wake_rows
from orchestration.bridge.store.wake_steps import Steps, ask
from orchestration.bridge.wake.state import Attempt, Case, Status, Wake
from orchestration.bridge.wake.trigger import OPEN, counted

_Key: TypeAlias = tuple[str, str]
_Place: TypeAlias = tuple[datetime, str, str]
_MOST_TIMES: Final = 20
_ALL_AGAIN: Final = timedelta(minutes=10)
_MOST_TOUCHED: Final = 2000


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
    for row in (yield from ask("wakes.open")):
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
    line = [wake_rows.wake(row) for row in (yield from ask("wakes.open_of_case", thread_id=thread_id, agent_id=agent_id))]
    key = (thread_id, agent_id)
    found = yield from _cases(seen, [key], {key: line} if line else {})
    return found.get(key)


def place_of(case: Case) -> _Place:
    """Give where a case stands in the order of cases."""
    open_since = case.wake.created_at if case.wake and case.wake.status in OPEN else None
    moments = [moment for moment in (case.unread_since, open_since) if moment is not None]
    return (min(moments), case.thread_id, case.agent_id)


def _refreshed(seen: Seen, at: datetime) -> Steps[None]:
    (newest,) = yield from ask("newest")
    if seen.is_new(newest["entry"], at):
        found = yield from ask("unread")
        seen.unread = {(row["thread_id"], row["agent_id"]): rows.instant(row["since"]) for row in found}
        seen.entry, seen.ahead, seen.all_at = newest["entry"] - _MOST_TOUCHED, None, at
    else:
        touched = [str(row["thread_id"]) for row in (yield from ask("touched", since=seen.entry))]
        for part in range(0, len(touched), _MOST_TOUCHED):
            yield from _looked_at_again(seen, touched[part : part + _MOST_TOUCHED])
    seen.advance(newest["entry"], newest["oldest"], newest["next"])


def _looked_at_again(seen: Seen, touched: list[str]) -> Steps[None]:
    found = yield from ask("unread_of", ids=rows.written(touched))
    changed = set(touched)
    for key in [key for key in seen.unread if key[0] in changed]:
        del seen.unread[key]
    seen.unread.update({(row["thread_id"], row["agent_id"]): rows.instant(row["since"]) for row in found})


def _cases(seen: Seen, keys: Sequence[_Key], lines: Mapping[_Key, list[Wake]]) -> Steps[dict[_Key, Case]]:
    """Put cases together, in the order of the keys."""
    if not keys:
        return {}
    written = rows.written(keys)
    places = {(row["thread_id"], row["agent_id"]): row for row in (yield from ask("places", keys=written))}
    agents = rows.written(sorted({(place["workspace_id"], place["agent_id"]) for place in places.values()}))
    ended = {(row["thread_id"], row["agent_id"]): wake_rows.wake(row) for row in (yield from ask("ended_of", keys=written))}
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
    for row in (yield from ask("sessions", keys=agents)):
        sessions.setdefault((row["workspace_id"], row["agent_id"]), []).append(rows.session(row))
    paused = {(row["workspace_id"], row["agent_id"]) for row in (yield from ask("pauses", keys=agents))}
    for row in (yield from ask("attempted", keys=keys, most=_MOST_TIMES)):
        attempted.setdefault((row["thread_id"], row["agent_id"]), []).append(rows.instant(row["began_at"]))
    for row in (yield from ask("failed", keys=agents, most=_MOST_TIMES)):
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
    for row in (yield from ask("attempts_of", ids=ids)):
        attempts.setdefault(row["trigger_id"], []).append(wake_rows.attempt(row))
    for row in (yield from ask("followers_of", ids=ids)):
        followers.setdefault(row["leader"], []).append(wake_rows.wake(row))
    return [(one, attempts.get(one.trigger_id, []), followers.get(one.trigger_id, [])) for one in found]


def listed(thread_id: str | None, agent_id: str | None, status: Status | None, limit: int) -> Steps[tuple[Wake, ...]]:
    """Give triggers, newest first."""
    asked = {"thread_id": thread_id, "agent_id": agent_id, "status": status and status.value, "limit": limit}
    found = [wake_rows.wake(row) for row in (yield from ask("wakes.listed", **asked))]
    return tuple(_with(one, attempts) for one, attempts, _ in (yield from _filled(found)))


def shown(trigger_id: str) -> Steps[Wake | None]:
    """Give one trigger."""
    found = [wake_rows.wake(row) for row in (yield from ask("wakes.of", trigger_id=trigger_id))]
    for one, attempts, followers in (yield from _filled(found)):
        return wake_rows.together(_with(one, attempts), followers)
    return None


def _with(wake: Wake, attempts: Sequence[Attempt]) -> Wake:
    return replace(wake, attempts=tuple(attempts))
