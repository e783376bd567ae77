"""Slurm's own commands, each with a deadline: sbatch, scontrol, sacct, scancel. Never held under a lock of the tick.

What can't be reached is told apart from what was refused by the words of Slurm 22.05 (src/common/slurm_errno.c).
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

from orchestration.cycles.slurm import states
from orchestration.errors import KlorosError
from orchestration.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestration.cycles.slurm.states import Seen

_AWAY: Final = (
    "unable to contact slurm controller",
    "slurm backup controller in standby",
    "connect failure",
    "connection refused",
    "connection timed out",
    "socket timed out",
    "zero bytes were transmitted",
    "transport endpoint is not connected",
    "munge",
    "slurm temporarily unable",
    "resource temporarily unavailable",
    "dns srv lookup failed",
    "could not establish a configuration source",
)
_NO_SUCH_JOB: Final = "invalid job id"


class SlurmAway(KlorosError):
    """Slurm can't be reached now; what was asked may have been done or not."""

    exit = Exit.STORE_UNREACHABLE


class SlurmRefused(KlorosError):
    """Slurm has answered, and will not do it."""

    exit = Exit.FAILED


class Slurm:
    """The commands, as one user may give them."""

    def __init__(self, environ: Mapping[str, str], *, patience: float = 20.0) -> None:
        """Take the environment (`PATH`, `SLURM_CONF`) and how many seconds one command may take."""
        self._environ = environ
        self._patience = patience

    def ping(self) -> None:
        """Ask the controller for a sign of life.

        Raises:
            SlurmAway: it gives none.
        """
        if "UP" not in (told := self._ask("scontrol", "ping")):
            raise SlurmAway(f"scontrol ping: {told.strip()[:200]}")

    def submit(self, options: Sequence[str], script: str) -> int:
        """Submit a batch script; returns the job's id.

        Raises:
            SlurmAway: also when nobody knows whether it was taken. SlurmRefused: with what Slurm says.
        """
        told = self._ask("sbatch", "--parsable", *options, script)
        number = told.strip().partition(";")[0]
        if not number.isdigit():
            raise SlurmAway(f"sbatch gave no job id: {told.strip()[:200]!r}")
        return int(number)

    def job(self, job_id: int) -> Seen | None:
        """Look at a job; None when the controller does not know it any more, and accounting knows of no end of it either."""
        try:
            return states.read(self._ask("scontrol", "show", "job", "--oneliner", "--detail", str(job_id)))
        except SlurmRefused as error:
            if _NO_SUCH_JOB not in error.message.lower():
                raise
        found = self.accounts(job_id)
        # What the controller has forgotten does not run, whatever accounting was told last.
        return found if found is not None and states.meaning(found.state).stage is states.Stage.ENDED else None

    def accounts(self, job_id: int) -> Seen | None:
        """Ask accounting what a job has used; None when none is kept. A job that it has not been told of has no state."""
        fields = ",".join(states.ACCOUNTED)
        try:
            told = self._ask("sacct", "--noheader", "--parsable2", "--jobs", str(job_id), "--format", fields)
        except SlurmRefused:
            return None
        return states.read_accounts(told, job_id) or states.Seen(job_id, "", is_whole=False)

    def find(self, comment: str) -> Seen | None:
        """Look for the job that was submitted with this comment, in the controller's memory."""
        lines = self._ask("scontrol", "show", "job", "--oneliner").splitlines()
        return next((states.read(line) for line in lines if states.comment(line) == comment), None)

    def cancel(self, job_id: int) -> None:
        """End a job, its batch script too; one that has ended already is no matter."""
        try:
            self._ask("scancel", "--full", str(job_id))
        except SlurmRefused as error:
            if _NO_SUCH_JOB not in error.message.lower():
                raise

    def _ask(self, *command: str) -> str:
        try:
            done = subprocess.run(
                command, env=self._environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                timeout=self._patience,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise SlurmAway(f"{command[0]} has not answered within {self._patience:g} s") from error
        except OSError as error:
            hint = 'install Slurm\'s commands on this host (Debian: slurm-client), or set executor = "local"'
            raise SlurmAway(f"{command[0]} can't be started: {error.strerror}", hint=hint) from error
        if done.returncode == 0:
            return done.stdout
        said = (done.stderr.strip() or done.stdout.strip()).replace("\n", "; ")[:500]
        if any(words in said.lower() for words in _AWAY):
            raise SlurmAway(f"{command[0]}: {said}")
        raise SlurmRefused(f"{command[0]}: {said}")
