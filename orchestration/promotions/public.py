"""The public question of this package: which promotions has nobody answered yet?

For other programs of the host (`from orchestration.promotions import scan_unacked_promotions`), under the
host's own settings. It reads; it creates, remembers and locks nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from orchestration import configuration
from orchestration.errors import StoreEmpty
from orchestration.promotions.scan import Scan, scan_unacked
from orchestration.store import opening


def scan_unacked_promotions() -> list[Path]:
    """Return the paths of promotions without an ack of any form, parked ones included, sorted by name.

    Their content is not looked at: a path may turn out to be malformed.

    Raises:
        SettingsInvalid: the host's settings are wrong.
        StoreUnreachable: there is a store, and it can't be read.
        OSError: one of the two folders can't be listed.
    """
    settings = configuration.load_remembered(os.environ) or configuration.load(os.environ)
    found = _scan(opening.place_of(settings), settings.promotions_dir, settings.acks_dir)
    return [Path(settings.promotions_dir, name) for name in sorted(found.waiting + found.parked)]


def _scan(place: opening.Place, promotions_dir: str, acks_dir: str) -> Scan:
    try:
        db = opening.copy_of(place) if opening.is_made(place) else None
    except StoreEmpty:
        db = None
    if db is None:
        return scan_unacked(None, promotions_dir=promotions_dir, acks_dir=acks_dir, remember=False)
    try:
        return scan_unacked(db, promotions_dir=promotions_dir, acks_dir=acks_dir, remember=False)
    finally:
        db.close()
