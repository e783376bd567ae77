"""The systemd units of the D-REAM that starts by itself: those of the host, of one person, or for everybody.

Owns reading unit files and asking systemd; what is a sign is `autonomous_signs`'s. A unit counts when it is enabled or
active, for what is only installed starts nothing. Search paths: systemd.unit(5). SYSTEMD_OFFLINE:
https://systemd.io/ENVIRONMENT/
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from orchestration.operator.autonomous_signs import of_unit
from orchestration.operator.units import ask, values

_HOST = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
_EVERYBODY = ("etc/systemd/user", "usr/local/lib/systemd/user", "usr/lib/systemd/user")
_PERSON = (".config/systemd/user", ".local/share/systemd/user")
_ENDINGS = (".service", ".timer", ".path")
_LATE = 10.0  # seconds that systemctl may take


class Manager(NamedTuple):
    """Who runs units: the host's systemd, that of one person, or those of all persons."""

    folders: tuple[str, ...]  # highest precedence first
    systemctl: tuple[str, ...]  # how it is told
    runs: bool  # whether it can be asked


class Unit(NamedTuple):
    """One unit that is on."""

    name: str
    path: str
    sign: str
    enabled: bool
    active: bool
    off: tuple[str, ...]  # the command that switches it off

    @property
    def state(self) -> str:
        """Say how it is on."""
        return " and ".join(word for word, is_so in (("enabled", self.enabled), ("active", self.active)) if is_so)


def managers(root: str, *, uid: int) -> list[Manager]:
    """Return the managers to look at: root looks at everybody's, others at the host's and their own."""
    here = root == "/"
    host = tuple(os.path.join(root, folder) for folder in _HOST)
    found = [Manager(host, ("systemctl",), here and os.path.isdir("/run/systemd/system"))]
    found.append(Manager(tuple(os.path.join(root, f) for f in _EVERYBODY), ("systemctl", "--global"), runs=False))
    for person in pwd.getpwall() if uid == 0 else [pwd.getpwuid(uid)]:
        folders = tuple(os.path.join(root, person.pw_dir.lstrip("/"), folder) for folder in _PERSON)
        if any(os.path.isdir(folder) for folder in folders):
            alive = os.path.isdir(f"/run/user/{person.pw_uid}/systemd")
            found.append(Manager(folders, _systemctl_of(person, uid=uid, alive=alive or not here), here and alive))
    return found


def _systemctl_of(person: pwd.struct_passwd, *, uid: int, alive: bool) -> tuple[str, ...]:
    """Return how a person's systemd is told; one that does not run is not asked, only its links are changed."""
    how = () if alive else ("SYSTEMD_OFFLINE=1",)
    if person.pw_uid == uid:
        return (*(("env", *how) if how else ()), "systemctl", "--user")
    given = (f"HOME={person.pw_dir}", f"XDG_RUNTIME_DIR=/run/user/{person.pw_uid}", *how)
    return ("runuser", "-u", person.pw_name, "--", "env", *given, "systemctl", "--user")


def units(manager: Manager) -> list[Unit]:
    """Return the units of one manager that are of the D-REAM that starts by itself, and on."""
    files = _files(manager.folders)
    signs = {name: sign for name, path in files.items() if (sign := of_unit(name, _commands(path)))}
    for name, path in files.items():
        target = _started_by(name, path)
        if target in signs and name not in signs:
            signs[name] = f"it starts {target}"
    enabled, active = _enabled(manager.folders), _active(manager, signs)
    return [
        Unit(name, files[name], sign, name in enabled, name in active, _off(manager, name))
        for name, sign in sorted(signs.items())
        if name in enabled or name in active
    ]


def _off(manager: Manager, name: str) -> tuple[str, ...]:
    links_only = "--global" in manager.systemctl or "SYSTEMD_OFFLINE=1" in manager.systemctl
    return (*manager.systemctl, "disable", *(() if links_only else ("--now",)), name)


def _files(folders: Iterable[str]) -> dict[str, str]:
    """Return the file of each unit, the one of highest precedence; one that is masked is none."""
    found: dict[str, str] = {}
    for folder in folders:
        for name in _names(folder):
            if name.endswith(_ENDINGS):
                found.setdefault(name, os.path.join(folder, name))
    return {name: path for name, path in found.items() if os.path.realpath(path) != "/dev/null"}


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _commands(path: str) -> Iterator[str]:
    if path.endswith(".service") and os.path.isfile(path):  # a FIFO would hold us
        yield from values(path, section="Service", key="ExecStart")


def _started_by(name: str, path: str) -> str:
    """Return the service that a timer or a path unit starts; empty for a service."""
    stem, dot, kind = name.rpartition(".")
    if kind == "service":
        return ""
    return next(values(path, section=kind.capitalize(), key="Unit"), f"{stem}{dot}service")


def _enabled(folders: Iterable[str]) -> set[str]:
    """Return what some target, timer or other unit draws in, by the links that `systemctl enable` makes."""
    wanting = (os.path.join(f, name) for f in folders for name in _names(f) if name.endswith((".wants", ".requires")))
    return {name for folder in wanting for name in _names(folder)}


def _active(manager: Manager, names: Mapping[str, str]) -> set[str]:
    if not (manager.runs and names):
        return set()
    command = [*manager.systemctl, "--no-pager", "show", "--property=Id,ActiveState", "--", *sorted(names)]
    _, told, _ = ask(command, seconds=_LATE)
    blocks = (dict(line.partition("=")[::2] for line in block.splitlines()) for block in told.split("\n\n"))
    return {one.get("Id", "") for one in blocks if one.get("ActiveState") in ("active", "activating", "reloading")}
