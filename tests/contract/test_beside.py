"""Since when a unit beside ours runs, read from a tree as systemd makes it."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestration.host.beside import running_since

OWN = "/system.slice/kloros-notice.service"


def group(mount: Path, *pids: int) -> None:
    folder = mount / "system.slice" / "kloros-pulse.service"
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))


def since(mount: Path, own: str = OWN) -> datetime | None:
    return running_since("kloros-pulse.service", own=own, mount=str(mount))


def test_its_oldest_process_counts(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as young:
        group(tmp_path, young.pid, os.getpid())
        both = since(tmp_path)
        (tmp_path / "system.slice" / "kloros-pulse.service" / "cgroup.procs").write_text(f"{young.pid}\n")
        alone = since(tmp_path)
        young.kill()
    assert both is not None
    assert alone is not None
    assert both < alone <= datetime.now(UTC)
    assert datetime.now(UTC) - alone < timedelta(minutes=1)


def test_nothing_is_known_of_a_unit_that_is_not_there_or_has_no_living_process(tmp_path: Path) -> None:
    assert since(tmp_path) is None
    gone = subprocess.Popen(["true"])
    gone.wait()
    group(tmp_path, gone.pid)
    assert since(tmp_path) is None
    assert since(tmp_path, own="") is None


def test_where_systemd_does_not_run_us_nothing_is_known() -> None:
    assert running_since("kloros-no-such.service") is None
