"""How a batch is told to the functions of PostgreSQL that write it, and what they return."""

from __future__ import annotations

from typing import Any, Final

from pydantic_core import from_json, to_json

from orchestration.bridge.store.postgres_line import Line, Results
from orchestration.bridge.store.rows import Row
from orchestration.bridge.words import spaced

_OF_A_POST: Final = {"threads", "posts", "audit", "rates"}
"""The lists that most batches write, and a post alone."""
_PARTED, _NULL = "\0,", "\0\0"


def written_at_once(line: Line, lists: dict[str, list[Row]]) -> bytes:
    """Return the statement that writes a batch by itself, if no thread has moved on since it was planned."""
    if lists.keys() != _OF_A_POST or any(len(lines) > 1 for lines in lists.values()):
        return written(line, "bridge_postgres.write", lists)
    note: Row = {"entry": None, **lists["audit"][0]}
    return line.statement(
        "bridge_postgres.write_post",
        threads=_record(lists["threads"][0]),
        posts=_record(*with_words(lists["posts"])),
        audit=_record(note),
        rates=_record(lists["rates"][0]),
    )


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


def _record(row: Row) -> bytes:
    """Write a row as PostgreSQL reads one, its values in the order of the table's columns.

    All are quoted at once. What parts them meanwhile, and what stands for NULL, is in no text, for none has a NUL.
    """
    text = _PARTED.join([_NULL if value is None else str(value) for value in row.values()])
    quoted = text.replace("\\", "\\\\").replace('"', '""').replace(_PARTED, '","')
    return f'("{quoted}")'.replace(f'"{_NULL}"', "").encode()


def counted(results: Results) -> Any:
    """Return how often agents have posted, as `RecentRates.learn` takes it, from what writing a batch returned."""
    return from_json(results[0].get_value(0, 0) or b"[]")
