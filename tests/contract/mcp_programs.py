"""Programs of npm, as `tests/run` installs them in `.ci/npm`, and how they are run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[2] / ".ci" / "npm" / "node_modules"
CONFORMANCE = FOLDER / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"


_PATIENCE = 90.0  # seconds


class Done(NamedTuple):
    """How a program ended, and what it said."""

    code: int
    said: str


def path() -> str:
    """The PATH on which these programs and their Node come first."""
    nodes = sorted(FOLDER.glob("node-linux-*/bin"))
    assert nodes, f"{FOLDER} is not there: `tests/run` installs it, or `npm ci` in {FOLDER.parent}"
    return os.pathsep.join([*map(str, nodes), str(FOLDER / ".bin"), os.environ["PATH"]])


async def run(*command: str, home: Path, environ: Mapping[str, str] | None = None) -> Done:
    """Run a program to its end, with a home of its own and nothing to read."""
    own: Mapping[str, str] = {
        "PATH": path(),
        "HOME": str(home),
        "CODEX_HOME": str(home / ".codex"),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    started = await asyncio.create_subprocess_exec(
        *command,
        env={**own, **(environ or {})},
        cwd=home,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_PATIENCE):
            said, _ = await started.communicate()
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()
    assert started.returncode is not None
    return Done(started.returncode, said.decode())
