"""What a scope costs, and how long it is without a leader: `python -m tests.benchmarks.scope [--write] [PART …]`.

Parts: `ticks` (a tick on PostgreSQL against one on SQLite, CPU of the whole process, medians of 15 in turns), `hosts` (1 to
1,000 hosts, simulated: real ticks, forked from processes that have imported the program, all on this machine against one
PostgreSQL as Debian sets it up, syncs included, behind a PgBouncer), `takeover` (leaders killed with SIGKILL at any moment
of their minute, with the lease and the timer as they come, in real time, many scopes at once). `--write` puts the figures of
the parts that were measured into docs/reference/benchmarks.md, and those about hosts into docs/explanation/scale.md too.
"""

from __future__ import annotations

import compileall
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import NamedTuple

import psycopg

from tests.benchmarks import page
from tests.benchmarks.tick import ROOT, Side, _compare, _environ, _machine, _tick
from tests.contract.postgres import Cluster, running
from tests.contract.test_bridge_store_pooled import SETTINGS
from tests.faults.kill import Warm

HOSTS = (1, 10, 50, 100, 1000)
WARM = 12
"""Ticks at work at once in a burst: what hosts of their own would do beside each other, this machine does in turns."""
SCOPES, PER_SCOPE = 24, 3
SCALE = os.path.join(ROOT, "docs", "explanation", "scale.md")
LEASE, MINUTE = 65.0, 60.0
_MOMENT = Event()  # never set
_CALLS = b"""
SELECT sum(calls) FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_RENEWED_A_MINUTE_AGO = f"""
UPDATE leases SET renewed_at = clock_timestamp() - interval '{MINUTE} seconds',
    expires_at = clock_timestamp() + interval '{LEASE - MINUTE} seconds'
""".encode()
_TICKER = os.path.join(ROOT, "tests", "field", "ticker.py")


def main() -> None:
    """Measure what is asked for, print it, and write it if asked to."""
    parts: dict[str, Callable[[str], list[str]]] = {"ticks": _ticks, "hosts": _hosts, "takeover": _takeovers}
    asked = [part for part in parts if part in sys.argv[1:]] or list(parts)
    compileall.compile_dir(os.path.join(ROOT, "orchestration"), quiet=1)
    for part in asked:
        folder = tempfile.mkdtemp(prefix="kloros-benchmark-")
        try:
            lines = [f"Measured on {datetime.now(UTC):%Y-%m-%d}: {_machine()}", "", *parts[part](folder)]
        finally:
            shutil.rmtree(folder)
        print("\n".join(lines), flush=True)
        if "--write" in sys.argv[1:]:
            marks = (f"<!-- scope {part}: written by tests/benchmarks/scope.py -->", f"<!-- /scope {part} -->")
            for path in (page.PAGE, SCALE) if part != "ticks" else (page.PAGE,):
                page.write(marks, "\n".join(lines), path=path)


# ── A tick ──


def _ticks(folder: str) -> list[str]:
    with running() as cluster, pooled(cluster, folder) as pooler:
        direct, through = cluster.new_database(), cluster.new_database()
        sides = {
            "SQLite": _tick(f"{folder}/sqlite"),
            "PostgreSQL, the leader": _on(f"{folder}/one", direct, "one"),
            "PostgreSQL, a standby": _on(f"{folder}/two", direct, "two"),
            "PostgreSQL behind PgBouncer, the leader": _on(f"{folder}/three", pooler(through), "three"),
        }
        costs = _compare(list(sides.values()))
    rows = [
        f"| {name} | {cost.cpu * 1e3:.1f} ms | {cost.cpu / costs[0].cpu:.2f} | {'' if name == 'SQLite' else '≤ 1.5'} |"
        for name, cost in zip(sides, costs, strict=True)
    ]
    return ["| NOOP tick on | CPU | ratio | goal |", "|---|---|---|---|", *rows]


def _on(state_dir: str, url: str, host: str) -> Side:
    tick = _tick(state_dir)
    return tick._replace(environ={**tick.environ, "KLR_DATABASE_URL": url, "KLR_SCOPE_HOST": host})


@contextmanager
def pooled(cluster: Cluster, folder: str) -> Iterator[Callable[[str], str]]:
    """Run a PgBouncer in transaction mode; gives what makes an address one behind it."""
    place = os.path.join(folder, "pooler")
    os.mkdir(place)
    os.chmod(folder, 0o711)
    with open(f"{place}/ini", "w", encoding="utf-8") as file:
        file.write(SETTINGS.format(folder=place, server=cluster.folder) + "default_pool_size = 20\nmax_client_conn = 2000\n")
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(place, user)
    command = ["pgbouncer", "--quiet", f"{place}/ini"]
    process = subprocess.Popen(command, user=user, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _until(lambda: os.path.exists(f"{place}/.s.PGSQL.6432"), 20)
        yield lambda url: url.replace(cluster.folder, place) + "&port=6432"
    finally:
        process.kill()
        process.wait()


# ── Many hosts ──


class Burst(NamedTuple):
    """What the ticks of all hosts, begun at once, came to."""

    seconds: float  # until the last had ended
    took: list[float]
    statements: int
    server: float  # CPU seconds
    failed: int


def _hosts(folder: str) -> list[str]:
    rows = []
    with ExitStack() as stack:
        cluster = stack.enter_context(running("shared_preload_libraries=pg_stat_statements"))
        pooler = stack.enter_context(pooled(cluster, folder))
        warm = [stack.enter_context(Warm()) for _ in range(WARM)]
        for number in HOSTS:
            rows.append(_row(number, _simulated(number, warm, cluster, pooler, f"{folder}/{number}")))
            print(rows[-1], file=sys.stderr, flush=True)
    columns = (
        "hosts, simulated",
        "statements a tick",
        "server CPU a tick",
        "statements a second",
        "server, of one core",
        f"all due at once, {WARM} at a time: ended after",
        "a tick then, median",
        "p95",
        "ended with 69",
    )
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *rows]


def _simulated(number: int, warm: list[Warm], cluster: Cluster, pooler: Callable[[str], str], folder: str) -> list[Burst]:
    """Let every host tick once, which is not counted, then again some times."""
    url = cluster.new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(b"CREATE EXTENSION pg_stat_statements")
    environs = [
        {**_environ(f"{folder}/{host}"), "KLR_DATABASE_URL": pooler(url), "KLR_SCOPE_HOST": f"host-{host}"}
        for host in range(number)
    ]
    for environ in environs:
        os.makedirs(environ["KLR_STATE_DIR"])
    bursts = [_burst(environs, warm, cluster, url) for _ in range(2 + max(1, 200 // number))]
    return bursts[2:] if number < 1000 else bursts[1:]


def _burst(environs: list[dict[str, str]], warm: list[Warm], cluster: Cluster, url: str) -> Burst:
    _age_lease(url)
    before = _server_cpu(cluster)
    free = list(warm)
    took: list[float] = []
    codes: list[int] = []

    def tick(environ: dict[str, str]) -> None:
        own = free.pop()
        began = time.monotonic()
        codes.append(own.run("run_once", environ, Path(environ["KLR_STATE_DIR"]) / "output"))
        took.append(time.monotonic() - began)
        free.append(own)

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(b"SELECT pg_stat_statements_reset()")
        began = time.monotonic()
        with ThreadPoolExecutor(len(warm)) as pool:
            list(pool.map(tick, environs))
        seconds = time.monotonic() - began
        ((statements,),) = connection.execute(_CALLS).fetchall()
    return Burst(seconds, took, int(statements), _server_cpu(cluster) - before, sum(code != 0 for code in codes))


def _age_lease(url: str) -> None:
    """Let the lease be as old as it is when the minute is over and all hosts tick again."""
    with psycopg.connect(url, autocommit=True) as connection:
        (found,) = connection.execute(b"SELECT to_regclass('leases')").fetchall()
        if found[0] is not None:
            connection.execute(_RENEWED_A_MINUTE_AGO)


def _server_cpu(cluster: Cluster) -> float:
    """Return the CPU seconds of the server, those of its processes that have ended included (proc(5): stat)."""
    with open(f"{cluster.folder}/data/postmaster.pid", encoding="utf-8") as file:
        postmaster = file.readline().strip()
    ticks = sum(_times(postmaster)[:4])
    for process in os.listdir("/proc"):
        if process.isdigit():
            try:
                with open(f"/proc/{process}/stat", encoding="utf-8") as file:
                    parent = file.read().rpartition(")")[2].split()[1]
                ticks += sum(_times(process)[:2]) if parent == postmaster else 0
            except OSError:
                continue
    return ticks / os.sysconf("SC_CLK_TCK")


def _times(pid: str) -> list[int]:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return [int(field) for field in file.read().rpartition(")")[2].split()[11:15]]


def _row(number: int, bursts: list[Burst]) -> str:
    ticks = number * len(bursts)
    statements = sum(burst.statements for burst in bursts) / ticks
    server = sum(burst.server for burst in bursts) / ticks
    took = sorted(seconds for burst in bursts for seconds in burst.took)
    ended = statistics.median(burst.seconds for burst in bursts)
    failed = sum(burst.failed for burst in bursts)
    typical, slow = _ms(_quantile(took, 0.5)), _ms(_quantile(took, 0.95))
    return (
        f"| {number:,} | {statements:.0f} | {server * 1e3:.1f} ms | {statements * number / MINUTE:,.0f} |"
        f" {server * number / MINUTE * 100:.1f} % | {ended:.1f} s | {typical} | {slow} |"
        f" {failed} |"
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms"


def _quantile(values: list[float], part: float) -> float:
    return values[min(len(values) - 1, int(len(values) * part))]


# ── Takeovers ──


class Scope:
    """Some hosts with a timer each, by the minute."""

    def __init__(self, url: str, folder: str, chance: random.Random, *, together: bool) -> None:
        """Start the hosts' timers; `together`: at the same second of the minute, as where clocks agree."""
        self.url = url
        self.tickers = {}
        phase = chance.uniform(0, 10)
        for number in range(PER_SCOPE):
            name = f"host-{number}"
            state = f"{folder}/{name}"
            os.makedirs(f"{state}/kick")
            environ = {**_environ(state), "KLR_DATABASE_URL": url, "KLR_SCOPE_HOST": name, "KLR_LAUNCHER": "systemd"}
            begins = phase + chance.uniform(0, 1) if together else chance.uniform(0, MINUTE)
            command = [sys.executable, "-I", _TICKER, state, f"{folder}/{name}.told", str(MINUTE), str(begins)]
            self.tickers[name] = subprocess.Popen(
                command,
                env={**environ, "PYTHONPATH": ROOT},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def holder(self) -> str:
        """Return who leads, whose lease runs."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            if connection.execute(b"SELECT to_regclass('leases')").fetchall() == [(None,)]:
                return ""
            found = connection.execute(b"SELECT holder FROM leases WHERE expires_at > clock_timestamp()").fetchall()
        return str(found[0][0]) if found else ""

    def kill(self, name: str) -> None:
        """Kill a host: its timer, and the tick at work."""
        ticker = self.tickers.pop(name)
        children = Path(f"/proc/{ticker.pid}/task/{ticker.pid}/children").read_text().split()
        for pid in (ticker.pid, *map(int, children)):
            os.kill(pid, signal.SIGKILL)
        ticker.wait()

    def end(self) -> None:
        """Kill them all."""
        for name in list(self.tickers):
            self.kill(name)


def _takeovers(folder: str) -> list[str]:
    """Kill one leader in each scope, at any moment of a minute, and see when another leads."""
    chance = random.Random(8)
    kinds = {"at the same second": True, "at any second": False}
    with running("max_connections=300") as cluster, ExitStack() as stack:
        scopes: dict[str, list[Scope]] = {kind: [] for kind in kinds}
        for number in range(SCOPES):
            for kind, together in kinds.items():
                scope = Scope(
                    cluster.new_database(), f"{folder}/{kind.replace(' ', '-')}/{number}", chance, together=together
                )
                stack.callback(scope.end)
                scopes[kind].append(scope)
        _MOMENT.wait(2.2 * MINUTE)
        everyone = [scope for of_kind in scopes.values() for scope in of_kind]
        with ThreadPoolExecutor(len(everyone)) as pool:
            waits = [pool.submit(_takeover, scope, chance.uniform(0, MINUTE)) for scope in everyone]
            seconds = {id(scope): wait.result() for scope, wait in zip(everyone, waits, strict=True)}
    rows = []
    for kind, of_kind in scopes.items():
        found = sorted(seconds[id(scope)] for scope in of_kind)
        shown = " | ".join(f"{value:.0f} s" for value in (_quantile(found, 0.5), _quantile(found, 0.95), found[-1]))
        rows.append(f"| {kind} | {len(found)} | {shown} | ≤ 90 s |")
    return [
        "| three hosts that tick | leaders killed | takeover, median | p95 | longest | goal |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def _takeover(scope: Scope, after: float) -> float:
    _MOMENT.wait(after)
    _until(lambda: bool(scope.holder()), 2 * MINUTE)
    dead = scope.holder()
    began = time.monotonic()
    scope.kill(dead)
    _until(lambda: scope.holder() not in ("", dead), 3 * MINUTE)
    return time.monotonic() - began


def _until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"not so within {seconds:g} s")
        _MOMENT.wait(0.1)


if __name__ == "__main__":
    main()
