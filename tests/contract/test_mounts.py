"""On which kind of file system a path lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.host import mounts

MOUNTS = r"""21 1 0:20 / / rw - ext4 /dev/sda1 rw
22 21 0:21 / /srv rw - nfs4 server:/srv rw
23 22 0:22 / /srv/local rw shared:1 - xfs /dev/sdb rw
24 21 0:23 / /with\040space rw - nfs4 server:/s rw
25 21 0:24 / /twice rw - tmpfs none rw
26 25 0:25 / /twice rw - cephfs none rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/srvs/cycles", "ext4"),
        ("/srv", "nfs4"),
        ("/srv/kloros/cycles", "nfs4"),
        ("/srv/local/x", "xfs"),
        ("/with space/x", "nfs4"),
        ("/twice/x", "cephfs"),
    ],
)
def test_the_nearest_mount_above_counts(tmp_path: Path, path: str, kind: str) -> None:
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTS)
    assert mounts.kind_of(path, mountinfo=str(file)) == kind


def test_this_host_tells_its_own() -> None:
    assert mounts.kind_of("/proc") == "proc"
    assert mounts.kind_of("/", mountinfo="/nowhere") == ""


def test_only_what_is_surely_one_hosts_own_is_called_so() -> None:
    assert mounts.is_local("ext4")
    assert not mounts.is_local("nfs4")
    assert not mounts.is_local("")
