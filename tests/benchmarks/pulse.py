"""What Pulse costs, as ratios measured in one run: `python -m tests.benchmarks.pulse [--write]`.

For stores of 1,000, 10,000 and 100,000 cycles (ten ticks to each): a scrape and the first page from the running server,
beside a bare Starlette route that answers as many bytes; the page written as a file, beside an interpreter that does
nothing. The two sides of a ratio take turns; medians. `--write` puts the figures into docs/reference/benchmarks.md.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple

from tests.benchmarks import page
from tests.benchmarks.tick import HERE, ROOT, _machine

SIZES = (1_000, 10_000, 100_000)
TURNS = 41
BUILDS = 7
MARKS = ("<!-- pulse: written by tests/benchmarks/pulse.py -->", "<!-- /pulse -->")
BARE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
sys.path.insert(0, sys.argv[2])
from orchestration.serving.process import PatientProtocol

async def bare(request):
    return Response(b"x" * int(request.query_params["bytes"]))

uvicorn.run(Starlette(routes=[Route("/", bare)]), port=int(sys.argv[1]), http=PatientProtocol, log_config=None)
"""


class Row(NamedTuple):
    """One line of the table."""

    what: str
    against: str
    ours: float  # seconds
    other: float
    bytes: int
    goal: str

    def __str__(self) -> str:
        size = f"{self.bytes / 1e3:.1f} kB" if self.bytes else ""
        ratio = self.ours / self.other
        times = f"{self.ours * 1e3:.1f} ms | {self.other * 1e3:.1f} ms | {ratio:.1f}"
        return f"| {self.what} | {self.against} | {times} | {size} | {self.goal} |"


def main() -> None:
    """Measure, print, and write if asked to."""
    folder = tempfile.mkdtemp(prefix="kloros-benchmark-")
    try:
        lines = [f"Measured on {datetime.now(UTC):%Y-%m-%d}: {_machine()}", ""]
        lines += ["| measured | against | time | against | ratio | size | goal |", "|---|---|---|---|---|---|---|"]
        lines += [str(row) for size in SIZES for row in _of(folder, size)]
    finally:
        shutil.rmtree(folder)
    print("\n".join(lines))
    if "--write" in sys.argv[1:]:
        page.write(MARKS, "\n".join(lines))


def _of(folder: str, cycles: int) -> Iterator[Row]:
    state_dir = os.path.join(folder, str(cycles))
    environ = _filled(state_dir, cycles)
    port, bare_port = _free_port(), _free_port()
    ours = [sys.executable, "-m", "orchestration.serve", "--port", str(port)]
    bare = [sys.executable, "-c", BARE, str(bare_port), ROOT]
    with _running(ours, environ, port), _running(bare, environ, bare_port):
        for path, what, goal in (("/metrics", "scrape", "≤ 20 ms"), ("/", "first page", "≤ 200 ms, ≤ 150 kB")):
            size = len(_asked(port, path))
            took, other = _in_turns(_asking(port, path), _asking(bare_port, f"/?bytes={size}"), TURNS)
            yield Row(f"{what}, {cycles:,} cycles", "a bare route of as many bytes", took, other, size, goal)
    out = os.path.join(state_dir, "page")
    build = [sys.executable, "-m", "orchestration.pulse.builder", "--out", out]
    took, other = _in_turns(
        _running_once(build, environ), _running_once([sys.executable, "-I", "-c", "pass"], environ), BUILDS
    )
    size = os.path.getsize(os.path.join(out, "index.html"))
    yield Row(f"build as a file, {cycles:,} cycles", "`python -I -c pass`", took, other, size, "")


def _filled(state_dir: str, cycles: int) -> dict[str, str]:
    os.makedirs(state_dir)
    environ = {
        "PATH": os.defpath,
        "KLR_STATE_DIR": state_dir,
        "KLR_ORCHESTRATION_MODE": "enabled",
        "KLR_TEXTFILE": os.path.join(state_dir, "kloros.prom"),
    }
    subprocess.run([sys.executable, "-m", "orchestration.run_once"], env=environ, check=True, capture_output=True, cwd=ROOT)
    fill = [sys.executable, os.path.join(HERE, "big_store.py"), f"{state_dir}/kloros.db", str(10 * cycles), str(cycles)]
    subprocess.run(fill, check=True)
    return environ


@contextmanager
def _running(command: list[str], environ: dict[str, str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, env=environ, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                _asked(port, "/?bytes=1")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)  # it has no way to say that it listens
        yield
    finally:
        process.kill()
        process.wait()


def _asked(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def _asking(port: int, path: str) -> Callable[[], object]:
    return lambda: _asked(port, path)


def _running_once(command: list[str], environ: dict[str, str]) -> Callable[[], object]:
    return lambda: subprocess.run(command, env=environ, check=True, capture_output=True, cwd=ROOT)


def _in_turns(ours: Callable[[], object], other: Callable[[], object], turns: int) -> tuple[float, float]:
    """Return the median seconds of both; the first turn warms caches and does not count."""
    took: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns + 1):
        for side, into in zip((ours, other), took, strict=True):
            began = time.perf_counter()
            side()
            if turn:
                into.append(time.perf_counter() - began)
    return statistics.median(took[0]), statistics.median(took[1])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


if __name__ == "__main__":
    main()
