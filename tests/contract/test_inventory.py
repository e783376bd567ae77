"""What `cycles/inventory.py` lists of a folder, and what it must not do: follow links, wait, or fail."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from orchestration.cycles import inventory
from orchestration.cycles.inventory import File


def taken(folder: Path, **limits: int) -> dict[str, File]:
    return {file.path: file for file in inventory.take(str(folder), **limits).files}


def test_every_file_with_size_checksum_and_type(tmp_path: Path) -> None:
    (tmp_path / "artifacts" / "deep").mkdir(parents=True)
    (tmp_path / "artifacts" / "deep" / "report.json").write_bytes(b"{}\n")
    (tmp_path / "empty").touch()
    (tmp_path / "manifest.json").write_text("ours, and about to change")
    assert inventory.take(str(tmp_path)) == (
        (
            File("artifacts/deep/report.json", 3, hashlib.sha256(b"{}\n").hexdigest(), "application/json"),
            File("empty", 0, hashlib.sha256(b"").hexdigest(), "application/octet-stream"),
        ),
        0,
    )


def test_a_manifest_of_the_command_is_a_file_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "manifest.json").write_text("{}")
    assert list(taken(tmp_path)) == ["artifacts/manifest.json"]


def test_links_are_listed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of another folder")
    folder = tmp_path / "cycle"
    folder.mkdir()
    (folder / "to_file").symlink_to(tmp_path / "secret")
    (folder / "to_folder").symlink_to(tmp_path)
    (folder / "nowhere").symlink_to("absent")
    assert {(file.path, file.size, file.sha256, file.media_type) for file in taken(folder).values()} == {
        (name, None, None, "inode/symlink") for name in ("to_file", "to_folder", "nowhere")
    }


def test_what_is_no_file_is_named_for_what_it_is_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        found = taken(tmp_path)
    assert {name: file.media_type for name, file in found.items()} == {"pipe": "inode/fifo", "socket": "inode/socket"}


def test_names_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff\n.txt")).write_text("x")
    assert [(file.path, file.media_type) for file in taken(tmp_path).values()] == [("\udcff\n.txt", "text/plain")]


def test_a_flood_of_files_is_counted_beyond_the_limit(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / str(number)).touch()
    found = inventory.take(str(tmp_path), limit=5)
    assert ([file.path for file in found.files], found.omitted) == (["0", "1", "2", "3", "4"], 2)


def test_no_folder(tmp_path: Path) -> None:
    assert inventory.take(str(tmp_path / "absent")) == ((), 0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", "application/x-ndjson"),
        ("output.log", "text/plain"),
        ("a.tar.gz", "application/gzip"),
        ("a.tar.zst", "application/zstd"),
        ("a.csv", "text/csv"),
        ("a.PNG", "image/png"),
        ("Makefile", "application/octet-stream"),
        ("data:x.html", "text/html"),
    ],
)
def test_media_types(name: str, expected: str) -> None:
    assert inventory.media_type(f"artifacts/{name}") == expected
