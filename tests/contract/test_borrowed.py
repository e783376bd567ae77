"""Root being somebody else for a moment: what that one may not read is not read, and afterwards root is root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestration.host.borrowed import as_owner_of, groups_of

SOMEBODY = 54321


def who() -> tuple[int, int, list[int]]:
    return os.geteuid(), os.getegid(), sorted(os.getgroups())


def test_the_owner_of_the_folder_is_who_reads(tmp_path: Path) -> None:
    before, folder = who(), tmp_path / "theirs"
    folder.mkdir(mode=0o755)
    is_root = os.geteuid() == 0
    if is_root:  # others can't give a folder away, and nothing is to change for them
        os.chown(folder, SOMEBODY, SOMEBODY)
    with as_owner_of(str(folder)):
        assert who() == ((SOMEBODY, SOMEBODY, [SOMEBODY]) if is_root else before)
    assert who() == before


def test_root_is_root_again_after_a_failure(tmp_path: Path) -> None:
    before, folder = who(), tmp_path / "theirs"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, SOMEBODY, SOMEBODY)
    with pytest.raises(ValueError, match="within"), as_owner_of(str(folder)):
        raise ValueError("within")
    assert who() == before


def test_a_folder_that_is_not_there_changes_nobody(tmp_path: Path) -> None:
    before = who()
    with as_owner_of(str(tmp_path / "absent")):
        assert who() == before


def test_a_user_without_a_name_has_the_folder_s_group_alone() -> None:
    assert groups_of(SOMEBODY, 7) == [7]
