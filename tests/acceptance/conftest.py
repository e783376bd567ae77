"""A fresh host for each test of this tier."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.host import Host
from tests.acceptance.scopes import Scoped, Two
from tests.contract.conftest import cluster, place
from tests.contract.postgres import Cluster

__all__ = ["cluster", "host", "place"]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def scope(cluster: Cluster, tmp_path: Path) -> Scoped:
    return Scoped(cluster.new_database(), tmp_path)


@pytest.fixture
def two(scope: Scoped) -> Two:
    return scope, scope.host("a"), scope.host("b")
