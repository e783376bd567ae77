"""What the audit says of one mutation or refusal, and the chain of hashes that shows an edit.

There is one chain for each thread, and one for each workspace for what has no thread. Every entry's hash covers all that
it says, its number in the chain and the hash before it; the head of a chain, kept apart from its entries, gives away a
missing end. Messages appear by id, kind and hash, never with their text.

The chain shows what was changed by somebody who could not write the whole of it anew; who can write the store can do
that. For more, carry the heads elsewhere (`klorosctl audit verify --json` prints them).

Pure. Refuses to know where entries are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from orchestration.bridge.caller import Caller, Role
from orchestration.bridge.refusal import Refused

DONE: Final = "done"
GENESIS: Final = "0" * 64
"""What the first entry of a chain names as the hash before it."""


class Entry(NamedTuple):
    """One thing that was done or refused, before it has its place in a chain."""

    at: datetime
    actor: str
    role: Role
    workspace_id: str
    """The actor's own, which in a fenced refusal is not the thread's."""
    session_id: str
    request_id: str
    operation: str
    thread_id: str | None
    outcome: str = DONE
    """`done`, or the code of the refusal."""
    rule: str = ""
    """Which rule refused, or which guard acted."""
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


class Link(NamedTuple):
    """An entry in its place: `number` from 1, without gaps, in each chain."""

    chain: str
    number: int
    entry: Entry
    sha256: str


class Head(NamedTuple):
    """The end of a chain: how many entries it has, and the hash of the last."""

    number: int = 0
    sha256: str = GENESIS


def of(caller: Caller, operation: str, at: datetime, *, thread_id: str | None) -> Entry:
    """Begin an entry with the verified identity; the caller sets what came of it by `_replace`."""
    return Entry(
        at=at,
        actor=caller.agent_id,
        role=caller.role,
        workspace_id=caller.workspace_id,
        session_id=caller.session_id,
        request_id=caller.request_id,
        operation=operation,
        thread_id=thread_id,
    )


def refused(entry: Entry, refusal: Refused) -> Entry:
    """Turn an entry into that of a refusal."""
    return entry._replace(outcome=refusal.code.value, rule=refusal.rule, after=None)


def chain_of(thread_id: str | None, workspace_id: str) -> str:
    """Name the chain in which an entry stands."""
    return thread_id if thread_id is not None else f"workspace:{workspace_id}"


def hash_of(chain: str, number: int, entry: Entry, previous: str) -> str:
    """Give the SHA-256 of an entry in its place, in hexadecimal."""
    content = [chain, number, previous, entry.at.astimezone(UTC).isoformat(timespec="microseconds"), *entry[1:]]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def linked(chain: str, head: Head, entry: Entry) -> tuple[Link, Head]:
    """Put an entry at the end of a chain; the chain's new head comes with it."""
    number = head.number + 1
    sha = hash_of(chain, number, entry, head.sha256)
    return Link(chain, number, entry, sha), Head(number, sha)


def verified(chain: str, links: Iterable[Link], head: Head) -> str:
    """Walk a chain in order and say what is wrong with it; empty when nothing is."""
    end = Head()
    for link in links:
        if link.number != end.number + 1:
            return f"{chain}: entry {end.number + 1} is missing"
        if link.chain != chain:
            return f"{chain}: entry {link.number} belongs to {link.chain}"
        sha = hash_of(chain, link.number, link.entry, end.sha256)
        if sha != link.sha256:
            return f"{chain}: entry {link.number} is not what was written"
        end = Head(link.number, sha)
    if end != head:
        return f"{chain}: {head.number} entries were written, {end.number} are here, or the last is another"
    return ""
