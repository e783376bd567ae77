"""Runbooks as what they are: text that an operator types. Reads their marked blocks, types them, and writes what came of it.

A block is fenced as `console confirm`, `console mend` or `console undo`; in it each line after `$ ` is a command and all
else what it printed when the drill was last written. The commands of a block share one shell, as a person's do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from tests.system.guest import Guest
from tests.system.layers import ROOT

PAGES = ROOT / "docs" / "runbooks"
WRITES = os.environ.get("KLR_WRITE_DRILLS") == "1"
_BLOCK = re.compile(r"^```console (confirm|mend|undo)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "@@drill@@"
_LINES, _WIDTH = 24, 140  # of what a page shows of an output
_KEY_LINES = 4  # of what the evidence shows of one


class Typed(NamedTuple):
    """One command as it was typed, and what came of it."""

    command: str
    code: int
    output: str

    @property
    def shown(self) -> list[str]:
        """The output as a page shows it."""
        lines = [line.rstrip() for line in self.output.splitlines()]
        lines = [line if len(line) <= _WIDTH else f"{line[:_WIDTH]}…" for line in lines]
        return lines if len(lines) <= _LINES else [*lines[: _LINES - 1], "…"]


@dataclass(slots=True)
class Drill:
    """One page being gone through on one guest."""

    page: str
    guest: Guest
    cause: str = ""
    saw: str = ""
    then: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: float = 0.0
    typed: dict[str, list[Typed]] = field(default_factory=dict)  # by kind of block

    def commands(self, kind: str) -> list[list[str]]:
        """The commands of each block of a kind."""
        text = (PAGES / f"{self.page}.md").read_text()
        return [_commands(body) for found, body in _BLOCK.findall(text) if found == kind]

    def type(self, kind: str) -> str:
        """Type every block of a kind; returns all that was printed. What is to mend or undo must succeed."""
        for commands in self.commands(kind):
            script = "".join(f"{command}\nprintf '\\n%s %s\\n' {_MARK} $?\n" for command in commands)
            ended = self.guest.sh(f"{{ {script} }} 2>&1", timeout=60)
            parts = re.split(rf"\n{_MARK} (\d+)\n", ended.out)
            for command, output, code in zip(commands, parts[::2], parts[1::2], strict=False):
                self.typed.setdefault(kind, []).append(Typed(command, int(code), output.strip("\n")))
                assert kind == "confirm" or code == "0", f"{self.page}: {command}\n-- exit {code}\n{output}"
        assert self.typed.get(kind), f"{self.page} has nothing to {kind}"
        return "\n".join(one.output for one in self.typed[kind])

    def write_page(self) -> None:
        """Put what the commands printed into the page."""
        path = PAGES / f"{self.page}.md"
        left = {kind: list(typed) for kind, typed in self.typed.items()}

        def block(found: re.Match[str]) -> str:
            kind = found[1]
            lines = []
            for command in _commands(found[2]):
                lines.append(f"$ {command}")
                lines += left[kind].pop(0).shown if left.get(kind) else []
            return "\n".join([f"```console {kind}", *lines, "```"])

        path.write_text(_BLOCK.sub(block, path.read_text()))


def _commands(body: str) -> list[str]:
    return [line.removeprefix("$ ") for line in body.splitlines() if line.startswith("$ ")]


def all_pages() -> list[str]:
    """The pages that have blocks to type."""
    return sorted(path.stem for path in PAGES.glob("*.md") if _BLOCK.search(path.read_text()))


def write_evidence(drills: Iterable[Drill], debian: str) -> None:
    """Write what every drill did: when, how long, what was typed and the beginning of what it printed."""
    lines = [
        "# Drills",
        "",
        "<!-- written by the drills themselves: KLR_WRITE_DRILLS=1, tests/system/test_runbooks.py -->",
        "",
    ]
    lines += [f"On {debian}, each page on a state of its own. Output is cut to its first lines; the pages have more.", ""]
    for drill in sorted(drills, key=lambda drill: drill.page):
        lines += [
            f"## [{drill.page}]({drill.page}.md)",
            "",
            f"{drill.at:%Y-%m-%d %H:%M:%S} UTC, {drill.seconds:.1f} s.",
            "",
            f"- Caused: {drill.cause}.",
            f"- Seen: {drill.saw}.",
            f"- Mended: {drill.then}.",
            "",
            "```console",
        ]
        for typed in drill.typed.values():
            for one in typed:
                lines += [f"$ {one.command}", *one.shown[:_KEY_LINES]]
                lines += [f"[exit {one.code}]"] if one.code else []
        lines += ["```", ""]
    (PAGES / "drills.md").write_text("\n".join(lines).rstrip() + "\n")
