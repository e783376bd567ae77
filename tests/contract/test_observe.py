"""What a tick sees of a cycle that ends while the tick is at work, after it settled and before it looked."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from orchestration import configuration, wiring
from orchestration.cycles import ledger
from orchestration.cycles.cycle import Cause, CycleEvent, CycleState, JobName, Origin, Result
from orchestration.cycles.job import Job
from orchestration.intents import inbox
from orchestration.tick.decision import Noop, Reason, blocking, decide
from orchestration.tick.observe import observe
from orchestration.tick.settle import settle
from orchestration.tick.take_in import Found

WAITING = Found(promotions=("one",), parked=(), intents=inbox.NOTHING)


def test_a_cycle_that_ends_between_settling_and_looking_starts_nothing_twice(tmp_path: Path) -> None:
    environ = {"KLR_STATE_DIR": str(tmp_path), "KLR_ORCHESTRATION_MODE": "enabled", "KLR_PHASE_TIME_ZONE": "UTC"}
    with wiring.kernel(configuration.load(environ), environ) as kernel:
        job = Job(JobName.DREAM, ("true",), "", timedelta(seconds=1))
        origin = Origin(Cause.PROMOTIONS, "tick", ("one",))
        with kernel.db.transaction():
            ledger.enqueue(kernel.db, job=job, origin=origin, token="token", now=kernel.now())
            cycle = ledger.claim_next(kernel.db, runner="{}", now=kernel.now())
        assert cycle is not None
        settle(kernel)
        ledger.finish(kernel.db, cycle, CycleEvent.SUCCEED, Result("exit 0"), now=kernel.now())
        seen = observe(kernel, WAITING)
        assert seen.active is not None
        assert seen.active.state is CycleState.SUCCEEDED
        decision = decide(seen, kernel.policy)
        assert isinstance(decision, Noop)
        assert [finding.reason for finding in blocking(decision.findings)] == [Reason.CYCLE_ACTIVE]
