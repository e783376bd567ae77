"""The optional program that looks at a message before it is kept.

It finds `{"body": …, "metadata": …}` at the path in KLR_MESSAGE, and lets the message pass by ending with 0, or refuses
it by ending with 1. Anything else, a missed deadline included, is no judgement: then nothing passes (UNAVAILABLE).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from orchestration.bridge.outside import Program
from orchestration.bridge.refusal import Code, Refused
from orchestration.errors import KlorosError
from orchestration.host.journal import Event, Priority, log

VARIABLE: Final = "KLR_MESSAGE"


@dataclass(frozen=True, slots=True)
class Judge:
    """A program that judges messages."""

    program: Program

    async def check(self, body: str, metadata: dict[str, Any]) -> None:
        """Let a message pass.

        Raises:
            Refused: INVALID_ARGUMENT, or UNAVAILABLE when the program could not judge.
        """
        try:
            answered = await self.program.ask(VARIABLE, json.dumps({"body": body, "metadata": metadata}))
        except KlorosError as error:
            raise _no_judgement(str(error)) from error
        if answered.code == 0:
            return
        if answered.code != 1:
            raise _no_judgement(answered.how)
        raise Refused(Code.INVALID_ARGUMENT, "The content filter does not let this message pass.", rule="filters.command")


def _no_judgement(why: str) -> Refused:
    log(Event.FILTER_FAILED, f"filter_command could not judge a message, so it was refused: {why}", priority=Priority.ERROR)
    return Refused(Code.UNAVAILABLE, "The content filter can't judge messages now.", rule="filters.command", retry_after=5.0)
