"""The default PHASE job, `python -m orchestration.phase.domains`: run every domain, and report on each.

Owns the order, the verdict and `artifacts/report.json`; refuses to know what a domain tests. The domains are the commands
of `[phase.domains]`, run one after the other in the order of the settings, each with its own timeout, in the environment
and working directory of this process. One that fails stops no other. With none configured there is one, `klorosctl
doctor`, which exits 0 when it has warnings only. It looks at the host, not at the parameters, so that report has no result
(`"score": null`, see `result.py`).

  gets     KLR_CYCLE_DIR (required), KLR_EPOCH and KLR_CYCLE, named in the report; KLR_HINTS, of which each domain is told
           what is for it: KLR_PHASE_TYPE, KLR_WORKERS, KLR_FIDELITY
  leaves   artifacts/report.json   see `Report`; rewritten after each domain, so that a PHASE which is ended early
                                   leaves what it knew, with `result` "unfinished"
           logs/domain_NN.log      the output of each domain, both streams
  prints   one line for each domain, and the end of the output of one that failed
  exits    0, or 1 when any domain failed; as every program of ours when it can't begin (64, 74, 78)
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from orchestration import configuration
from orchestration.errors import CommandLost, CommandNotStarted, KlorosError, Usage
from orchestration.exits import Exit
from orchestration.host import clock, files, process
from orchestration.phase import heuristics
from orchestration.settings import Domain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TAIL: Final = 4096
_DOCTOR: Final = Domain(command=(sys.executable, "-m", "orchestration.klorosctl", "doctor"), timeout=timedelta(minutes=2))


class Status(StrEnum):
    """What became of one domain."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    NOT_STARTED = "not_started"
    LOST = "lost"
    NOT_RUN = "not_run"


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainResult:
    """One domain's part of the report. `seconds` is wall time; `output_tail` the last 4 KiB of both streams, as text."""

    name: str
    command: tuple[str, ...]
    status: Status = Status.NOT_RUN
    reason: str = "not its turn yet"
    exit_code: int | None = None
    seconds: float = 0.0
    output: str = ""  # path of the whole output
    output_tail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `artifacts/report.json` says; instants are aware UTC, written in ISO 8601."""

    epoch: str
    cycle: str
    started_at: datetime
    ended_at: datetime | None
    domains: tuple[DomainResult, ...]
    of_host: bool = False  # they look at the host only, so nothing about the baseline follows

    @property
    def failed(self) -> tuple[DomainResult, ...]:
        """Return the domains that ran, or should have, without success."""
        return tuple(d for d in self.domains if d.status not in (Status.SUCCEEDED, Status.NOT_RUN))

    @property
    def result(self) -> str:
        """Say in a word how the PHASE stands."""
        if self.ended_at is None:
            return "unfinished"
        return "failed" if self.failed else "succeeded"

    @property
    def reason(self) -> str:
        """Say which domains failed and why, or how many succeeded."""
        if self.failed:
            return "; ".join(f"{d.name}: {d.reason}" for d in self.failed)
        done = sum(d.status is Status.SUCCEEDED for d in self.domains)
        return f"{done} of {len(self.domains)} domains succeeded"

    def to_json(self) -> bytes:
        """Return the file's content."""
        head: dict[str, object] = {"schema": "v1", "result": self.result, "reason": self.reason}
        if self.of_host:
            head["score"] = None
        return (json.dumps(head | asdict(self), indent=2, default=datetime.isoformat) + "\n").encode()


def main() -> int:
    """Run the domains of the settings; return the exit code."""
    try:
        settings = configuration.load(os.environ)
        folder = _cycle_folder(os.environ)
        report = run_domains(
            settings.phase.domains or {"doctor": _DOCTOR},
            of_host=not settings.phase.domains,
            folder=folder,
            environ=os.environ,
            output_limit=settings.cycles.log_limit_bytes,
            grace=settings.cycles.term_grace,
        )
    except KlorosError as error:
        _say(f"failed: {error}")
        return error.exit
    _say(f"{report.result}: {report.reason}")
    return Exit.FAILED if report.failed else Exit.DONE


def run_domains(
    domains: Mapping[str, Domain],
    *,
    folder: str,
    environ: Mapping[str, str],
    output_limit: int,
    grace: timedelta,
    of_host: bool = False,
) -> Report:
    """Run every domain, in order, and return the report, which is then in `artifacts/` of the cycle's `folder`.

    `output_limit` is in bytes, for each domain. `of_host`: they tell nothing of the parameters. Raises: Unwritable.
    """
    path = os.path.join(_made(folder, "artifacts"), "report.json")
    logs = _made(folder, "logs")
    results = [DomainResult(name=name, command=domain.command) for name, domain in domains.items()]
    report = Report(
        epoch=environ.get("KLR_EPOCH", ""),
        cycle=environ.get("KLR_CYCLE", ""),
        started_at=clock.now(),
        ended_at=None,
        domains=tuple(results),
        of_host=of_host,
    )
    hints = _hints(environ)
    for number, (name, domain) in enumerate(domains.items()):
        files.replace(path, report.to_json(), 0o640)
        result = replace(results[number], output=os.path.join(logs, f"domain_{number + 1:02}.log"))
        env = {**environ, **heuristics.of_group(hints, name)}
        results[number] = _run(result, domain.timeout, env, output_limit=output_limit, grace=grace)
        _tell(results[number])
        report = replace(report, domains=tuple(results))
    report = replace(report, ended_at=clock.now())
    files.replace(path, report.to_json(), 0o640)
    return report


def _hints(environ: Mapping[str, str]) -> Mapping[str, object]:
    """Read the hints, if there are any; they are advice, so what can't be read is none."""
    try:
        with open(environ.get("KLR_HINTS", ""), encoding="utf-8") as file:
            document = json.load(file)
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _run(
    domain: DomainResult, timeout: timedelta, environ: Mapping[str, str], *, output_limit: int, grace: timedelta
) -> DomainResult:
    begun = clock.monotonic()
    try:
        completed = process.run(
            domain.command,
            env=environ,
            cwd=os.getcwd(),
            output=domain.output,
            output_limit=output_limit,
            timeout=timeout,
            grace=grace,
        )
    except CommandNotStarted as error:
        return replace(domain, status=Status.NOT_STARTED, reason=f"could not be started: {error.message}")
    except CommandLost as error:
        seconds = clock.monotonic() - begun
        return replace(domain, status=Status.LOST, reason=error.message, seconds=seconds, output_tail=_tail(domain.output))
    return replace(
        domain,
        status=_status(completed),
        reason=completed.describe(),
        exit_code=completed.returncode,
        seconds=round(completed.wall.total_seconds(), 3),
        output_tail=_tail(domain.output),
    )


def _status(completed: process.Completed) -> Status:
    if completed.timed_out:
        return Status.TIMED_OUT
    return Status.SUCCEEDED if completed.succeeded else Status.FAILED


def _tail(path: str) -> str:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        return file.read().decode("utf-8", "replace")


def _tell(domain: DomainResult) -> None:
    _say(f"{domain.name}: {domain.status}, {domain.reason}, {domain.seconds:.1f} s")
    if domain.status is not Status.SUCCEEDED:
        for line in _last_lines(domain.output_tail):
            _say(f"  | {line}")


def _last_lines(text: str) -> Iterator[str]:
    yield from text.splitlines()[-20:]


def _made(folder: str, name: str) -> str:
    path = os.path.join(folder, name)
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise files.unwritable(path, error) from error
    return path


def _cycle_folder(environ: Mapping[str, str]) -> str:
    folder = environ.get("KLR_CYCLE_DIR", "")
    if not os.path.isabs(folder):
        raise Usage(
            f"KLR_CYCLE_DIR is {folder!r}, and must be the absolute path of a cycle's folder",
            hint="The cycle runner sets it; to try the domains by hand, set it to an empty folder.",
        )
    return folder


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
