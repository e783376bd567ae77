"""`klorosctl mcp`: the bridge as an MCP server over standard input, and the configuration of clients."""

from __future__ import annotations

import os
import shutil
import stat

import click

from orchestration.bridge.mcp import clients
from orchestration.errors import Usage
from orchestration.operator.console import Console, json_option

_LONGEST = 16 * 1024
_WHERE = {"codex": "~/.codex/config.toml", "claude": ".mcp.json of the project"}


@click.group(invoke_without_command=True)
@click.option("--token-file", type=click.Path(), help=f"File with the agent's token, instead of {clients.TOKEN}.")
@click.option("--operator", "as_operator", is_flag=True, help="Act as yourself, the operator: every thread, every method.")
@click.pass_context
def mcp(ctx: click.Context, *, token_file: str | None, as_operator: bool) -> None:
    """Serve the bridge to one MCP client over standard input and output, until it closes its end.

    Who asks is the agent that the token in KLOROS_BRIDGE_TOKEN names (klorosctl token issue), or you with --operator. It
    works on this host's store, whether the bridge runs or not. Clients that speak HTTP need none of this: see `config`.
    """
    if ctx.invoked_subcommand is not None:
        return
    console: Console = ctx.obj
    token = _token(console, token_file)
    if as_operator and token:
        raise Usage("--operator and a token are two identities", hint=f"leave one out (the variable {clients.TOKEN} counts)")
    if not (as_operator or token):
        hint = "klorosctl token issue --agent NAME gives one; --operator acts as yourself"
        raise Usage(f"who asks? Set {clients.TOKEN}, or give --token-file", hint=hint)
    try:
        from orchestration import bridge_mcp
    except ImportError as error:
        hint = "install the extra bridge: sudo ./install.sh --with bridge, or pip install 'kloros-orchestration[bridge]'"
        raise Usage(f"MCP needs a package that is not installed: {error.name}", hint=hint) from error
    import asyncio

    console.become_owner()
    if as_operator:
        console.note("mcp", "speaks MCP as the operator")
    asyncio.run(bridge_mcp.speak(console.settings, token=token, actor=console.actor))


@mcp.command()
@click.argument("client", type=click.Choice(["codex", "claude"]))
@click.option("--name", default="kloros", show_default=True, help="What the client is to call it.")
@click.option("--url", default="", help="Where the bridge is for the client; by [bridge] host and port by default.")
@click.option("--stdio", is_flag=True, help="Have the client start `klorosctl mcp` instead.")
@json_option
@click.pass_obj
def config(console: Console, *, client: str, name: str, url: str, stdio: bool) -> None:
    """Print what a client's configuration must say, so that it finds the bridge. The token stays out of it."""
    if stdio and url:
        raise Usage("--stdio needs no --url", hint="leave one out")
    if not name or not name.isprintable():
        raise Usage(f"--name {name!r} is no name", hint="letters, digits, - and _ are good everywhere")
    where: clients.Http | clients.Stdio = clients.Http(url or _address(console))
    if stdio:
        where = clients.Stdio(shutil.which("klorosctl") or "klorosctl", ("mcp",))
    text = (clients.codex if client == "codex" else clients.claude)(name, where)
    document = {"client": client, "file": _WHERE[client], "token_variable": clients.TOKEN, "text": text}
    console.answer(document, tuple)
    if not console.as_json:
        click.echo(text)
        told = f"for {_WHERE[client]}; the token comes from the variable {clients.TOKEN}: klorosctl token issue --agent NAME"
        click.echo(told, err=True)


def _address(console: Console) -> str:
    bridge = console.settings.bridge
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bridge.host, bridge.host)  # noqa: S104 - every address is no address
    return f"http://{f'[{host}]' if ':' in host else host}:{bridge.port}/mcp"


def _token(console: Console, path: str | None) -> str:
    if path is None:
        return console.caller.get(clients.TOKEN, "").strip()
    try:
        with open(path, encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            token = file.read(_LONGEST).strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is not plain ASCII text"
        raise Usage(f"the token file {path}: {why}", hint="klorosctl token issue --agent NAME >FILE makes one") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Usage(f"the token file {path}: others may read it (mode {mode:04o})", hint=f"chmod 0600 {path}")
    if not token:
        raise Usage(f"the token file {path} is empty", hint="klorosctl token issue --agent NAME >FILE makes one")
    return token
