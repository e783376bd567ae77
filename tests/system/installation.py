"""The layer on which `install.sh` has run: the one real, bare installation of a test run.

Owns: what of the repository goes into a guest, and the kept record of how the installation went. The layer is keyed by
all of that content, so a run on unchanged sources takes the layer of an earlier one.

Nothing of the hour goes into a layer, which may be of yesterday: while one is built, nothing ticks. And no guest ticks in
the shipped PHASE window, which is open or shut by the hour of the run: `running` lays settings with one that is shut.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.system import layers
from tests.system.day import Day
from tests.system.guest import Completed, Guest, booted

SOURCE = "/root/kloros"
SETTINGS = "/etc/kloros/orchestrator.toml"
_HOLD = "/etc/systemd/system/kloros-orchestrator.service.d"
_HELD = "[Unit]\nConditionPathExists=/nonexistent\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A bootable stack with the program on it, and what the installation printed and took."""

    stack: layers.Stack
    output: str
    seconds: float


def tracked_files() -> list[Path]:
    """Every file that a fresh clone of this work tree would have, tests and the docs' prose excepted."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=layers.ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    wanted = (
        "orchestration/",
        "systemd/",
        "docs/examples/",
        "docs/man/",
        ".ci/",
        "install.sh",
        "pyproject.toml",
        "README.md",
    )
    return [Path(name) for name in sorted(listed) if name.startswith(wanted) and (layers.ROOT / name).is_file()]


def copy_source(target: Path) -> None:
    """Lay the work tree's files into a guest's folder, as a clone would."""
    for name in tracked_files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(layers.ROOT / name, target / name)


def run_installer(guest: Guest, *options: str, check: bool = True) -> Completed:
    """Run install.sh in a guest that has the source."""
    return guest.sh(f"cd {SOURCE} && ./install.sh {' '.join(options)} 2>&1", timeout=400, check=check)


def installed_layer() -> Installed:
    """Install on a bare bootable guest, once per content of the source."""
    below = layers.bootable()
    content = hashlib.sha256((below.lowerdir + _HELD).encode())
    for name in tracked_files():
        content.update(f"\0{name}\0".encode() + (layers.ROOT / name).read_bytes())
    folder = layers.cache() / f"installed-{content.hexdigest()[:12]}"
    with layers.built_once(folder) as scratch:
        if scratch is not None:
            disk = scratch / "disk"
            disk.mkdir(mode=0o755)
            with _building(below) as guest:
                copy_source(guest.path(SOURCE))
                began = time.monotonic()
                ended = run_installer(guest)
                record = {"output": ended.out, "seconds": time.monotonic() - began}
                _let_go(guest)
                guest.take_disk(disk)
            (scratch / "record.json").write_text(json.dumps(record))
    record = json.loads((folder / "record.json").read_text())
    return Installed(stack=below.under(folder / "disk"), **record)


def with_extra(installed: Installed, extra: str) -> layers.Stack:
    """Install once more over an installation, with an extra, as an operator does later."""
    key = hashlib.sha256(f"{installed.stack.lowerdir}\0{extra}".encode()).hexdigest()[:12]
    folder = layers.cache() / f"{extra}-{key}"
    with layers.built_once(folder) as scratch:
        if scratch is not None:
            disk = scratch / "disk"
            disk.mkdir(mode=0o755)
            with _building(installed.stack) as guest:
                run_installer(guest, "--with", extra)
                _let_go(guest)
                guest.take_disk(disk)
    return installed.stack.under(folder / "disk")


@contextmanager
def running(stack: layers.Stack, name: str) -> Iterator[Guest]:
    """An installation, booted for a test: the settings are the shipped ones, but for a PHASE window that is shut."""
    with booted(stack, name, _shut) as guest:
        yield guest


def shut_shipped(guest: Guest, path: Path) -> None:
    """Give a guest's copy of the shipped settings, which no installation has taken yet, a window that is shut."""
    path.write_text(Day.of(guest.began).shut_in(path.read_text(), guest.began))


def _shut(guest: Guest) -> None:
    shut_shipped(guest, guest.on_disk(SETTINGS))


@contextmanager
def _building(below: layers.Stack) -> Iterator[Guest]:
    """A guest to install in, where nothing ticks."""
    with booted(below, "kloros-install", _hold) as guest:
        yield guest


def _hold(guest: Guest) -> None:
    guest.on_disk(_HOLD).mkdir()
    (guest.on_disk(_HOLD) / "held.conf").write_text(_HELD)


def _let_go(guest: Guest) -> None:
    # systemd, which is not told, holds ticks on until it is off.
    guest.sh(f"rm -r {_HOLD}")
