"""A loop of two thousand iterations, and one over a program that is not ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.exits import Exit
from tests.acceptance.host import Host
from tests.acceptance.looping import Looping

MANY = 2000
SETTLED = 1200  # by then caches are full; measured over 4000 iterations, memory is flat from here on
GROWTH_KB = 2000


@pytest.fixture
def looping(tmp_path: Path) -> Looping:
    return Looping(Host(tmp_path))


def test_two_thousand_iterations_keep_memory_flat(looping: Looping) -> None:
    flags = ("--command", "true", "--sleep", "0", "--iterations", str(MANY), "--json")
    loop = subprocess.Popen(
        looping.arguments(*flags), env=looping.host.environ, cwd=looping.tree, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert loop.stdout is not None
    memory, descriptors = {}, {}
    for line in loop.stdout:
        number = json.loads(line)["iteration"]
        if number in (SETTLED, MANY - 1):
            status = Path(f"/proc/{loop.pid}/status").read_text().splitlines()
            memory[number] = next(int(one.split()[1]) for one in status if one.startswith("VmRSS"))
            descriptors[number] = len(list(Path(f"/proc/{loop.pid}/fd").iterdir()))
    loop.stdout.close()
    assert loop.wait() == Exit.DONE
    assert memory[MANY - 1] - memory[SETTLED] < GROWTH_KB, memory
    assert descriptors[MANY - 1] <= descriptors[SETTLED] + 3
    assert [row["iteration"] for row in looping.rows()] == list(range(1, MANY + 1))


def test_a_program_of_others_runs_under_it(looping: Looping) -> None:
    """ruff, from PyPI, writes a report; the same report twice is no new archive."""
    code = looping.tree / "code.py"
    code.write_text("import os\n")
    ruff = str(Path(sys.executable).with_name("ruff"))
    report = "state/planner_digest_archives/report.json"
    flags = "--isolated --no-cache --select F --exit-zero --output-format json"
    command = f"{ruff} check {flags} --output-file {report} code.py"
    for _ in range(2):
        looping.loop("--command", command, "--require-executables", ruff)
    code.write_text("import os, sys\n")
    looping.loop("--command", command)
    assert looping.statuses() == ["success", "degraded", "success"]
    assert {found["code"] for found in json.loads((looping.tree / report).read_text())} == {"F401"}
    assert looping.rows()[0]["archive_path"] == str(looping.tree / report)
