"""A release that is newer than this one: this program's tree, copied, with one migration of PostgreSQL's tables more."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import orchestration
from orchestration.store.postgres_schema import SCHEMA_VERSION
from tests.acceptance.host import Host

NEWER = "9.9.9"


def make(place: Path) -> None:
    """Lay it into a folder."""
    tree = place / "orchestration"
    shutil.copytree(Path(orchestration.__file__).parent, tree, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "store" / "migrations" / "postgres" / f"{SCHEMA_VERSION + 1:04}_later.sql").write_text(
        "ALTER TABLE ticks ADD COLUMN later BIGINT;\n"
    )
    for path, before, after in (
        (tree / "store" / "postgres_schema.py", r"^SCHEMA_VERSION = \d+", f"SCHEMA_VERSION = {SCHEMA_VERSION + 1}"),
        (tree / "__init__.py", r'^__version__ = ".*"', f'__version__ = "{NEWER}"'),
    ):
        text, times = re.subn(before, after, path.read_text(), flags=re.MULTILINE)
        if times != 1:
            raise LookupError(f"{path} has no line {before}")
        path.write_text(text)


def upgrade(host: Host, place: Path) -> None:
    """Let a host run from now on what lies there."""
    host.set(PYTHONPATH=str(place), PYTHONSAFEPATH="1")
