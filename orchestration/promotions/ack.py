"""Our answer to a promotion, as a file that is written once and never changed: `promotions_ack/<stem>_ack.json`.

The fields are those KLoROS writes (HomoYouDidnt/kloros, src/kloros/orchestration/promotion_daemon.py at
878cac6, `create_ack`), plus `cycle`. `promotion_id` is the promotion's own id; KLoROS writes the stem there,
which for its files is the same, and which is what a refused file without a readable id gets.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime

from orchestration.host import files
from orchestration.promotions.scan import ack_name, read_regular

_MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """One answer."""

    stem: str
    promotion_id: str
    accepted: bool
    reason: str
    """Why; written only when rejected."""
    phase_epoch: str
    """Epoch of the last succeeded PHASE; empty before the first."""
    phase_sha: str
    """SHA-256 of that PHASE's report, in hex; empty before the first."""
    cycle: int | None
    """The cycle that tried it; None when no cycle did."""
    escrow: str = ""
    """The entry of escrow in which the accepted changes wait; empty when they went into the baseline."""
    at: datetime
    """Aware UTC; written as whole seconds since 1970."""


def write_ack(acks_dir: str, ack: Ack) -> bool:
    """Write the ack unless one exists, whole and synced to disk; True when this call wrote it.

    Exactly one of any number of callers writes; an ack that exists stays as it is, whoever wrote it.

    Raises:
        Unwritable: the disk is full, or the folder can't be written.
    """
    try:
        os.makedirs(acks_dir, mode=0o700, exist_ok=True)
    except OSError as error:
        raise files.unwritable(acks_dir, error) from error
    path = os.path.join(acks_dir, ack_name(ack.stem))
    if os.path.lexists(path):  # so that a tick killed among many acks goes on where it was, and syncs none of them twice
        return False
    return files.create(path, content(ack), mode=0o640)


def answered_elsewhere(acks_dir: str, stem: str, *, cycle: int) -> bool:
    """Tell whether this promotion has an ack that the given cycle did not write: a person's, or an older program's.

    Such a promotion is not this cycle's to answer any more, and its changes must not reach the baseline.
    """
    try:
        written = _read(acks_dir, stem)
    except FileNotFoundError:
        return False
    return written.get("cycle") != cycle


def says_escrow(acks_dir: str, stem: str, *, cycle: int) -> bool:
    """Tell whether this promotion has an ack of the given cycle which says that its changes wait in escrow."""
    try:
        written = _read(acks_dir, stem)
    except FileNotFoundError:
        return False
    return written.get("cycle") == cycle and bool(written.get("escrow"))


def _read(acks_dir: str, stem: str) -> dict[str, object]:
    """Read an ack; empty when it is none of ours, which are there whole or not at all. Raises: FileNotFoundError."""
    try:
        data, _ = read_regular(os.path.join(acks_dir, ack_name(stem)), limit=_MAX_BYTES)
        value = json.loads(data)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def content(ack: Ack) -> bytes:
    """Write an ack as JSON."""
    fields: dict[str, object] = {
        "promotion_id": ack.promotion_id,
        "accepted": ack.accepted,
        "phase_epoch": ack.phase_epoch,
        "phase_sha": ack.phase_sha,
        "ts": int(ack.at.timestamp()),
        "schema": "v1",
        "cycle": ack.cycle,
    }
    if ack.escrow:
        fields["escrow"] = ack.escrow
    if not ack.accepted:
        fields["rejection_reason"] = ack.reason
    return json.dumps(fields, indent=2).encode() + b"\n"
