"""An older orchestrator's home as it lay on a host: `.kloros`, `artifacts`, `system/baseline`, built by the test."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml


class Older:
    """Writes what the older orchestrator wrote, in its own forms."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.kloros = home / ".kloros"
        self.artifacts = home / "artifacts"
        self.baseline = home / "system" / "baseline"
        for folder in ("processed", "intents", "signals", "locks"):
            (self.kloros / folder).mkdir(parents=True)
        for folder in ("promotions", "promotions_ack"):
            (self.artifacts / "dream" / folder).mkdir(parents=True)
        self._sha = ""

    @property
    def arguments(self) -> tuple[str, ...]:
        """Return what `klorosctl migrate-legacy` is given."""
        return ("migrate-legacy", "--from", str(self.kloros), "--artifacts", str(self.artifacts))

    def epoch(self, day: str, **fields: object) -> None:
        """Add a line to the ledger of PHASEs."""
        self.epoch_line(json.dumps({"epoch_id": f"phase_{day}", "date": day, **fields}))

    def epoch_line(self, line: str) -> None:
        """Add any line."""
        with (self.kloros / "processed" / "epochs.jsonl").open("a") as file:
            file.write(f"{line}\n")

    def ack(self, name: str, content: object) -> Path:
        """Leave an ack of any form under a name."""
        path = self.artifacts / "dream" / "promotions_ack" / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def answered(self, stem: str, *, accepted: bool = True) -> Path:
        """Leave an ack of the newest of the older forms."""
        ack = {"promotion_id": stem, "accepted": accepted, "phase_epoch": "p", "phase_sha": "", "ts": 1, "schema": "v1"}
        return self.ack(f"{stem}_ack.json", ack)

    def signal(self, epoch: str, **fields: object) -> Path:
        """Leave the signal of a PHASE, whose report is long gone."""
        path = self.kloros / "signals" / f"klr_phase_complete_{epoch}.json"
        content = {"epoch_id": epoch, "ts": 1, "report": "/gone", "sha256": "0" * 64, **fields}
        path.write_text(json.dumps(content))
        return path

    def intent(self, kind: str, *, age: timedelta = timedelta(), **fields: object) -> Path:
        """Leave an intent without a checksum, as curiosity did."""
        at = (datetime.now(UTC) - age).timestamp()
        path = self.kloros / "intents" / f"{int(at * 1000)}_{kind}_{len(self.names()):08x}.json"
        content = {"intent_type": kind, "priority": 5, "reason": kind, "data": {}, "generated_at": at, **fields}
        path.write_text(json.dumps(content))
        return path

    def names(self) -> list[str]:
        """Name the intents that wait."""
        return sorted(path.name for path in (self.kloros / "intents").glob("*.json"))

    def version(self, number: int, parameters: dict[str, Any], *, archived: bool = True) -> None:
        """Commit a baseline as the older manager did."""
        text = yaml.safe_dump(parameters, default_flow_style=False, sort_keys=False).encode()
        sha = hashlib.sha256(text).hexdigest()
        manifest = {
            "version": number,
            "sha256": sha,
            "previous_sha": self._sha,
            "ts": 1_760_000_000.0 + number,
            "actor": "kloros-orchestrator",
            "promotion_ids": [f"promo_{number}"],
        }
        self._sha = sha
        (self.baseline / "versions").mkdir(parents=True, exist_ok=True)
        pairs = [("baseline.yaml", "manifest.json")]
        pairs += [(f"versions/baseline_v{number:04d}.yaml", f"versions/manifest_v{number:04d}.json")] if archived else []
        for config, told in pairs:
            (self.baseline / config).write_bytes(text)
            (self.baseline / told).write_text(json.dumps(manifest, indent=2))

    def snapshot(self) -> dict[str, tuple[bytes, int, int]]:
        """Return content, change time and mode of everything in it."""
        roots = (self.kloros, self.artifacts, self.home / "system")
        paths = sorted(path for root in roots for path in [root, *root.rglob("*")] if os.path.lexists(path))
        return {
            str(path.relative_to(self.home)): (
                path.read_bytes() if path.is_file() else b"",
                path.lstat().st_mtime_ns,
                path.lstat().st_mode,
            )
            for path in paths
        }


def lived_in(home: Path, today: str) -> Older:
    """Build a home in which everything occurs: what is fine, what is stale, what is broken."""
    older = Older(home)
    older.epoch("2025-10-27", ts=1761552000.5)
    older.epoch("2025-10-28")
    older.epoch("2025-10-28")
    older.epoch_line('{"epoch_id": "torn", "da')
    older.epoch_line('{"epoch_id": "phase_cycle_20251029_113000"}')  # of that date in every zone that a guest may have
    older.epoch(today)
    older.answered("promo_a")
    older.answered("promo_b", accepted=False)
    older.ack("spica:42.ack.json".replace(":", "_"), {"promotion_id": "spica:42", "accepted": True})
    older.ack("20251028_081500.json", {"promotion_id": "dated", "verdict": "rejected"})
    older.ack("promo_torn_ack.json", '{"promotion_id": "promo_')
    older.ack("readme.json", {"note": "nothing"})
    older.signal("phase_cycle_20251028_070000")
    older.signal("no_report", sha256="no_report")
    older.signal("wrong", epoch_id="another")
    older.intent("suggest_fix")
    older.intent("trigger_dream", age=timedelta(days=3))
    (older.kloros / "intents" / "broken.json").write_text("{")
    for number in range(4, 8):
        older.version(number, {"learning_rate": number / 100, "model": "small", "batch_size": number})
    return older
