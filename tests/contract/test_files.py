"""What `host/files.py` promises: whole or not at all, never over another's file, and no litter."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.errors import Unwritable
from orchestration.host import files, process_identity

REPOSITORY = str(Path(__file__).parents[2])


def _names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def _dead_pid() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def test_replace_puts_the_whole_content_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "latest.json"
    old_mask = os.umask(0o077)
    try:
        files.replace(str(path), b"one", mode=0o644)
        files.replace(str(path), b"two", mode=0o644)
    finally:
        os.umask(old_mask)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert _names(tmp_path) == ["latest.json"]


def test_replace_leaves_the_old_content_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "latest.json").mkdir()
    with pytest.raises(Unwritable, match=r"latest\.json can't be written") as refused:
        files.replace(str(tmp_path / "latest.json"), b"x")
    assert refused.value.hint
    assert _names(tmp_path) == ["latest.json"]


@pytest.mark.parametrize("write", [files.replace, files.create])
def test_a_missing_folder_is_unwritable(tmp_path: Path, write: object) -> None:
    assert callable(write)
    with pytest.raises(Unwritable, match="nowhere"):
        write(str(tmp_path / "nowhere" / "file"), b"x")


def test_a_full_disk_is_unwritable_and_says_what_to_do() -> None:
    with pytest.raises(Unwritable, match="No space left on device") as refused:
        files.append_line("/dev/full", "x")
    assert "df -h" in refused.value.hint


def test_create_has_one_winner(tmp_path: Path) -> None:
    path = str(tmp_path / "a_ack.json")
    assert files.create(path, b"first")
    assert not files.create(path, b"second")
    assert Path(path).read_bytes() == b"first"
    assert _names(tmp_path) == ["a_ack.json"]


def test_create_never_follows_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    assert not files.create(str(tmp_path / "a"), b"x")
    assert _names(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["n" * 255, "ä" * 127, "\udcff.json"])
def test_any_name_the_file_system_takes(tmp_path: Path, name: str) -> None:
    assert files.create(str(tmp_path / name), b"x")
    files.replace(str(tmp_path / name), b"y")
    assert _names(tmp_path) == [name]


def test_lines_are_appended_and_a_torn_one_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    files.append_line(str(path), '{"n": 1}')
    with path.open("a") as torn:
        torn.write('{"n": ')
    files.append_line(str(path), '{"n": 3}')
    assert path.read_text().splitlines() == ['{"n": 1}', '{"n": ', '{"n": 3}']


def test_a_move_never_replaces(tmp_path: Path) -> None:
    target = tmp_path / "processed" / "stale"
    moved = []
    for content in ("1", "2", "3"):
        (tmp_path / "intent.json").write_text(content)
        moved.append(files.move_no_replace(str(tmp_path / "intent.json"), str(target), "intent.json"))
    assert [Path(path).name for path in moved] == ["intent.json", "intent.json.1", "intent.json.2"]
    assert [Path(path).read_text() for path in moved] == ["1", "2", "3"]
    assert _names(tmp_path) == ["processed"]


def test_a_move_of_what_is_gone_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.move_no_replace(str(tmp_path / "gone"), str(tmp_path / "processed"), "gone")


def test_a_link_is_moved_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to("/etc/hostname")
    moved = files.move_no_replace(str(tmp_path / "link.json"), str(tmp_path / "processed"), "link.json")
    assert os.readlink(moved) == "/etc/hostname"


def test_only_dead_processes_leave_litter(tmp_path: Path) -> None:
    own = process_identity.current()
    mine = f".a.json.{own.pid}.{own.start_time}.tmp"
    reused = f".a.json.{own.pid}.{own.start_time - 1}.tmp"
    dead = f".a.b.json.{_dead_pid()}.5.tmp"
    others = ["a.json", ".hidden", ".a.tmp", ".a.x.y.tmp", ".a.²³.1.tmp", "a.1.2.tmp", ".a.1.2.tmp.bak"]
    for name in (mine, reused, dead, *others):
        (tmp_path / name).touch()
    assert [name for name in _names(tmp_path) if files.is_stale_temp(name)] == sorted([reused, dead])
    assert files.sweep(str(tmp_path), os.listdir(tmp_path)) == 2
    assert _names(tmp_path) == sorted([mine, *others])


def test_killed_while_writing_nothing_half_written_is_ever_seen(tmp_path: Path) -> None:
    """A writer that replaces without end is killed; the file is whole, and what it left can be swept."""
    path = tmp_path / "latest.json"
    code = (
        "import sys; from orchestration.host import files\n"
        "n = 0\n"
        "while True:\n"
        "  files.replace(sys.argv[1], str(n % 10).encode() * 300_000); n += 1"
    )
    for _ in range(10):
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)], env={"PYTHONPATH": REPOSITORY})
        before = path.stat().st_mtime_ns if path.exists() else 0
        while not path.exists() or path.stat().st_mtime_ns == before:
            assert writer.poll() is None
            content = path.read_bytes() if path.exists() else b""
            assert content in (b"", content[:1] * 300_000)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        content = path.read_bytes()
        assert content == content[:1] * 300_000
        files.sweep(str(tmp_path), os.listdir(tmp_path))
        assert _names(tmp_path) == ["latest.json"]


@pytest.mark.parametrize("number", [errno.EBUSY, errno.ESTALE, errno.ENOTCONN])
def test_a_mount_in_the_way_is_a_refusal_and_no_defect(number: int) -> None:
    """EBUSY: a container mounts the textfile itself, and a mounted file can't be renamed over."""
    error = OSError(number, os.strerror(number))
    assert isinstance(files.unwritable("/ne/kloros.prom", error), Unwritable)
