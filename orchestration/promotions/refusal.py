"""A refusal: our no to a promotion without a cycle that tried it, from a tick that finds it invalid or from a person.

Two halves, each of which may be done again. A tick notes before it writes, for it finds what is invalid again; a person's
answer is written first, for nobody would give it again.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from orchestration.promotions import ledger
from orchestration.promotions.ack import Ack, write_ack
from orchestration.promotions.state import AckVerdict
from orchestration.store.counters import count

if TYPE_CHECKING:
    from orchestration.promotions.reading import Refused
    from orchestration.store.port import Database


def note(db: Database, refused: Refused, verdict: AckVerdict, *, at: datetime) -> None:
    """Note and count it, once. Inside a transaction."""
    first = ledger.answer(
        db,
        refused.stem,
        promotion_id=refused.promotion_id,
        accepted=False,
        reason=refused.reason,
        fitness=None,
        cycle=None,
        at=at,
    )
    if first:
        count(db, "kloros_promotions_total", verdict=verdict)


def write(acks_dir: str, refused: Refused, *, last_phase: tuple[str, str], at: datetime) -> None:
    """Write its ack unless there is one; `last_phase` is epoch and report's SHA-256.

    Raises:
        Unwritable: the disk is full, or the folder can't be written.
    """
    epoch, sha = last_phase
    ack = Ack(
        stem=refused.stem,
        promotion_id=refused.promotion_id,
        accepted=False,
        reason=refused.reason,
        phase_epoch=epoch,
        phase_sha=sha,
        cycle=None,
        at=at,
    )
    write_ack(acks_dir, ack)
