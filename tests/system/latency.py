"""How long something that arrives waits for its tick, in a guest: `python -m tests.system.latency` prints it.

The wait ends when systemd begins to start the service; what the tick itself takes is another benchmark.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

from tests.system.installation import installed_layer, running
from tests.system.operator import STATE, TICK, Operator
from tests.waiting import until


def arrivals(operator: Operator) -> dict[str, Callable[[], object]]:
    """What can start a tick, as a program outside would leave it."""
    return {
        "intent": lambda: operator.drop("suggest_something"),
        "promotion": lambda: operator.promote(f"p{time.monotonic_ns()}"),
        "kick": lambda: operator.guest.write(f"{STATE}/kick/tick", "", owner=operator.owner),
    }


def waits(operator: Operator, arrive: Callable[[], object], *, times: int) -> list[float]:
    """Seconds from each arrival, on a quiet guest without the timer, to the start of its tick."""
    return [_wait(operator, arrive) for _ in range(times)]


def p95(seconds: list[float]) -> float:
    """The 95th percentile, by nearest rank."""
    return sorted(seconds)[math.ceil(0.95 * len(seconds)) - 1]


def quiet(operator: Operator) -> None:
    """Wait until nothing runs and nothing is about to: kicks taken, the path unit watching."""

    def waiting() -> bool:
        kicks = operator.guest.path(f"{STATE}/kick")
        return (
            not (kicks / "tick").exists()
            and not (kicks / "cycle").exists()
            and operator.property_of("kloros-orchestrator.path", "SubState") == "waiting"
            and operator.state_of("kloros-cycle.service") == "inactive"
        )

    until(waiting, what="the units are quiet")


def _wait(operator: Operator, arrive: Callable[[], object]) -> float:
    quiet(operator)
    before = len(operator.starts_of(TICK))
    arrive()
    arrived = time.time()
    until(lambda: len(operator.starts_of(TICK)) > before, what="a tick starts", within=10)
    return max(0.0, operator.starts_of(TICK)[before] - arrived)


def main() -> None:
    """Print one line per kind of arrival."""
    with running(installed_layer().stack, "kloros-latency") as guest:
        operator = Operator(guest).without_timer().configure("[dream]\ncommand = ['true']\n")
        for what, arrive in arrivals(operator).items():
            found = waits(operator, arrive, times=20)
            median = statistics.median(found)
            print(f"{what} dropped to tick started: median {median * 1000:.0f} ms, p95 {p95(found) * 1000:.0f} ms")


if __name__ == "__main__":
    main()
