"""What the notifier remembers, as facts in the store: its own, what each tick compares (`publish.py`), and its troubles."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

from orchestration.pulse.health import Judgement
from orchestration.pulse.publish import NOTICES_SEEN, causes
from orchestration.store.instants import to_text
from orchestration.store.port import Database

if TYPE_CHECKING:
    from orchestration.pulse.notice import Standing

_STANDING = "notices.standing"
_UNDELIVERED = "notices.undelivered"
_PING_FAULT = "heartbeat.fault"
_NEVER = "9"  # sorts after every instant


def standing(db: Database) -> Standing:
    """Return what the notifier remembers; nothing, where that can't be read."""
    from pydantic import ValidationError  # 45 ms, which `klorosctl status` does without

    from orchestration.pulse.notice import Standing

    for row in db.rows("facts.get", name=_STANDING):
        try:
            return Standing.model_validate_json(str(row["value"]))
        except ValidationError:
            break
    return Standing()


def keep(db: Database, standing: Standing, judgement: Judgement, next_at: datetime | None) -> None:
    """Remember it, and what the ticks compare: the causes as they were seen, and when there is something to do anyway."""
    at = _NEVER if next_at is None else to_text(next_at)
    with db.transaction():
        db.run("facts.set", name=_STANDING, value=standing.model_dump_json())
        db.run("facts.set", name=_UNDELIVERED, value=json.dumps(_undelivered(standing)))
        db.run("facts.set", name=NOTICES_SEEN, value=f"{at} {causes(judgement)}")


def note_ping(db: Database, fault: str) -> None:
    """Remember why the last ping was not taken; empty when it was."""
    if fault != ping_fault(db):
        db.run("facts.set", name=_PING_FAULT, value=fault)


def ping_fault(db: Database) -> str:
    """Return why the dead-man's switch did not take the last ping; empty when it did, or there was none."""
    return "".join(str(row["value"]) for row in db.rows("facts.get", name=_PING_FAULT))


def undelivered(db: Database) -> list[str]:
    """Say which notices are on their way since when, and what keeps them; empty when all is told."""
    return [str(one) for row in db.rows("facts.get", name=_UNDELIVERED) for one in json.loads(str(row["value"]))]


def _undelivered(standing: Standing) -> list[str]:
    found = [waiting for waiting in standing.waiting.values() if waiting.fault]
    return [f"{one.notice.title!r} since {to_text(one.since)}: {one.fault}" for one in found]
