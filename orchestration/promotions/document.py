"""JSON that other programs wrote: a value that JSON really allows, or the reasons why it is none.

Pure. Python's `json` accepts more than RFC 8259 does: NaN and the infinities, repeated keys, lone surrogates.
Each of them would come back to us later as a comparison that is never true or as text that no file can hold,
so each is refused here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_BYTES = 1024 * 1024
_SHOWN_REASONS = 5
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """Why an outside file is not what it should be.

    `unfinished` is true when the bytes are no JSON at all, so that a writer may just not be done yet.
    """

    reasons: tuple[str, ...]
    unfinished: bool = False
    identity: str | None = None
    """What it calls itself, where that can be read in spite of the rest."""

    @property
    def reason(self) -> str:
        """The reasons as one line for an ack, a log or a table; the first five when there are more."""
        shown = "; ".join(self.reasons[:_SHOWN_REASONS])
        more = len(self.reasons) - _SHOWN_REASONS
        return f"{shown}; and {more} more" if more > 0 else shown


class _Refused(ValueError):
    """Something that `json` would have let through."""


def parse_json(data: bytes, *, limit: int | None = MAX_BYTES) -> object | Malformed:
    """Read one JSON value of at most `limit` bytes; any bytes give a value or a `Malformed`, never an exception."""
    if limit is not None and len(data) > limit:
        return Malformed(reasons=(f"the file is larger than {limit} bytes ({limit / MAX_BYTES:g} MiB)",))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"the file is not UTF-8: byte {data[error.start]:#04x} at offset {error.start}"
        return Malformed(reasons=(reason,), unfinished=True)
    try:
        value: object = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except _Refused as error:
        return Malformed(reasons=(str(error),))
    except RecursionError:
        return Malformed(reasons=("the JSON is nested too deeply",))
    except json.JSONDecodeError as error:
        reason = f"the file is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        return Malformed(reasons=(reason,), unfinished=True)
    except ValueError:  # an integer of more digits than Python converts
        return Malformed(reasons=("the JSON has an integer of more than 4300 digits",))
    return value


def faults(errors: Iterable[tuple[Sequence[int | str], str]], *, identity: str | None = None) -> Malformed:
    """Make a `Malformed` of (location, sentence) pairs; the field's name comes first unless the sentence has it."""
    return Malformed(reasons=tuple(_sentence(location, text) for location, text in errors), identity=identity)


def shown(value: object) -> str:
    """Write a value of an outside file for a person: its Python form, cut to 80 characters, always printable ASCII."""
    text = ascii(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def is_text(value: str) -> bool:
    """Tell whether a string can be written as UTF-8: JSON's escapes allow halves of surrogate pairs."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _sentence(location: Sequence[int | str], text: str) -> str:
    field = ".".join(str(part) for part in location)
    return text if not field else f"{field}: {text}"


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Refused(f"the key {shown(key)} stands there twice")
            seen.add(key)
    return value


def _no_constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is not a number that JSON knows")
