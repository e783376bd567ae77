"""A program that lives in a terminal of ours, kept as the runner keeps commands: it and everything it started end together.

Owns the program's start in the foreground of its terminal, its end and that of its tree, and what its open files say of the
runtime's session. The keeper is the pane's first process and a subreaper, so what the program leaves behind is its own:

- the program ends, or the keeper is asked to (SIGTERM; SIGHUP when the pane is closed): TERM to the tree, the grace, KILL;
- the keeper dies, even by SIGKILL: the kernel kills the program (PR_SET_PDEATHSIG); what that had started is found by its
  mark (`process.kill_marked`).
"""

from __future__ import annotations

import os
import re
import select
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final, NoReturn

from orchestration.errors import CommandNotStarted
from orchestration.host import clock, process_tree
from orchestration.host.process_tree import Process

_ROLLOUT: Final = re.compile(r"/sessions/.*/rollout-[^/]*-([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})\.jsonl")
"""What Codex keeps open as long as a session lives (codex-cli 0.169.0)."""
_NAP_MS: Final = 20
_PATIENCE: Final = 5.0


class Resident:
    """One program and all that it starts."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], cwd: str) -> None:
        """Start it, in the foreground of this process's terminal.

        Raises:
            CommandNotStarted: not found, not executable, no such `cwd`.
        """
        process_tree.become_subreaper()
        failure, failure_in = os.pipe2(os.O_CLOEXEC)
        keeper = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _become(command, env, cwd, failure_in, keeper)
        os.close(failure_in)
        why = os.read(failure, 100).decode()
        os.close(failure)
        if why:
            os.waitpid(self.pid, 0)
            raise CommandNotStarted(
                f"{command[0]} could not be executed: {os.strerror(int(why))}",
                hint=f"Give its full path, or install it; PATH is {env.get('PATH', os.defpath)}, the folder {cwd}",
            )
        self.status: int | None = None

    @property
    def lives(self) -> bool:
        """Whether the program still runs; collects what has ended."""
        self._reap()
        return self.status is None

    def session(self) -> str:
        """Return the session that Codex has open in this tree; empty where there is none."""
        for pid in (self.pid, *(process.pid for process in self._tree())):
            with suppress(OSError):
                for name in os.listdir(f"/proc/{pid}/fd"):
                    with suppress(OSError):
                        if found := _ROLLOUT.search(os.readlink(f"/proc/{pid}/fd/{name}")):
                            return found[1]
        return ""

    def go_on(self) -> None:
        """Wake the program if it was stopped (Ctrl-Z): there is no shell here that would."""
        if any(process.pid == self.pid and process.state == "T" for process in process_tree.all_processes()):
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGCONT)

    def end(self, grace: timedelta) -> None:
        """End it with everything it started; comes back when they are gone."""
        process_tree.terminate(self._tree())
        until = clock.monotonic() + grace.total_seconds()
        while self._left() and clock.monotonic() < until:
            select.poll().poll(_NAP_MS)  # many may end; the kernel tells of one at a time
        until = clock.monotonic() + _PATIENCE
        while self._left() and clock.monotonic() < until:
            process_tree.freeze_and_kill(self._tree)
            select.poll().poll(_NAP_MS)

    def _left(self) -> bool:
        self._reap()
        return bool(self._tree())

    @staticmethod
    def _tree() -> list[Process]:
        return [process for process in process_tree.descendants([os.getpid()]) if process.runs]

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.pid:
                    self.status = ended[1]


def _become(command: Sequence[str], env: Mapping[str, str], cwd: str, failure: int, keeper: int) -> NoReturn:
    """Turn the forked child into the program, at the head of the terminal's foreground; on failure tell the error number."""
    try:
        process_tree.die_with_parent(keeper)
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # while we are in the background we may still take the terminal
        if os.isatty(0):
            os.tcsetpgrp(0, os.getpid())
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.chdir(cwd)
        os.execvpe(command[0], list(command), dict(env))  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(failure, str(error.errno).encode())
    except BaseException:
        os.write(failure, b"22")  # EINVAL
    finally:
        os._exit(127)
