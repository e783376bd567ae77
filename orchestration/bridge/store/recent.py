"""What the last commits left of busy threads, so that the next change can be planned without asking the database first.

SQLite tells, under its lock, whether anybody else has written since. In PostgreSQL it is never trusted: the write that
follows carries the thread's version, and where that has moved on nothing is written and the change is planned again under
lock. Keys of earlier posts are not kept: a repeat is looked up, or hits the unique index and goes the same way. How often
agents posted has no version; it is what the database returned within the last second, and what is being written just then.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from orchestration.bridge.state import Ask, Rate
from orchestration.bridge.store.batch import Loaded

_MOST_THREADS: Final = 1024
_MOST_MESSAGES: Final = 4096
_RATES_COUNT_FOR: Final = 1.0


class RecentRates:
    """How often agents posted, as every lane's last write returned it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[float, Rate]] = {}

    def learn(self, returned: Iterable[list[Any]]) -> None:
        """Take what a write returned, as lists of JSON: workspace, agent, and the three numbers of their `Rate`."""
        if len(self._known) > _MOST_THREADS:
            self._known.clear()
        now = time.monotonic()
        for workspace_id, agent_id, *rate in returned:
            self._known[workspace_id, agent_id] = (now, Rate(*rate))

    def keep(self, counted: Mapping[tuple[str, str], Rate]) -> None:
        """Take what a batch has counted, where nobody else counts."""
        if len(self._known) > _MOST_THREADS:
            self._known.clear()
        now = time.monotonic()
        self._known.update({key: (now, rate) for key, rate in counted.items()})

    def clear(self) -> None:
        """Forget all: somebody else counts as well."""
        self._known.clear()

    def get(self, key: tuple[str, str]) -> Rate | None:
        """Return it if it is new enough."""
        found = self._known.get(key)
        return found[1] if found and found[0] > time.monotonic() - _RATES_COUNT_FOR else None


class Recent:
    """Threads as the last commits of one lane left them."""

    def __init__(self) -> None:
        self._known = Loaded()

    def known(self, asks: Iterable[Ask], rates: RecentRates, posted: Mapping[tuple[str, str], int]) -> Loaded | None:
        """Return what is known of everything that is asked for; None when that is not all of it.

        Args:
            posted: how often agents post in what is being written, by workspace and agent; `rates` leaves it out.
        """
        known, found = self._known, Loaded()
        for ask in asks:
            thread_id = ask.thread_id
            if thread_id is None or ask.finding_id is not None or ask.session_id is not None or ask.removes:
                return None
            thread = known.visible(ask)
            if thread is None or known.replies.get(ask.replies_to or "", thread_id) != thread_id:
                return None
            if ask.replies_to is not None:
                if ask.replies_to not in known.replies:
                    return None
                found.replies[ask.replies_to] = thread_id
            if ask.agent_id:
                key = (thread.workspace_id, ask.agent_id)
                rate = rates.get(key)
                if rate is None:
                    return None
                found.rates[key] = rate.and_more(posted[key]) if key in posted else rate
            found.threads[thread_id] = thread
            found.heads[thread_id] = known.heads[thread_id]
            found.versions[thread_id] = known.versions[thread_id]
            found.members[thread_id] = known.members[thread_id]
        return found

    def forget(self, asks: Iterable[Ask]) -> None:
        """Drop the threads that are asked about: whatever happens next, they will not be as they were."""
        for ask in asks:
            self._known.threads.pop(ask.thread_id or "", None)

    def remember(self, loaded: Loaded, asks: Iterable[Ask]) -> None:
        """Keep what a commit left, or is to leave; when it fails, its threads must be forgotten.

        The messages of one that failed may stay, for nobody has been told their ids.
        """
        known = self._known
        if len(known.heads) > _MOST_THREADS or len(known.replies) > _MOST_MESSAGES:
            self._known = known = Loaded()
        for thread_id in {ask.thread_id for ask in asks if ask.thread_id in loaded.threads}:
            known.threads[thread_id] = loaded.threads[thread_id]
            known.heads[thread_id] = loaded.heads[thread_id]
            known.versions[thread_id] = loaded.versions[thread_id]
            known.members[thread_id] = loaded.members.get(thread_id) or {}
        known.replies.update(loaded.replies)
