"""Guests for the tests of this tier. One boots in a third of a second, so that no two tests share one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system import layers
from tests.system.guest import Guest, sweep
from tests.system.installation import Installed, installed_layer, running
from tests.system.operator import Operator


@pytest.fixture(scope="session")
def can_boot() -> None:
    """Skip by name where no guest can run; CI turns that into a failure."""
    faults = layers.missing_requirements()
    if faults:
        pytest.skip("no guest can be booted here: " + "; ".join(faults))
    sweep()


@pytest.fixture(scope="session")
def installed(can_boot: None) -> Installed:
    """The disk of a guest on which install.sh has run, and the record of that run."""
    return installed_layer()


@pytest.fixture
def guest(installed: Installed) -> Iterator[Guest]:
    """A freshly booted guest with the program installed."""
    with running(installed.stack, "kloros-test") as guest:
        yield guest


@pytest.fixture
def operator(guest: Guest) -> Operator:
    """Somebody who works on that guest."""
    return Operator(guest)
