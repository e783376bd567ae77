"""`./install.sh --try` in a bare Debian 12 root: no init, no systemd running, no python3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import layers
from tests.system.installation import copy_source


@pytest.fixture
def root(can_boot: None) -> Iterator[Path]:
    """A root as debootstrap leaves it, with the source in /srv/kloros."""
    with layers.mounted(layers.bare()) as root:
        copy_source(root / "srv/kloros")
        yield root


def shows_the_main_job(output: str, root: Path) -> None:
    acks = {
        path.name.removesuffix("_ack.json"): json.loads(path.read_text())
        for path in (root / "srv/kloros/.try/state/promotions_ack").glob("*_ack.json")
    }
    said = {stem: ack["accepted"] for stem, ack in acks.items()}
    assert said == {"gen26_better": True, "gen26_worse": False, "gen26_out_of_bounds": False}
    assert "bound" in acks["gen26_out_of_bounds"]["rejection_reason"]
    for words in (
        "DREAM_CYCLE",
        "NOOP",
        "no_unacked_promotions",
        "gen26_better",
        "What to type next",
        ".try/klorosctl status",
    ):
        assert words.lower() in output.lower(), output


def test_as_root_it_brings_python_and_does_the_main_job(root: Path) -> None:
    ended = layers.in_root(root, "cd /srv/kloros && ./install.sh --try 2>&1")
    assert ended.returncode == 0, ended.stdout
    shows_the_main_job(ended.stdout, root)
    again = layers.in_root(root, "cd /srv/kloros && ./install.sh --try 2>&1")
    assert again.returncode == 0, again.stdout
    shows_the_main_job(again.stdout, root)


def test_without_root_it_says_what_to_install_then_works(root: Path) -> None:
    layers.in_root(root, "useradd --create-home ada && chown -R ada: /srv/kloros")
    first = layers.in_root(root, "cd /srv/kloros && ./install.sh --try 2>&1", user="ada")
    assert first.returncode == 1, first.stdout
    told = "apt-get update && sudo apt-get install python3 python3-venv"
    assert f"sudo {told}" in first.stdout, first.stdout
    done = layers.in_root(
        root, f"export DEBIAN_FRONTEND=noninteractive; {told.replace('sudo ', '')} -y --no-install-recommends"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    second = layers.in_root(root, "cd /srv/kloros && ./install.sh --try 2>&1", user="ada")
    assert second.returncode == 0, second.stdout
    shows_the_main_job(second.stdout, root)
