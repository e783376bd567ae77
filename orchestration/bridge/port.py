"""What the bridge asks of its store: one verb that changes, and reads. SQLite and PostgreSQL answer alike.

Every method raises `Refused(UNAVAILABLE)` when the database can't be had, at once where that is known, and goes on by
itself when it is back. Whether the one who asks may have the answer is no matter of the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from orchestration.bridge.census import Census, Tally
from orchestration.bridge.state import (
    Answer,
    Ask,
    ChainsVerified,
    FoundFinding,
    Plan,
    Reading,
    ReadingText,
    Session,
    ThreadRow,
    Trigger,
)
from orchestration.bridge.wire import AuditEntry, Message, Participant, ThreadListed, ThreadStatus


class Changes(Protocol):
    """The one way to write."""

    async def change(self, ask: Ask, plan: Plan[Answer]) -> Answer:
        """Call the plan with the facts, under the thread's row; return its answer once all of its change is on disk.

        Changes that wait together share a commit; one that fails does not fail its neighbours.

        Raises:
            Refused: the plan's refusal, when its audit is on disk; UNAVAILABLE, and then it may have been written or not.
        """
        ...


class Threads(Protocol):
    """Threads and who is in them."""

    async def thread(self, thread_id: str) -> ThreadRow | None: ...

    async def participants(self, thread_id: str) -> tuple[Participant, ...]:
        """Return who is in a thread, by name: cursors, what others said since, the newest heartbeat of their sessions."""
        ...

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
        """Return threads by falling id, which is newest first; those that `participant` is in; unread as `reader`'s."""
        ...


class Messages(Protocol):
    """Reading, searching, and waiting for more."""

    async def read(self, thread_id: str, *, reader: str, since_seq: int, limit: int) -> Reading:
        """Return up to `limit` messages after `since_seq`, in order, with the thread and the reader's place in it."""
        ...

    async def read_text(
        self, thread_id: str, *, reader: str, since_seq: int, limit: int, sees_all: bool = True
    ) -> ReadingText:
        """Do as `read`, with the messages as JSON text: several times as fast.

        Unless the reader sees all, messages from and to others are left out; `next_seq` is past them nevertheless.
        """
        ...

    async def search(
        self, query: str, *, workspace_id: str, thread_id: str | None = None, participant: str | None = None, limit: int = 50
    ) -> tuple[Message, ...]:
        """Return the messages that have all words of the query, newest first.

        With `participant`, only those of its threads, and none that is directed to somebody else.
        """
        ...

    async def findings(self, thread_id: str) -> tuple[FoundFinding, ...]:
        """Return every finding of a thread, in the order of their first reports."""
        ...

    async def wait_for_news(self, thread_id: str, *, since_seq: int, seconds: float) -> bool:
        """Return True as soon as the thread has a message after `since_seq`, False when the time is up."""
        ...


class Trail(Protocol):
    """The audit, read."""

    async def audit(
        self, *, workspace_id: str | None, thread_id: str | None = None, after: int = 0, limit: int = 50
    ) -> tuple[AuditEntry, ...]:
        """Return audit rows by rising entry number; who goes on from the last one never misses a row."""
        ...

    async def latest_audit(
        self, *, workspace_id: str | None, thread_id: str | None = None, limit: int
    ) -> tuple[AuditEntry, ...]:
        """Return the newest audit rows by rising entry number; rows under way are not waited for."""
        ...

    async def verify(self) -> ChainsVerified:
        """Walk every chain of the audit and compare each link."""
        ...


class Wakes(Protocol):
    """Sessions, triggers and tokens that count no more."""

    async def sessions(self, workspace_id: str, agent_id: str | None = None) -> tuple[Session, ...]:
        """Return sessions, the newest heartbeat first."""
        ...

    async def triggers(self, thread_id: str, *, limit: int = 20) -> tuple[Trigger, ...]:
        """Return the newest triggers of a thread, newest first."""
        ...

    async def revoked(self, now: datetime) -> frozenset[str]:
        """Return the ids of every revoked token that has not expired yet."""
        ...


class Counts(Protocol):
    """All threads at one look, for metrics, health and the page."""

    async def census(self, now: datetime) -> Census:
        """Return where threads stand, and who waits for whom."""
        ...

    async def count(self, tally: Tally) -> None:
        """Bring a count of messages up to what is there; what was counted before costs nothing."""
        ...


class Upkeep(Protocol):
    """For `/ready`, `/metrics` and the end."""

    async def check(self) -> None:
        """Ask the database something.

        Raises:
            Refused: UNAVAILABLE.
        """
        ...

    def figures(self) -> Mapping[str, float]:
        """Return what the adapter counts: waiting changes, commits, changes committed, connections in use, waiters."""
        ...

    async def close(self) -> None:
        """Finish what waits, and let go of every connection."""
        ...


class Store(Changes, Threads, Messages, Trail, Wakes, Counts, Upkeep, Protocol):
    """All of it, as an adapter gives it."""
