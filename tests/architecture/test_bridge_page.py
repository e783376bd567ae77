"""The page of the bridge's rules says what the tables say."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from orchestration.bridge import thread
from orchestration.bridge.authority import MATRIX, Standing
from orchestration.bridge.guards import Limits
from orchestration.bridge.methods import METHODS
from orchestration.bridge.wire import ThreadStatus
from orchestration.settings import Bridge

PAGE = (Path(__file__).parents[2] / "docs/reference/bridge.md").read_text(encoding="utf-8")


def rows(begin: str, end: str) -> list[list[str]]:
    lines = PAGE[PAGE.index(begin) : PAGE.index(end)].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return cells[2:]


def test_the_matrix_is_the_table() -> None:
    table = [[f"`{one.name}`", *(MATRIX[one.name, at].value for at in Standing)] for one in METHODS]
    assert rows("<!-- matrix -->", "<!-- /matrix -->") == table


def test_the_lifecycle_is_the_table() -> None:
    told = {
        (ThreadStatus(row[0]), ThreadStatus(to.strip())): row[2]
        for row in rows("| from | to |", "Everything else is")
        for to in row[1].split(",")
    }
    assert set(told) == set(thread.TRANSITIONS)
    for pair in product(ThreadStatus, ThreadStatus):
        if pair in told:
            needs = "_override:" in told[pair]
            assert needs is (thread.TRANSITIONS[pair] is thread.Way.OVERRIDE)


def test_defaults_are_those_of_the_settings() -> None:
    told = {row[0]: row[1] for row in rows("| guard | default |", "A turn is")}
    assert [text.split()[0] for text in told.values()] == [str(value) for value in Limits()]
    bridge = Bridge()
    assert Limits() == (bridge.agent_posts_per_minute, bridge.thread_posts_per_minute, bridge.max_turns, bridge.max_repeats)
