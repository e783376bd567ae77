"""The systemd units of this installation as their files say: who gives ticks their variables, and our one drop-in.

Owns finding and reading `kloros-orchestrator.service` with its drop-ins, and `50-klorosctl.conf`. It reads the files
and asks systemd only where a command says so, so it answers where none runs.
Search paths and the order of drop-ins: systemd.unit(5). Environment=: systemd.exec(5).
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from orchestration.configuration import DEFAULT_CONFIG

SERVICE = "kloros-orchestrator.service"
TIMER = "kloros-orchestrator.timer"
ALL = (
    SERVICE,
    TIMER,
    "kloros-orchestrator.path",
    "kloros-cycle.service",
    "kloros-loop.service",
    "kloros-cycle.path",
    "kloros-alert@.service",
    "kloros-pulse.socket",
    "kloros-pulse.service",
    "kloros-bridge.service",
    "kloros-supervisor.service",
    "kloros-notice.service",
    "kloros-scope.service",
    "kloros-notice.path",
)
WATCHING = (TIMER, "kloros-orchestrator.path", "kloros-cycle.path", "kloros-notice.path")
DROP_IN = "50-klorosctl.conf"
_SYSTEM = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
_LATE = 30.0  # seconds that systemctl may take


class Units(NamedTuple):
    """The unit files of one manager: the host's, or one person's."""

    folders: tuple[str, ...]  # highest precedence first; ours are written to the first
    user: bool

    @classmethod
    def of(cls, environ: Mapping[str, str], *, user: bool | None) -> Units:
        """Choose the manager: as told, else root has the host's; others have their own if there are any."""
        home = environ.get("HOME") or os.path.expanduser("~")
        config = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
        own = cls((os.path.join(config, "systemd/user"), "/etc/systemd/user", "/usr/lib/systemd/user"), user=True)
        host = cls(_SYSTEM, user=False)
        if user is not None:
            return own if user else host
        return own if os.geteuid() != 0 and own.fragment() else host

    def fragment(self, unit: str = SERVICE) -> str | None:
        """Return the file of a unit, or None when it is not installed."""
        paths = (os.path.join(folder, unit) for folder in self.folders)
        return next((path for path in paths if os.path.isfile(path)), None)

    def drop_ins(self, unit: str = SERVICE) -> list[str]:
        """Return its drop-ins in the order in which they apply."""
        found: dict[str, str] = {}
        for folder in reversed(self.folders):
            try:
                names = os.listdir(os.path.join(folder, f"{unit}.d"))
            except OSError:
                continue
            found |= {name: os.path.join(folder, f"{unit}.d", name) for name in names if name.endswith(".conf")}
        return [found[name] for name in sorted(found)]

    def our_drop_in(self) -> str:
        """Return the path of the drop-in that `enable` and `disable` write."""
        return os.path.join(self.folders[0], f"{SERVICE}.d", DROP_IN)

    def environment(self, *, without: str = "") -> dict[str, tuple[str, str]]:
        """Return the variables that the unit gives, and the file that says so; `without` one of the drop-ins."""
        fragment = self.fragment()
        found: dict[str, tuple[str, str]] = {}
        for path in [] if fragment is None else [fragment, *self.drop_ins()]:
            if path == without:
                continue
            for value in values(path, section="Service", key="Environment"):
                if not value.strip():
                    found.clear()
                found |= {name: (text, path) for name, text in _assignments(value)}
        return found

    def ticks_for(self, environ: Mapping[str, str]) -> bool:
        """Tell whether the unit ticks for the settings and the state that these variables name, if they name any."""
        fragment = self.fragment()
        if fragment is None:
            return False
        given = self.environment()
        here = next(values(fragment, section="Service", key="WorkingDirectory"), "")
        places = {"KLR_CONFIG": DEFAULT_CONFIG, "KLR_STATE_DIR": here}
        return all(environ.get(name) in (None, given.get(name, (usual,))[0]) for name, usual in places.items())

    def systemctl(self, *arguments: str) -> tuple[int, str]:
        """Ask systemd; returns its exit status and what it said. 127 when there is no systemctl."""
        code, out, err = ask(["systemctl", *(("--user",) if self.user else ()), "--no-pager", *arguments], seconds=_LATE)
        return code, out or err

    def manager_runs(self) -> bool:
        """Tell whether there is a systemd to ask."""
        return os.path.isdir(os.path.join(_runtime_dir(), "systemd") if self.user else "/run/systemd/system")


def ask(command: Sequence[str], *, seconds: float) -> tuple[int, str, str]:
    """Run a command of the host's; returns its exit status, its output and its errors. 127 when it can't, or not in time."""
    import subprocess

    environ = {**os.environ, "XDG_RUNTIME_DIR": _runtime_dir()}  # sudo and su take it away
    try:
        done = subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=seconds
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, "", str(error)
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def _runtime_dir() -> str:
    return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"


def values(path: str, *, section: str, key: str) -> Iterator[str]:
    """Give every value that a unit's file, or a drop-in, gives a key; nothing when it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return
    inside = False
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip()
        if line.startswith("["):
            inside = line == f"[{section}]"
        elif inside and not line.startswith(("#", ";")):
            name, equals, value = line.partition("=")
            if equals and name.strip() == key:
                yield value.strip()


def _assignments(value: str) -> Iterator[tuple[str, str]]:
    try:
        words = shlex.split(value)
    except ValueError:
        return
    for word in words:
        name, equals, text = word.partition("=")
        if equals:
            yield name, text
