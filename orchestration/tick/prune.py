"""Removes a little of what retention no longer keeps; most ticks find nothing, and import nothing for it."""

from __future__ import annotations

from datetime import timedelta

from orchestration.cycles import ledger
from orchestration.errors import KlorosError, StoreUnreachable
from orchestration.host.journal import Event, Priority, log
from orchestration.store.instants import to_text
from orchestration.tick.kernel import Kernel

_EXPIRY = "expiry.next"  # fact: from when on a tick looks again for what only history needs
_BETWEEN = timedelta(hours=1)


def prune(kernel: Kernel) -> None:
    """Remove up to `per_tick` cycles, and what is old. Failing to is reported, and never fails a tick.

    Raises:
        StoreUnreachable: as everywhere in a tick.
    """
    try:
        _prune_cycles(kernel)
        _expire(kernel)
    except StoreUnreachable:
        raise
    except (KlorosError, OSError) as error:
        log(Event.CYCLE_PRUNED, f"nothing could be pruned: {error}", priority=Priority.WARNING)


def _prune_cycles(kernel: Kernel) -> None:
    kept, now = kernel.settings.retention, kernel.now()
    over = ledger.over(kernel.db, keep_last=kept.keep_last, before=now - kept.keep_for, limit=kept.per_tick)
    if over:
        from orchestration.cycles import retention

        retention.prune(kernel.db, kernel.settings, over, now=now, at_most=retention.ENTRIES_PER_TICK)


def _expire(kernel: Kernel) -> None:
    """Once an hour, and in the ticks that follow until nothing is left; a clock that was set back is no reason to wait."""
    rows, now = kernel.db.rows("facts.get", name=_EXPIRY), kernel.now()
    later = to_text(now + _BETWEEN)
    if rows and to_text(now) < str(rows[0]["value"]) <= later:
        return
    from orchestration.tick.expire import PER_TICK, expire

    if max(expire(kernel)) < PER_TICK:
        with kernel.db.transaction():
            kernel.db.run("facts.set", name=_EXPIRY, value=later)
