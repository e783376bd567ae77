"""The numbers in an older baseline's file: YAML as `yaml.safe_dump` writes it in block style, or JSON.

Pure. The baseline here is a flat map of numbers, so what is none (texts, switches, lists, what is nested) is left out and
named. Of YAML, only what such a file has is understood; anything else is refused rather than guessed.
Numbers of YAML 1.1: https://yaml.org/type/int.html, https://yaml.org/type/float.html
"""

from __future__ import annotations

import json
import math
import re
from typing import NamedTuple

from orchestration.errors import Malformed
from orchestration.promotions.promotion import Number

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?")
_PAIR = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s"'#\[\]{},&*!|>%@`-][^#:]*?) *:(?:\s+(.*))?""")
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))")
_SHORT = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", '"': '"', "\\": "\\", "/": "/", " ": " "}
_LONG = re.compile(r"^\? (\S.*)\n:", re.MULTILINE)  # an explicit key, as longer ones are written
_COMMENT = re.compile(r"(?:^|\s)#.*")


class Parameters(NamedTuple):
    """What a file holds."""

    numbers: dict[str, Number]
    left_out: tuple[str, ...]  # names of what is no number


def parse_parameters(data: bytes) -> Parameters:
    """Read a baseline's content.

    Raises:
        Malformed: says what can't be understood.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"is not UTF-8 at byte {error.start}") from error
    return _json(text) if text.lstrip().startswith("{") and text.strip() != "{}" else _yaml(text)


def _json(text: str) -> Parameters:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed("is no JSON") from error
    inner = value.get("parameters")
    pairs = inner if isinstance(inner, dict) else value
    numbers = {name: one for name, one in pairs.items() if _is_number(one)}
    return Parameters(numbers, tuple(name for name in pairs if name not in numbers))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _yaml(text: str) -> Parameters:
    numbers: dict[str, Number] = {}
    left_out: list[str] = []
    opened = False
    for at, line in enumerate(_LONG.sub(r"\1:", text).splitlines(), start=1):
        if line.strip() in ("", "---", "{}") or line.lstrip().startswith("#"):
            continue
        if opened and line.startswith((" ", "- ")):
            continue  # belongs to what was left out just before
        pair = _PAIR.fullmatch(line)
        if pair is None:
            raise Malformed(f"line {at} is no `name: number`")
        name = _name(pair[1], at)
        if name in numbers or name in left_out:
            raise Malformed(f"line {at}: {name!a} occurs twice")
        number = _number(_COMMENT.sub("", pair[2] or "").strip())
        opened = number is None
        if number is None:
            left_out.append(name)
        else:
            numbers[name] = number
    return Parameters(numbers, tuple(left_out))


def _name(written: str, at: int) -> str:
    if written.startswith("'"):
        return written[1:-1].replace("''", "'")
    if not written.startswith('"'):
        return written
    try:
        return _ESCAPE.sub(_unescaped, written[1:-1])
    except (ValueError, KeyError) as error:
        raise Malformed(f"line {at}: the name can't be read") from error


def _unescaped(found: re.Match[str]) -> str:
    code = found[1] or found[2] or found[3]
    return chr(int(code, 16)) if code else _SHORT[found[4]]


def _number(text: str) -> Number | None:
    if _INT.fullmatch(text):
        return int(text.replace("_", ""))
    if _FLOAT.fullmatch(text):
        value = float(text.replace("_", ""))
        return value if math.isfinite(value) else None
    return None
