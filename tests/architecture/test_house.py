"""The house rules that tools can check: style, types, one-way imports, links in the documents."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.host.journal import Event

TOP = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
TOP_LEVEL = {"pyproject.toml", "orchestration", "systemd", "tests", "docs", "install.sh", "README.md", "CHANGELOG.md"}


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=True,
    )
    return [TOP / name for name in listed.stdout.splitlines() if (TOP / name).exists()]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "--quiet", "--output-format=concise", "."],
        ["ruff", "format", "--quiet", "--check", "."],
        ["mypy"],
        ["lint-imports", "--no-cache"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_tool_finds_nothing(command: list[str]) -> None:
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def test_links_in_documents_lead_somewhere() -> None:
    broken = [
        f"{document.relative_to(TOP)}: {target}"
        for document in tracked("*.md")
        for target in LINK.findall(document.read_text(encoding="utf-8"))
        if not target.startswith(("http://", "https://", "mailto:", "#"))
        and not (document.parent / target.partition("#")[0]).exists()
    ]
    assert broken == []


def test_the_top_level_is_the_frame_that_was_agreed() -> None:
    found = {path.relative_to(TOP).parts[0] for path in tracked()}
    assert {name for name in found if not name.startswith(".")} == TOP_LEVEL


def test_every_module_says_what_it_owns() -> None:
    silent = [
        str(path.relative_to(TOP))
        for path in tracked("orchestration/**/*.py", "orchestration/*.py")
        if path.stat().st_size and not path.read_text(encoding="utf-8").startswith('"""')
    ]
    assert silent == []


def test_every_event_happens_somewhere() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in tracked("orchestration/*.py") if path.name != "journal.py")
    assert [event.name for event in Event if f"Event.{event.name}" not in text] == []
