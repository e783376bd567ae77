"""Commits a batch under the locks of its threads, for all that one statement alone can't prove."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import psycopg
from pydantic_core import from_json, to_json

from orchestration.bridge.chain import Head, workspace_chain
from orchestration.bridge.store.batch import Batch, Loaded, Wanted
from orchestration.bridge.store.lane import LostOnTheWay
from orchestration.bridge.store.lookups import Waiting, planned_together, unavailable
from orchestration.bridge.store.postgres_line import Line
from orchestration.bridge.store.postgres_writes import counted, written
from orchestration.bridge.store.recent import RecentRates

_STALE = "KL001"


class Locked:
    """Transactions of two round trips over a line: lock and load, write and commit; between them the plans run."""

    def __init__(self, line: Line, now: Callable[[], datetime], rates: RecentRates) -> None:
        self._line, self._now, self._rates = line, now, rates

    async def committed(self, batch: list[Waiting], failed: Exception | None) -> Batch:
        """Commit all of it, and return it as it was planned in the end.

        Args:
            failed: what became of writing it at once.

        Raises:
            Exception: nothing of it was written, or, with LostOnTheWay, nobody can tell.
        """
        if isinstance(failed, LostOnTheWay):
            return await self._written_under_lock(batch, failed.planned)
        if failed is not None and not _is_outdated(failed):
            raise failed
        try:
            return await self._written_under_lock(batch)
        except LostOnTheWay as error:
            return await self._written_under_lock(batch, error.planned)

    async def _written_under_lock(self, batch: list[Waiting], lost: Batch | None = None) -> Batch:
        """Lock, load, plan and write: two round trips, on facts that nobody else can change meanwhile.

        `lost` was written just before its connection died. Under the lock it shows whether it was committed; if it was
        not, it never will be, for the version that it was planned on is passed.
        """
        asks = [waiting.ask for waiting in batch]
        try:
            loaded = _loaded(await self._begun(Wanted(asks)))
            chains = loaded.chains_to_lock(asks)
            if chains:
                for row in await self._told("bridge_postgres.heads", workspaces=to_json(chains)):
                    loaded.heads[workspace_chain(row["workspace_id"])] = Head(row["links"], row["head"])
            if lost is not None and await self._stands(lost):
                return lost
            planned = planned_together(batch, loaded, self._now())
            try:
                results = await self._line.asked(written(self._line, "bridge_postgres.commit", planned.rows()))
            except psycopg.OperationalError as error:
                raise error if self._line.is_open else LostOnTheWay(planned, error) from error
            self._rates.learn(counted(results))
            return planned
        finally:
            await self._line.roll_back()

    async def _begun(self, wanted: Wanted) -> list[dict[str, Any]]:
        """Lock and load, over a new connection when the old one turns out to be dead: nothing is written yet."""
        was_open = self._line.is_open
        asked = to_json(_wanted(wanted))
        try:
            return await self._facts(asked)
        except psycopg.OperationalError:
            if self._line.is_open or not was_open:
                raise
        return await self._facts(asked)

    async def _facts(self, wanted: bytes) -> list[dict[str, Any]]:
        await self._line.open()
        results = await self._line.asked(self._line.statement("bridge_postgres.begin", wanted=wanted))
        facts: list[dict[str, Any]] = from_json(results[-1].get_value(0, 0) or b"")
        return facts

    async def _told(self, name: str, **values: bytes) -> Any:
        """Return the JSON that a named query gives; None when it gives no row."""
        (result,) = await self._line.asked(self._line.statement(name, **values))
        return from_json(result.get_value(0, 0) or b"null") if result.ntuples else None

    async def _stands(self, lost: Batch) -> bool:
        row = lost.proof()
        if row is None:
            raise unavailable(None)  # it may stand or not
        chain, link = str(row["chain"]).encode(), str(row["link"]).encode()
        (result,) = await self._line.asked(self._line.statement("bridge.audit_link", chain=chain, link=link))
        return bool(result.ntuples) and result.get_value(0, 0) == str(row["sha256"]).encode()


def _is_outdated(error: Exception) -> bool:
    """Tell whether a write has shown that more was not known than thought: another process was faster, or it is a repeat."""
    return isinstance(error, psycopg.errors.UniqueViolation) or (
        isinstance(error, psycopg.Error) and error.sqlstate == _STALE
    )


def _wanted(wanted: Wanted) -> dict[str, object]:
    asked: dict[str, object] = {"threads": wanted.threads, "agents": list(wanted.agents)}
    if wanted.keys or wanted.findings or wanted.replies or wanted.sessions:
        asked["more"] = {
            "keys": list(wanted.keys),
            "findings": list(wanted.findings),
            "replies": list(wanted.replies),
            "sessions": list(wanted.sessions),
        }
    return asked


def _loaded(facts: list[dict[str, Any]]) -> Loaded:
    loaded = Loaded()
    for found in facts:
        loaded.replies.update(found.pop("replies", None) or ())
        loaded.fill(**{kind: lines or () for kind, lines in found.items()})
    return loaded
