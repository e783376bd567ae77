"""Starting an entry as a process of its own, where no systemd does it: containers, cron, a terminal.

Two forks and a session of its own, so that neither the terminal nor the starter's end touches it and nobody
has to collect it. It inherits no descriptor (the tick's lock least of all), the starter's environment without
what marks a cycle, and its working folder. Both streams go to `logs/<entry>.log` in the state folder, which
is put aside as `.1` when it has grown large.

A starter that is itself inside a cycle's command starts a process inside that cycle's tree: it ends with the
cycle.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn

from orchestration.cycles.launch.port import ENTRIES
from orchestration.errors import CommandNotStarted, Usage
from orchestration.host.files import unwritable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LOG_LIMIT: Final = 1024 * 1024
_HIGHEST_DESCRIPTOR: Final = 1 << 20


class DetachedLauncher:
    """Starts entries as processes that belong to nobody."""

    def __init__(self, log_dir: str, environ: Mapping[str, str], python: Sequence[str] = (sys.executable, "-m")) -> None:
        """Take what the processes will need.

        Args:
            log_dir: made if absent.
            environ: their whole environment.
            python: argv before the module's name.
        """
        self._log_dir = log_dir
        self._environ = environ
        self._python = python

    def start(self, entry: str, *arguments: str) -> None:
        """Start it, with these arguments; comes back when the new program runs. See `Launcher`."""
        if entry not in ENTRIES:
            raise Usage(f"no entry {entry!r} can be started", hint=f"There are: {', '.join(ENTRIES)}")
        log = self._open_log(entry)
        failure, failure_in = os.pipe2(os.O_CLOEXEC)
        argv = [*self._python, f"orchestration.{entry}", *arguments]
        try:
            child = os.fork()
            if child == 0:
                _detach(argv, self._environ, log, failure_in)
            os.close(failure_in)
            os.waitpid(child, 0)
            why = os.read(failure, 100)
        except OSError as error:
            why = str(error.errno).encode()
        finally:
            os.close(failure)
            os.close(log)
        if why:
            raise CommandNotStarted(
                f"{argv[0]} could not be started: {os.strerror(int(why))}", hint="Look at ulimit -u and free memory."
            )

    def _open_log(self, entry: str) -> int:
        path = os.path.join(self._log_dir, f"{entry}.log")
        try:
            os.makedirs(self._log_dir, mode=0o700, exist_ok=True)
            with suppress(FileNotFoundError):
                if os.stat(path).st_size > _LOG_LIMIT:
                    os.replace(path, f"{path}.1")
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unwritable(path, error) from error


def _detach(argv: Sequence[str], environ: Mapping[str, str], log: int, failure_in: int) -> NoReturn:
    """Become the new program's parent's parent, and end; on failure write the error number to `failure_in`."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _arrange(log, failure_in)
        failure_in = 3
        os.execve(argv[0], list(argv), dict(environ))  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(failure_in, str(error.errno).encode())
    except BaseException:
        os.write(failure_in, str(errno.EINVAL).encode())
    finally:
        os._exit(127)


def _arrange(log: int, failure_in: int) -> None:
    """Make standard input empty, both outputs the log, 3 the failure pipe (closed by exec), and close all others."""
    import fcntl

    nothing = os.open(os.devnull, os.O_RDONLY)
    high = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 10) for number in (nothing, log, log, failure_in)]
    for target, number in enumerate(high):
        os.dup2(number, target, inheritable=target < 3)
    os.closerange(4, min(_HIGHEST_DESCRIPTOR, os.sysconf("SC_OPEN_MAX")))
