"""Applies what finished cycles mean, once each, and brings up what earlier ticks could not.

Most ticks have nothing to settle, so what settling needs is imported only then: `consequences.py`.
"""

from orchestration.cycles import ledger
from orchestration.store.instants import to_text
from orchestration.tick.kernel import Kernel


def settle(kernel: Kernel) -> None:
    """Settle every finished cycle that is not settled, oldest first; end what waited too long for a person."""
    due = kernel.db.rows("baseline.due", now=to_text(kernel.now()))
    if due:
        from orchestration.tick import consequences

        consequences.catch_up(kernel, expired=any(row["what"] == "expired" for row in due))
    for cycle in ledger.unsettled(kernel.db):
        from orchestration.tick import consequences

        consequences.apply(kernel, cycle)


def settle_now(kernel: Kernel) -> None:
    """Settle outside a tick, under the tick's lock. Where hosts share a store only the leader does, fenced as its ticks are;
    for all others, its next tick does."""
    if kernel.leading is None:
        settle(kernel)
        return
    from orchestration.tick.scoped import settle_as_leader

    settle_as_leader(kernel)
