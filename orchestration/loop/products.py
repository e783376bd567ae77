"""What follows an iteration on a host without ticks: bundles are made, and a runner is started for what is due otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestration.cycles.packing import pack
from orchestration.errors import KlorosError
from orchestration.host.journal import Event, Priority, log
from orchestration.tick.tick import launch

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestration.tick.kernel import Kernel


def follow_up(kernel: Kernel, *, asked_to_stop: Callable[[], object]) -> None:
    """Make the bundles that are wanted, and have what is due copied. Neither is a reason for the loop to fail.

    `asked_to_stop` is called again and again while a bundle is made.
    """
    try:
        pack(kernel.db, kernel.settings, should_stop=lambda: bool(asked_to_stop()))
        if not asked_to_stop():
            launch(kernel)
    except KlorosError as error:
        log(Event.LOOP_ITERATED, f"bundles have to wait: {error.message}", priority=Priority.WARNING)
