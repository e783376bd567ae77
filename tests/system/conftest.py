"""Guests for the tests of this tier."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system import layers
from tests.system.guest import Guest, booted
from tests.system.installation import installed_layer


@pytest.fixture(scope="session")
def can_boot() -> None:
    """Skip by name where no guest can run; CI turns that into a failure."""
    faults = layers.missing_requirements()
    if faults:
        pytest.skip("no guest can be booted here: " + "; ".join(faults))


@pytest.fixture(scope="session")
def installed(can_boot: None) -> Iterator[Guest]:
    """One guest with the program installed, shared by the tests of a worker that leave it working."""
    with booted(installed_layer().stack, "kloros-shared") as guest:
        yield guest


@pytest.fixture
def own_guest(can_boot: None) -> Iterator[Guest]:
    """A guest with the program installed that a test may ruin."""
    with booted(installed_layer().stack, "kloros-own") as guest:
        yield guest
