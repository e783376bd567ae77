"""The public question, asked as another program of the host asks it; and what a quiet tick must not import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import orchestration.promotions
from orchestration.promotions import ledger, scan_unacked_promotions
from orchestration.store.sqlite import SqliteDatabase


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("KLR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KLR_STATE_DIR", str(tmp_path))
    return tmp_path


def test_it_returns_paths_and_makes_nothing(state: Path) -> None:
    assert scan_unacked_promotions() == []
    assert list(state.iterdir()) == []


def test_it_knows_every_form_of_ack_and_counts_parked_ones(state: Path) -> None:
    for name in ("acked.json", "old.json", "parked.json", "waiting.json"):
        (state / "promotions").mkdir(exist_ok=True)
        (state / "promotions" / name).write_text("{}")
    (state / "promotions_ack").mkdir()
    (state / "promotions_ack" / "acked_ack.json").write_text("{}")
    (state / "promotions_ack" / "20251021.json").write_text(json.dumps({"promotion_id": "old"}))
    expected = [state / "promotions" / "parked.json", state / "promotions" / "waiting.json"]
    assert scan_unacked_promotions() == expected

    db = SqliteDatabase(str(state / "kloros.db"))
    now = datetime(2026, 11, 21, tzinfo=UTC)
    ledger.see(db, "parked", promotion_id="parked", fitness=1, at=now)
    ledger.fail(db, ["parked"], cycle=1, reason="", park_after=1, at=now)
    db.close()

    assert scan_unacked_promotions() == expected


def test_it_follows_the_host_s_settings(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (state / "elsewhere").mkdir()
    (state / "elsewhere" / "p.json").write_text("{}")
    monkeypatch.setenv("KLR_PROMOTIONS_DIR", str(state / "elsewhere"))

    assert scan_unacked_promotions() == [state / "elsewhere" / "p.json"]


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'scan'"):
        orchestration.promotions.__getattr__("scan")


def test_what_a_quiet_tick_imports_is_light() -> None:
    program = (
        "import sys; before = set(sys.modules)\n"
        "from orchestration.promotions import ledger, scan, state\n"
        "heavy = {'pathlib', 'dataclasses', 'pydantic', 'logging', 'subprocess', 'tempfile', 'statistics', 'fractions'}\n"
        "print(sorted(heavy & (set(sys.modules) - before)))\n"
    )
    imported = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)

    assert imported.stdout == "[]\n"
