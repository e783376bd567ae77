"""The disks that guests boot from, as overlay layers that are built once and kept.

Owns: what a bare and a bootable Debian 12 consist of, where they are cached and when they are stale. Refuses to know:
how a guest runs (`guest.py`) and what is tested in it.

A layer is a folder whose name ends in a digest of all that went into it, so that a stale one is never taken for a
fresh one. Several test workers may ask for the same layer at once: the first builds it under a kernel lock, into a
temporary folder that is renamed when it is whole. The packages come from where the host itself gets them: nothing
here names a mirror.
"""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CACHE_VERSION = "3"
KEPT = 3  # layers of a kind: switching between two branches should not build anew each time
SUITE = "bookworm"
ROOT = Path(__file__).parents[2]

# What a Debian 12 server has when its operator first logs in, beyond minbase: an init, a bus, logins, sudo.
# No python3, no compiler, no pip: install.sh has to bring what it needs.
BOOTABLE = ("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "sudo", "logrotate")

HOST_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
# Not over the guest's own bundle, which its package ca-certificates would then be unable to install.
GUEST_BUNDLE = "/srv/host-certificates.crt"


def cache() -> Path:
    """Folder that outlives the test run: `$XDG_CACHE_HOME/kloros-tests`, by default under /var/cache for root."""
    home = os.environ.get("XDG_CACHE_HOME")
    return Path(home or "/var/cache") / "kloros-tests"


def missing_requirements() -> list[str]:
    """Everything that keeps guests from running here; empty when they can."""
    faults = [] if os.geteuid() == 0 else ["it needs root"]
    faults += [
        f"{program} is missing (Debian package {package})"
        for program, package in (
            ("debootstrap", "debootstrap"),
            ("systemd-nspawn", "systemd-container"),
            ("nsenter", "util-linux"),
        )
        if shutil.which(program) is None
    ]
    return faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Layers in the order in which an overlay takes them: the topmost first."""

    layers: tuple[Path, ...]

    def under(self, top: Path) -> Stack:
        return Stack(layers=(top, *self.layers))

    @property
    def lowerdir(self) -> str:
        return ":".join(str(layer) for layer in self.layers)


def bare() -> Stack:
    """Debian 12 as `debootstrap --variant=minbase` leaves it: no init, no python3."""
    folder = cache() / f"bare-{_digest(SUITE, CACHE_VERSION)}"
    with built_once(folder) as scratch:
        if scratch is not None:
            _run("debootstrap", "--variant=minbase", SUITE, str(scratch), *_mirror())
            _take_apt_settings(scratch)
    return Stack(layers=(folder,))


def bootable() -> Stack:
    """The bare root and what makes it boot, as an image for servers would."""
    below = bare()
    folder = cache() / f"bootable-{_digest(below.lowerdir, *BOOTABLE)}"
    with built_once(folder) as scratch:
        if scratch is not None:
            with _mounted(below, scratch) as root:
                _in_root(root, "apt-get update -q")
                _in_root(root, f"apt-get install -q -y --no-install-recommends {' '.join(BOOTABLE)}")
                # A journal that survives the guest's death, as on Debian's own images.
                (root / "var/log/journal").mkdir(exist_ok=True)
                (root / "etc/machine-id").write_text("")
                (root / "etc/hostname").write_text("guest\n")
                (root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 guest\n")
                # Two timers that download packages in the middle of a test.
                _in_root(root, "systemctl mask apt-daily.timer apt-daily-upgrade.timer")
    return below.under(folder)


def with_python() -> Stack:
    """The bare root with python3 and its venv, for images of containers."""
    below = bare()
    folder = cache() / f"python-{_digest(below.lowerdir, 'python3-venv')}"
    with built_once(folder) as scratch:
        if scratch is not None:
            with _mounted(below, scratch) as root:
                _in_root(root, "apt-get update -q && apt-get install -q -y --no-install-recommends python3-venv")
                _in_root(root, "python3 -m venv /opt/python && apt-get clean")
    return below.under(folder)


@contextlib.contextmanager
def mounted(stack: Stack) -> Iterator[Path]:
    """A throw-away root to run commands in without an init."""
    with tempfile.TemporaryDirectory(prefix="kloros-root-") as scratch:
        upper = Path(scratch, "upper")
        upper.mkdir(mode=0o755)
        with _mounted(stack, upper) as root:
            yield root


def in_root(root: Path, command: str, *, user: str = "root") -> subprocess.CompletedProcess[str]:
    """Run a shell command in a root that is not booted, with the host's network and trust; output captured."""
    return subprocess.run(
        ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--as-pid2", "--console=pipe",
         f"--directory={root}", f"--machine=kloros-root-{os.getpid()}",
         "--resolv-conf=replace-host", f"--user={user}", *bound_files(),
         *(f"--setenv={name}={value}" for name, value in registry_environment().items()),
         "/bin/bash", "-c", command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


def bound_files() -> list[str]:
    """nspawn options for the host files without which apt and pip can't reach their registries from inside."""
    return [f"--bind-ro={HOST_BUNDLE}:{GUEST_BUNDLE}"] if Path(HOST_BUNDLE).exists() else []


def registry_environment() -> dict[str, str]:
    """The host's ways to its registries as variables; its local folders of wheels stay outside."""
    pip_settings = configparser.ConfigParser(interpolation=None)
    pip_settings.read("/etc/pip.conf")
    found = {f"PIP_{key.upper().replace('-', '_')}": value for key, value in _global(pip_settings).items()}
    found.update((name, value) for name, value in os.environ.items() if name.startswith("PIP_") or name in _REACH)
    return {
        name: value.replace(HOST_BUNDLE, GUEST_BUNDLE)
        for name, value in found.items()
        if name not in ("PIP_FIND_LINKS", "PIP_CONSTRAINT", "PIP_REQUIRE_VIRTUALENV") and "file:" not in value
    }


def _global(settings: configparser.ConfigParser) -> Mapping[str, str]:
    return settings["global"] if settings.has_section("global") else {}


_REACH = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "http_proxy", "https_proxy", "no_proxy")


@contextlib.contextmanager
def built_once(folder: Path) -> Iterator[Path | None]:
    """Yield a scratch folder that becomes `folder` when the block ends well, or None when `folder` exists."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    kind = folder.name.split("-")[0]
    with (folder.parent / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _use(folder)
        if folder.exists():
            folder.touch()
            yield None
            return
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            scratch.chmod(0o755)
            yield scratch
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        for stale in sorted(folder.parent.glob(f"{kind}-*/"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            _remove_unless_used(stale)


# Descriptors that stay open until this process ends, each with a shared lock that says: guests of mine run on this.
_USED: dict[Path, int] = {}


def _use(folder: Path) -> None:
    if folder not in _USED:
        _USED[folder] = os.open(f"{folder}.used", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        fcntl.flock(_USED[folder], fcntl.LOCK_SH)


def _remove_unless_used(folder: Path) -> None:
    """Remove a layer, unless a test run in some other work tree has guests on it."""
    with open(f"{folder}.used", "w") as used:
        try:
            fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(folder, ignore_errors=True)
        os.unlink(f"{folder}.used")


@contextlib.contextmanager
def _mounted(below: Stack, upper: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=".mount-", dir=upper.parent) as scratch:
        root, work = Path(scratch, "root"), Path(scratch, "work")
        root.mkdir()
        work.mkdir()
        options = f"lowerdir={below.lowerdir},upperdir={upper},workdir={work}"
        _run("mount", "-t", "overlay", "overlay", "-o", options, str(root))
        try:
            yield root
        finally:
            _run("umount", "--lazy", str(root))


def _in_root(root: Path, command: str) -> None:
    ended = in_root(root, f"export DEBIAN_FRONTEND=noninteractive; {command}")
    if ended.returncode != 0:
        raise RuntimeError(f"in the guest's root: {command}\n{ended.stdout}\n{ended.stderr}")


def _mirror() -> list[str]:
    """The site from which this host's apt takes Debian itself, or nothing for debootstrap's own default."""
    listed = _apt_targets()
    return [listed[0][0]] if listed else []


def _take_apt_settings(root: Path) -> None:
    """Give the root the host's Debian sources and its way to reach them, without its other repositories."""
    lines = [f"deb {site} {release} {component}" for site, release, component in _apt_targets()]
    if lines:
        (root / "etc/apt/sources.list").write_text("\n".join(dict.fromkeys(lines)) + "\n")
    reach = ["Acquire::http", "Acquire::https", "Acquire::Check-Valid-Until", "Acquire::Check-Date"]
    dumped = _run("apt-config", "dump", "--no-empty", *reach).stdout
    (root / "etc/apt/apt.conf.d/90host").write_text(dumped + f'Acquire::https::CaInfo "{GUEST_BUNDLE}";\n')


def _apt_targets() -> list[tuple[str, str, str]]:
    if shutil.which("apt-get") is None:
        return []
    form = "$(ORIGIN)|$(SITE)|$(RELEASE)|$(COMPONENT)"
    listed = _run("apt-get", "indextargets", "--format", form, "Created-By: Packages").stdout.splitlines()
    rows = [line.split("|") for line in listed]
    return [
        (site, release, part) for origin, site, release, part in rows if origin == "Debian" and release.startswith(SUITE)
    ]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {ended.returncode}\n{ended.stdout}\n{ended.stderr}")
    return ended


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
