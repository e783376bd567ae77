"""A Debian 12 with its own systemd, booted in two seconds and thrown away.

Owns: the life of one guest (boot, commands, files, death, reboot with its disk) and its cgroup. Refuses to know what
is installed in it.

The guest is a systemd-nspawn container on an overlay of cached layers. Its writable top layer is a tmpfs of ours
instead of nspawn's `--volatile=overlay`, because that one dies with the container and a reboot must keep the disk.
Commands enter through `nsenter` into its init, so that no bus, no machined and no login are needed. The network is the
host's. Every guest has a cgroup of its own in every hierarchy, or else two guests would share one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import string
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from tests.system.layers import Stack, bound_files, registry_environment
from tests.waiting import until

CGROUPS = Path("/sys/fs/cgroup")


class Completed(NamedTuple):
    """How a command in the guest ended."""

    command: str
    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"{self.command}\n-- exit {self.code}\n{self.out}{self.err}"


class Guest:
    """One container. Use as a context manager; `boot()` may be called again after `kill9()` or `poweroff()`.

    `prepare` gets it before its first boot, to change its disk.
    """

    def __init__(self, stack: Stack, name: str, prepare: Callable[[Guest], None]) -> None:
        self.name = name
        self.began = datetime.now(UTC)
        self._stack = stack
        self._prepare = prepare
        self._scratch = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self._root = self._scratch / "root"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def __enter__(self) -> Guest:
        try:
            _run("mount", "-t", "tmpfs", "-o", "size=12g,mode=0755", "kloros-guest", str(self._scratch))
            for folder in ("upper", "work", "root"):
                (self._scratch / folder).mkdir(mode=0o755)
            options = f"lowerdir={self._stack.lowerdir},upperdir={self._scratch}/upper,workdir={self._scratch}/work"
            _run("mount", "-t", "overlay", "overlay", "-o", options, str(self._root))
            self._prepare(self)
            self.boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.kill9()
        for mount in (self._root, self._scratch):
            subprocess.run(["umount", "--lazy", str(mount)], capture_output=True, check=False)
        shutil.rmtree(self._scratch, ignore_errors=True)
        for cgroup in self._cgroups():
            _remove_cgroup(cgroup)

    def boot(self) -> None:
        """Start the container and wait until its systemd is done starting."""
        cgroups = self._cgroups()
        for cgroup in cgroups:
            cgroup.mkdir(exist_ok=True)
        join = "".join(f"echo $$ > {shlex.quote(str(cgroup))}/cgroup.procs; " for cgroup in cgroups)
        nspawn = ["systemd-nspawn", "--quiet", f"--directory={self._root}", "--boot", "--register=no", "--keep-unit",
                  "--console=pipe", f"--machine={self.name}", "--resolv-conf=replace-host",
                  *bound_files()]  # fmt: skip
        # Debian 12 has cgroup version 2 alone, whatever the host has (nspawn's documented environment).
        environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        log = (self._scratch / "console.log").open("ab")
        self._nspawn = subprocess.Popen(
            # nspawn dies with the test run, even when that is killed; `sweep` ends what it held.
            ["/bin/sh", "-c", f"{join} exec setpriv --pdeathsig KILL {shlex.join(nspawn)}"],
            env=environment,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        log.close()
        self._pid = until(self._init, what=f"{self.name} has an init", within=20)
        state = until(self._started, what=f"{self.name} has booted", within=60)
        assert state in ("running", "degraded"), state

    def sh(
        self, command: str, *, user: str = "root", check: bool = True, timeout: float = 120, stdin: str = ""
    ) -> Completed:
        """Run a shell command in the guest; a non-zero exit fails the test unless `check` is false."""
        bash = ["/bin/bash", "-c", command]
        if user != "root":
            bash = ["runuser", "-u", user, "--", *bash]
        ended = subprocess.run(
            [*self._enter(), *bash], input=stdin, capture_output=True, text=True, check=False, timeout=timeout
        )
        completed = Completed(command, ended.returncode, ended.stdout, ended.stderr)
        assert completed.code == 0 or not check, completed
        return completed

    def spawn(self, command: str, *, user: str = "root") -> subprocess.Popen[bytes]:
        """Start a shell command in the guest and return without waiting for it."""
        bash = ["/bin/bash", "-c", command]
        if user != "root":
            bash = ["runuser", "-u", user, "--", *bash]
        return subprocess.Popen(
            [*self._enter(), *bash], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def path(self, inside: str) -> Path:
        """The host's path of a file in the running guest, for reading and writing without entering it."""
        return Path(f"/proc/{self._pid}/root") / inside.lstrip("/")

    def write(self, inside: str, text: str, *, owner: str = "root:root", mode: int = 0o644) -> None:
        """Create a file whole: written beside, then renamed, as every writer that wants to be read should."""
        target = self.path(inside)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        part.write_text(text)
        part.chmod(mode)
        if owner != "root:root":
            # Owner names are those of the guest, which only the guest can resolve.
            self.sh(f"chown {owner} {shlex.quote(str(Path(inside).with_name(part.name)))}")
        part.rename(target)

    def on_disk(self, inside: str) -> Path:
        """The host's path of a file on the guest's disk before it boots."""
        return self._root / inside.lstrip("/")

    def copy(self, source: Path, inside: str) -> None:
        """Copy a host folder into the guest."""
        shutil.copytree(source, self.path(inside), symlinks=True)

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Entries of the guest's journal of all its boots, oldest first, with every field."""
        self.sh("journalctl --sync", check=False)
        listed = self.sh(f"journalctl --output=json --all --no-pager {shlex.join(matches)}").out
        return [json.loads(line) for line in listed.splitlines()]

    def kill9(self) -> None:
        """End the whole guest at once, as a power cut does to its processes."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
        self._gone()

    def poweroff(self) -> None:
        """Shut the guest down in order."""
        # SIGRTMIN+4 asks systemd for poweroff.target (systemd(1)) and needs no bus.
        os.kill(self._pid, signal.SIGRTMIN + 4)
        self._gone()

    def reboot(self) -> None:
        """Power off in order and boot again from the same disk."""
        self.poweroff()
        self.boot()

    def take_disk(self, folder: Path) -> None:
        """Move what this guest wrote to its disk to `folder`, as a layer for other guests; it can't boot again."""
        self.poweroff()
        subprocess.run(["umount", "--lazy", str(self._root)], capture_output=True, check=False)
        _run("cp", "--archive", f"{self._scratch}/upper/.", str(folder))

    def console(self) -> str:
        """What the guest's console has shown."""
        return (self._scratch / "console.log").read_text(errors="replace")

    def _enter(self) -> list[str]:
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            **registry_environment(),
        }
        assigned = [f"{name}={value}" for name, value in environment.items()]
        return ["nsenter", f"--target={self._pid}", "--all", "env", "-i", *assigned]

    def _init(self) -> int | None:
        assert self._nspawn is not None
        if self._nspawn.poll() is not None:
            raise AssertionError(f"systemd-nspawn ended with {self._nspawn.returncode}: {self.console()}")
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{child}/exe").endswith("/lib/systemd/systemd"):
                    return int(child)
        return None

    def _started(self) -> str | None:
        state = self.sh("systemctl is-system-running", check=False).out.strip()
        return state if state in ("running", "degraded") else None

    def _gone(self) -> None:
        if self._nspawn is not None:
            self._nspawn.wait(timeout=60)
        self._nspawn, self._pid = None, 0

    def _cgroups(self) -> list[Path]:
        """This guest's cgroup in the unified hierarchy, and in systemd's own where the host still has version 1."""
        return [top / self.name for top in _hierarchies()]


def sweep() -> None:
    """End and remove what killed test runs left: their guests' names end in the pid of a run that is gone."""
    for cgroup in (path for top in _hierarchies() for path in top.glob("kloros-*-*/")):
        if _ended(cgroup.name.rpartition("-")[2]):
            _kill_cgroup(cgroup)
            _remove_cgroup(cgroup)
    for line in Path("/proc/mounts").read_text().splitlines():
        source, mounted = line.split()[:2]
        run = re.search(r"/kloros-[a-z-]+-(\d+)-[^/]+$", mounted)
        if source == "kloros-guest" and run and _ended(run[1]):
            subprocess.run(["umount", "--lazy", f"{mounted}/root"], capture_output=True, check=False)
            subprocess.run(["umount", "--lazy", mounted], capture_output=True, check=False)
            shutil.rmtree(mounted, ignore_errors=True)


@contextlib.contextmanager
def booted(stack: Stack, name: str, prepare: Callable[[Guest], None]) -> Iterator[Guest]:
    """A running guest of a name of its own, which ends in the pid of who runs it.

    What the kernel and nspawn still keep under the name of a guest that was killed must not meet the next one.
    """
    own = "".join(random.choices(string.ascii_lowercase, k=8))
    with Guest(stack, f"{name}-{own}-{os.getpid()}", prepare) as guest:
        yield guest


def _hierarchies() -> list[Path]:
    tops = [CGROUPS / "unified", CGROUPS / "systemd"] if (CGROUPS / "systemd").is_dir() else [CGROUPS]
    return [top for top in tops if (top / "cgroup.procs").exists()]


def _ended(pid: str) -> bool:
    try:
        return "\nState:\tZ" in Path("/proc", pid, "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def _kill_cgroup(cgroup: Path) -> None:
    """Kill everything in a cgroup of version 2 and wait until it is empty; version 1 holds the same processes."""
    with contextlib.suppress(OSError):  # another worker's sweep has removed it
        events = cgroup / "cgroup.events"
        if events.exists():
            (cgroup / "cgroup.kill").write_text("1")
            until(lambda: "populated 0" in events.read_text(), what=f"{cgroup} is empty")


def _remove_cgroup(cgroup: Path) -> None:
    for folder, _, _ in os.walk(cgroup, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def _run(*command: str) -> None:
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {ended.returncode}\n{ended.stdout}\n{ended.stderr}")
