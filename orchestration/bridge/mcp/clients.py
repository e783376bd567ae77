"""What MCP clients want to read in their configuration, so that they find the bridge. Pure.

Codex: `[mcp_servers.NAME]` in config.toml, checked against @openai/codex 0.169 (`codex mcp list`). Its own limit for a tool
is 60 s, and a read may wait for 30. Claude Code: .mcp.json, checked against @anthropic-ai/claude-code 2.1, which puts
variables in.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple

TOKEN: Final = "KLOROS_BRIDGE_TOKEN"  # noqa: S105 - a variable's name
"""The variable in which a client has its token; no configuration ever holds the token itself."""
_TOOL_SECONDS: Final = 60
_UNATTENDED: Final = ("update_thread_status",)
"""Tools with a destructive hint that an agent's work takes: Codex asks a person first, and refuses where there is none."""


class Http(NamedTuple):
    """The bridge at its address."""

    url: str


class Stdio(NamedTuple):
    """The bridge as a program that the client starts."""

    command: str
    arguments: tuple[str, ...]


def codex(name: str, where: Http | Stdio) -> str:
    """Write the table for `~/.codex/config.toml`."""
    lines = [f"[mcp_servers.{_key(name)}]"]
    match where:
        case Http(url):
            lines += [f"url = {json.dumps(url)}", f"bearer_token_env_var = {json.dumps(TOKEN)}"]
        case Stdio(command, arguments):
            lines += [
                f"command = {json.dumps(command, ensure_ascii=False)}",
                f"args = {json.dumps(list(arguments), ensure_ascii=False)}",
                f"env_vars = [{json.dumps(TOKEN)}]",
            ]
    lines.append(f"tool_timeout_sec = {_TOOL_SECONDS}")
    for tool in _UNATTENDED:
        lines += ["", f"[mcp_servers.{_key(name)}.tools.{tool}]", 'approval_mode = "approve"']
    return "\n".join(lines)


def claude(name: str, where: Http | Stdio) -> str:
    """Write the document for a project's `.mcp.json`."""
    match where:
        case Http(url):
            server = {"type": "http", "url": url, "headers": {"Authorization": f"Bearer ${{{TOKEN}}}"}}
        case Stdio(command, arguments):
            given = {TOKEN: f"${{{TOKEN}}}"}
            server = {"type": "stdio", "command": command, "args": list(arguments), "env": given}
    return json.dumps({"mcpServers": {name: server}}, indent=2, ensure_ascii=False)


def _key(name: str) -> str:
    """Write a TOML key; what is no bare one in quotes."""
    return name if name.isascii() and name.replace("-", "").replace("_", "").isalnum() else json.dumps(name)
