"""`klorosctl logs`: a cycle's output as it was written; with `-f` until the cycle has ended.

Following waits on the file by inotify(7) and looks at the store once a second, so it costs nothing while nothing happens.
"""

from __future__ import annotations

import ctypes
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import IO

import click

from orchestration.cycles import artifacts, ledger
from orchestration.cycles.cycle import FINISHED, Cycle
from orchestration.errors import KlorosError
from orchestration.operator.console import Console, json_option
from orchestration.operator.cycles import copy_of, elsewhere, find, folder_of, number_argument

_IN_MODIFY, _IN_CREATE, _IN_MOVED_TO, _IN_CLOEXEC, _IN_NONBLOCK = 0x2, 0x100, 0x80, 0o2000000, 0o4000  # sys/inotify.h
_LOOK_AGAIN = 1000  # milliseconds between two looks at the store
_CHUNK = 65536


@click.command()
@number_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the cycle has ended.")
@json_option
@click.pass_obj
def logs(console: Console, *, number: str, follow: bool) -> None:
    """Print the output of cycle N, both streams as written. With --json: one object a line."""
    with console.looking() as kernel:
        cycle = find(kernel, number)
        copy = copy_of(console, kernel, cycle)
    if host := elsewhere(console, cycle):
        hint = f"klorosctl logs {cycle.cycle}, there" + (f"; its bundle is {copy}" if copy else "")
        raise KlorosError(f"the output of cycle {cycle.cycle} is on {host}, where it ran", hint=hint)
    path = artifacts.output_path(folder_of(console, cycle))
    waits = follow and cycle.state not in FINISHED
    if not waits and not os.path.exists(path):
        why = "it has not started yet" if cycle.started_at is None else f"it is {cycle.state}"
        hint = (
            f"klorosctl logs -f {cycle.cycle} waits for it" if cycle.state not in FINISHED else "klorosctl show tells more"
        )
        raise KlorosError(f"cycle {cycle.cycle} has no output at {path}: {why}", hint=hint)
    parts = _follow(path, lambda: _has_ended(console, cycle)) if waits else _read(path)
    _print(console, cycle, parts)


def _has_ended(console: Console, cycle: Cycle) -> bool:
    with console.looking() as kernel:
        now = ledger.get(kernel.db, cycle.cycle)
    return now is None or now.state in FINISHED


def _read(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from iter(lambda: file.read(_CHUNK), b"")


def _follow(path: str, has_ended: Callable[[], bool]) -> Iterator[bytes]:
    """Yield what is in the file and what comes, until the cycle has ended and all of it was read."""
    watch = _Watch()
    file: IO[bytes] | None = None
    try:
        ended = False
        while True:
            watch.add(os.path.dirname(path))
            file = file or _open(path)
            grew = False
            while file is not None and (part := file.read(_CHUNK)):
                grew = True
                yield part
            if ended and not grew:
                return
            ended = ended or has_ended()  # once more to the end of the file after that
            if not ended and not grew:
                watch.wait()
    finally:
        watch.close()
        if file is not None:
            file.close()


def _open(path: str) -> IO[bytes] | None:
    try:
        return open(path, "rb", buffering=0)
    except FileNotFoundError:
        return None


class _Watch:
    """One inotify descriptor on a folder that may not exist yet; without inotify, a plain pause."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(_IN_CLOEXEC | _IN_NONBLOCK)
        self._watched: str | None = None

    def add(self, folder: str) -> None:
        """Watch the folder, or the nearest one above it that is there."""
        while not os.path.isdir(folder) and folder != "/":
            folder = os.path.dirname(folder)
        if self._descriptor >= 0 and folder != self._watched:
            events = _IN_MODIFY | _IN_CREATE | _IN_MOVED_TO
            self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), events)
            self._watched = folder

    def wait(self) -> None:
        """Come back when something happened there, or after a second."""
        descriptors = [self._descriptor] if self._descriptor >= 0 else []
        ready, _, _ = select.select(descriptors, [], [], _LOOK_AGAIN / 1000)
        if ready:
            os.read(self._descriptor, _CHUNK)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _print(console: Console, cycle: Cycle, parts: Iterator[bytes]) -> None:
    if not console.as_json:
        for part in parts:
            sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
        return
    import json

    for line in _lines(parts):
        click.echo(json.dumps({"cycle": cycle.cycle, "line": line.decode("utf-8", "backslashreplace")}))


def _lines(parts: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        yield from whole
    if rest:
        yield rest
