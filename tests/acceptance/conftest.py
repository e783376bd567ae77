"""A fresh host for each test of this tier."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.host import Host


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)
