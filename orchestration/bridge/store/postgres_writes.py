"""How a batch is told to the functions of PostgreSQL that write it, and what they return."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import Any, Final

from pydantic_core import from_json, to_json

from orchestration.bridge.store.postgres_line import Line, Results
from orchestration.bridge.store.rows import Row
from orchestration.bridge.words import spaced

_OF_A_POST: Final = {"threads", "posts", "audit", "rates"}
"""The lists that most batches write, and a post alone."""
_of_thread: Final = itemgetter(
    *("thread_id", "status", "status_reason", "updated_at", "turns", "last_sender", "event_types"),
    *("rate_minute", "rate_posts", "rate_before", "links", "head", "version"),
)
_of_message: Final = itemgetter(
    *("seq", "message_id", "sender", "kind", "body", "metadata", "in_reply_to", "addressee", "traceparent"),
    *("thread_status", "idempotency_key", "payload_sha256"),
)
_of_audit: Final = itemgetter(
    *("at", "workspace_id", "actor", "role", "request_id", "operation", "outcome", "rule", "state_before", "state_after")
)
"""What a `bridge_post` takes of each row, in its order."""


def written_at_once(line: Line, lists: dict[str, list[Row]]) -> bytes:
    """Return the statement that writes a batch by itself, if no thread has moved on since it was planned."""
    post = _one_post(lists) if lists.keys() == _OF_A_POST else None
    if post is None:
        return written(line, "bridge_postgres.write", lists)
    return line.statement("bridge_postgres.write_post", post=_record(post))


def _one_post(lists: dict[str, list[Row]]) -> Iterable[str | int | None] | None:
    """Return the values of a `bridge_post`, in its order; None when there is more to write than one.

    The audit row is of the same change: one of another would be of another thread's chain, or of a workspace's.
    """
    threads, posts, audit, rates = lists["threads"], lists["posts"], lists["audit"], lists["rates"]
    if not len(threads) == len(posts) == len(audit) == len(rates) == 1:
        return None
    thread, post, note = threads[0], posts[0], audit[0]
    if note["at"] != post["created_at"] or note["thread_id"] != thread["thread_id"]:
        return None
    return (*_of_thread(thread), *_of_message(post), spaced(str(post["body"])), *_of_audit(note), rates[0]["rate_minute"])


def written(line: Line, name: str, lists: dict[str, list[Row]]) -> bytes:
    """Return a named statement with all that a batch writes in it."""
    lists["posts"] = with_words(lists.get("posts", []))
    first = {of: to_json(lists.pop(of, [])) for of in _OF_A_POST}
    return line.statement(name, **first, rest=to_json(lists) if lists else None)


def with_words(posts: list[Row]) -> list[Row]:
    """Add to messages what PostgreSQL makes its index of, in the rows themselves, and return them."""
    for post in posts:
        post["words"] = spaced(str(post["body"]))
    return posts


def _record(values: Iterable[str | int | None]) -> bytes:
    """Write values as PostgreSQL reads a row of them."""
    texts = []
    for value in values:
        if value is None:
            texts.append("")
        elif isinstance(value, str):
            quoted = value.replace("\\", "\\\\").replace('"', '""') if '"' in value or "\\" in value else value
            texts.append(f'"{quoted}"')
        else:
            texts.append(str(value))
    return f"({','.join(texts)})".encode()


def counted(results: Results) -> Any:
    """Return how often agents have posted, as `RecentRates.learn` takes it, from what writing a batch returned."""
    return from_json(results[0].get_value(0, 0) or b"[]")
