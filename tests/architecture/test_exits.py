"""The exit codes are a promise to systemd units and to people's scripts."""

from __future__ import annotations

from orchestration.exits import Exit

PROMISED = {
    "DONE": 0,
    "FAILED": 1,
    "DISABLED": 2,
    "FAILURE_LIMIT": 3,
    "PHASE_FAILED": 10,
    "PHASE_TIMED_OUT": 11,
    "DREAM_FAILED": 12,
    "DREAM_TIMED_OUT": 13,
    "HALTED": 20,
    "USAGE": 64,
    "STORE_UNREACHABLE": 69,
    "DEFECT": 70,
    "UNWRITABLE": 74,
    "LOCK_HELD": 75,
    "SETTINGS_INVALID": 78,
}


def test_exit_codes_are_those_promised() -> None:
    assert {code.name: code.value for code in Exit} == PROMISED
