"""Every shell script of the repository, before shellcheck."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def scripts() -> list[Path]:
    """Tracked and new files whose first line is a shell's."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    files = [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    shells = (b"#!/usr/bin/env bash", b"#!/bin/sh", b"#!/bin/bash")
    return [path for path in files if path.read_bytes().startswith(shells)]


def test_there_are_scripts() -> None:
    assert {"install.sh", "run"} <= {path.name for path in scripts()}


@pytest.mark.parametrize("script", scripts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck_finds_nothing(script: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (Debian package shellcheck)")
    ended = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("script", scripts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_stop_at_the_first_fault(script: Path) -> None:
    assert "set -euo pipefail" in script.read_text() or script.read_text().startswith("#!/bin/sh")
