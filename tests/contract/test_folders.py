"""Folders that others have filled: removed whatever is in them, in parts when asked, and nothing beside them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestration.host import folders


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    folder = tmp_path / "filled"
    for name in ("a/b/c", "a/b2", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "file").touch()
    (folder / "b" / "out").symlink_to(tmp_path)
    (folder / "link").symlink_to(tmp_path / "kept")
    os.mkfifo(folder / "pipe")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (folder / "a" / "b").chmod(0)
    return folder


def test_all_of_it_goes_and_nothing_beside_it(filled: Path, tmp_path: Path) -> None:
    folders.remove(str(filled))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "kept"]
    assert folders.remove(str(filled)) == 0


def test_in_parts(filled: Path) -> None:
    steps = []
    while filled.exists():
        steps.append(folders.remove(str(filled), at_most=2))
        assert len(steps) < 20
    assert len(steps) > 3
    assert max(steps) <= 3


def test_deeper_than_a_path_may_be_long(tmp_path: Path) -> None:
    top = tmp_path / "deep"
    top.mkdir()
    at = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("dd", dir_fd=at)
        below = os.open("dd", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    folders.remove(str(top))
    assert not top.exists()


def test_a_tree_in_order_with_what_can_not_be_looked_at(filled: Path) -> None:
    refused: list[str] = []
    names = ["/".join(names) for names, _, _ in folders.tree(str(filled), lambda path, _: refused.append(path))]
    assert names[:3] == ["", "a", "a/b"]
    assert names[-2:] == ["link", "pipe"]
    assert "b/out/kept" not in names
    assert folders.remove(str(filled)) > 0
    assert [*folders.tree(str(filled), lambda path, _: refused.append(path))] == []
    assert refused[-1] == str(filled)
