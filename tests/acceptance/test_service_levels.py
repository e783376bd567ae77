"""A short run of `tests/benchmarks/sli.py` reaches what is required; docs/reference/sli-baseline.md has a long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks import sli
from tests.contract.postgres import Cluster

SECONDS = 6.0


@pytest.mark.xdist_group("postgres")
def test_a_short_run_reaches_what_is_required(tmp_path: Path, cluster: Cluster) -> None:
    with sli.bridges(str(tmp_path), cluster.new_database()) as served:
        for store, bridge in served.items():
            for writers in (False, True):
                found = sli.measure(bridge, seconds=SECONDS / 2, writers=writers)
                assert found.levels.misses(sli.REQUIRED) == [], f"{store}, {writers}: {found}"
                assert min(found.seen, found.woken) >= 2


def test_what_is_missed_is_named() -> None:
    assert sli.GOALS.misses(sli.GOALS) == sli.GOALS.misses(sli.REQUIRED) == []
    assert len(sli.REQUIRED.misses(sli.GOALS)) == 4
