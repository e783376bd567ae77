"""What the host advises can be typed: each command and option of ours exists."""

from __future__ import annotations

import shlex

import pytest
from click.testing import CliRunner

from orchestration.klorosctl import program
from orchestration.pulse.health import RULES
from orchestration.pulse.notice import ADVICE

COMMANDS = sorted({rule.advice for rule in RULES} | set(ADVICE))


def test_every_advice_is_a_command() -> None:
    assert [advice for advice in COMMANDS if advice.split()[0] not in ("klorosctl", "systemctl")] == []


@pytest.mark.parametrize("advice", [advice for advice in COMMANDS if advice.startswith("klorosctl ")])
def test_our_commands_exist_with_their_options(advice: str) -> None:
    words = shlex.split(advice)[1:]
    options = [word for word in words if word.startswith("--")]
    asked = CliRunner().invoke(program, [*(word for word in words if word not in options), "--help"])
    assert asked.exit_code == 0, asked.output
    assert [option for option in options if option not in asked.output] == []
