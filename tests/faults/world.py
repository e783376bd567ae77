"""A host whose state can be put back in an instant, what must always hold of it, and what it has come to."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import yaml

from orchestration.baseline import copies, escrow_files, history
from orchestration.baseline.version import broken_links
from orchestration.store.sqlite import SqliteDatabase
from tests.acceptance.host import Host

_TIMES = (
    "ts",
    "noted_at",
    "created_at",
    "expires_at",
    "reviewed_at",
    "sha256",
    "previous_sha",
)  # a version's hash is of its time as well
_ONCE = (
    "kloros_cycles_total",
    "kloros_cycles_pruned_total",
    "kloros_promotions_total",
    "kloros_intents_total",
    "kloros_phase_dates_total",
)


class World(Host):
    """A host with a launcher that only leaves a kick."""

    def __init__(self, home: Path, *, kicks: bool = True, backoff: str = "1h") -> None:
        super().__init__(home)
        if kicks:
            (self.state / "kick").mkdir(parents=True)
        self.set(KLR_LAUNCHER="systemd")
        self.configure(f'[dream]\nbackoff = ["{backoff}"]\n[phase]\nbackoff = ["{backoff}"]\n')
        self.output = home / "output"
        self._kept = home / "kept"

    def keep(self) -> None:
        """Remember the state as it is."""
        if self.state.exists():
            shutil.copytree(self.state, self._kept, symlinks=True)

    def put_back(self) -> None:
        """Make the state what it was."""
        shutil.rmtree(self.state, ignore_errors=True)
        shutil.rmtree(self.textfile.parent)
        if self._kept.exists():
            shutil.copytree(self._kept, self.state, symlinks=True)
        self.textfile.parent.mkdir()
        self.output.unlink(missing_ok=True)

    @contextmanager
    def store(self) -> Iterator[SqliteDatabase]:
        """Open the store as the program does."""
        with closing(SqliteDatabase(str(self.state / "kloros.db"))) as db:
            yield db

    def table(self, name: str, *, without: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """Return the rows of a table, as dicts, in order."""
        with closing(sqlite3.connect(self.state / "kloros.db")) as store:
            store.row_factory = sqlite3.Row
            rows = store.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall()
        return [{key: row[key] for key in row.keys() if key not in without} for row in rows]  # noqa: SIM118

    def files(self) -> list[Path]:
        """List every file there is."""
        return sorted(path for path in self.home.rglob("*") if path.is_file() and self._kept not in path.parents)

    def assert_private(self) -> None:
        """The folders that may tell of requests and locks are for their owner only."""
        for folder in (self.state / "locks", *self.state.glob("intents/processed/**")):
            assert folder.stat().st_mode & 0o077 == 0, f"{folder} is open to others"

    def assert_whole(self) -> None:
        """Every file that a reader might open is whole, at any moment."""
        for path in self.files():
            if path.name.startswith(".") or path.parent.name in ("malformed", "intents", "artifacts"):
                continue
            text = path.read_bytes()
            if path.suffix == ".json":
                json.loads(text)
            if path.suffix in (".jsonl", ".prom"):
                assert not text or text.endswith(b"\n"), f"{path} ends in half a line: {text[-100:]!r}"
            if path.suffix == ".jsonl":
                for line in text.splitlines():
                    json.loads(line)

        self.assert_one_baseline()

    def assert_one_baseline(self) -> None:
        """The files in force are of one version, at any moment."""
        folder = self.state / "baseline"
        if not (folder / "current").exists():
            return
        shown = yaml.safe_load((folder / "current" / "baseline.yaml").read_bytes())
        sha = hashlib.sha256((folder / "current" / "baseline.yaml").read_bytes()).hexdigest()
        assert json.loads((folder / "current" / "manifest.json").read_text())["sha256"] == sha
        assert json.loads((folder / "current" / "baseline.json").read_text())["parameters"] == shown

    def assert_baseline(self) -> None:
        """The chain holds, and the files of baseline and escrow agree with the store."""
        with self.store() as db:
            assert broken_links(history.every(db)) == []
            assert copies.verify(db, str(self.state / "baseline")) == []
            assert escrow_files.verify(db, str(self.state / "escrow")) == []

    def assert_no_litter(self) -> None:
        """No temporary file of ours remains."""
        assert [str(path) for path in self.files() if path.suffix == ".tmp"] == []

    def assert_accounted(self) -> None:
        """The history, the store and the counters tell of the same ticks, each once."""
        stored = [row["tick_id"] for row in self.table("ticks")]
        history = (self.state / "history.jsonl").read_text().splitlines()
        assert [json.loads(line)["tick_id"] for line in history] == stored
        counted = {row["labels"]: row["value"] for row in self.table("counters") if row["name"].endswith("_ticks_total")}
        for decision in ("noop", "phase", "dream_cycle", "reflection"):
            number = sum(row["decision"] == decision for row in self.table("ticks"))
            assert counted.get(f'decision="{decision}"', 0) == number
        assert json.loads((self.state / "latest.json").read_text())["tick_id"] == stored[-1]

    def assert_always(self) -> None:
        """All of that, and nothing runs any more."""
        self.assert_whole()
        self.assert_no_litter()
        self.assert_accounted()
        self.assert_private()
        self.assert_baseline()
        assert self.processes() == []

    def story(self) -> dict[str, object]:
        """Tell what the state has come to, less times, ids, and the ticks it took."""
        mask = self._mask()
        cycles = self.table("cycles", without=("token", "queued_at", "started_at", "ended_at", "runner"))
        for cycle in cycles:
            for event in ("settled_at", "pruned_at"):
                cycle[event] = cycle[event] is not None
            origin = json.loads(cycle["origin"])
            cycle["origin"] = {**origin, "tick_id": "", "intent": mask(origin["intent"])}
        return {
            "cycles": cycles,
            "promotions": self.table("promotions", without=("first_seen_at", "changed_at")),
            "phase_dates": self.table("phase_dates", without=("evidence", "recorded_at")),
            "intents": [mask(row) for row in self.table("intents", without=("seen_at", "decided_at"))],
            "observed": self.table("observer_events", without=("at", "evidence", "intent")),
            "sighted": self.table("sightings", without=("at",)),
            "counters": [row for row in self.table("counters") if row["name"] in _ONCE],
            "facts": [
                row for row in self.table("facts") if row["name"] not in ("litter.clean", "expiry.next", "observer.due")
            ],
            "acks": self._read("promotions_ack/*"),
            "baseline": self._read("baseline/*.json"),
            "escrow": self.table("escrow", without=("created_at", "expires_at", "reviewed_at")),
            "escrow files": self._read("escrow/*.json"),
            "versions": self.table("baseline_versions", without=_TIMES),
            "verdicts": self.table("baseline_verdicts", without=("decided_at",)),
            "results": self.table("phase_results", without=("ended_at",)),
            "version files": sorted(str(path.relative_to(self.state)) for path in self.state.glob("baseline/**/*.yaml")),
            "manifests": {name: value["state"] for name, value in self._read("cycles/*/manifest.json").items()},
            "filed": sorted(mask(str(path.relative_to(self.state))) for path in self.state.glob("intents/**/*.json")),
            "notes": {name: [mask(line) for line in self._lines(name)] for name in ("suggestions.jsonl", "alerts.jsonl")},
            "kicks": sorted(path.name for path in self.state.glob("kick/*")),
            "locks": sorted(os.listdir(self.state / "locks")),
            "left": sorted(mask(str(path.relative_to(self.home))) for path in self.files() if _is_plain(path.name)),
        }

    def _mask(self) -> Callable[[Any], Any]:
        """Return what puts the rule in place of an observer's intent, whose name, text and hash are of its time."""
        ours = {row["intent"]: row["rule"] for row in self.table("observer_events")}

        def mask(found: Any) -> Any:
            if isinstance(found, str):
                path, _, name = found.rpartition("/")
                return f"{path}/{ours[name]}" if name in ours else found
            name = found.get("name", found.get("intent"))
            return {key: found[key] for key in found if key in ("status", "intent_type", "filed")} if name in ours else found

        return mask

    def _read(self, pattern: str) -> dict[str, Any]:
        found = {str(path.relative_to(self.state)): json.loads(path.read_text()) for path in self.state.glob(pattern)}
        return {name: {k: v for k, v in value.items() if k not in _TIMES} for name, value in sorted(found.items())}

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = self.state / name
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [{k: v for k, v in line.items() if k not in _TIMES} for line in lines]


def _is_plain(name: str) -> bool:
    """Leave out what comes and goes with SQLite."""
    return not name.endswith(("-wal", "-shm"))
