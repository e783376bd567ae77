"""The cron lines of the D-REAM that starts by itself: in the host's tables, in people's, and scripts that run-parts starts.

Owns finding a line, and turning it into a comment; what is a sign is `autonomous_signs`'s. People's tables are read and
written by `crontab` only, for where they lie differs. Their form: crontab(5); names in /etc/cron.d: cron(8) of Debian.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import stat
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

from orchestration.errors import KlorosError
from orchestration.host import files
from orchestration.operator.autonomous_signs import of_command

_PARTS = ("etc/cron.hourly", "etc/cron.daily", "etc/cron.weekly", "etc/cron.monthly")
_SPOOLS = ("var/spool/cron/crontabs", "var/spool/cron")
_READ = re.compile(r"[A-Za-z0-9_-]+")  # names that cron and run-parts read
_LINE = re.compile(r"\s*(?:@\w+|(?:\S+\s+){4}\S+)\s+(.+)")
_ASSIGNMENT = re.compile(r"""\s*["']?\w+["']?\s*=""")
_LATE = 10.0  # seconds that crontab may take


class CronLine(NamedTuple):
    """One line, or a whole script, that is on."""

    path: str  # the file; of a person's table empty
    person: str  # whose table; of a file empty
    own: bool  # whether it is the table of who looks
    number: int  # of the line, from 1; 0 for a whole script
    text: str
    sign: str

    @property
    def where(self) -> str:
        """Say where it stands."""
        place = self.path or f"crontab of {self.person}"
        return f"{place}, line {self.number}" if self.number else place

    @property
    def off(self) -> str:
        """Return the command that switches it off."""
        if not self.number:
            return f"chmod -x {shlex.quote(self.path)}"
        if self.path:
            return f"sed -i '{self.number}s/^/#/' {shlex.quote(self.path)}"
        table = "crontab" if self.own else f"crontab -u {self.person}"
        return f"{table} -l | sed '{self.number}s/^/#/' | {table} -"


def cron_lines(root: str, *, uid: int) -> Iterator[CronLine]:
    """Give every line and script; root looks into everybody's tables, others into their own."""
    for path in [os.path.join(root, "etc/crontab"), *_named(os.path.join(root, "etc/cron.d"))]:
        yield from _matching(_text(path), path=path, person="", own=False)
    for folder in _PARTS:
        for path in _named(os.path.join(root, folder)):
            sign = next((sign for line in _text(path).splitlines() if (sign := _sign_in_script(line))), "")
            if sign and os.access(path, os.X_OK):
                yield CronLine(path, "", False, 0, os.path.basename(path), sign)
    me = pwd.getpwuid(uid).pw_name
    for person in _persons(root) if uid == 0 else [me]:
        yield from _matching(table_of(person, own=person == me), path="", person=person, own=person == me)


def table_of(person: str, *, own: bool) -> str:
    """Return a person's table; empty when there is none, or it can't be read."""
    done = _crontab("-l", person=person, own=own)
    return "" if done is None or done.returncode else done.stdout


def is_blind() -> bool:
    """Tell whether there may be a table of one's own that can't be read, as in a unit without new privileges."""
    done = _crontab("-l", person="", own=True)
    return done is not None and done.returncode != 0 and "no crontab for" not in done.stderr


def _crontab(action: str, *, person: str, own: bool) -> subprocess.CompletedProcess[str] | None:
    command = ["crontab", *(() if own else ("-u", person)), action]
    try:
        return subprocess.run(
            command,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            timeout=_LATE,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def switch_off(line: CronLine) -> None:
    """Turn the line into a comment, or take a script the right to be run.

    Raises:
        KlorosError: it is not there any more as it was found, or can't be changed.
    """
    if not line.number:
        status = os.stat(line.path)
        os.chmod(line.path, stat.S_IMODE(status.st_mode) & ~0o111)
        return
    text = _text(line.path) if line.path else table_of(line.person, own=line.own)
    lines = text.splitlines(keepends=True)
    if len(lines) < line.number or lines[line.number - 1].rstrip("\n") != line.text:
        raise KlorosError(f"{line.where} was changed meanwhile", hint="klorosctl autonomous list")
    lines[line.number - 1] = f"#{lines[line.number - 1]}"
    content = "".join(lines).encode(errors="surrogateescape")
    if line.path:
        files.replace(line.path, content, stat.S_IMODE(os.stat(line.path).st_mode))
        return
    command = ["crontab", *(() if line.own else ("-u", line.person)), "-"]
    done = subprocess.run(command, input=content, capture_output=True, check=False, timeout=_LATE)
    if done.returncode:
        raise KlorosError(f"{line.where} can't be changed: {done.stderr.decode(errors='replace').strip()}", hint=line.off)


def _persons(root: str) -> list[str]:
    return sorted({name for folder in _SPOOLS for name in _listed(os.path.join(root, folder)) if _is_person(name)})


def _is_person(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _named(folder: str) -> list[str]:
    return [os.path.join(folder, name) for name in _listed(folder) if _READ.fullmatch(name)]


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except OSError:
        return ""


def _sign_in_script(line: str) -> str:
    return "" if line.lstrip().startswith("#") else of_command(line)


def _matching(text: str, *, path: str, person: str, own: bool) -> Iterator[CronLine]:
    for number, line in enumerate(text.splitlines(), start=1):
        found = None if line.lstrip().startswith("#") or _ASSIGNMENT.match(line) else _LINE.match(line)
        sign = of_command(found[1]) if found is not None else ""
        if sign:
            yield CronLine(path, person, own, number, line, sign)
