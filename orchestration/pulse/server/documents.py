"""Our documents as JSON: fields by name, instants as the store writes them, durations in seconds."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from enum import Enum
from typing import Any

from starlette.responses import Response

from orchestration.pulse import document
from orchestration.pulse.loop_health import CycleLine, TickLine
from orchestration.store.instants import to_text


class Document(Response):
    """An answer in JSON."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """Write it in ASCII, so that also names that are no UTF-8 can be told."""
        return json.dumps(plain(content), allow_nan=False).encode() + b"\n"


def plain(value: object) -> Any:
    """Return a document as JSON's own types; a number that is none is null."""
    match value:
        case Enum():
            return value.value
        case float():
            return value if math.isfinite(value) else None
        case str() | int() | None:
            return value
        case datetime():
            return to_text(value)
        case date():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return {str(plain(name)): plain(one) for name, one in value.items()}
        case tuple() if hasattr(value, "_asdict"):
            return plain(value._asdict())
        case CycleLine():
            return document.cycle(value)
        case TickLine():
            return document.tick(value)
        case list() | tuple() | set() | frozenset():
            return [plain(one) for one in value]
    if dataclasses.is_dataclass(value):
        return {one.name: plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no form in JSON")
