"""The keeper: the parent of one command, forked from the caller of `process.run`, that outlives neither.

Owns the command's start, its deadline, its output and its whole tree; refuses to know what the command is
for. It is a child subreaper, so all that the command leaves behind becomes its child. Pipes tie it to the
caller:

- `life` (caller to keeper): a byte asks to stop the command; its end means that the caller died: the tree is
  killed at once;
- `report` (keeper to caller): JSON lines, `{"pid": …}` when the command runs or `{"failed": …}` when it could
  not be started, and one with the result when the tree is gone. Its end without a result means that the
  keeper was killed.

It ignores TERM, INT and HUP: whoever wants the tree to end asks the caller, or kills it. It keeps the
caller's locks open, so a lock of a killed caller is free only when the tree is gone.

    running ──command exits, deadline, asked to stop──► ending (TERM sent) ──grace over──► killing ──► gone
       └───────────────────────── caller died ────────────────┴──────────────────────────────┘
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from orchestration.host import cgroup, clock, process_tree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CHUNK: Final = 65536
_NAP_MS: Final = 20  # between two rounds of killing
_PATIENCE: Final = 5.0  # seconds until processes that we may not kill are given up and reported
_IGNORED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)
_HIGHEST_DESCRIPTOR: Final = 1 << 20


class Order(NamedTuple):
    """What to run and within which bounds; durations in seconds, `output` and `input` open files, `limit` in bytes."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    output: int
    limit: int
    timeout: float
    grace: float
    input: int | None = None


class _Phase(Enum):
    RUNNING = "running"
    ENDING = "ending"
    KILLING = "killing"


def keep(order: Order, *, life: int, report: int) -> NoReturn:
    """Run the command to the end of its tree, in the process just forked for it; never returns."""
    try:
        os.setsid()
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        process_tree.become_subreaper()
        _Keeper(order, life, report).run()
    except Exception:
        import traceback

        os.write(report, json.dumps({"defect": traceback.format_exc()}).encode() + b"\n")
    finally:
        os._exit(0)


class _Keeper:
    def __init__(self, order: Order, life: int, report: int) -> None:
        self._order = order
        self._life = life
        self._report = report
        self._own = os.getpid()
        self._phase = _Phase.RUNNING
        self._next_phase_at = 0.0
        self._command = 0
        self._status: int | None = None
        self._childless = False
        self._caller_lives = True
        self._stop_asked = False
        self._output_open = True
        self._log = _Log(order.output, order.limit)
        self._result: dict[str, object] = {"timed_out": False, "cancelled": False, "leftovers": 0}
        self._cpu = 0.0
        self._peak = 0
        self._refused: set[int] = set()
        self._wakeup, wakeup_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup_in, warn_on_full_buffer=False)
        self._group = cgroup.make(f"run-{self._own}")
        self._poll = select.poll()

    def run(self) -> None:
        self._output, output_in = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._output, False)
        if not self._start(output_in):
            return
        os.close(output_in)
        for descriptor in (self._life, self._output, self._wakeup):
            self._poll.register(descriptor, select.POLLIN)
        self._enter(_Phase.RUNNING, self._order.timeout)
        self._watch()
        while not self._refused and self._output_open and self._copy_output():
            pass  # what was still in the pipe when the tree ended
        self._log.close()
        self._tell_result()

    def _start(self, output_in: int) -> bool:
        errors, errors_in = os.pipe2(os.O_CLOEXEC)
        try:
            self._command = os.fork()
        except OSError as error:
            self._tell({"failed": error.errno, "at": "fork"})
            return False
        if self._command == 0:
            _become(self._order, output_in, errors_in, self._own, self._group)
        os.close(errors_in)
        failure = os.read(errors, 100).decode().split()
        os.close(errors)
        if failure:
            os.waitpid(self._command, 0)
            self._leave_group()
            self._tell({"failed": int(failure[1]), "at": failure[0]})
            return False
        self._tell({"pid": self._command})
        return True

    def _watch(self) -> None:
        while True:
            self._reap()
            if self._childless:
                return
            self._advance()
            if self._phase is _Phase.KILLING and not self._kill():
                return
            self._wait()

    def _advance(self) -> None:
        now = clock.monotonic()
        if not self._caller_lives:
            if self._phase is not _Phase.KILLING:
                self._enter(_Phase.KILLING, _PATIENCE)
        elif self._phase is _Phase.RUNNING:
            if self._status is not None:
                self._result["leftovers"] = self._terminate()
            elif self._stop_asked or now >= self._next_phase_at:
                self._result["cancelled" if self._stop_asked else "timed_out"] = True
                self._terminate()
        elif self._phase is _Phase.ENDING and now >= self._next_phase_at:
            self._enter(_Phase.KILLING, _PATIENCE)

    def _terminate(self) -> int:
        self._enter(_Phase.ENDING, self._order.grace)
        found = [process for process in self._tree() if process.runs]
        process_tree.terminate(found)
        return len(found)

    def _kill(self) -> bool:
        """Kill what there is; False when only processes are left that we may not kill."""
        if self._group:
            cgroup.kill(self._group)
        refused = process_tree.freeze_and_kill(self._tree)
        self._reap()
        if not refused or clock.monotonic() < self._next_phase_at:
            return True
        self._refused = refused
        return {process.pid for process in self._tree() if process.runs} - refused != set()

    def _wait(self) -> None:
        nap = max(0.0, self._next_phase_at - clock.monotonic()) * 1000 + 1
        for descriptor, _ in self._poll.poll(_NAP_MS if self._phase is _Phase.KILLING else min(nap, 60_000)):
            if descriptor == self._life:
                self._listen()
            elif descriptor == self._output:
                self._copy_output()
            else:
                with suppress(BlockingIOError):
                    os.read(self._wakeup, _CHUNK)

    def _listen(self) -> None:
        if os.read(self._life, _CHUNK):
            self._stop_asked = True
        else:
            self._poll.unregister(self._life)
            self._caller_lives = False

    def _copy_output(self) -> bool:
        """Copy one chunk, so that a command that never stops writing can't keep us from its deadline."""
        with suppress(BlockingIOError):
            chunk = os.read(self._output, _CHUNK)
            self._log.write(chunk)
            if not chunk:
                self._output_open = False
                self._poll.unregister(self._output)
            return bool(chunk)
        return False

    def _reap(self) -> None:
        try:
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._cpu += usage.ru_utime + usage.ru_stime
                self._peak = max(self._peak, usage.ru_maxrss * 1024)
                if pid == self._command:
                    self._status = status
        except ChildProcessError:
            self._childless = True

    def _tree(self) -> list[process_tree.Process]:
        return process_tree.descendants([self._own])

    def _enter(self, phase: _Phase, seconds: float) -> None:
        self._phase = phase
        self._next_phase_at = clock.monotonic() + seconds

    def _leave_group(self) -> None:
        if self._group:
            cgroup.remove(self._group)

    def _tell_result(self) -> None:
        self._leave_group()
        self._result |= {"status": self._status, "cpu": self._cpu, "peak": self._peak}
        self._result |= {"truncated": self._log.truncated, "survivors": sorted(self._refused)}
        self._tell(self._result)

    def _tell(self, message: dict[str, object]) -> None:
        with suppress(OSError):  # the caller is gone: nobody to tell
            os.write(self._report, json.dumps(message).encode() + b"\n")


class _Log:
    """The command's output file: bytes as they come, up to a limit, then one line that says so."""

    def __init__(self, descriptor: int, limit: int) -> None:
        self._descriptor = descriptor
        self._left = limit
        self._limit = limit
        self._dropped = 0

    @property
    def truncated(self) -> bool:
        return self._dropped > 0

    def write(self, chunk: bytes) -> None:
        kept = chunk[: self._left] if not self._dropped else b""
        written = 0
        with suppress(OSError):  # a full disk: the command goes on, the rest of its output counts as dropped
            while written < len(kept):
                written += os.write(self._descriptor, kept[written:])
        self._left -= written
        self._dropped += len(chunk) - written

    def close(self) -> None:
        if self._dropped:
            marker = f"\n[kloros: output cut here, {self._dropped} more bytes; the limit is {self._limit}]\n"
            with suppress(OSError):
                os.write(self._descriptor, marker.encode())
        with suppress(OSError):
            os.fsync(self._descriptor)


def _become(order: Order, output_in: int, errors_in: int, keeper: int, group: str | None) -> NoReturn:
    """Turn the forked child into the command; on failure write `<where> <errno>` to `errors_in`."""
    at, errors = "exec", errors_in
    try:
        process_tree.die_with_parent(keeper)
        os.setsid()
        if group:
            cgroup.enter(group)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        standard_input = os.open(os.devnull, os.O_RDONLY) if order.input is None else order.input
        errors = _arrange(standard_input, output_in, errors_in)
        at = "chdir"
        os.chdir(order.cwd)
        at = "exec"
        os.execvpe(order.argv[0], list(order.argv), dict(order.env))  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(errors, f"{at} {error.errno}".encode())
    except BaseException:
        os.write(errors, f"{at} {errno.EINVAL}".encode())
    finally:
        os._exit(127)


def _arrange(standard_input: int, output: int, errors: int) -> int:
    """Make the given descriptors 0, 1, 2, and 3 for `errors` (closed by exec); close all others."""
    wanted = (standard_input, output, output, errors)
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10) for descriptor in wanted]
    for target, descriptor in enumerate(high):
        os.dup2(descriptor, target, inheritable=target < 3)
    os.closerange(4, min(_HIGHEST_DESCRIPTOR, os.sysconf("SC_OPEN_MAX")))
    return 3
