"""A promotion: the parameters that D-REAM proposes, and the fitness it claims for them.

Pure: bytes in, a `Promotion` or the reasons against it out. It knows neither files nor acks nor other
promotions.

The format is KLoROS's: `schema`, `id`, `timestamp`, `fitness`, `changes`, and the default bounds of four
parameters (HomoYouDidnt/kloros, src/kloros/orchestration/promotion_daemon.py at 878cac6,
`validate_promotion`). v1 and v2 carry the same fields. KLoROS lets further fields pass, so they are ignored
here too; it also lets `true`, NaN and repeated keys pass, which we refuse. `timestamp` is written there as
`datetime.now().isoformat()` and as `int(time.time())` (src/kloros/orchestration/winner_deployer.py at
0cadc88, src/dream_promotion_applier.py), so both forms are read; a local time without an offset can't be told
from UTC and is taken as UTC. Nothing is decided by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from orchestration.promotions.document import Malformed, faults, is_text, parse_json, shown

Number: TypeAlias = int | float
Bounds: TypeAlias = Mapping[str, tuple[float, float]]

MAX_ID_LENGTH = 256
_LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z, the last that `datetime` holds


class Promotion(BaseModel):
    """A candidate that is fit to be tried."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    version: Literal["v1", "v2"] = Field(alias="schema")
    """The version of the format; both have the same fields."""
    id: str
    """The name D-REAM gave it; 1 to 256 printable characters."""
    timestamp: datetime
    """When D-REAM made it; aware, UTC."""
    fitness: float
    """What D-REAM measured; finite, ≥ 0, higher is better."""
    changes: dict[str, Number]
    """Parameter name → proposed value; integers stay integers."""

    @field_validator("version", mode="before")
    @classmethod
    def _known_version(cls, value: object) -> object:
        if value not in ("v1", "v2"):
            raise ValueError(f"{shown(value)} is not a version we know; write 'v1' or 'v2'")
        return value

    @field_validator("id", mode="before")
    @classmethod
    def _named(cls, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{shown(value)} is not a string")
        if not value.isprintable() or not 1 <= len(value) <= MAX_ID_LENGTH:
            raise ValueError(f"{shown(value)} is not 1 to {MAX_ID_LENGTH} printable characters")
        return value

    @field_validator("timestamp", mode="before")
    @classmethod
    def _instant(cls, value: object) -> datetime:
        instant = _as_instant(value)
        if instant is None:
            raise ValueError(f"{shown(value)} is neither an ISO 8601 time nor seconds since 1970")
        return instant

    @field_validator("fitness", mode="before")
    @classmethod
    def _measured(cls, value: object) -> float:
        fitness = float(_as_number(value))
        if fitness < 0:
            raise ValueError(f"{shown(value)} is below 0")
        return fitness

    @field_validator("changes", mode="before")
    @classmethod
    def _numeric_map(cls, value: object, info: ValidationInfo) -> dict[str, Number]:
        if not isinstance(value, dict):
            raise ValueError(f"{shown(value)} is not an object of parameter names and numbers")
        context = info.context or {}
        return checked_changes(value, bounds=context.get("bounds", {}), strict=context.get("strict", False))


def parse(data: bytes, *, bounds: Bounds, strict: bool = False) -> Promotion | Malformed:
    """Read the bytes of a promotion file.

    `bounds` maps a parameter to its least and greatest allowed value, both included. Names without bounds pass, unless
    `strict`. All faults are reported together. Any bytes give one or the other, never an exception.
    """
    value = parse_json(data)
    if isinstance(value, Malformed):
        return value
    if not isinstance(value, dict):
        return Malformed(reasons=(f"the file holds {shown(value)}, not an object",))
    try:
        return Promotion.model_validate(value, context={"bounds": bounds, "strict": strict})
    except ValidationError as error:
        said = ((fault["loc"], _said(fault["type"], fault["msg"])) for fault in error.errors(include_url=False))
        return faults(said, identity=_identity(value))


def _identity(value: dict[str, object]) -> str | None:
    """Return the id of an invalid promotion; KLoROS's older files call it `promotion_id`."""
    for field in ("id", "promotion_id"):
        identity = value.get(field)
        if isinstance(identity, str) and identity.isprintable() and 1 <= len(identity) <= MAX_ID_LENGTH:
            return identity
    return None


def _said(kind: str, message: str) -> str:
    return "the field is missing" if kind == "missing" else message.removeprefix("Value error, ")


def checked_changes(value: Mapping[str, object], *, bounds: Bounds, strict: bool) -> dict[str, Number]:
    """Return the proposed values of parameters, each a finite number within its bounds.

    Raises:
        ValueError: says what is wrong with which of them.
    """
    changes: dict[str, Number] = {}
    wrong: list[str] = []
    for name, proposed in value.items():
        try:
            changes[name] = _as_change(name, proposed, bounds=bounds, strict=strict)
        except ValueError as error:
            wrong.append(f"{shown(name)} {error}")
    if wrong:
        raise ValueError(", ".join(wrong))
    return changes


def _as_change(name: str, proposed: object, *, bounds: Bounds, strict: bool) -> Number:
    if not name or not is_text(name):
        raise ValueError("is no name for a parameter")
    if strict and name not in bounds:
        raise ValueError("has no bounds in the settings, and [promotions] strict is on")
    number = _as_number(proposed)
    least, greatest = bounds.get(name, (-math.inf, math.inf))
    if number < least:
        raise ValueError(f"= {shown(proposed)} is below its bound {least:g}")
    if number > greatest:
        raise ValueError(f"= {shown(proposed)} is above its bound {greatest:g}")
    return number


def _as_number(value: object) -> Number:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{shown(value)} is not a number")
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an integer beyond the range of a float
        finite = False
    if not finite:
        raise ValueError(f"{shown(value)} is not a finite number")
    return value


def _as_instant(value: object) -> datetime | None:
    if isinstance(value, bool):
        return None
    try:
        if isinstance(value, int | float):
            in_range = 0 <= value <= _LAST_SECOND
            return datetime.fromtimestamp(value, UTC) if in_range else None
        if isinstance(value, str):
            instant = datetime.fromisoformat(value)
            return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return None
