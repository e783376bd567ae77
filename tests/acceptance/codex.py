"""The real Codex CLI from npm, with a home of its own for each agent, the scripted model as its provider, and the bridge as
its MCP server."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from orchestration.bridge.mcp import clients
from tests.acceptance.serving import Served
from tests.contract import mcp_programs

_SETTINGS = """\
model = "scripted"
model_provider = "scripted"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false
web_search = "disabled"

[analytics]
enabled = false

[model_providers.scripted]
name = "scripted"
base_url = {url}
wire_api = "responses"
stream_max_retries = 0
request_max_retries = 0

"""
_TRUSTED = '[projects.{folder}]\ntrust_level = "trusted"\n\n'


class Codex(NamedTuple):
    """An agent's Codex: where it works, and what its environment is."""

    agent: str
    home: Path
    folder: Path
    """The clone in which it works."""
    environ: dict[str, str]

    def execute(self, prompt: str, *, resume: str = "", timeout: float = 60) -> Turned:
        """Run one turn to its end."""
        done = subprocess.run(
            self.command(prompt, resume=resume),
            env=self.environ,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return Turned(done.returncode, events, done.stderr)

    def command(self, prompt: str, *, resume: str = "") -> list[str]:
        how = ["resume", resume] if resume else []
        return ["codex", "exec", *how, "--json", "--skip-git-repo-check", prompt]


class Turned(NamedTuple):
    """How a turn ended."""

    code: int
    events: list[dict[str, Any]]
    stderr: str

    @property
    def session_id(self) -> str:
        (started,) = (one["thread_id"] for one in self.events if one["type"] == "thread.started")
        return str(started)

    @property
    def called(self) -> list[str]:
        """Names of the bridge's tools that were called and have answered."""
        items = [one["item"] for one in self.events if one["type"] == "item.completed"]
        return [one["tool"] for one in items if one["type"] == "mcp_tool_call" and one["status"] == "completed"]


def settings(url: str, *folders: str) -> str:
    """Write a `config.toml` with the model at a URL, and folders that are trusted."""
    trusted = [_TRUSTED.format(folder=json.dumps(folder)) for folder in folders]
    return "".join([_SETTINGS.format(url=json.dumps(url)), *trusted])


def configured(agent: str, *, home: Path, folder: Path, model: str, served: Served, token: str) -> Codex:
    """Give an agent its Codex: `klorosctl mcp config` says how it finds the bridge."""
    codex_home = home / f".codex-{agent}"
    codex_home.mkdir()
    told = settings(f"{model}/{agent}/v1", str(folder))
    bridge = clients.codex("kloros", clients.Http(f"http://127.0.0.1:{served.port}/mcp"))
    (codex_home / "config.toml").write_text(told + bridge + "\n")
    environ = {
        "PATH": mcp_programs.path(),
        "HOME": str(home),
        "CODEX_HOME": str(codex_home),
        "LANG": "C.UTF-8",
        "TERM": os.environ.get("TERM", "xterm-256color"),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        clients.TOKEN: token,
    }
    return Codex(agent, codex_home, folder, environ)
