"""The optional program that writes summaries; without it, or when it fails, the deterministic one stands.

It finds a JSON document at the path in KLR_THREAD: `summary` (ours), `open_items`, `messages`. What it prints is the
summary, up to 16 KiB.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from orchestration.bridge.outside import Program
from orchestration.bridge.wire import Message, OpenItem
from orchestration.errors import KlorosError
from orchestration.host.journal import Event, Priority, log

VARIABLE: Final = "KLR_THREAD"
_LONGEST: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Writer:
    """A program that writes summaries."""

    program: Program

    async def write(self, summary: str, items: Sequence[OpenItem], messages: Sequence[Message]) -> str:
        """Give its summary, or ours when it has none to give, which is logged."""
        document = {
            "summary": summary,
            "open_items": [item.model_dump(mode="json") for item in items],
            "messages": [message.model_dump(mode="json") for message in messages],
        }
        try:
            answered = await self.program.ask(VARIABLE, json.dumps(document))
        except KlorosError as error:
            return _ours(summary, str(error))
        written = answered.output.strip().replace("\0", "")
        if answered.code != 0 or not written:
            return _ours(summary, answered.how if answered.code != 0 else "it printed nothing")
        return written[:_LONGEST]


def _ours(summary: str, why: str) -> str:
    log(
        Event.SUMMARY_LEFT, f"summary_command gave no summary, so the bridge's own is used: {why}", priority=Priority.WARNING
    )
    return summary
