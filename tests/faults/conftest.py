"""Assertions in the modules beside the tests explain themselves too."""

import pytest

pytest.register_assert_rewrite("tests.faults.world", "tests.faults.kill")
