"""The field as fixtures, for the tiers whose tests play on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.field.field import Field, Ground, laid_out, missing, playing


@pytest.fixture(scope="session")
def ground() -> Iterator[Ground]:
    """The switch and the databases, once for each worker: they are in namespaces, and no other worker's are near."""
    if lacking := missing():
        pytest.skip(lacking)
    with laid_out() as ground:
        yield ground


@pytest.fixture
def field(ground: Ground) -> Iterator[Field]:
    """Three hosts that are on, with an empty database."""
    with playing(ground) as field:
        yield field
    ground.databases.heal()
