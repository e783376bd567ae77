"""A real store with a history made for a test: ticks, cycles with what they left, promotions, intents."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from orchestration import configuration
from orchestration.cycles import ledger, products, telemetry
from orchestration.cycles.artifacts import cycle_dir
from orchestration.cycles.cycle import Cause, Cycle, CycleEvent, CycleNumber, CycleState, JobName, Origin, Result
from orchestration.cycles.inventory import take
from orchestration.cycles.job import Job
from orchestration.exits import Exit
from orchestration.pulse.loop_health import LoopHealth
from orchestration.pulse.survey import survey
from orchestration.settings import Settings
from orchestration.store.counters import gauges
from orchestration.store.opening import Place
from orchestration.store.port import Database
from orchestration.store.sqlite import SqliteDatabase
from orchestration.tick import history
from orchestration.tick.history import Tick

NOW = datetime(2026, 11, 21, 12, 0, 20, tzinfo=UTC)
ENDS = {
    CycleState.SUCCEEDED: CycleEvent.SUCCEED,
    CycleState.FAILED: CycleEvent.FAIL,
    CycleState.TIMED_OUT: CycleEvent.TIME_OUT,
    CycleState.CANCELLED: CycleEvent.CANCEL,
    CycleState.LOST: CycleEvent.LOSE,
}


class Seeded:
    """Files and rows in, documents out."""

    def __init__(self, home: Path, db: Database | None = None, place: Place | None = None, /, **variables: str) -> None:
        self.home = home
        self.settings: Settings = configuration.load(
            {
                "KLR_STATE_DIR": str(home),
                "KLR_CONFIG": "/dev/null",
                "KLR_ORCHESTRATION_MODE": "enabled",
                "KLR_PHASE_TIME_ZONE": "UTC",
                "KLR_RETENTION_LOW_DISK": "0",
                **variables,
            }
        )
        self.place = place or Place(str(home / "kloros.db"))
        self.db = db or SqliteDatabase(self.place.path)

    def survey(self, now: datetime = NOW, *, boot: str = "boot", cycles: int = 50, failures: int = 5) -> LoopHealth:
        return survey(self.settings, self.db, now, boot_id=boot, cycles=cycles, failures=failures)

    def tick(
        self,
        at: datetime,
        *,
        decision: str = "noop",
        exit_code: Exit = Exit.DONE,
        boot: str = "boot",
        findings: Sequence[tuple[str, str, str]] = (("intents", "no_intents", "nothing waits"),),
        cycle: int | None = None,
    ) -> Tick:
        """Record a tick as `run_once` does, its gauges too."""
        record = Tick(
            tick_id=f"{at:%Y%m%dT%H%M%S.%fZ}-0",
            started_at=at,
            ended_at=at + timedelta(milliseconds=40),
            boot_id=boot,
            decision=decision,
            exit=exit_code,
            cycle=cycle,
            blocker=None,
            findings=tuple(findings),
        )
        gauges(self.db, kloros_orchestrator_last_attempt_timestamp_seconds=record.ended_at.timestamp())
        if decision != "skipped":
            gauges(self.db, kloros_orchestrator_last_tick_timestamp_seconds=record.ended_at.timestamp())
        return history.append(self.db, record)

    def ticks(self, first: datetime, minutes: int, *, boot: str = "boot") -> None:
        """Record one NOOP a minute."""
        with self.db.transaction():
            for minute in range(minutes):
                self.tick(first + timedelta(minutes=minute), boot=boot)

    def cycle(
        self,
        state: CycleState = CycleState.SUCCEEDED,
        *,
        job: JobName = JobName.DREAM,
        at: datetime = NOW - timedelta(hours=1),
        seconds: float = 10.0,
        reason: str = "exit code 0",
        origin: Origin | None = None,
        phase_date: date | None = None,
        lines: Sequence[Mapping[str, object] | str] | None = None,
        output: bytes = b"",
    ) -> CycleNumber:
        """Carry a cycle through its life to a state, with what it leaves."""
        asked = origin or Origin(Cause.WINDOW if job is JobName.PHASE else Cause.PROMOTIONS, "")
        work = Job(job, ("true",), "", timedelta(hours=1))
        with self.db.transaction():
            number = ledger.enqueue(
                self.db, job=work, origin=asked, token=os.urandom(8).hex(), now=at, phase_date=phase_date
            )
        if state is CycleState.QUEUED:
            return number
        claimed = ledger.claim_next(self.db, runner="{}", now=at)
        assert claimed is not None
        products.begin(self.db, number, environment=["PATH"], revision="abc")
        if state is CycleState.RUNNING:
            return number
        self._leave(number, lines, output)
        self._end(claimed, state, reason, at + timedelta(seconds=seconds))
        return number

    def _leave(self, number: CycleNumber, lines: Sequence[Mapping[str, object] | str] | None, output: bytes) -> None:
        logs = Path(cycle_dir(self.settings.cycles_dir, number)) / "logs"
        logs.mkdir(parents=True)
        (logs / "output.log").write_bytes(output)
        if lines is not None:
            written = (line if isinstance(line, str) else json.dumps(line) for line in lines)
            (logs / "telemetry.jsonl").write_text("".join(f"{line}\n" for line in written))

    def _end(self, cycle: Cycle, state: CycleState, reason: str, at: datetime) -> None:
        folder = cycle_dir(self.settings.cycles_dir, cycle.cycle)
        with self.db.transaction():
            ledger.finish(self.db, cycle, ENDS[state], Result(reason, exit_code=0, wall_seconds=1.0), now=at)
            if state is not CycleState.LOST:
                products.end(self.db, cycle.cycle, take(folder))
                telemetry.note(self.db, cycle.cycle, telemetry.read(folder))
            ledger.settle(self.db, cycle.cycle, now=at)
