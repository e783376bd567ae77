"""A scope under faults at random: leaders killed and paused, links cut, clocks off, the database restarted and failed over.

Never two decisions under one epoch, nothing written by who does not lead, each promotion answered once, each intent filed
once, each local date one PHASE, no number twice, no process left.

Some dozen faults in CI. `KLR_TEST_FAULTS=500 ./tests/run tests/faults/test_scope_at_random.py` for a night;
`KLR_TEST_FAULTS_SEED=7000` begins at other seeds than the usual.
"""

from __future__ import annotations

import os

import pytest

from tests.field.field import Field
from tests.field.storm import Storm

EACH = 22
FAULTS = int(os.environ.get("KLR_TEST_FAULTS", "44"))
SEED = int(os.environ.get("KLR_TEST_FAULTS_SEED", "100"))


@pytest.mark.parametrize("seed", range(SEED, SEED + -(-FAULTS // EACH)))
def test_whatever_befalls_it(field: Field, seed: int) -> None:
    storm = Storm(field, seed)
    try:
        storm.blow(EACH)
    except BaseException as error:
        error.add_note(f"seed {seed}: {storm.told}")
        raise
