"""Reads one page of the list of cycles."""

from __future__ import annotations

import re
from typing import Any, Final, cast

from orchestration.errors import Usage
from orchestration.pulse.lines import cycle_line
from orchestration.pulse.views import LONGEST_TEXT, MOST_LINES, CycleOrder, CyclePage, CycleQuery
from orchestration.store.port import Database, Row

_TIMED: Final = (CycleOrder.LONGEST, CycleOrder.SHORTEST)
_CURSOR: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?:)?([0-9]{1,18})")
GREATEST: Final = 2**62
"""No number of anything is as large."""


def cycle_page(db: Database, query: CycleQuery) -> CyclePage:
    """Return one page of the cycles asked for.

    Raises:
        Usage: a limit or text out of range, or a cursor that no page gave.
    """
    if not 1 <= query.limit <= MOST_LINES:
        raise Usage(f"limit {query.limit} is out of range", hint=f"give 1 to {MOST_LINES}")
    if len(query.text) > LONGEST_TEXT:
        raise Usage(f"the text to search for has {len(query.text)} characters", hint=f"give at most {LONGEST_TEXT}")
    asked = {"job": query.job or "", "state": query.state or ""}
    rows = db.rows(
        f"records.{query.order}", **asked, **_place(query), text=query.text.strip().lower(), limit=query.limit + 1
    )
    shown = rows[: query.limit]
    counting = "records.count_timed" if query.order in _TIMED else "records.count"
    return CyclePage(
        query=query,
        lines=tuple(cycle_line(row) for row in shown),
        next_cursor=_cursor(query, shown[-1]) if len(rows) > query.limit else None,
        total=None if query.text.strip() else cast("int", db.rows(counting, **asked)[0]["cycles"]),
    )


def _place(query: CycleQuery) -> dict[str, Any]:
    """Return where the page begins, as the query's parameters."""
    rising = query.order in (CycleOrder.OLDEST, CycleOrder.SHORTEST)
    if not query.cursor:
        after, seconds = (-1, -1.0) if rising else (GREATEST, float(GREATEST))
    else:
        match = _CURSOR.fullmatch(query.cursor)
        if match is None or (match[1] is not None) is not (query.order in _TIMED):
            raise Usage(f"{query.cursor[:80]!r} is no cursor of this list", hint="begin without one")
        after, seconds = int(match[2]), float((match[1] or "0:")[:-1])
    return {"after": after, "seconds": seconds} if query.order in _TIMED else {"after": after}


def _cursor(query: CycleQuery, last: Row) -> str:
    number = str(last["cycle"])
    return f"{cast('float', last['seconds']):.3f}:{number}" if query.order in _TIMED else number
