"""What must hold before an iteration runs its command: conditions of our own, and a command that must end with 0.

Each is asked, also after one has failed: the operator sees everything that is missing at once.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from orchestration.errors import KlorosError, Unwritable
from orchestration.host import process
from orchestration.loop.iteration import Prerequisite

if TYPE_CHECKING:
    from orchestration.settings import Loop

DEFAULT_SCRIPT = "scripts/check_run_cycle_prereqs.py"
_CONNECT_SECONDS = 5.0
_GIT_SECONDS = 30
_TAIL = 500
_OUTPUT_LIMIT = 1 << 20


class Prerequisites:
    """The conditions of one loop."""

    def __init__(
        self, settings: Loop, *, cwd: str, environ: Mapping[str, str], output: str, should_stop: Callable[[], bool]
    ) -> None:
        """Take the settings, the folder and variables of the command, and a file for what commands say."""
        self._settings = settings
        self._cwd = cwd
        self._environ = environ
        self._output = output
        self._should_stop = should_stop

    def command(self) -> tuple[str, ...]:
        """Return the command that is to be asked; empty when there is none."""
        if self._settings.prerequisites:
            return self._settings.prerequisites
        there = os.path.exists(os.path.join(self._cwd, DEFAULT_SCRIPT))
        return (sys.executable, DEFAULT_SCRIPT) if there else ()

    def check(self, extra: Mapping[str, str]) -> tuple[Prerequisite, ...]:
        """Ask every condition. `extra`: what the commands get besides.

        Raises:
            Unwritable: there is no room for what they say.
        """
        found = list(self._built_in(extra))
        if command := self.command():
            found.append(self._run("command", command, extra, self._settings.timeout))
        return tuple(found)

    def _built_in(self, extra: Mapping[str, str]) -> Iterator[Prerequisite]:
        ours = self._settings
        yield from (_module(name) for name in ours.require_modules)
        for name in ours.require_executables:
            path = shutil.which(name, path=self._environ.get("PATH"))
            yield Prerequisite(f"executable {name}", path is not None, path or "not found in PATH")
        for name in ours.require_variables:
            there = bool(extra.get(name) or self._environ.get(name))
            yield Prerequisite(f"variable {name}", there, "set" if there else "not set, or empty")
        if ours.require_free_disk:
            yield _enough("free disk", shutil.disk_usage(self._cwd).free, ours.require_free_disk)
        if ours.require_free_memory:
            yield _enough("free memory", _available_memory(), ours.require_free_memory)
        if ours.require_git_clean:
            status = self._git(("status", "--porcelain"), extra)
            clean = status.passed and not status.detail
            yield Prerequisite("git clean", clean, "no changes" if clean else status.detail)
        if ours.require_git_revision:
            yield self._revision(extra)
        yield from (_host(name) for name in ours.require_hosts)

    def _revision(self, extra: Mapping[str, str]) -> Prerequisite:
        expected = f"{self._settings.require_git_revision}^{{commit}}"
        found = [
            self._git(("rev-parse", "--verify", "--end-of-options", name), extra) for name in ("HEAD^{commit}", expected)
        ]
        same = all(one.passed for one in found) and found[0].detail == found[1].detail
        return Prerequisite("git revision", same, f"HEAD is {found[0].detail}, expected {found[1].detail}")

    def _git(self, words: tuple[str, ...], extra: Mapping[str, str]) -> Prerequisite:
        return self._run("git", ("git", *words), extra, timedelta(seconds=_GIT_SECONDS))

    def _run(self, name: str, command: tuple[str, ...], extra: Mapping[str, str], timeout: timedelta) -> Prerequisite:
        try:
            done = process.run(
                command,
                env={**self._environ, **extra},
                cwd=self._cwd,
                output=self._output,
                output_limit=_OUTPUT_LIMIT,
                timeout=timeout,
                should_stop=self._should_stop,
            )
        except Unwritable:
            raise
        except KlorosError as error:
            return Prerequisite(name, False, error.message)
        said = tail(self._output, _TAIL).strip()
        return Prerequisite(name, done.succeeded, said if done.succeeded else f"{done.describe()}: {said}")


def tail(path: str, limit: int) -> str:
    """Return the last `limit` bytes of a file as text; empty when it can't be read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - limit))
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""


def _module(name: str) -> Prerequisite:
    try:
        found = importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        found = False
    return Prerequisite(f"module {name}", found, "found" if found else f"not found by {sys.executable}")


def _enough(name: str, found: int, needed: int) -> Prerequisite:
    return Prerequisite(name, found >= needed, f"{found} bytes, {needed} are needed")


def _available_memory() -> int:
    """Return MemAvailable of /proc/meminfo (proc(5)) in bytes."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))


def _host(name: str) -> Prerequisite:
    host, _, port = name.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS):
            return Prerequisite(f"host {name}", True, "accepts connections")
    except (OSError, ValueError) as error:
        return Prerequisite(f"host {name}", False, str(error))
