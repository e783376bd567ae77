"""The default reflection job, `python -m orchestration.reflection.review`: write `artifacts/reflection.md` from the store.

It reads the store and changes nothing in it, starts nothing, and leaves no intents; it says what a person would ask after
an absence: what failed, what waits for me, what came of the rest. It prints figures only: what others wrote, printed again,
would be seen again by the observer's rules, and raise every alert anew.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from datetime import datetime

from orchestration import configuration
from orchestration.errors import KlorosError, Usage
from orchestration.exits import Exit
from orchestration.host import clock, files
from orchestration.reflection.digest import Digest, Open, take
from orchestration.store import opening
from orchestration.store.port import Database, Row

_RECENT = 20
_HEADINGS = {
    "open_failures": ("Failures since the last success of their job", "`klorosctl history --cycles`"),
    "parked_promotions": ("Parked promotions", "`klorosctl promotions retry|reject NAME`"),
    "stale_archives": ("Stale archives of the loop", "`klorosctl loop --help`"),
    "escrow_waiting": ("Changes that wait for approval", "`klorosctl escrow list`"),
}


def main() -> int:
    """Write the report; return the exit code."""
    try:
        folder = os.environ.get("KLR_CYCLE_DIR", "")
        if not os.path.isabs(folder):
            raise Usage("KLR_CYCLE_DIR is not set", hint="the cycle runner sets it; by hand, set it to an empty folder")
        settings = configuration.load(os.environ)
        db = opening.open_at(opening.place_of(settings), read_only=True)
        try:
            with db.transaction(looking=True):
                digest = take(db)
                text = report(db, digest, clock.now())
        finally:
            db.close()
        files.make_folder(os.path.join(folder, "artifacts"))
        files.replace(os.path.join(folder, "artifacts", "reflection.md"), text.encode("utf-8", "backslashreplace"), 0o640)
    except KlorosError as error:
        print(f"failed: {error}", flush=True)
        return error.exit
    print(", ".join(f"{name} {kind.number}" for name, kind in digest._asdict().items()), flush=True)
    return Exit.DONE


def report(db: Database, digest: Digest, now: datetime) -> str:
    """Write the report of the store as it is; `now` is aware UTC."""
    return "\n".join(_lines(db, digest, now)) + "\n"


def _lines(db: Database, digest: Digest, now: datetime) -> Iterator[str]:
    yield f"# Reflection of {now:%Y-%m-%d %H:%M} UTC"
    yield ""
    yield "What is open comes first." if any(one.number for one in digest) else "Nothing is open."
    for name, kind in digest._asdict().items():
        yield from _kind(name, kind)
    yield from _table("Cycles that ended last", ("cycle", "job", "state", "cause", "ended_at", "reason"), db, "recent")
    yield from _table("Promotions answered last", ("stem", "state", "changed_at", "reason"), db, "answers")


def _kind(name: str, kind: Open) -> Iterator[str]:
    heading, advice = _HEADINGS[name]
    yield ""
    yield f"## {heading}: {kind.number or 'none'}"
    if kind.number:
        yield ""
        yield from (f"- {_inline(one)}" for one in kind.newest)
        if kind.number > len(kind.newest):
            yield f"- and {kind.number - len(kind.newest)} more"
        yield ""
        yield f"What to do: {advice}"


def _table(heading: str, columns: tuple[str, ...], db: Database, query: str) -> Iterator[str]:
    rows = db.rows(f"reflection.{query}", limit=_RECENT)
    yield ""
    yield f"## {heading}"
    yield ""
    if not rows:
        yield "None."
        return
    yield f"| {' | '.join(column.removesuffix('_at') for column in columns)} |"
    yield f"|{'---|' * len(columns)}"
    yield from (f"| {' | '.join(_cell(row, column) for column in columns)} |" for row in rows)


def _cell(row: Row, column: str) -> str:
    value = str(row[column] if row[column] is not None else "")
    return _inline(value[:19] + "Z" if column.endswith("_at") and value else value)


def _inline(text: str) -> str:
    """Write text so that Markdown shows it and reads nothing into it: one line, no bars, no markup."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())[:200]
    return "".join(f"\\{one}" if one in "\\`*_[]<>|#" else one for one in line)


if __name__ == "__main__":
    sys.exit(main())
