"""Hosts of one scope, as far as their folders and the store go: no ticks, no processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from orchestration.scope.sharing import Sharing
from orchestration.settings import Settings
from orchestration.store.port import Row, Value
from orchestration.store.postgres_database import PostgresDatabase


class SharingHost:
    """One host: its state folder, its connection, its part in what is shared."""

    def __init__(self, home: Path, url: str, name: str) -> None:
        self.name, self.state = name, home / name
        self.state.mkdir(exist_ok=True)
        for folder in ("promotions", "promotions_ack", "intents"):
            (self.state / folder).mkdir(exist_ok=True)
        self._url = url
        self.boot_id = "boot"
        self.asked: list[str] = []
        self.restart()

    def restart(self) -> None:
        """Be a process that knows nothing but what is on disk."""
        self.db = Counted(self._url, here=self.name)
        self.settings = Settings.model_validate({"state_dir": str(self.state)})
        self.sharing = Sharing(self.settings, self.db, self.name, boot_id=self.boot_id)

    def exchange(self, *, leading: bool = False) -> list[str]:
        """Do one tick's exchange in a process of its own; returns the queries it took."""
        self.db.close()
        self.restart()
        self.sharing.exchange(leading=leading)
        return self.db.asked

    def promote(self, stem: str, **fields: object) -> Path:
        """Leave a promotion."""
        content = {"schema": "v1", "id": stem, "timestamp": "2026-11-21T00:00:00+00:00", "fitness": 0.5}
        path = self.state / "promotions" / f"{stem}.json"
        path.write_text(json.dumps({**content, "changes": {"learning_rate": 0.01}, **fields}))
        return path

    def intend(self, name: str, **fields: object) -> Path:
        """Leave an intent."""
        path = self.state / "intents" / name
        path.write_text(json.dumps({"intent_type": "curiosity_bees", **fields}))
        return path

    def mirrored(self) -> dict[str, str]:
        """Return what lies in this host's mirror: place → text."""
        scope = self.state / "scope"
        files = [path for path in scope.glob("*/**/*") if path.is_symlink() or path.is_file()]
        return {str(path.relative_to(scope)): _text(path) for path in sorted(files)}

    def own(self) -> dict[str, str]:
        """Return what lies in this host's own folders."""
        folders = ("promotions", "promotions_ack", "intents")
        files = [path for folder in folders for path in (self.state / folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(self.state)): path.read_text() for path in sorted(files)}


def _text(path: Path) -> str:
    return f"-> {path.readlink()}" if path.is_symlink() else path.read_text()


class Counted(PostgresDatabase):
    """A database that notes what it is asked."""

    def __init__(self, url: str, *, here: str) -> None:
        super().__init__(url, here=here)
        self.asked: list[str] = []
        self.before: Callable[[str], None] = lambda _query: None
        self.after: Callable[[str], None] = lambda _query: None

    def rows(self, query: str, /, **parameters: Value) -> list[Row]:
        """Ask, and note it."""
        self.before(query)
        self.asked.append(query)
        found = super().rows(query, **parameters)
        self.after(query)
        return found

    def run(self, query: str, /, **parameters: Value) -> int:
        """Change, and note it."""
        self.before(query)
        self.asked.append(query)
        return super().run(query, **parameters)
