"""`klorosctl completion`: the script that a shell reads to complete commands, options, ids and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from orchestration.operator.console import Console, json_option

_USE = {
    "bash": 'eval "$(klorosctl completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(klorosctl completion zsh)"    # in ~/.zshrc, after compinit',
    "fish": "klorosctl completion fish | source    # in ~/.config/fish/config.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(sorted(_USE)))
@json_option
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  eval "$(klorosctl completion bash)"    in ~/.bashrc
    zsh:   eval "$(klorosctl completion zsh)"     in ~/.zshrc, after compinit
    fish:  klorosctl completion fish | source     in config.fish
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"click knows no shell {shell}")
    script = found(ctx.find_root().command, {}, "klorosctl", "_KLOROSCTL_COMPLETE")
    # Not `source()`: for bash that runs a bash to see its version.
    text = script.source_template % script.source_vars()
    console: Console = ctx.find_root().obj
    console.answer({"shell": shell, "script": text, "use": _USE[shell]}, lambda: [text])
