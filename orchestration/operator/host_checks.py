"""The checks of what the host gives us: zone, clock, units, textfile collector, journal, disk."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from orchestration.host import clock as host_clock
from orchestration.host.disk import room
from orchestration.operator.check import Check, Level
from orchestration.operator.console import Console
from orchestration.operator.screen import size, span
from orchestration.operator.units import ALL, SERVICE, WATCHING, Units
from orchestration.phase.window import Window
from orchestration.pulse.evidence import TICKS_MISSED

_STA_UNSYNC, _TIME_ERROR = 0x0040, 5  # adjtimex(2)
_TIMEX_BYTES, _STATUS_AT = 256, 40  # struct timex of 64-bit Linux is 208 bytes; `status` follows 4 longs and padding
_NO_ROOM = 64 * 1024**2  # bytes
_FEW_FILES = 1000
_SWITCH = re.compile(r"^Environment=KLR_ORCHESTRATION_MODE=.*$", re.MULTILINE)


def zone(console: Console) -> Iterator[Check]:
    """Check that the window's zone is known here and has a next window."""
    phase = console.settings.phase
    ahead = Window(phase.window_opens, phase.window_closes, phase.time_zone).next_after(console.now)
    now = f"{console.now.astimezone(console.times.zone):%H:%M %Z}"
    opens = console.times.both(ahead.opens, seconds=False)
    yield Check("zone", Level.OK, f"{phase.time_zone}, where it is {now}; the next window opens {opens}")


def clock_synchronised(_console: Console) -> Iterator[Check]:
    """Check that the clock is kept right: windows and backoffs rest on it."""
    found = _by_adjtimex()
    told = "the kernel"
    if found is None:
        found, told = _by_timedatectl(), "timedatectl"
    if found is None:
        yield Check("clock", Level.WARNING, "whether it is synchronised can't be told here", "timedatectl")
    elif found:
        yield Check("clock", Level.OK, f"synchronised, says {told}")
    else:
        advice = "timedatectl set-ntp true, or install chrony; in a container this is the host's business"
        yield Check("clock", Level.WARNING, f"not synchronised, says {told}", advice)


def _by_adjtimex() -> bool | None:
    """Ask adjtimex(2) without changing anything (modes 0); None when it may not be asked."""
    if sys.maxsize < 2**32:
        return None  # another layout
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    if state < 0:
        return None
    status = int.from_bytes(buffer.raw[_STATUS_AT : _STATUS_AT + 4], sys.byteorder)
    return state != _TIME_ERROR and not status & _STA_UNSYNC


def _by_timedatectl() -> bool | None:
    command = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(done.stdout.strip())


def units(console: Console) -> Iterator[Check]:
    """Check that the installed units are those of this version, are loaded, and that the watching ones are active."""
    installed = console.units
    if not installed.fragment():
        yield Check(
            "units", Level.WARNING, "none tick for this installation: a tick comes only when somebody asks", "./install.sh"
        )
        return
    reinstall = f"run ./install.sh{' --user' if installed.user else ''} of this version again"
    missing = [unit for unit in ALL if not installed.fragment(unit)]
    if missing:
        yield Check("units", Level.ERROR, f"not installed: {', '.join(missing)}", reinstall)
        return
    other = _other_program(installed)
    if other:
        evidence = f"{SERVICE} runs {other}, this klorosctl is of {sys.prefix}"
        yield Check("units", Level.WARNING, evidence, f"use the klorosctl of the installation, or {reinstall}")
    edited = [] if installed.user else _edited(installed)
    if edited:
        evidence = f"not as this version has them: {', '.join(edited)}"
        yield Check("units", Level.WARNING, evidence, f"put changes into drop-ins (systemctl edit), then {reinstall}")
    if not other and not edited:
        folder = os.path.dirname(installed.fragment() or "")
        compared = "run this version" if installed.user or _shipped() is None else "are those of this version"
        yield Check("units", Level.OK, f"{len(ALL)} units in {folder} {compared}")
    yield from _loaded(installed)


def _other_program(installed: Units) -> str:
    """Return the environment that the service runs in, when it is not ours; empty when it is, or can't be told.

    `bin/python` of an installation is a two-line script that leads to the environment of one version (install.sh).
    """
    try:
        text = Path(installed.fragment() or "").read_text(encoding="utf-8")
        program = re.search(r"^ExecStart=(\S+)", text, re.MULTILINE)
        if program is None:
            return ""
        target = Path(program[1])
        with target.open("rb") as file:
            if file.read(2) == b"#!":
                led = re.search(r"^exec (\S+)", target.read_text(encoding="utf-8"), re.MULTILINE)
                target = Path(led[1]) if led else target
    except (OSError, UnicodeDecodeError):
        return ""
    home = target.parent.parent
    return "" if home.resolve() == Path(sys.prefix).resolve() else str(home)


def _edited(installed: Units) -> list[str]:
    """Name the units that differ from those shipped with this program, but for the mode that `sed` may have changed."""
    shipped = _shipped()
    if shipped is None:
        return []
    differing = []
    for unit in ALL:
        try:
            ours = (shipped / unit).read_text(encoding="utf-8")
            theirs = Path(installed.fragment(unit) or "").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            differing.append(unit)
            continue
        if _SWITCH.sub("", ours) != _SWITCH.sub("", theirs):
            differing.append(unit)
    return differing


def _shipped() -> Path | None:
    """Return the folder of the units that belong to this program: in its environment (install.sh), or in a checkout."""
    places = (Path(sys.prefix) / "systemd", Path(__file__).parents[2] / "systemd")
    return next((place for place in places if (place / SERVICE).is_file()), None)


def _loaded(installed: Units) -> Iterator[Check]:
    if not installed.manager_runs():
        yield Check("timer", Level.WARNING, "systemd does not run here, so nothing starts ticks", "klorosctl tick")
        return
    user = "--user " if installed.user else ""
    code, said = installed.systemctl("show", "--property=Id,ActiveState,NeedDaemonReload", SERVICE, *WATCHING)
    if code:
        yield Check("timer", Level.WARNING, f"systemd does not answer: {said}", f"systemctl {user}status {WATCHING[0]}")
        return
    states = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in said.split("\n\n")]
    stale = [state.get("Id", "") for state in states if state.get("NeedDaemonReload") == "yes"]
    if stale:
        yield Check(
            "units", Level.WARNING, f"changed on disk, not read: {', '.join(stale)}", f"systemctl {user}daemon-reload"
        )
    active = {state.get("Id") for state in states if state.get("ActiveState") == "active"}
    idle = [unit for unit in WATCHING if unit not in active]
    if WATCHING[0] in idle:
        yield Check("timer", Level.ERROR, f"not active: {', '.join(idle)}", f"systemctl {user}enable --now {' '.join(idle)}")
    elif idle:
        evidence = f"not active: {', '.join(idle)}; what they would start waits for the next minute or longer"
        level = Level.ERROR if "kloros-cycle.path" in idle else Level.WARNING
        yield Check("timer", level, evidence, f"systemctl {user}enable --now {' '.join(idle)}")
    else:
        yield Check("timer", Level.OK, f"active, with {len(WATCHING) - 1} path units")


def textfile(console: Console) -> Iterator[Check]:
    """Check that the metrics are where node_exporter looks, and fresh."""
    path = console.settings.textfile
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        advice = "apt install prometheus-node-exporter, or set textfile to the collector's folder"
        yield Check("textfile", Level.WARNING, f"{folder} is not there: no metrics are published", advice)
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        advice = f"setfacl -m user:kloros:rwx {folder}, or set textfile"
        yield Check("textfile", Level.WARNING, f"{folder} can't be written by this user", advice)
        return
    try:
        age = host_clock.now().timestamp() - os.stat(path).st_mtime
    except OSError:
        yield Check("textfile", Level.OK, f"{path} is not there yet; the next tick writes it")
        return
    if age > TICKS_MISSED.total_seconds() and console.settings.orchestration_mode == "enabled":
        yield Check("textfile", Level.WARNING, f"{path} is {span(age)} old", "see `ticks` above; ls -l of the file")
    else:
        yield Check("textfile", Level.OK, f"{path}, written {span(max(age, 0.0))} ago")


def journal() -> Iterator[Check]:
    """Check that log lines reach the journal with their fields."""
    if not os.path.exists("/run/systemd/journal/socket"):
        yield Check("journal", Level.OK, "no journal here: log lines go to stderr as JSON")
        return
    try:
        from systemd import _journal  # noqa: F401
    except ImportError:
        advice = "apt install libsystemd-dev gcc pkg-config python3-dev, then install again (systemd-python)"
        yield Check("journal", Level.WARNING, "systemd-python is missing: lines are JSON, without fields", advice)
        return
    yield Check("journal", Level.OK, "log lines have native fields")


def space(console: Console) -> Iterator[Check]:
    """Check that the disk of the state has room, in bytes and in names."""
    folder = console.settings.state_dir
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    try:
        left = room(folder)
    except OSError as error:
        yield Check("disk", Level.ERROR, f"{folder}: {error.strerror}", f"df -h {folder}")
        return
    evidence = f"{size(left.free)} of {size(left.total)} free at {folder}"
    if left.files is not None and left.files < _FEW_FILES:
        yield Check("disk", Level.ERROR, f"only {left.files} more files fit at {folder}", f"df -i {folder}")
    elif left.free < _NO_ROOM:
        yield Check("disk", Level.ERROR, evidence, f"free some; old cycles take: du -sh {console.path('cycles')}")
    elif left.free < console.settings.retention.low_disk:
        yield Check("disk", Level.WARNING, evidence, f"free some; old cycles take: du -sh {console.path('cycles')}")
    else:
        yield Check("disk", Level.OK, evidence)
