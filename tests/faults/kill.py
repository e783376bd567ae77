"""Runs entries of the program quickly, and kills them at a chosen system call."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

KILLED = 9
_REPOSITORY = str(Path(__file__).parents[2])
_CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)")
# What another process could ever see the effect of. Descriptors, reads, memory and waiting are not among it.
CHANGING = re.compile(
    r"p?writev?2?|pwrite64|f?truncate|fallocate|rename(at2?)?|(sym|un)?link(at)?|mk(dir|nod)(at)?|rmdir|f?ch(mod|own)(at)?|"
    r"utimensat|f?setxattr|t?g?kill|pidfd_send_signal|v?fork|clone3?|execve(at)?|send(to|m?msg)|connect|exit_group|flock|"
    r"f(data)?sync"
)

_AUDITED = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.chmod", "subprocess.Popen"}


class Point(NamedTuple):
    """A system call of one run: the `number`th of its name."""

    name: str
    number: int
    text: str = ""


class Warm:
    """A process that forks runs of an entry; see `warm.py`."""

    def __init__(self, **environ: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": _REPOSITORY, "PYTHONDONTWRITEBYTECODE": "1", **environ},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate()

    def run(self, entry: str, environ: Mapping[str, str], output: Path) -> int:
        """Run an entry, arguments after blanks, to its end; give its exit code, or minus the signal that ended it."""
        self._request(entry, environ, output)
        return self._go()

    def traced(self, entry: str, environ: Mapping[str, str], output: Path, trace: Path) -> list[Point]:
        """Run an entry to its end and list every system call it made."""
        pid = self._request(entry, environ, output)
        with _strace(pid, "-o", str(trace), "-e", "trace=all") as tracer:
            code = self._go()
            tracer.communicate()
        assert code == 0, output.read_text()
        return _points(trace.read_text())

    def killed(self, entry: str, environ: Mapping[str, str], output: Path, point: Point) -> bool:
        """Run an entry and kill it before the given call; False when it made fewer and ended by itself."""
        pid = self._request(entry, environ, output)
        where = f"inject={point.name}:signal=KILL:when={point.number}"
        with _strace(pid, "-o", os.devnull, "-e", f"trace={point.name}", "-e", where) as tracer:
            code = self._go()
            tracer.communicate()
        assert code in (0, -KILLED), f"exit code {code}: {output.read_text()}"
        return code == -KILLED

    def _request(self, entry: str, environ: Mapping[str, str], output: Path) -> int:
        assert self._process.stdin is not None
        request = {"entry": entry, "environ": dict(environ), "output": str(output)}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return int(self._answer())

    def _go(self) -> int:
        assert self._process.stdin is not None
        print("go", file=self._process.stdin, flush=True)
        return os.waitstatus_to_exitcode(int(self._answer()))

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the warm process has ended"
        return line


def changing(points: list[Point]) -> list[Point]:
    """Keep the calls that change something another process could see."""
    return [
        point
        for point in points
        if CHANGING.fullmatch(point.name) or (point.name in ("open", "openat") and re.search("O_CREAT|O_TRUNC", point.text))
    ]


def killed(act: Callable[[], object], at: int) -> bool:
    """Do something in a child that is killed before its change number `at`; False when it made fewer.

    The child kills itself at the chosen one of its changes of files, as Python's own audit events tell them
    (https://docs.python.org/3/library/audit_events.html); what SQLite writes is not among them.
    """
    pid = os.fork()
    if pid == 0:
        left = at

        def hook(event: str, given: tuple[object, ...]) -> None:
            nonlocal left
            writes = event == "open" and isinstance(given[2], int) and bool(given[2] & (os.O_WRONLY | os.O_RDWR))
            if event in _AUDITED or writes:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), KILLED)

        sys.addaudithook(hook)
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -KILLED), code
    return code != 0


def _strace(pid: int, *options: str) -> subprocess.Popen[str]:
    """Attach to a process, and come back when it is attached to."""
    tracer = subprocess.Popen(["strace", "-p", str(pid), *options], stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    assert "attached" in said, said
    return tracer


def _points(trace: str) -> list[Point]:
    seen: Counter[str] = Counter()
    points = []
    for line in trace.splitlines():
        call = _CALL.match(line)
        if call:
            seen[call[1]] += 1
            points.append(Point(call[1], seen[call[1]], call[2]))
    return points
