"""Telemetry in real files: what is a number, what is damaged, and that nothing a command writes costs more than a bound."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.cycles import telemetry
from orchestration.cycles.telemetry import Figures, Telemetry, parse, read, readings


def left(folder: Path, *lines: bytes | str | Mapping[str, object], name: str = "telemetry.jsonl") -> Telemetry:
    """Write lines as a command would, and read them."""
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    written = (
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode() for line in lines
    )
    (logs / name).write_bytes(b"".join(line + b"\n" for line in written))
    return read(str(folder))


def lasts(found: Telemetry) -> dict[str, float]:
    return {name: figures.last for name, figures in found.series.items()}


def test_a_series_has_its_last_value_and_its_figures(tmp_path: Path) -> None:
    found = left(tmp_path, {"joy": 1}, {"rage": 0.5}, {"joy": 3.0, "rage": None}, {"joy": 2})
    assert found.series == {"joy": Figures(2.0, 3, 1.0, 3.0, 6.0), "rage": Figures(0.5, 1, 0.5, 0.5, 0.5)}
    assert found.series["joy"].mean == 2.0
    assert found.damaged == 0


def test_nested_keys_are_dotted(tmp_path: Path) -> None:
    assert lasts(left(tmp_path, {"mood": {"joy": 1, "deep": {"er": 2}}, "n": 3})) == {
        "mood.joy": 1,
        "mood.deep.er": 2,
        "n": 3,
    }


@pytest.mark.parametrize(
    "value", ["true", "false", "NaN", "Infinity", "-Infinity", "1e999", "9" * 400, '"1"', "[1]", "null"]
)
def test_what_is_no_finite_number_is_no_value(tmp_path: Path, value: str) -> None:
    found = left(tmp_path, '{"joy": 0.5, "other": 1}', f'{{"joy": {value}}}')
    assert lasts(found) == {"joy": 0.5, "other": 1}


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b'{"joy": 1',
        b"\xff\xfe",
        b'{"joy": 1}}',
        b"[" * 100_000,
        b'{"joy":' * 50_000,
        b'{"joy": ' + b"1" * 5000 + b"}",
        b"\x00",
    ],
    ids=["open", "torn", "no-utf-8", "too-much", "deep-list", "deep-object", "digits", "nul"],
)
def test_a_damaged_line_is_skipped_and_counted(tmp_path: Path, line: bytes) -> None:
    found = left(tmp_path, {"joy": 1}, line, {"joy": 2})
    assert (lasts(found), found.damaged) == ({"joy": 2}, 1)


def test_a_line_that_is_no_object_is_whole_and_has_no_series(tmp_path: Path) -> None:
    found = left(tmp_path, "1", "[1, 2]", '"text"', "", "   ", {"joy": 1})
    assert (lasts(found), found.damaged) == ({"joy": 1}, 0)


def test_a_last_line_without_its_newline_counts_when_it_is_whole(tmp_path: Path) -> None:
    left(tmp_path)
    file = tmp_path / "logs" / "telemetry.jsonl"
    file.write_bytes(b'{"joy": 1}\n{"joy": 2}')
    assert lasts(read(str(tmp_path))) == {"joy": 2}
    file.write_bytes(b'{"joy": 1}\n{"joy": 2')
    assert (lasts(read(str(tmp_path))), read(str(tmp_path)).damaged) == ({"joy": 1}, 1)


def test_a_line_of_ten_megabytes_is_damaged_and_not_held_in_memory(tmp_path: Path) -> None:
    left(tmp_path, {"joy": 1}, b'{"x": "' + b"y" * 10_000_000 + b'"}', {"joy": 2})
    tracemalloc.start()
    found = read(str(tmp_path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (lasts(found), found.damaged) == ({"joy": 2}, 1)
    assert peak < 4 * telemetry.LONGEST_LINE


def test_of_a_long_file_the_end_is_read(tmp_path: Path) -> None:
    left(tmp_path, *({"joy": n} for n in range(1000)))
    found = list(readings(str(tmp_path), budget=100))
    assert found[-1].values == {"joy": 999.0}
    assert 5 <= len(found) <= 10
    assert all(one.values is not None for one in found), "the line that was cut is not taken for a damaged one"


def test_of_many_series_only_so_many_are_kept(tmp_path: Path) -> None:
    found = left(tmp_path, {f"s{n}": n for n in range(500)}, {"s0": 7, "late": 1})
    assert len(found.series) == telemetry.MOST_SERIES
    assert lasts(found)["s0"] == 7


def test_names_can_always_be_shown_and_stored(tmp_path: Path) -> None:
    found = left(tmp_path, '{"a\\u001b[2J": 1, "\\ud800": 2, "": 3}', {"x" * 101: 4})
    assert lasts(found) == {"a\\x1b[2J": 1, "\\ud800": 2}
    json.dumps(found.series).encode("ascii")


@pytest.mark.parametrize(
    ("clock", "at"),
    [
        ({"timestamp": "2026-11-21T08:00:00Z"}, datetime(2026, 11, 21, 8, tzinfo=UTC)),
        ({"ts": "2026-11-21T03:00:00-05:00"}, datetime(2026, 11, 21, 8, tzinfo=UTC)),
        ({"time": 1795248000}, datetime(2026, 11, 21, 8, tzinfo=UTC)),
        ({"time": 1795248000000}, datetime(2026, 11, 21, 8, tzinfo=UTC)),
    ],
)
def test_the_clock_of_a_line_is_no_series(clock: dict[str, object], at: datetime) -> None:
    assert parse(json.dumps({**clock, "joy": 1}).encode()) == (at, {"joy": 1.0})


def test_a_time_that_is_a_measurement_is_a_series() -> None:
    assert parse(b'{"time": 3.5}') == (None, {"time": 3.5})


def test_only_plain_files_of_that_ending_in_logs_are_read(tmp_path: Path) -> None:
    outside = tmp_path / "outside.jsonl"
    outside.write_text('{"secret": 1}\n')
    left(tmp_path, {"joy": 1})
    logs = tmp_path / "logs"
    (logs / "link.jsonl").symlink_to(outside)
    (logs / "folder.jsonl").mkdir()
    os.mkfifo(logs / "pipe.jsonl")
    (logs / "output.log").write_text('{"rage": 1}\n')
    (logs / "unreadable.jsonl").write_text('{"rage": 1}\n')
    (logs / "unreadable.jsonl").chmod(0 if os.geteuid() else 0o600)
    assert "secret" not in read(str(tmp_path)).series
    assert lasts(read(str(tmp_path)))["joy"] == 1


def test_without_a_folder_there_is_nothing(tmp_path: Path) -> None:
    assert read(str(tmp_path / "absent")) == telemetry.NOTHING


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    left(tmp_path, {"joy": 1}, name="b.jsonl")
    assert lasts(left(tmp_path, {"joy": 2}, {"joy": 3}, name="a.jsonl")) == {"joy": 1}


@given(st.binary(max_size=200))
def test_no_line_breaks_it(line: bytes) -> None:
    parsed = parse(line)
    assert parsed is None or all(name.isprintable() for name in parsed[1])


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_figures_survive_the_store(values: list[float]) -> None:
    figures: Figures | None = None
    for value in values:
        figures = telemetry.add(figures, value)
    assert figures is not None
    kept = Telemetry({"x": figures}, 2)
    assert telemetry.from_text_or_none(telemetry.to_text(kept)) == kept
    assert "Infinity" not in telemetry.to_text(kept)
    assert (figures.last, figures.low, figures.high, figures.number) == (values[-1], min(values), max(values), len(values))
