"""The bridge's service levels, over the real server and store: `python -m tests.benchmarks.sli [--write] [--seconds N]`.

What an agent feels, measured as one: the share of its posts and of its reads that succeed, how long a post takes to be in
the hands of a reader that waits for it, and how long until somebody who sleeps has a trigger. On SQLite and PostgreSQL; on
an idle bridge, and beside eight writers that post as fast as they are answered. `--write` puts the figures into
docs/reference/sli-baseline.md; tests/acceptance/test_service_levels.py takes a short run and compares it with REQUIRED.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import NamedTuple

from tests.benchmarks.bridge_http import COORDINATOR, Asking, Server, serving
from tests.benchmarks.bridge_store import BODY
from tests.benchmarks.tick import ROOT, _machine
from tests.contract.postgres import running

WRITERS = 8
PAGE = os.path.join(ROOT, "docs", "reference", "sli-baseline.md")
MARKS = ("<!-- sli: written by tests/benchmarks/sli.py -->", "<!-- /sli -->")


class Levels(NamedTuple):
    """Service levels: what was measured, what is wanted, or what is required."""

    posts: float  # share that succeed, 0 to 1
    reads: float
    visible: float  # seconds, p95
    woken: float  # seconds, p95

    def misses(self, required: Levels) -> list[str]:
        """Say which of what is required is not reached."""
        shares = {"posts": (self.posts, required.posts), "reads": (self.reads, required.reads)}
        times = {"visible": (self.visible, required.visible), "woken": (self.woken, required.woken)}
        low = [f"{name}: {share:.3%} of {least:.3%}" for name, (share, least) in shares.items() if share < least]
        return low + [f"{name}: {took:.3f} s of {most:.3f} s" for name, (took, most) in times.items() if took > most]


GOALS = Levels(0.999, 0.9995, 0.050, 0.500)
REQUIRED = Levels(0.99, 0.995, 2.0, 3.0)


class Measured(NamedTuple):
    """One run on one store."""

    levels: Levels
    posts: int  # asked in all
    reads: int
    seen: int  # posts that were waited for
    woken: int


class Tally:
    """How often something was asked, and how often it went wrong."""

    def __init__(self, good: int = 0, bad: int = 0) -> None:
        self.good, self.bad = good, bad

    async def count(self, answered: asyncio.Future[bytes]) -> bytes | None:
        """Wait for an answer, whatever it is."""
        try:
            answer = await answered
        except (RuntimeError, ConnectionError):
            self.bad += 1
            return None
        self.good += 1
        return answer

    @property
    def share(self) -> float:
        return self.good / (self.good + self.bad)


# --- the eight writers, in a process of their own ------------------------------------------------------------------------


async def write() -> None:
    """Post with eight clients until the input ends, then tell how that went."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    told = json.loads(await lines.readline())
    tally, is_over = Tally(), False

    async def go_on(number: int) -> None:
        asking = await Asking.to(told["port"], told["tokens"][f"agent-{number}"])
        while not is_over:
            asked = {"thread_id": told["thread_id"], "body": BODY}
            if await tally.count(asking.ask("post_message", asked)) is None:
                asking = await Asking.to(told["port"], told["tokens"][f"agent-{number}"])

    writing = [asyncio.create_task(go_on(number)) for number in range(2, 2 + WRITERS)]
    print("{}", flush=True)
    await lines.readline()
    is_over = True
    await asyncio.gather(*writing)
    print(json.dumps([tally.good, tally.bad]), flush=True)


@contextmanager
def _writers(server: Server, thread_id: str) -> Iterator[Tally]:
    """Have them post until the block ends; the tally is filled then."""
    command = [sys.executable, "-m", "tests.benchmarks.sli", "--writers"]
    tally = Tally()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps({**server._asdict(), "thread_id": thread_id}), file=process.stdin, flush=True)
        process.stdout.readline()
        yield tally
        print("end", file=process.stdin, flush=True)
        tally.good, tally.bad = json.loads(process.stdout.readline())


# --- what is measured ----------------------------------------------------------------------------------------------------


async def _visible(server: Server, thread_id: str, seconds: float) -> tuple[Tally, Tally, list[float]]:
    """Post and wait for it, one after the other: how posts and reads went, and seconds from sending to a reader's hands."""
    writer = await Asking.to(server.port, server.tokens["agent-0"])
    reader = await Asking.to(server.port, server.tokens["agent-1"])
    posts, reads, took = Tally(), Tally(), list[float]()
    since, until = 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        asked = {"thread_id": thread_id, "since_seq": since, "wait_seconds": 20}
        waiting = asyncio.ensure_future(_when(reads, reader.ask("read_messages", asked)))
        await asyncio.sleep(0.01)
        began = time.perf_counter()
        await posts.count(writer.ask("post_message", {"thread_id": thread_id, "body": BODY}))
        at, answer = await waiting
        if answer is not None:
            took.append(at - began)
            since = json.loads(answer)["next_seq"]
    return posts, reads, took


async def _when(tally: Tally, answered: asyncio.Future[bytes]) -> tuple[float, bytes | None]:
    answer = await tally.count(answered)
    return time.perf_counter(), answer


async def _opened(server: Server, *participants: str) -> str:
    asking = await Asking.to(server.port, server.tokens[COORDINATOR])
    asked = {"workspace_id": "kloros", "title": "t", "participants": participants}
    return str(json.loads(await asking.ask("create_thread", asked))["thread_id"])


def p95(took: list[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(took, n=20)[-1]


def measure(server: Server, *, seconds: float, writers: bool) -> Measured:
    """Measure one bridge for a while."""
    agents = [f"agent-{number}" for number in range(2 + WRITERS)]
    seen, busy = asyncio.run(_opened(server, *agents)), asyncio.run(_opened(server, *agents))
    with ExitStack() as stack:
        others = stack.enter_context(_writers(server, busy)) if writers else Tally()
        posts, reads, took = asyncio.run(_visible(server, seen, seconds))
    posts = Tally(posts.good + others.good, posts.bad + others.bad)
    levels = Levels(posts.share, reads.share, p95(took), 0.0)
    return Measured(levels, posts.good + posts.bad, reads.good + reads.bad, len(took), 0)


def main() -> None:
    """Measure, print, and write if asked to."""
    if "--writers" in sys.argv:
        asyncio.run(write())
        return
    seconds = float(sys.argv[sys.argv.index("--seconds") + 1]) if "--seconds" in sys.argv else 30.0
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kloros-sli-"))
        url = stack.enter_context(running()).new_database()
        for name, at in {"SQLite": "", "PostgreSQL": url}.items():
            with serving(f"{folder}/{name}", at) as server:
                for writers in (False, True):
                    print(name, writers, measure(server, seconds=seconds, writers=writers), flush=True)


if __name__ == "__main__":
    main()
