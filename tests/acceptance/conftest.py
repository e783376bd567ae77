"""A fresh host for each test of this tier."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.host import Host
from tests.contract.conftest import cluster, place

__all__ = ["cluster", "host", "place"]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)
