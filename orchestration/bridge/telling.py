"""Tells ticks and pages how threads stand: two facts in the `kloros.db` of the host, whatever store the bridge has.

So a tick judges the bridge by one row and imports nothing of it, PostgreSQL need not be asked by anybody else, and a
server that fell silent is seen by its own last word. `pulse/signs.py` and `pulse/threads.py` read what is written here.
A host without threads is told nothing.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Any, Final

from orchestration.bridge.census import By, Census, Standing, Tally, Waits
from orchestration.bridge.wire import ThreadStatus
from orchestration.errors import KlorosError
from orchestration.host.journal import Event, Priority, log
from orchestration.store import opening
from orchestration.store.instants import to_text

SIGNS: Final = "bridge.signs"
SHOWN: Final = "bridge.shown"
AGAIN_AFTER: Final = 60.0
"""Seconds after which what has not changed is told once more, as a sign of life."""
_MOST_WAITS: Final = 20


class Teller:
    """Writes the two facts, when there is something to tell."""

    def __init__(self, place: opening.Place, tally: Tally) -> None:
        """Take where the host's store is; where there is none, nothing is told."""
        self._place = place
        self._tally = tally
        self._told: tuple[dict[str, Any], dict[str, Any]] | None = None
        self._told_at: datetime | None = None

    async def tell(self, census: Census, *, serving: bool = True) -> None:
        """Tell what a look has found. `serving`: by a server that goes on telling."""
        news = signs(census), shown(census, self._tally)
        if self._told is None and census.is_empty:
            return
        if news == self._told and self._told_at and (census.at - self._told_at).total_seconds() < AGAIN_AFTER:
            return
        if await asyncio.to_thread(self._write, news, census.at, serving=serving):
            self._told, self._told_at = news, census.at

    async def end(self) -> None:
        """Tell that nobody goes on telling, and that this is no fault."""
        if self._told is not None and self._told_at is not None:
            await asyncio.to_thread(self._write, self._told, self._told_at, serving=False)

    def _write(self, news: tuple[dict[str, Any], dict[str, Any]], at: datetime, *, serving: bool) -> bool:
        if not opening.is_made(self._place):
            return False
        head = {"at": to_text(at), "serving": serving}
        try:
            database = opening.open_at(self._place)
            try:
                with database.transaction():
                    for name, document in zip((SIGNS, SHOWN), news, strict=True):
                        database.run("facts.set", name=name, value=json.dumps({**head, **document}))
            finally:
                database.close()
        except KlorosError as error:
            if self._place.url:  # it is the bridge's own store, whose outage is told already; the next look tells again
                return False
            log(Event.BRIDGE_FAILED, f"how threads stand can't be told: {error.message}", priority=Priority.WARNING)
            return False
        return True


def is_served(place: opening.Place) -> bool:
    """Say whether a server tells how threads stand, so that nobody else need."""
    if not opening.is_made(place):
        return False
    database = opening.open_at(place)
    try:
        return any(json.loads(str(row["value"]))["serving"] for row in database.rows("facts.get", name=SIGNS))
    finally:
        database.close()


def signs(census: Census) -> dict[str, Any]:
    """Write what a tick judges by."""
    waits = census.waits_in(ThreadStatus.ACTIVE)
    blocked = next((one for one in census.shown if one.status is ThreadStatus.BLOCKED), None)
    return {
        "blocked": census.threads.get(ThreadStatus.BLOCKED, 0),
        "blocked_since": None if blocked is None else to_text(blocked.updated_at),
        "blocked_thread": None if blocked is None else blocked.thread_id,
        "behind": len(waits),
        "unread_since": to_text(waits[0].since) if waits else None,
        "unread_by": waits[0].agent_id if waits else None,
        "unread_thread": waits[0].thread_id if waits else None,
    }


def shown(census: Census, tally: Tally) -> dict[str, Any]:
    """Write what the page shows."""
    return {
        "totals": {status.value: census.threads.get(status, 0) for status in ThreadStatus},
        "unread": {status.value: census.unread.get(status, 0) for status in ThreadStatus},
        "escalations": {
            by.value: sum(messages for sort, messages in tally.counted.items() if sort.escalated_by is by) for by in By
        },
        "behind": len(census.waits),
        "waits": [_waits(one) for one in census.waits[:_MOST_WAITS]],
        "threads": [_standing(one) for one in census.shown],
    }


def _waits(one: Waits) -> dict[str, Any]:
    return {
        "thread_id": one.thread_id,
        "status": one.status.value,
        "agent_id": one.agent_id,
        "sender": one.sender,
        "since": to_text(one.since),
        "traceparent": one.traceparent,
    }


def _standing(one: Standing) -> dict[str, Any]:
    return {
        "thread_id": one.thread_id,
        "workspace_id": one.workspace_id,
        "title": one.title,
        "status": one.status.value,
        "reason": one.reason,
        "last_seq": one.last_seq,
        "updated_at": to_text(one.updated_at),
        "participants": [
            {
                "agent_id": seat.agent_id,
                "last_read_seq": seat.last_read_seq,
                "unread": seat.unread,
                "heartbeat_at": seat.heartbeat_at and to_text(seat.heartbeat_at),
                "session": seat.session and seat.session.value,
            }
            for seat in one.seats
        ],
    }
