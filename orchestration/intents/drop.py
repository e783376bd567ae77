"""Dropping an intent as others do: one valid file, whole or not at all. For `klorosctl intents add`."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from pydantic import JsonValue

from orchestration.host import files
from orchestration.intents.document import render


def write_intent(
    intents_dir: str,
    *,
    intent_type: str,
    priority: int,
    reason: str,
    data: dict[str, JsonValue],
    emitted_by: str,
    now: datetime,
) -> str:
    """Write one intent and return its path; a name that is taken is left alone, the next millisecond is tried.

    Raises: Malformed, naming the field that can't be; Unwritable.
    """
    while True:
        name, content = render(
            intent_type=intent_type, priority=priority, reason=reason, data=data, emitted_by=emitted_by, now=now
        )
        path = os.path.join(intents_dir, name)
        if files.create(path, content):
            return path
        now += timedelta(milliseconds=1)
