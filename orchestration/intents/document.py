"""The intent file: bytes in, `Intent` or a named fault out, and back (pure).

Owns the format `intents/<ms>_<type>_<hash8>.json`; knows nothing of folders and clocks. Imported only when there is a
file, because pydantic costs more than a whole quiet tick.

Sources (HomoYouDidnt/kloros): the observer's emitter, src/kloros/observer/emit.py (all fields; epoch seconds as
float; `sha256` over the payload without it, dumped with indent 2 in its own key order); curiosity,
src/kloros/orchestration/curiosity_processor.py (no `emitted_at`, no checksum); docs/CHEMBUS_INTENT_MIGRATION.md
(files with neither `reason` nor times, written in place). `intent_queue.py` there reads a missing priority as 0, a
missing reason as empty; so do we. Unknown keys are kept out of the checksum's way but ignored.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Annotated, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from orchestration.errors import Malformed
from orchestration.intents.intent import Category, category_of

SIZE_LIMIT = 1024 * 1024  # bytes
TOPIC_LIMIT = 500  # characters: a topic becomes an environment variable and a line on a screen
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECONDS_FROM = 1e11  # as seconds that is the year 5138, as milliseconds 1973
_GOAL_KEYS = ("goal", "topic")
_TOPIC_KEYS = ("topic", "question_id", "hypothesis", "question", "subsystem", "mode")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]+")


def _instant(value: object) -> datetime | None:
    """Read epoch seconds, epoch milliseconds or ISO 8601; what is before 1970 reads as 1970.

    ISO without a zone says nothing certain: None.
    """
    if value is None:
        return None
    try:
        if isinstance(value, str):
            read = datetime.fromisoformat(value)
            return None if read.tzinfo is None else max(read.astimezone(UTC), _EPOCH)
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value) / 1000 if abs(value) >= _MILLISECONDS_FROM else float(value)
            return _EPOCH + timedelta(seconds=max(seconds, 0.0))
    except (ValueError, OverflowError) as fault:
        raise ValueError(f"no instant we can represent: {str(value)[:40]!r}") from fault
    raise ValueError("expected epoch seconds or ISO 8601")


Instant = Annotated[datetime | None, BeforeValidator(_instant)]


class Intent(BaseModel):
    """One request, as its emitter wrote it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    intent_type: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$")
    """Decides what is done; letters, digits and `_ . : -`."""
    priority: int = Field(default=0, ge=0, le=10)
    """0 (lowest) to 10."""
    reason: str = ""
    """Why, for people."""
    data: dict[str, JsonValue] = Field(default_factory=dict)
    """What the type needs; numbers are finite."""
    generated_at: Instant = None
    """When the emitter decided on it (UTC); None when missing or without a zone."""
    emitted_at: Instant = None
    """When it was written (UTC)."""
    emitted_by: str = ""
    """Who wrote it."""
    checksummed: bool = False
    """Whether the file carried a checksum; a wrong one never gets this far."""

    @property
    def emitted(self) -> datetime | None:
        """When it came into being (UTC), as `intent_queue.py` reads it: `generated_at` first."""
        return self.generated_at or self.emitted_at

    @cached_property
    def content_sha(self) -> str:
        """Hash what is asked for, without when and by whom: equal requests have equal values (64 hex digits)."""
        return _sha256(_compact([self.intent_type, self.reason, self.data]))

    @property
    def topic(self) -> str:
        """What a D-REAM cycle should be about: the first name `data` offers as one printable line, or empty.

        Of a goal of the loop: that goal, whole.
        """
        is_goal = category_of(self.intent_type) is Category.LOOP_GOAL
        for key in _GOAL_KEYS if is_goal else _TOPIC_KEYS:
            value = self.data.get(key)
            if isinstance(value, str) and value.strip():
                line = _UNPRINTABLE.sub(" ", value).strip()
                return line if is_goal else line[:TOPIC_LIMIT]
        return ""


def parse(content: bytes) -> Intent:
    """Read one intent file.

    Raises: Malformed, with the reason, for whatever is not an intent; no other exception whatever the bytes.
    """
    if len(content) > SIZE_LIMIT:
        raise Malformed(f"larger than {SIZE_LIMIT} bytes")
    try:
        payload = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
        if not isinstance(payload, dict):
            raise Malformed(f"expected an object, found {type(payload).__name__}")
        checksummed = _verify(payload)
        intent = Intent.model_validate({**payload, "checksummed": checksummed})
        _ = intent.content_sha  # worked out here, where a fault is still a fault of the file
        return intent
    except Malformed:
        raise
    except UnicodeDecodeError as fault:
        raise Malformed(f"not UTF-8 at byte {fault.start}") from fault
    except ValidationError as fault:
        first = fault.errors(include_url=False, include_input=False)[0]
        place = _UNPRINTABLE.sub(" ", ".".join(str(part) for part in first["loc"]))[:100]
        raise Malformed(f"{place}: {_UNPRINTABLE.sub(' ', first['msg'])[:200]}") from fault
    except RecursionError as fault:
        raise Malformed("nested too deeply") from fault
    except ValueError as fault:
        raise Malformed(f"not JSON: {fault}") from fault


def render(
    *, intent_type: str, priority: int, reason: str, data: dict[str, JsonValue], emitted_by: str, now: datetime
) -> tuple[str, bytes]:
    """Return the file name and the bytes of a valid intent. `now` is aware UTC.

    Raises: Malformed, naming the field that can't be.
    """
    stamp = now.timestamp()
    payload: dict[str, JsonValue] = {
        "intent_type": intent_type,
        "priority": priority,
        "reason": reason,
        "data": data,
        "generated_at": stamp,
        "emitted_at": stamp,
        "emitted_by": emitted_by,
    }
    try:
        payload["sha256"] = _sha256(_compact(payload))
        content = json.dumps(payload, indent=2, allow_nan=False).encode("ascii") + b"\n"
    except (ValueError, RecursionError) as fault:
        raise Malformed(f"data: {fault}") from fault
    intent = parse(content)
    return f"{int(stamp * 1000)}_{intent_type}_{intent.content_sha[:8]}.json", content


def _verify(payload: dict[str, object]) -> bool:
    """Take `sha256` out of the payload and check it; return whether there was one.

    The emitter's own check reads an empty one as none (emit.py, verify_intent).
    """
    expected = payload.pop("sha256", None)
    if expected is None or expected == "":
        return False
    if expected not in (_sha256(json.dumps(payload, indent=2)), _sha256(_compact(payload))):
        raise Malformed("sha256 does not fit the payload")
    return True


def _compact(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("a key occurs twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise Malformed(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Malformed(f"{text[:20]} is too large a number")
    return value
