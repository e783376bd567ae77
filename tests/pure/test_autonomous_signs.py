"""What tells that a unit or a command is of the D-REAM that starts by itself, and what does not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestration.operator.autonomous_signs import of_command, of_unit

SYSTEMD = Path(__file__).parents[2] / "systemd"


@pytest.mark.parametrize(
    "name",
    [
        "dream-background.service",
        "dream-domains.service",
        "dream-runner.service",
        "dream_autonomous.service",
        "kloros-dream.service",
        "kloros-dream@night.service",
        "kloros-dream-consumer.service",
        "kloros-dream-evolution-loop.timer",
        "d-ream-scheduler.timer",
        "kloros-policy-engine.service",
    ],
)
def test_a_unit_is_known_by_its_name(name: str) -> None:
    assert of_unit(name, []).startswith("its name")


@pytest.mark.parametrize(
    "command",
    [
        "/home/kloros/.venv/bin/python3 -m src.dream.runner --config dream.yaml",
        "/home/kloros/.venv/bin/python3 /home/kloros/src/dream/dream_domain_service.py",
        "/home/kloros/.venv/bin/python3 /home/kloros/dream/run_rag_quality.py",
        "python3 -m d_ream.loop",
        "/home/kloros/scripts/dream_overnight.sh",
        "cd /home/kloros && python3 -c 'from src.dream.x import run_autonomous_loop; run_autonomous_loop()'",
        "python3 -m src.kloros.orchestration.coordinator tick",
        "python3 -m kloros.orchestration.dream_consumer_daemon",
        "python3 src/orchestration/core/autonomous_loop.py",
        "/usr/local/bin/run_dream.sh",
    ],
)
def test_a_command_is_known(command: str) -> None:
    assert of_command(command)
    assert of_unit("something.service", [command]) == f"it runs {of_command(command)}"


@pytest.mark.parametrize(
    "command",
    [
        "/opt/kloros/bin/python -m orchestration.run_once",
        "/opt/kloros/bin/python -m orchestration.run_loop --command 'python3 -m src.dream.runner'",
        "/opt/kloros/bin/python -m orchestration.promotions.trial",
        "/usr/bin/rsync dreamhost:/srv /backup",
        "/usr/bin/daydream_cycles --all",
        "/home/kloros/.venv/bin/python3 /home/kloros/src/dream_web_dashboard.py",
        "/home/kloros/bin/dream_sync_promotions.sh",
        "python3 -m src.phase.run_all_domains",
        "/usr/bin/certbot renew",
    ],
)
def test_others_raise_no_alarm(command: str) -> None:
    assert of_command(command) == ""


@pytest.mark.parametrize("name", ["dreamcast.service", "dream.service", "kloros-dream-dashboard.service", "daydream.timer"])
def test_names_of_others_raise_no_alarm(name: str) -> None:
    assert of_unit(name, ["/usr/bin/true"]) == ""


def test_our_own_units_raise_no_alarm() -> None:
    shipped = sorted(path for path in SYSTEMD.iterdir() if path.suffix in (".service", ".timer", ".path", ".socket"))
    assert len(shipped) > 8
    for path in shipped:
        assert of_unit(path.name, re.findall(r"^ExecStart=(.*)$", path.read_text(), re.MULTILINE)) == "", path.name
