"""The epoch: the name of one PHASE, made of the instant at which it was decided.

Owns the form `phase_cycle_YYYYMMDD_HHMMSS`, in UTC whatever the window's zone, so that names sort as the instants
do and a repeated local hour repeats no name.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NewType

Epoch = NewType("Epoch", str)
SIGNAL_PREFIX: Final = "klr_phase_complete_"  # of the file that says of an epoch that it is complete


def epoch_id(at: datetime) -> Epoch:
    """Name the PHASE of the aware instant `at`, to the second.

    Raises: ValueError for an instant without a zone, which would be read in the host's.
    """
    if at.utcoffset() is None:
        raise ValueError(f"an epoch is named by an aware instant, and {at.isoformat()} has no time zone")
    utc = at.astimezone(UTC)
    return Epoch(f"phase_cycle_{utc.year:04}{utc:%m%d_%H%M%S}")
