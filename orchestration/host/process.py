"""`run`: every command that this program starts, to the end of its whole tree.

Owns starting without a shell, the deadline, stopping, the output file and the figures; refuses to know what a
command is for. Callers: `cycles/runner`, `phase/domains`, `promotions/trial`; a `run` inside the command of
another `run` works.

The caller forks a keeper (`host/keeper.py`), which is the command's parent. No survivor:

- the command ends, or its deadline passes, or the caller asks: the keeper sends TERM to the tree, waits the
  grace, kills;
- the caller dies, even by SIGKILL: the keeper sees the pipe's end and kills at once;
- the keeper dies: the caller, a subreaper meanwhile, gets the orphans and kills them; PR_SET_PDEATHSIG ends
  the command itself;
- both die in the same instant: the command itself dies by PR_SET_PDEATHSIG; what it had started is found by
  its mark in /proc/<pid>/environ (`kill_marked`), or by systemd, which ends everything in the unit's control
  group.

Limits: a process that another daemon starts for the command (systemd-run, at, docker) is not in the tree.
Memory is the largest resident set of a single process in the tree (getrusage(2)), and not less than the
caller's own at the start, since the kernel counts the image before exec.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from orchestration.errors import CommandLost, CommandNotStarted, Unwritable
from orchestration.host import cgroup, clock, journal, process_tree
from orchestration.host.files import unwritable
from orchestration.host.keeper import Order, keep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

TOKEN: Final = "KLR_CYCLE_TOKEN"  # noqa: S105 - the name of the mark, not a secret
_GRACE: Final = timedelta(seconds=10)
_POLL: Final = timedelta(seconds=0.5)
_NAP_MS: Final = 5
_PATIENCE: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """How a command ended, once its whole tree is gone.

    Exactly one of `returncode` (0 to 255) and `signal` (1 to 64) is set. `wall` runs from the start to the
    end of the tree, grace included; `cpu` is user and system time of all processes that were collected;
    `peak_bytes` see the module.
    """

    returncode: int | None
    signal: int | None
    timed_out: bool  # the deadline passed first
    cancelled: bool  # `should_stop` said so first
    leftovers: int  # processes that still ran when the command itself had ended; they were ended too
    survivors: tuple[int, ...]  # pids that we were not allowed to kill (a set-uid program)
    started_at: datetime
    ended_at: datetime
    wall: timedelta
    cpu: timedelta
    peak_bytes: int
    output_truncated: bool

    @property
    def succeeded(self) -> bool:
        """Say whether the command ended by itself with exit code 0."""
        return self.returncode == 0 and not self.timed_out and not self.cancelled

    @property
    def signal_name(self) -> str | None:
        """Name the signal that ended the command (`SIGKILL`), None when it exited."""
        return None if self.signal is None else _name_of(self.signal)

    def describe(self) -> str:
        """Say in a few words how it ended."""
        how = f"exit code {self.returncode}" if self.signal is None else f"killed by {self.signal_name}"
        if self.timed_out:
            return f"timed out after {self.wall.total_seconds():.1f} s ({how})"
        if self.cancelled:
            return f"cancelled ({how})"
        return how + (f", {self.leftovers} processes left behind were ended" if self.leftovers else "")


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    output: str,
    output_limit: int,
    timeout: timedelta,
    grace: timedelta = _GRACE,
    should_stop: Callable[[], bool] | None = None,
    poll: timedelta = _POLL,
    started: Callable[[int], None] | None = None,
    standard_input: str | None = None,
    told: Sequence[str] | None = None,
) -> Completed:
    """Run a command and come back when it and everything it started are gone.

    Args:
        argv: program and arguments; the program is looked up in the PATH of `env`. No shell. env: the whole
        environment; nothing is inherited. cwd: the command's working directory. output: file for both streams, as
        written; made or emptied, mode 0600. output_limit: bytes kept; then one line says how many were dropped.
        timeout: until SIGTERM goes to the whole tree. grace: from SIGTERM until SIGKILL to the whole tree.
        should_stop: asked every `poll`; True ends the command as the deadline would. What it raises ends it too.
        poll: how often `should_stop` is asked. started: told the command's pid as soon as it runs. standard_input:
        file that the command reads, whole, as its standard input; without one it finds the end there at once. told:
        what the log calls the command, where an argument is nothing for the log.

    Raises:
        CommandNotStarted: not found, not executable, no such `cwd`, no such `standard_input`, or no process
        to be had. (Exit code 127 of a command that did start comes back as such.)
        CommandLost: the keeper was killed; the tree is gone, how the command ended is unknown.
        Unwritable: `output` can't be written.
    """
    given = None if standard_input is None else _open_input(standard_input)
    try:
        log = _open(output)
    except Unwritable:
        _close(given)
        raise
    spared = {process.pid for process in process_tree.descendants([os.getpid()])}
    before = process_tree.become_subreaper()
    command = f"cd {shlex.quote(cwd)} && {shlex.join(argv if told is None else told)}"
    journal.log(journal.Event.COMMAND_STARTED, command, priority=_priority(), output=output)
    order = Order(argv, env, cwd, log, output_limit, timeout.total_seconds(), grace.total_seconds(), given)
    try:
        kept = _Kept(order)
        try:
            return kept.follow(should_stop, poll, started)
        finally:
            kept.end(spared)
    finally:
        os.close(log)
        _close(given)
        process_tree.become_subreaper(before)


def _priority() -> journal.Priority:
    """Inside a cycle stderr is the cycle's own output, where our lines would stand between the command's."""
    return journal.Priority.DEBUG if TOKEN in os.environ else journal.Priority.INFO


def kill_marked(token: str) -> int:
    """Kill what a cycle's dead runner left, found by `KLR_CYCLE_TOKEN=<token>` in its environment.

    All that descend from such a process go with it. Comes back when they are gone; spares this process and
    its ancestors.

    Returns:
        How many there were.
    """
    if not token:
        return 0
    mark = f"{TOKEN}={token}".encode()
    spared = {os.getpid(), *_ancestors()}
    killed: set[int] = set()

    def find() -> list[process_tree.Process]:
        table = {process.pid: process for process in process_tree.all_processes() if process.runs}
        marked = [pid for pid in table if pid not in spared and _is_marked(pid, mark)]
        below = [process for process in process_tree.descendants(marked, spare=spared) if process.runs]
        found = {process.pid: process for process in [*(table[pid] for pid in marked), *below]}
        killed.update(found)
        return list(found.values())

    give_up = clock.monotonic() + _PATIENCE
    while find() and clock.monotonic() < give_up:
        process_tree.freeze_and_kill(find)
        select.poll().poll(_NAP_MS)
    return len(killed)


class _Kept:
    """The caller's half: the keeper's pid and the two pipes."""

    def __init__(self, order: Order) -> None:
        life_out, self._life = os.pipe2(os.O_CLOEXEC)
        self._report, report_in = os.pipe2(os.O_CLOEXEC)
        self._argv = order.argv
        self._cwd = order.cwd
        self._path = order.env.get("PATH", os.defpath)
        try:
            self._pid = os.fork()
        except OSError as error:
            for descriptor in (life_out, self._life, self._report, report_in):
                os.close(descriptor)
            raise self._not_started("fork", error.errno or 0) from error
        if self._pid == 0:
            os.close(self._life)
            os.close(self._report)
            keep(order, life=life_out, report=report_in)
        os.close(life_out)
        os.close(report_in)

    def follow(
        self, should_stop: Callable[[], bool] | None, poll: timedelta, started: Callable[[int], None] | None
    ) -> Completed:
        started_at, begun = clock.now(), clock.monotonic()
        for message in self._messages(should_stop, poll):
            if "failed" in message:
                raise self._not_started(message["at"], message["failed"])
            if "defect" in message:
                raise CommandLost(f"the keeper of {self._argv[0]} failed", hint=message["defect"])
            if "pid" in message:
                started_at, begun = clock.now(), clock.monotonic()
                if started is not None:
                    started(message["pid"])
                continue
            completed = _completed(message, started_at, timedelta(seconds=clock.monotonic() - begun))
            ended = f"{shlex.quote(self._argv[0])}: {completed.describe()}"
            journal.log(journal.Event.COMMAND_ENDED, ended, priority=_priority())
            return completed
        raise CommandLost(
            f"the keeper of {self._argv[0]} was killed, so how the command ended is unknown",
            hint="Look for the kernel's out-of-memory killer: journalctl -k -g 'Out of memory'.",
        )

    def end(self, spared: set[int]) -> None:
        """Let go of the keeper, which kills what may be left, and collect it; then kill what it could not."""
        os.close(self._life)
        _, status = os.waitpid(self._pid, 0)
        os.close(self._report)
        if status:
            self._end_orphans(spared)

    def _end_orphans(self, spared: set[int]) -> None:
        if group := cgroup.existing(f"run-{self._pid}"):
            cgroup.kill(group)
            cgroup.remove(group)
        own = os.getpid()

        def find() -> list[process_tree.Process]:
            return [p for p in process_tree.descendants([own], spare=spared) if p.runs]

        give_up = clock.monotonic() + _PATIENCE
        while (left := process_tree.descendants([own], spare=spared)) and clock.monotonic() < give_up:
            process_tree.freeze_and_kill(find)
            for process in left:
                with suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
            select.poll().poll(_NAP_MS)

    def _messages(self, should_stop: Callable[[], bool] | None, poll: timedelta) -> Iterator[dict[str, Any]]:
        ready = select.poll()
        ready.register(self._report, select.POLLIN)
        pause = None if should_stop is None else max(1, int(poll.total_seconds() * 1000))
        buffer = b""
        while True:
            if not ready.poll(pause):
                if should_stop is not None and should_stop():
                    should_stop, pause = None, None
                    with suppress(BrokenPipeError):
                        os.write(self._life, b"s")
                continue
            chunk = os.read(self._report, 65536)
            if not chunk:
                return
            buffer += chunk
            while b"\n" in buffer:
                line, _, buffer = buffer.partition(b"\n")
                yield json.loads(line)

    def _not_started(self, at: str, number: int) -> CommandNotStarted:
        why = os.strerror(number)
        if at == "chdir":
            return CommandNotStarted(f"{self._cwd} can't be entered: {why}", hint="Make the folder, or correct it.")
        if at == "fork":
            return CommandNotStarted(
                f"no process to be had for {self._argv[0]}: {why}",
                hint="Raise TasksMax= or ulimit -u, or end something.",
            )
        return CommandNotStarted(
            f"{self._argv[0]} could not be executed: {why}",
            hint=f"Give its full path, install it, or make it executable; PATH is {self._path}",
        )


def _completed(message: dict[str, Any], started_at: datetime, wall: timedelta) -> Completed:
    status: int = message["status"]
    code = os.waitstatus_to_exitcode(status)
    return Completed(
        returncode=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        timed_out=message["timed_out"],
        cancelled=message["cancelled"],
        leftovers=message["leftovers"],
        survivors=tuple(message["survivors"]),
        started_at=started_at,
        ended_at=started_at + wall,
        wall=wall,
        cpu=timedelta(seconds=message["cpu"]),
        peak_bytes=message["peak"],
        output_truncated=message["truncated"],
    )


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unwritable(path, error) from error


def _open_input(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CommandNotStarted(f"{path} can't be read: {error.strerror}", hint="It is to be the standard input.") from error


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _is_marked(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:
        return False  # gone, or of another user


def _ancestors() -> Iterator[int]:
    parents = {process.pid: process.parent for process in process_tree.all_processes()}
    pid = os.getpid()
    while pid := parents.get(pid, 0):
        yield pid


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
