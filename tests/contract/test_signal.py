"""The completion signal: written, read back, and refused when it does not vouch for its report."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from orchestration.errors import Malformed
from orchestration.phase import signal

EPOCH = "phase_cycle_20260708_070000"
AT = datetime(2026, 7, 8, 7, 30, 5, 900_000, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "signals").mkdir()
    return tmp_path / "signals"


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    path.write_bytes(b'{"result": "succeeded"}\n')
    return path


def leave(folder: Path, report: Path, *, name: str = EPOCH, changed: Mapping[str, object] = MappingProxyType({})) -> Path:
    """Write a signal as a command would, with some of its fields changed; None leaves one out."""
    fields: dict[str, Any] = {
        "epoch_id": name,
        "ts": 1_783_496_000,
        "report": str(report),
        "sha256": hashlib.sha256(report.read_bytes()).hexdigest() if report.is_file() else "no_report",
    }
    fields.update(changed)
    path = folder / f"klr_phase_complete_{name}.json"
    path.write_text(json.dumps({key: value for key, value in fields.items() if value is not None}))
    return path


def settle(folder: Path, report: Path, *, started: datetime = AT) -> signal.Signal:
    return signal.settle_signal(str(folder), EPOCH, report=str(report), started=started, now=AT)


def test_a_written_signal_has_four_fields_and_can_be_read_by_the_group(folder: Path, report: Path) -> None:
    written = signal.write_signal(str(folder), EPOCH, report=str(report), at=AT)
    path = folder / "klr_phase_complete_phase_cycle_20260708_070000.json"
    assert json.loads(path.read_text()) == {
        "epoch_id": EPOCH,
        "ts": int(AT.timestamp()),
        "report": str(report),
        "sha256": hashlib.sha256(report.read_bytes()).hexdigest(),
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert signal.verify_signal(str(folder), EPOCH) == written
    assert os.listdir(folder) == [path.name]


def test_the_runner_writes_the_signal_that_the_command_did_not(folder: Path, report: Path) -> None:
    assert settle(folder, report) == signal.verify_signal(str(folder), EPOCH)


def test_the_command_s_own_signal_is_kept_as_it_is(folder: Path, report: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("{}\n")
    path = leave(folder, other)
    before = path.read_bytes()
    assert settle(folder, report).report == str(other)
    assert path.read_bytes() == before
    assert signal.write_signal(str(folder), EPOCH, report=str(report), at=AT).report == str(other)


def test_a_signal_under_the_command_s_own_epoch_vouches_for_its_report(folder: Path, report: Path) -> None:
    leave(folder, report, name="overnight-20260708")
    long_ago = datetime.now(UTC) - timedelta(minutes=1)
    settled = settle(folder, folder / "no_such_report.json", started=long_ago)
    assert (settled.epoch_id, settled.report) == (EPOCH, str(report))
    assert len(os.listdir(folder)) == 2


def test_an_older_signal_of_another_epoch_says_nothing(folder: Path, report: Path) -> None:
    old = leave(folder, report, name="overnight-20260707", changed={"sha256": "0" * 64})
    os.utime(old, (1, 1))
    assert settle(folder, report).epoch_id == EPOCH


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"sha256": "0" * 64}, "the signal says 0000"),
        ({"sha256": "no_report"}, "no_report"),
        ({"sha256": "XYZ"}, "sha256"),
        ({"sha256": None}, "sha256: Field required"),
        ({"epoch_id": "phase_cycle_20260101_000000"}, "is of epoch phase_cycle_20260101_000000"),
        ({"ts": 1.5}, "ts"),
        ({"ts": True}, "ts"),
        ({"ts": "1783496000"}, "ts"),
        ({"report": "report.json"}, "report"),
        ({"report": "/nowhere/report.json"}, "report /nowhere/report.json is missing"),
        ({"report": "/dev/zero"}, "no regular file"),
        ({"report": "/a\0b"}, "can't be read"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_signal_that_does_not_vouch_fails_and_says_why(
    folder: Path, report: Path, changed: dict[str, object], why: str
) -> None:
    leave(folder, report, changed=changed)
    with pytest.raises(Malformed) as refused:
        settle(folder, report)
    assert why in refused.value.message


def test_a_changed_report_is_noticed(folder: Path, report: Path) -> None:
    settle(folder, report)
    report.write_bytes(report.read_bytes() + b" ")
    with pytest.raises(Malformed, match="the signal says"):
        signal.verify_signal(str(folder), EPOCH)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b" " * 70_000])
def test_content_that_is_no_signal_is_refused(folder: Path, report: Path, content: bytes) -> None:
    leave(folder, report).write_bytes(content)
    with pytest.raises(Malformed):
        settle(folder, report)


def test_a_pipe_in_place_of_a_report_does_not_block(folder: Path, report: Path) -> None:
    report.unlink()
    os.mkfifo(report)
    with pytest.raises(Malformed, match="no regular file"):
        settle(folder, report)


def test_without_a_report_there_is_no_signal(folder: Path, report: Path) -> None:
    report.unlink()
    with pytest.raises(Malformed, match="is missing"):
        settle(folder, report)
    assert os.listdir(folder) == []
    with pytest.raises(Malformed, match="is missing"):
        signal.verify_signal(str(folder), EPOCH)


def test_an_epoch_is_no_path(folder: Path, report: Path) -> None:
    with pytest.raises(Malformed, match="no plain name"):
        signal.write_signal(str(folder), "../../x", report=str(report), at=AT)
