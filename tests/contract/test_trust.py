"""Folders that are used with root's privileges, and those that are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestration.errors import Usage
from orchestration.host import trust


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "above" / "root"
    made.mkdir(parents=True)
    for each in (made, made.parent):
        each.chmod(0o755)
    return made


def test_what_only_the_user_and_root_can_change_is_taken(folder: Path) -> None:
    trust.check(str(folder))
    trust.check(str(folder / "absent" / "deeper"))
    (folder / ".kloros").mkdir()
    trust.check(str(folder), below=(".kloros", "out"))


def test_open_to_others(folder: Path) -> None:
    folder.chmod(0o757)
    with pytest.raises(Usage, match=r"others may write to .*/root \(mode 0757"):
        trust.check(str(folder))
    folder.chmod(0o1757)
    with pytest.raises(Usage, match="others may write"):
        trust.check(str(folder))
    trust.check(str(folder / "absent"))


def test_below_what_is_open_to_others(folder: Path) -> None:
    folder.parent.chmod(0o777)
    for path in (folder, folder / "absent"):
        with pytest.raises(Usage, match=r"others may write to .*/above \(mode 0777"):
            trust.check(str(path))
    folder.parent.chmod(0o1777)
    trust.check(str(folder))


def test_what_others_may_have_put_into_it(folder: Path, tmp_path: Path) -> None:
    (folder / "out").symlink_to(tmp_path)
    with pytest.raises(Usage, match="out is no folder"):
        trust.check(str(folder), below=(".kloros", "out"))


def test_the_nearest_folder_there_is(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert trust.nearest(str(tmp_path / "link" / "a" / "b")) == os.path.realpath(folder)
    assert trust.nearest("/nosuch/place") == "/"
