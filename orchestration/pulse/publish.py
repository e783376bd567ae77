"""Puts a recorded tick where people and other programs look: `history.jsonl`, `latest.json`, the metrics textfile."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from orchestration.host import files
from orchestration.store.port import Database
from orchestration.tick import history
from orchestration.tick.history import Tick

if TYPE_CHECKING:
    from orchestration.settings import Settings


def publish(settings: Settings, db: Database, tick: Tick) -> None:
    """Bring every file for readers up to the store."""
    history.mirror(db, os.path.join(settings.state_dir, "history.jsonl"))
    files.replace(os.path.join(settings.state_dir, "latest.json"), json.dumps(history.as_json(tick)).encode(), mode=0o640)
