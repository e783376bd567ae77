"""What hosts share, and where in a tick it happens. Called by `scoped.py` alone; `scope/sharing.py` does it."""

from __future__ import annotations

from orchestration.cycles import ledger
from orchestration.cycles.cycle import CycleNumber
from orchestration.errors import KlorosError
from orchestration.store.instants import to_text
from orchestration.tick import history
from orchestration.tick.history import Tick
from orchestration.tick.kernel import Kernel


def before_leading(kernel: Kernel, *, leads: bool) -> None:
    """Bring this host's new files up to the store, and write back what the scope answered. Every host, under its lock.

    The leader's mirror then says what the store says.
    """
    if kernel.shared is not None:
        kernel.shared.exchange(leading=leads)


def after_tick(kernel: Kernel, record: Tick, *, leads: bool) -> None:
    """Write back what this very tick answered, and this host's copies. Every host, under its lock; nothing of it is fenced.

    Raises:
        Unwritable: a file of this host could not be put in place; the next tick tries again.
    """
    sharing = kernel.shared
    if sharing is None:
        return
    if kernel.leading is not None:
        kernel.leading.db.fence(None)  # what is still to be written is this host's own
    write_back(kernel, leads=leads)
    try:
        if not leads:
            _write_copies(kernel)
        if sharing.fault is not None:
            raise sharing.fault
    except KlorosError as error:
        history.failed(kernel.db, record, error.exit)
        raise


def write_back(kernel: Kernel, *, leads: bool) -> None:
    """Put in place on this host what was answered just now; nothing of it is fenced."""
    if kernel.shared is not None:
        if kernel.shared.is_answered:
            kernel.shared.exchange(leading=leads)
        _write_manifests(kernel)


def _write_copies(kernel: Kernel) -> None:
    """Bring this host's files of baseline and escrow up to the store; the leader has done so when it settled."""
    due = {row["what"] for row in kernel.db.rows("baseline.due", now=to_text(kernel.now()))}
    if due & {"baseline", "files"}:
        from orchestration.tick import consequences

        consequences.write_copies(kernel)


def _write_manifests(kernel: Kernel) -> None:
    """Write the manifests of cycles of this host that are settled by now."""
    assert kernel.shared is not None
    for folder in kernel.shared.settled_here():
        from orchestration.tick import consequences

        cycle = ledger.get(kernel.db, CycleNumber(int(folder.removeprefix("cycle_"))))
        if cycle is not None:
            consequences.write_manifest(kernel, cycle)
        kernel.shared.forget(folder)
