"""What may stand in the texts that are kept: patterns that refuse a text, or mask what they match, before it is stored.

Pure; the optional program that is asked as well is in `filtering.py`. A refusal names the filter, never the text.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, Final, NamedTuple

from orchestration.bridge.message import masked
from orchestration.bridge.refusal import Code, Refused

MASK: Final = "[removed]"


class Act(StrEnum):
    """What becomes of a text that a pattern matches."""

    REFUSE = "refuse"
    MASK = "mask"


class Pattern(NamedTuple):
    """One regular expression of Python's `re`, with its name."""

    name: str
    expression: re.Pattern[str]
    act: Act


class Filters(NamedTuple):
    """All patterns, in the order of the settings."""

    patterns: tuple[Pattern, ...] = ()

    def text(self, text: str) -> str:
        """Give a text as it may be kept.

        Raises:
            Refused: INVALID_ARGUMENT, with the name of the filter.
        """
        for pattern in self.patterns:
            if pattern.act is Act.MASK:
                text = pattern.expression.sub(MASK, text)
            elif pattern.expression.search(text):
                raise Refused(
                    Code.INVALID_ARGUMENT,
                    f"The content filter {pattern.name} does not let this text pass.",
                    rule=f"filters.{pattern.name}",
                    details={"filter": pattern.name},
                )
        return text

    def message(self, body: str, metadata: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Give body and metadata as they may be kept; raises like `text`."""
        return (self.text(body), masked(metadata, self.text)) if self.patterns else (body, metadata)
