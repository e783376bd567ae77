"""What settings are made of: the section, and the types that several of them have."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*")


def _duration(value: object) -> object:
    """Read `90`, `"90"`, `"15min"` or `"1h 30min"` (units of systemd.time(7)); leave the rest to pydantic."""
    if isinstance(value, bool):
        raise ValueError("a duration is a number of seconds or a text such as 15min")
    if isinstance(value, int | float):
        return timedelta(seconds=value)
    if not isinstance(value, str):
        return value
    text = value.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return timedelta(seconds=float(text))
    parts = _SPAN.findall(text)
    if not parts or _SPAN.sub("", text) or any(unit not in _UNITS for _, unit in parts):
        raise ValueError("a duration is a number of seconds or a text such as 15min, 1h 30min or 2d")
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))


Duration = Annotated[timedelta, BeforeValidator(_duration), Field(ge=timedelta(0))]
PositiveDuration = Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta(0))]
Command = tuple[str, ...]
AbsolutePath = Annotated[str, Field(pattern=r"^/")]
WorkingDir = Annotated[str, Field(pattern=r"^(/.*)?$", examples=["/opt/app"])]
STEPS = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15), timedelta(minutes=30))


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )
