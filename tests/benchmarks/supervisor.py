"""What a supervisor costs that has nothing to do, and how soon it acts on a message.

    python -m tests.benchmarks.supervisor [--write] [SECONDS]

Goals (issue 7): idle at most 0.5 % of one core and 60 MiB; p95 from a message to the attempt to wake at most 500 ms.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from orchestration.host import clock
from tests.acceptance.bridging import Bridge, bridge, caller
from tests.acceptance.host import Host
from tests.acceptance.serving import residents
from tests.acceptance.supervising import Supervising, supervising
from tests.benchmarks import page
from tests.benchmarks.tick import _machine
from tests.contract.postgres import running
from tests.waiting import until

MARKS = ("<!-- supervisor: written by tests/benchmarks/supervisor.py -->", "<!-- /supervisor -->")
EXECUTIONER, REVIEWER = caller("executioner"), caller("reviewer")
THREADS, MESSAGES = 200, 40


def main() -> None:
    """Measure, print, and write where it is asked for."""
    given = sys.argv[1:]
    seconds = next((float(one) for one in given if one.replace(".", "").isdigit()), 60.0)
    rows = []
    with tempfile.TemporaryDirectory() as folder, running() as cluster:
        for name in ("SQLite", "PostgreSQL"):
            host = Host(_made(Path(folder) / name))
            host.configure('[agents.reviewer]\nruntime = "command"\nspawn = ["true"]\n')
            host.decided()
            place = str(host.state / "kloros.db")
            if name == "PostgreSQL":
                place = cluster.new_database()
                host.set(KLR_DATABASE_URL=place)
            rows += _measured(host, place, name, seconds)
    text = "\n".join(
        [
            f"Measured on {datetime.now(UTC):%Y-%m-%d}: {_machine()}",
            "",
            "| measured | store | found | goal |",
            "|---|---|---|---|",
            *rows,
        ]
    )
    print(text)
    if "--write" in given:
        page.write(MARKS, text)


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def _measured(host: Host, place: str, name: str, seconds: float) -> list[str]:
    asyncio.run(_fill(place))
    with supervising(host) as supervisor:
        until(lambda: supervisor.log("tick.idle"), what="it has nothing to do")
        until(lambda: host.rows("SELECT 1 FROM facts WHERE name = 'wake.signs'"), what="it has told how it stands")
        before = _cpu(supervisor)
        time.sleep(seconds)  # what is measured is a time in which nothing is to happen
        share = (_cpu(supervisor) - before) / seconds
        memory = residents(supervisor.process.pid) / 1024**2
        waits = asyncio.run(_waits(place, supervisor))
    p50, p95 = statistics.median(waits), sorted(waits)[int(len(waits) * 0.95)]
    return [
        f"| CPU, idle over {THREADS} threads, share of one core | {name} | {share:.2%} | ≤ 0.5 % |",
        f"| memory, idle | {name} | {memory:.0f} MiB | ≤ 60 MiB |",
        f"| from a message to the attempt, p50 of {MESSAGES} | {name} | {p50 * 1000:.0f} ms | |",
        f"| from a message to the attempt, p95 | {name} | {p95 * 1000:.0f} ms | ≤ 500 ms |",
    ]


async def _fill(place: str) -> None:
    """Have threads in which everything is read."""
    async with bridge(place) as found:
        found.clock.at = clock.now()
        for _ in range(THREADS):
            thread_id = await found.thread(EXECUTIONER, REVIEWER)
            await found.post(EXECUTIONER, thread_id, "done")
            await found.ask(REVIEWER, "ack_read", thread_id=thread_id, last_read_seq=1)


async def _waits(place: str, supervisor: Supervising) -> list[float]:
    """Post to one new thread after another; how long is it until an attempt begins?"""
    found = []
    async with bridge(place) as bridged:
        for _ in range(MESSAGES):
            bridged.clock.at = clock.now()
            thread_id = await bridged.thread(EXECUTIONER, REVIEWER)
            bridged.clock.at = clock.now()
            said = await bridged.post(EXECUTIONER, thread_id, "done")
            found.append(await _attempted(bridged, supervisor, thread_id, said.created_at.timestamp()))
    return found


async def _attempted(bridged: Bridge, supervisor: Supervising, thread_id: str, since: float) -> float:
    async with asyncio.timeout(30):
        while True:
            for line in supervisor.log("wake.attempted")[-3:]:
                if line["thread_id"] == thread_id:
                    return datetime.fromisoformat(line["ts"]).timestamp() - since
            await asyncio.sleep(0.01)


def _cpu(supervisor: Supervising) -> float:
    """Return the seconds of CPU that it has used."""
    fields = Path(f"/proc/{supervisor.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
