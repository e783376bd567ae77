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
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import psycopg

from tests.benchmarks import page
from tests.benchmarks.bridge_http import COORDINATOR, Asking, Server, _written, serving
from tests.benchmarks.bridge_store import BODY
from tests.benchmarks.tick import ROOT, _machine
from tests.contract.postgres import running

WRITERS, READS_EVERY = 8, 10
SLEEPER = "sleeper"
LEAST = 3
PATIENCE, LOOKS_EVERY = 10.0, 0.005  # seconds
TRIGGER = "SELECT 1 FROM bridge_triggers WHERE thread_id = "
TURNS = "SELECT count(*) FROM cycles WHERE job = 'wake' AND ended_at IS NOT NULL"
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


class Bridge(NamedTuple):
    """A bridge that is served, and where its stores are."""

    server: Server
    url: str  # of PostgreSQL; empty for SQLite
    file: str  # the host's own store


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

    def add(self, other: Tally) -> None:
        self.good, self.bad = self.good + other.good, self.bad + other.bad

    @property
    def asked(self) -> int:
        return self.good + self.bad

    @property
    def share(self) -> float:
        return self.good / self.asked


# --- the eight writers, in a process of their own ------------------------------------------------------------------------


async def write() -> None:
    """Post with eight clients, and read now and then, until the input ends; then tell how that went."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    told = json.loads(await lines.readline())
    posts, reads, is_over = Tally(), Tally(), False

    async def go_on(number: int) -> None:
        token = told["tokens"][f"agent-{number}"]
        asking = await Asking.to(told["port"], token)
        last = 0
        while not is_over:
            for _ in range(READS_EVERY):
                posted = await posts.count(asking.ask("post_message", {"thread_id": told["thread_id"], "body": BODY}))
                last = json.loads(posted)["seq"] if posted else last
                asking = asking if posted else await Asking.to(told["port"], token)
            asked = {"thread_id": told["thread_id"], "since_seq": max(0, last - 50), "limit": 50}
            await reads.count(asking.ask("read_messages", asked))

    writing = [asyncio.create_task(go_on(number)) for number in range(2, 2 + WRITERS)]
    print("{}", flush=True)
    await lines.readline()
    is_over = True
    await asyncio.gather(*writing)
    print(json.dumps([posts.good, posts.bad, reads.good, reads.bad]), flush=True)


@contextmanager
def _writers(server: Server, thread_id: str) -> Iterator[tuple[Tally, Tally]]:
    """Have them post and read until the block ends; the tallies are filled then."""
    command = [sys.executable, "-m", "tests.benchmarks.sli", "--writers"]
    posts, reads = Tally(), Tally()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps({**server._asdict(), "thread_id": thread_id}), file=process.stdin, flush=True)
        process.stdout.readline()
        yield posts, reads
        print("end", file=process.stdin, flush=True)
        posts.good, posts.bad, reads.good, reads.bad = json.loads(process.stdout.readline())


# --- what is measured ----------------------------------------------------------------------------------------------------


async def _visible(server: Server, thread_id: str, seconds: float) -> tuple[Tally, Tally, list[float]]:
    """Post and wait for it, one after the other: how posts and reads went, and seconds from sending to a reader's hands."""
    writer, reader = await _client(server, "agent-0"), await _client(server, "agent-1")
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
    await _leave(writer, reader)
    return posts, reads, took


async def _when(tally: Tally, answered: asyncio.Future[bytes]) -> tuple[float, bytes | None]:
    answer = await tally.count(answered)
    return time.perf_counter(), answer


async def _woken(bridge: Bridge, seconds: float) -> list[float]:
    """Return the seconds from sending a message for somebody who sleeps until a trigger for him stands in the store.

    The turn that follows, a process of its own, is over before the next message: a wake alone is measured.
    """
    took: list[float] = []
    until = time.perf_counter() + seconds
    with _looking(bridge) as look:
        while time.perf_counter() < until or len(took) < LEAST:
            thread_id = await _opened(bridge.server, SLEEPER)
            writer = await _client(bridge.server, COORDINATOR)
            turns = look.turns()
            began = time.perf_counter()
            await writer.ask("post_message", {"thread_id": thread_id, "body": BODY})
            await _until(partial(look.has_trigger, thread_id))
            took.append(time.perf_counter() - began)
            await _until(partial(_more, look.turns, turns))
            await _leave(writer)
            writer = await _client(bridge.server, COORDINATOR)  # an idle connection is closed after a while
            await writer.ask("update_thread_status", {"thread_id": thread_id, "status": "closed"})
            await _leave(writer)
    return took


def _more(count: Callable[[], int], before: int) -> bool:
    return count() > before


async def _until(seen: Callable[[], bool]) -> None:
    until = time.perf_counter() + PATIENCE
    while not seen() and time.perf_counter() < until:
        await asyncio.sleep(LOOKS_EVERY)


class Look(NamedTuple):
    """What is seen in the stores themselves, so that nobody has to be asked."""

    has_trigger: Callable[[str], bool]
    turns: Callable[[], int]
    """How many turns have ended on the host."""


@contextmanager
def _looking(bridge: Bridge) -> Iterator[Look]:
    with ExitStack() as stack:
        store = stack.enter_context(psycopg.connect(bridge.url, autocommit=True)) if bridge.url else None

        def has_trigger(thread_id: str) -> bool:
            if store is None:
                return bool(_here(bridge.file, f"{TRIGGER}?", thread_id))
            return store.execute(f"{TRIGGER}%s".encode(), (thread_id,)).fetchone() is not None

        yield Look(has_trigger, lambda: sum(row[0] for row in _here(bridge.file, TURNS)))


def _here(file: str, query: str, *asked: str) -> list[tuple[int, ...]]:
    """Ask the host's own store; nothing until somebody has made it."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as host:
        return host.execute(query, asked).fetchall()
    return []


@contextmanager
def supervised(folder: str, url: str = "") -> Iterator[None]:
    """Run a supervisor beside a bridge, for one agent that sleeps, is woken and does nothing."""
    told = f'[agents.{SLEEPER}]\nruntime = "command"\nspawn = ["true"]\n'
    config = _written(f"{folder}/supervisor.toml", told)
    environ = {
        "PATH": os.environ["PATH"],
        "KLR_STATE_DIR": folder,
        "KLR_CONFIG": config,
        "KLR_ORCHESTRATION_MODE": "enabled",
        "KLR_DATABASE_URL": url,
    }
    with open(f"{folder}/supervisor.log", "wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "orchestration.supervise"], env=environ, cwd=ROOT, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


async def _opened(server: Server, *participants: str) -> str:
    asking = await _client(server, COORDINATOR)
    asked = {"workspace_id": "kloros", "title": "t", "participants": participants}
    made = json.loads(await asking.ask("create_thread", asked))
    await _leave(asking)
    return str(made["thread_id"])


async def _client(server: Server, agent: str) -> Asking:
    return await Asking.to(server.port, server.tokens[agent])


async def _leave(*clients: Asking) -> None:
    for one in clients:
        one.close()
    await asyncio.sleep(0)  # in which their sockets are closed


def p95(took: list[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(took, n=20, method="inclusive")[-1]


def measure(bridge: Bridge, *, seconds: float, writers: bool) -> Measured:
    """Measure one bridge with its supervisor for a while."""
    server = bridge.server
    agents = [f"agent-{number}" for number in range(2 + WRITERS)]
    seen, busy = asyncio.run(_opened(server, *agents)), asyncio.run(_opened(server, *agents))
    with ExitStack() as stack:
        others = stack.enter_context(_writers(server, busy)) if writers else (Tally(), Tally())
        posts, reads, took = asyncio.run(_visible(server, seen, seconds / 2))
        woken = asyncio.run(_woken(bridge, seconds / 2))
    posts.add(others[0])
    reads.add(others[1])
    levels = Levels(posts.share, reads.share, p95(took), p95(woken))
    return Measured(levels, posts.asked, reads.asked, len(took), len(woken))


@contextmanager
def bridges(folder: str, url: str) -> Iterator[dict[str, Bridge]]:
    """Serve a bridge with a supervisor on each store."""
    with ExitStack() as stack:
        found = {}
        for name, at in {"SQLite": "", "PostgreSQL": url}.items():
            own = f"{folder}/{name}"
            found[name] = Bridge(stack.enter_context(serving(own, at)), at, f"{own}/kloros.db")
            stack.enter_context(supervised(own, at))
        yield found


def row(store: str, load: str, found: Measured) -> str:
    """Write a line of the table."""
    levels = found.levels
    shares = f"{levels.posts:.3%} of {found.posts:,} | {levels.reads:.3%} of {found.reads:,}"
    times = f"{levels.visible * 1000:.0f} ms of {found.seen:,} | {levels.woken * 1000:.0f} ms of {found.woken:,}"
    return f"| {store} | {load} | {shares} | {times} |"


def _share(share: float) -> str:
    return f"≥ {share * 100:g} %"


def _wanted(name: str, levels: Levels) -> str:
    times = f"≤ {levels.visible * 1000:.0f} ms | ≤ {levels.woken * 1000:.0f} ms"
    return f"| {name} | | {_share(levels.posts)} | {_share(levels.reads)} | {times} |"


def main() -> None:
    """Measure, print, and write if asked to."""
    if "--writers" in sys.argv:
        asyncio.run(write())
        return
    seconds = float(sys.argv[sys.argv.index("--seconds") + 1]) if "--seconds" in sys.argv else 60.0
    lines = [f"Measured on {datetime.now(UTC):%Y-%m-%d}: {_machine()}", ""]
    lines += ["| store | load | posts that succeed | reads that succeed | post to visible, p95 | message to trigger, p95 |"]
    lines += ["|---|---|---|---|---|---|"]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kloros-sli-"))
        url = stack.enter_context(running()).new_database()
        for name, bridge in stack.enter_context(bridges(folder, url)).items():
            for load in ("idle", f"{WRITERS} writers"):
                found = measure(bridge, seconds=seconds, writers=load != "idle")
                lines.append(row(name, load, found))
                print(lines[-1], flush=True)
                for missed in found.levels.misses(GOALS):
                    print(f"  misses a goal: {missed}", flush=True)
    lines += [_wanted("goal", GOALS), _wanted("required", REQUIRED)]
    if "--write" in sys.argv:
        page.write(MARKS, "\n".join(lines), path=PAGE)


if __name__ == "__main__":
    main()
