"""What the store keeps of a cycle besides its row, for the manifest: what its command was given, and what it left.

Written by the runner in two steps, before the command starts and together with its end. A cycle whose runner was killed
has the first half only: what it left is then unknown, and stays so (design rule 5).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from orchestration.cycles.cycle import CycleNumber
from orchestration.cycles.inventory import File, Inventory
from orchestration.store.port import Database


class Products(NamedTuple):
    """All of it; None is what is not known."""

    environment: tuple[str, ...] | None = None  # names only: values may be secrets
    revision: str | None = None
    left: Inventory | None = None


def begin(db: Database, cycle: CycleNumber, *, environment: Iterable[str], revision: str | None) -> Products:
    """Note what a command is about to be given, and return it."""
    given = Products(tuple(sorted(environment)), revision)
    with db.transaction():
        db.run("products.begin", cycle=cycle, environment=json.dumps(given.environment), revision=revision)
    return given


def end(db: Database, cycle: CycleNumber, left: Inventory) -> None:
    """Note what a cycle left. Inside the transaction that ends it."""
    db.run("products.end", cycle=cycle, files=json.dumps(left.files), omitted=left.omitted)


def get(db: Database, cycle: CycleNumber) -> Products:
    """Return what is known of a cycle."""
    rows = db.rows("products.get", cycle=cycle)
    if not rows:
        return Products()
    (row,) = rows
    environment, revision, files = row["environment"], row["revision"], row["files"]
    return Products(
        environment=None if environment is None else tuple(json.loads(str(environment))),
        revision=None if revision is None else str(revision),
        left=None
        if files is None
        else Inventory(tuple(File(*one) for one in json.loads(str(files))), int(str(row["omitted"]))),
    )
