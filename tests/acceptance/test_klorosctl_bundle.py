"""`klorosctl bundle` as an operator types it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from orchestration.exits import Exit
from tests.acceptance.host import Host, script

LEAVES = ("echo hello", "echo weights > artifacts/model.txt", "ln -s model.txt artifacts/latest")


@pytest.fixture
def ran(host: Host, tmp_path: Path) -> Host:
    """A host with one cycle that has succeeded."""
    host.set(KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", LEAVES))
    host.promote("a")
    assert host.tick("--wait").returncode == 0
    return host


def test_made_verified_and_unpacked(ran: Host, tmp_path: Path) -> None:
    made = json.loads(ran.run("klorosctl", "bundle", "make", "1", "--json").stdout)
    assert made["path"].startswith(str(ran.state / "out" / "cycle_00001.tar."))
    assert made["left_out"] == []
    verified = json.loads(ran.run("klorosctl", "bundle", "verify", "1", "--json").stdout)
    assert (verified["folder"], verified["sha256"], verified["listed"]) == ("cycle_00001", made["sha256"], 3)
    said = ran.run("klorosctl", "bundle", "extract", made["path"], "--to", str(tmp_path / "to"))
    assert said.stdout.splitlines() == [str(tmp_path / "to" / "cycle_00001")]
    there = tmp_path / "to" / "cycle_00001"
    assert (there / "artifacts" / "latest").read_text() == "weights\n"
    assert (there / "manifest.json").read_bytes() == (ran.state / "cycles/cycle_00001/manifest.json").read_bytes()
    again = json.loads(ran.run("klorosctl", "bundle", "make", "1", "--json").stdout)
    assert again["sha256"] == made["sha256"]


def test_what_is_broken_is_told_plainly(ran: Host) -> None:
    path = Path(json.loads(ran.run("klorosctl", "bundle", "make", "cycle_00001", "--json").stdout)["path"])
    path.write_bytes(path.read_bytes()[:-1])
    for action in ("verify", "extract"):
        said = ran.run("klorosctl", "bundle", action, str(path))
        assert said.returncode == Exit.FAILED
        assert "is not what its checksum says" in said.stderr
        assert "fetch it again" in said.stderr
    refused = ran.run("klorosctl", "bundle", "verify", str(path), "--max-bytes", "0")
    assert refused.returncode == Exit.USAGE


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("make", "9"), "there is no cycle '9'"),
        (("verify", "1"), "klorosctl bundle make 1"),
        (("extract", "x.tar.gz"), "can't be read"),
    ],
)
def test_what_is_not_there(ran: Host, arguments: tuple[str, ...], told: str) -> None:
    said = ran.run("klorosctl", "bundle", *arguments)
    assert said.returncode in (Exit.USAGE, Exit.FAILED)
    assert told in said.stderr


def test_a_cycle_that_runs_has_no_bundle_yet(host: Host, tmp_path: Path) -> None:
    host.set(KLR_DREAM_COMMAND=script(tmp_path, "dream.sh", LEAVES), KLR_LAUNCHER="systemd")
    (host.state / "kick").mkdir(parents=True)
    host.promote("a")
    assert host.decided()["cycle"] == 1
    said = host.run("klorosctl", "bundle", "make", "1")
    assert said.returncode == Exit.USAGE
    assert "cycle 1 is queued" in said.stderr
    assert not (host.state / "out").exists()


def test_a_bar_for_what_is_large_and_only_on_a_terminal(ran: Host) -> None:
    with (ran.state / "cycles" / "cycle_00001" / "artifacts" / "large").open("wb") as large:
        large.truncate(101_000_000)
    ours, theirs = pty.openpty()
    command = ran.command("klorosctl", "bundle", "make", "1")
    with subprocess.Popen(command, env=ran.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs) as made:
        os.close(theirs)
        assert b"100%" in _all_of(ours)
        assert made.stdout is not None
        assert b"%" not in made.stdout.read()
    assert made.returncode == 0
    piped = ran.run("klorosctl", "bundle", "make", "1")
    assert "100%" not in piped.stdout + piped.stderr


def _all_of(terminal: int) -> bytes:
    """Read until nobody has the other end any more, which a terminal tells by EIO."""
    read = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(terminal, 65536):
            read += chunk
    os.close(terminal)
    return read
