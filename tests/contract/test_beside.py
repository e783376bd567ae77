"""Since when a unit beside ours runs, read from a tree as systemd makes it; tests/system/test_notices.py has a real one."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from orchestration.host.beside import running_since

STARTED = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


def since(mount: Path, own: str = "/system.slice/kloros-notice.service") -> datetime | None:
    return running_since("kloros-pulse.service", own=own, mount=str(mount))


def test_a_group_with_a_process_is_as_old_as_the_start_of_its_unit(tmp_path: Path) -> None:
    assert since(tmp_path) is None
    folder = tmp_path / "system.slice" / "kloros-pulse.service"
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").write_text("233\n")
    os.utime(folder, (STARTED.timestamp(), STARTED.timestamp()))
    assert since(tmp_path) == STARTED
    assert since(tmp_path, own="/user.slice/kloros-notice.service") is None, "it is beside another"
    assert since(tmp_path, own="") is None
    (folder / "cgroup.procs").write_text("")
    assert since(tmp_path) is None


def test_where_systemd_does_not_run_us_nothing_is_known() -> None:
    assert running_since("kloros-no-such.service") is None
