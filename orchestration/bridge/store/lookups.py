"""What both stores look up alike: named queries, and the bridge's nouns made of their rows."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from orchestration.bridge.census import Census
from orchestration.bridge.refusal import Code, Refused
from orchestration.bridge.state import Ask, FoundFinding, Plan, Session, ThreadRow, Trigger
from orchestration.bridge.store import counting, rows
from orchestration.bridge.store.batch import Batch, Loaded, Outcome
from orchestration.bridge.store.news import News
from orchestration.bridge.store.unread import Unread
from orchestration.bridge.wire import AuditEntry, Participant, ThreadListed, ThreadStatus

Clock = Callable[[], datetime]


class Waiting(NamedTuple):
    """A change that waits for a transaction."""

    ask: Ask
    plan: Plan[Any]
    future: asyncio.Future[Outcome[Any]]


def planned_together(batch: Iterable[Waiting], known: Loaded, now: datetime) -> Batch:
    """Plan changes that share a commit, each on top of those before it."""
    planned = Batch(known)
    for waiting in batch:
        planned.add(waiting.ask, waiting.plan, now)
    return planned


def utc_now() -> datetime:
    """Return now."""
    return datetime.now(UTC)


def unavailable(error: Exception | None) -> Refused:
    """Say so without what the error tells of hosts, paths and statements; it stays with it as the cause, for the log."""
    refused = Refused(Code.UNAVAILABLE, "the store can't be used now; try again", rule="store.unavailable", retry_after=1)
    refused.__cause__ = error
    return refused


def outdated() -> Refused:
    """Say that the tables are not those of this program any more."""
    told = "another release has changed the store's tables; restart the service to run that one"
    return Refused(Code.UNAVAILABLE, told, rule="store.outdated", retry_after=10)


class Lookups(ABC):
    """The reads of a `Store` that need nothing of an engine but its answer to a named query."""

    _news: News
    _unread: Unread

    @abstractmethod
    async def _rows(self, name: str, **parameters: Any) -> list[Any]:
        """Return every row of a named query."""

    async def thread(self, thread_id: str) -> ThreadRow | None:
        """Look a thread up."""
        found = await self._rows("bridge.thread", thread_id=thread_id)
        return rows.thread(found[0]) if found else None

    async def participants(self, thread_id: str) -> tuple[Participant, ...]:
        """Look up who is in it."""
        known = self._unread.in_thread(thread_id)
        found = await self._rows("bridge.participants", thread_id=thread_id, known=known)
        for row in found:
            self._unread.keep(thread_id, row["agent_id"], row)
        return tuple(map(rows.participant, found))

    async def threads(
        self,
        *,
        workspace_id: str | None,
        status: ThreadStatus | None = None,
        participant: str | None = None,
        reader: str = "",
        after: str | None = None,
        limit: int = 50,
    ) -> tuple[ThreadListed, ...]:
        """List a page of threads."""
        found = await self._rows(
            "bridge.threads",
            workspace_id=workspace_id,
            status=status and status.value,
            participant=participant,
            reader=reader,
            after=after,
            limit=limit,
            known=self._unread.of_reader(reader),
        )
        for row in found:
            self._unread.keep(row["thread_id"], reader, row)
        return tuple(map(rows.listed, found))

    async def latest_audit(
        self, *, workspace_id: str | None, thread_id: str | None = None, limit: int
    ) -> tuple[AuditEntry, ...]:
        """Read the newest audit rows, oldest first."""
        query = "bridge.latest_audit" if thread_id is None else "bridge.latest_audit_of_thread"
        more = {} if thread_id is None else {"thread_id": thread_id}
        found = await self._rows(query, workspace_id=workspace_id, limit=limit, **more)
        return tuple(map(rows.audit_entry, reversed(found)))

    async def findings(self, thread_id: str) -> tuple[FoundFinding, ...]:
        """Look up the findings of a thread."""
        found = await self._rows("bridge.findings", thread_id=thread_id)
        return tuple(FoundFinding(finding=rows.finding(row), body=str(row["body"]), to=row["addressee"]) for row in found)

    async def wait_for_news(self, thread_id: str, *, since_seq: int, seconds: float) -> bool:
        """Wait for a commit here, or for one of another process."""

        async def last_seq() -> int:
            found = await self.thread(thread_id)
            return found.last_seq if found else 0

        return await self._news.wait(thread_id, since_seq, seconds, last_seq)

    async def sessions(self, workspace_id: str, agent_id: str | None = None) -> tuple[Session, ...]:
        """Look sessions up."""
        return tuple(map(rows.session, await self._rows("bridge.sessions", workspace_id=workspace_id, agent_id=agent_id)))

    async def triggers(self, thread_id: str, *, limit: int = 20) -> tuple[Trigger, ...]:
        """Look triggers up."""
        return tuple(map(rows.trigger, await self._rows("bridge.triggers", thread_id=thread_id, limit=limit)))

    async def revoked(self, now: datetime) -> frozenset[str]:
        """Look up which tokens count no more."""
        return frozenset(str(row["token_id"]) for row in await self._rows("bridge.revoked", now=rows.text(now)))

    async def census(self, now: datetime) -> Census:
        """Look at all threads."""
        return await counting.census(self._rows, self.participants, now)
