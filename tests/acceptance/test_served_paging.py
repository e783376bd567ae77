"""Paging through 100,000 cycles while new ones come: none is missing, none comes twice, in any order."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.host import Host
from tests.acceptance.serving import Served, serving

BIG_STORE = Path(__file__).parents[1] / "benchmarks" / "big_store.py"
CYCLES = 100_000


def pages(served: Served, query: str) -> Iterator[list[dict[str, Any]]]:
    """Every page of a query, over one connection."""
    cursor = ""
    with closing(served.connect()) as connection:
        while True:
            connection.request("GET", f"/api/v1/cycles?{query}&cursor={cursor}")
            answer = connection.getresponse()
            page = json.loads(answer.read())
            assert answer.status == 200, page
            yield page["cycles"]
            if page["next_cursor"] is None:
                return
            cursor = page["next_cursor"]


@pytest.fixture
def big(host: Host) -> Host:
    host.decided()
    subprocess.run([sys.executable, str(BIG_STORE), str(host.state / "kloros.db"), "10", str(CYCLES)], check=True)
    return host


def test_every_cycle_once_while_new_ones_come(big: Host) -> None:
    with serving(big) as served:
        seen: list[int] = []
        for number, page in enumerate(pages(served, "limit=500")):
            seen += [line["cycle"] for line in page]
            if number == 3:
                with closing(sqlite3.connect(big.state / "kloros.db")) as store, store:
                    columns = "job, state, token, cause, origin, command, timeout_seconds, queued_at"
                    newest = f"SELECT {columns.replace('token', chr(39) + 'new' + chr(39))} FROM cycles WHERE cycle = 1"
                    store.execute(f"INSERT INTO cycles ({columns}) {newest}")
        assert seen == list(range(CYCLES, 0, -1))


def test_every_order_has_every_cycle_once(big: Host) -> None:
    with closing(sqlite3.connect(big.state / "kloros.db")) as store, store:
        store.execute("DELETE FROM cycles WHERE cycle > 2000")
        later = "strftime('%Y-%m-%dT%H:%M:%f', julianday(started_at) + (cycle * 7919 % 101) / 864000.0) || '000Z'"
        store.execute(f"UPDATE cycles SET ended_at = {later} WHERE cycle % 3 > 0")
    with serving(big) as served:
        for order in ("newest", "oldest", "longest", "shortest"):
            seen = [line for page in pages(served, f"limit=37&order={order}") for line in page]
            assert len({line["cycle"] for line in seen}) == len(seen), order
            lacking = 2000 - len(seen)
            assert lacking == 0 or order in ("longest", "shortest"), order
            durations = [line["duration"] for line in seen if line["duration"] is not None]
            if order in ("longest", "shortest"):
                rounded = [round(one) for one in durations]
                assert rounded == sorted(rounded, reverse=order == "longest"), order
