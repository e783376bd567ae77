"""A thread as JSON lines: first the thread with its participants, then its messages in order, its audit, and an end.

The end counts the lines before it and carries their SHA-256, so that a file that was cut or edited is not taken for a
thread. A program that reads them stands on version 1. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Final

from pydantic import ValidationError

from orchestration.bridge.wire import AuditEntry, Message, Thread
from orchestration.errors import Malformed

VERSION: Final = 1


def thread_line(thread: Thread) -> str:
    """Write the first line."""
    return _line({"line": "thread", "version": VERSION, **thread.model_dump(mode="json")})


def message_line(message: Message) -> str:
    """Write one message."""
    return _line({"line": "message", **message.model_dump(mode="json")})


def audit_line(entry: AuditEntry) -> str:
    """Write one row of the audit, for the record: importing does not bring it back."""
    return _line({"line": "audit", **entry.model_dump(mode="json")})


class Sum:
    """Counts and hashes the lines of one thread as they go by."""

    def __init__(self) -> None:
        self._lines = 0
        self._sha256 = hashlib.sha256()

    def add(self, line: str) -> str:
        """Count a line, and give it back."""
        self._lines += 1
        self._sha256.update(line.encode())
        return line

    def end(self) -> str:
        """Write the last line."""
        return _line({"line": "end", "lines": self._lines, "sha256": self._sha256.hexdigest()})


def read(lines: Iterable[str]) -> Iterator[tuple[Thread, tuple[Message, ...], str]]:
    """Give each thread of an export with its messages and the SHA-256 of its end.

    Raises:
        Malformed: with the number of the line.
    """
    thread: Thread | None = None
    messages: list[Message] = []
    summed = Sum()
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\n") + "\n"
        try:
            found = json.loads(line)
            kind = found.pop("line")
            if kind == "thread" and thread is None and found.pop("version") == VERSION:
                thread = Thread.model_validate(found)
            elif kind == "message" and thread is not None:
                messages.append(_next(Message.model_validate(found), thread, messages))
            elif kind == "end" and thread is not None:
                if line != summed.end() or len(messages) != thread.last_seq:
                    raise Malformed(f"line {number}: what comes before this end is not what was exported")
                yield thread, tuple(messages), str(found["sha256"])
                thread, messages, summed = None, [], Sum()
                continue
            elif kind != "audit" or thread is None:
                raise Malformed(f"line {number}: no line of an export of version {VERSION} stands here")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError, ValidationError) as error:
            raise Malformed(f"line {number} is no line of an export", hint="klorosctl threads export writes them") from error
        summed.add(line)
    if thread is not None:
        raise Malformed("the export ends in the middle of a thread")


def _next(message: Message, thread: Thread, before: list[Message]) -> Message:
    if message.seq != len(before) + 1 or message.thread_id != thread.thread_id:
        raise ValueError
    return message


def _line(document: dict[str, object]) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"
