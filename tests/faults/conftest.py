"""What the faults share: a quick way to run the program, and a file system that costs nothing to sync."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

pytest.register_assert_rewrite("tests.faults.world", "tests.faults.kill", "tests.field")

from tests.contract.conftest import cluster  # noqa: E402
from tests.faults.kill import Warm  # noqa: E402 - its assertions are rewritten only if that was said before
from tests.field.fixtures import field, ground  # noqa: E402

__all__ = ["field", "ground", "memory", "warm"]

__all__ = ["cluster", "memory", "warm"]


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    with Warm() as warm:
        yield warm


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system in memory: for a kill as good as any, and quick to sync."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if shared.is_dir() else tmp_path, prefix="kloros-faults-") as folder:
        yield Path(folder)
