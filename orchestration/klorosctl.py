"""What an operator types: `klorosctl status`, `klorosctl explain`, `klorosctl doctor`, and the rest.

Owns the list of commands, and how a command's end becomes an exit code and a message. Every command is a module in
`operator/`, imported only when it is called, so that `klorosctl status` is quick.
"""

from __future__ import annotations

import difflib
import itertools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

import click

from orchestration.errors import KlorosError, Unwritable, Usage
from orchestration.exits import Exit
from orchestration.operator.console import Console

NAME = "klorosctl"
COMMANDS: Mapping[str, str] = {
    "status": "status",
    "tick": "ticking",
    "explain": "ticking",
    "forecast": "forecast",
    "history": "history",
    "show": "cycles",
    "logs": "logs",
    "cancel": "cycles",
    "bundle": "bundle",
    "federation": "federation",
    "prune": "retention",
    "pin": "retention",
    "unpin": "retention",
    "enable": "mode",
    "disable": "mode",
    "halt": "switches",
    "unhalt": "switches",
    "maintenance": "switches",
    "leader": "leader",
    "loop": "loop",
    "consent": "loop",
    "promotions": "promotions",
    "baseline": "baseline",
    "escrow": "escrow",
    "heuristics": "heuristics",
    "intents": "intents",
    "pulse": "pulse",
    "threads": "threads",
    "inspect-thread": "one_thread",
    "tail-thread": "one_thread",
    "post": "one_thread",
    "agent": "agents",
    "escalate-thread": "one_thread",
    "unblock-thread": "one_thread",
    "override-close-thread": "one_thread",
    "triggers": "triggers",
    "why-not-woken": "triggers",
    "audit": "audit",
    "token": "token",
    "mcp": "mcp",
    "db": "db",
    "doctor": "doctor",
    "readiness": "readiness",
    "autonomous": "autonomous",
    "migrate-legacy": "legacy",
    "backup": "backup",
    "rollback-rollout": "rollout",
    "config": "config",
    "completion": "completion",
}
"""Every command and the module of `orchestration.operator` that has it, in the order of the help."""

EPILOG = (
    "Exit codes: 0 done · 1 failed · 2 disabled · 20 halted · 64 usage, or no such id · 69 store unreachable · "
    "70 a defect of ours · 74 disk full or not writable · 75 another tick holds the lock · 78 settings invalid; "
    "`tick --wait` also 10/11 PHASE failed/timed out, 12/13 D-REAM failed/timed out."
)


class _ReaderGone(Exception):
    """Who read our output has stopped reading, as `klorosctl history | head` does. No failure of ours."""


class Program(click.Group):
    """The group of all commands, each found when it is asked for."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a reader that has gone must not reach click, which would make it a failure."""
        try:
            code: object = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise _ReaderGone from error
        return code

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which an operator needs them."""
        return list(COMMANDS)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the first word; a wrong one is answered with those that are near."""
        if args and args[0] not in COMMANDS and not ctx.resilient_parsing:
            near = difflib.get_close_matches(args[0], COMMANDS, n=3, cutoff=0.5) or list(COMMANDS)
            raise Usage(f"there is no command {args[0]!r}", hint=f"there is {', '.join(near)}; {NAME} --help")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command's module."""
        if name not in COMMANDS:
            return None
        command = getattr(import_module(f"orchestration.operator.{COMMANDS[name]}"), name.replace("-", "_"))
        return command if isinstance(command, click.Command) else None


@click.group(cls=Program, name=NAME, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--user", is_flag=True, help="Mean your own systemd units, also as root (like systemctl --user).")
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=lambda *given: _version(*given),
    help="Print the version.",
)
@click.pass_context
def program(ctx: click.Context, *, user: bool) -> None:
    """Look at the KLoROS orchestrator, and steer it.

    Every command takes --json, for its errors too: one object on stderr. Times are shown in the PHASE window's zone
    and in UTC. What only looks changes no byte. As root, commands act as the owner of the state folder.
    """
    ctx.obj = Console(os.environ, user_units=user or None)


def _version(ctx: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"{NAME} {version('kloros-orchestration')}")
        ctx.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the entry; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    tell = _as_json if _asks_for_json(given) else _as_text
    try:
        code = program.main(given or ["--help"], prog_name=NAME, standalone_mode=False)
    except click.ClickException as error:
        return _misused(error, tell)
    except (KeyboardInterrupt, click.Abort):
        return 130  # 128 + SIGINT, as shells write it
    except _ReaderGone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still to be flushed goes nowhere
        return Exit.DONE
    except KlorosError as error:
        return tell(error.message, error.hint, error.exit)
    except OSError as error:
        refused = _refused(error)
        return tell(refused.message, refused.hint, refused.exit)
    except Exception:
        import traceback

        return tell(f"a defect of ours: {traceback.format_exc()}", "please report these lines", Exit.DEFECT)
    return code if isinstance(code, int) else Exit.DONE


def _asks_for_json(words: Sequence[str]) -> bool:
    """Tell whether a command line asks for JSON; it may be one that can't be understood."""
    return "--json" in itertools.takewhile(lambda word: word != "--", words)


def _as_text(what: str, hint: str, code: Exit) -> int:
    message = f"{NAME}: {what}"
    click.echo(f"{message}\n  {hint}" if hint else message, err=True)
    return code


def _as_json(what: str, hint: str, code: Exit) -> int:
    """Say what is wrong as one line of JSON on stderr, for programs; stdout is for answers."""
    click.echo(json.dumps({"error": {"what": what, "hint": hint, "exit_code": int(code)}}), err=True)
    return code


def _refused(error: OSError) -> KlorosError:
    where = f"{error.filename}: " if error.filename else ""
    hint = f"run it as the folder's owner: sudo {NAME} …" if isinstance(error, PermissionError) else f"{NAME} doctor"
    return Unwritable(f"{where}{error.strerror or error}", hint=hint)


def _misused(error: click.ClickException, tell: Callable[[str, str, Exit], int]) -> int:
    context = getattr(error, "ctx", None)
    path = NAME if context is None else context.command_path
    if type(error).__name__ == "NoArgsIsHelpError" and context is not None:
        if tell is _as_json:
            return tell(f"{path} needs a command", f"{path} --help", Exit.USAGE)
        click.echo(context.get_help(), err=True)
        return Exit.USAGE
    return tell(error.format_message(), f"{path} --help", Exit.USAGE)


if __name__ == "__main__":
    sys.exit(main())
