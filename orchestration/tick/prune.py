"""Removes a few cycles from disk that retention no longer keeps; most ticks find none, and import nothing for it."""

from __future__ import annotations

from orchestration.cycles import ledger
from orchestration.errors import KlorosError, StoreUnreachable
from orchestration.host.journal import Event, Priority, log
from orchestration.tick.kernel import Kernel


def prune(kernel: Kernel) -> None:
    """Remove up to `per_tick` cycles. Failing to is reported, and never fails a tick.

    Raises:
        StoreUnreachable: as everywhere in a tick.
    """
    kept, now = kernel.settings.retention, kernel.now()
    over = ledger.over(kernel.db, keep_last=kept.keep_last, before=now - kept.keep_for, limit=kept.per_tick)
    if not over:
        return
    from orchestration.cycles import retention

    try:
        retention.prune(kernel.db, kernel.settings, over, now=now, at_most=retention.ENTRIES_PER_TICK)
    except StoreUnreachable:
        raise
    except (KlorosError, OSError) as error:
        log(Event.CYCLE_PRUNED, f"nothing could be pruned: {error}", priority=Priority.WARNING)
