"""Lines come back in order across a rotation, by the real logrotate where there is one."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from orchestration.host.rotated import newest_lines


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Six lines as two rotations leave them."""
    (tmp_path / "log.2.gz").write_bytes(gzip.compress(b"1\n2\n"))
    (tmp_path / "log.1").write_text("3\n4\n")
    (tmp_path / "log").write_text("5\n6\n")
    return str(tmp_path / "log")


@pytest.mark.parametrize(("limit", "lines"), [(1, "6"), (2, "56"), (3, "456"), (5, "23456"), (6, "123456"), (100, "123456")])
def test_the_newest_lines_come_oldest_first(path: str, limit: int, lines: str) -> None:
    assert [line.strip() for line in newest_lines(path, limit)] == list(lines)


def test_between_a_rotation_and_the_next_line_the_file_is_absent(path: str) -> None:
    Path(path).unlink()
    assert [line.strip() for line in newest_lines(path, 3)] == list("234")


def test_without_any_file_there_are_no_lines(tmp_path: Path) -> None:
    assert newest_lines(str(tmp_path / "log"), 5) == []


def test_a_file_that_was_renamed_meanwhile_counts_once(path: str) -> None:
    Path(f"{path}.1").unlink()
    Path(f"{path}.1").hardlink_to(path)
    assert [line.strip() for line in newest_lines(path, 100)] == list("1256")
