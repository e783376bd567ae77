"""What hosts share, and where in a tick it happens. Called by `scoped.py` alone."""

from __future__ import annotations

from orchestration.tick.kernel import Kernel


def before_leading(kernel: Kernel) -> None:
    """Bring this host's new files up to the store, and write back what the scope answered. Every host, under its lock."""


def as_leader(kernel: Kernel) -> Kernel:
    """Return the kernel that leads: its settings name the folders in which the files of all hosts lie."""
    return kernel


def after_tick(kernel: Kernel) -> None:
    """Write back what this very tick answered. Every host, under its lock; nothing of it is fenced."""
