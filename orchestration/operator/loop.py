"""`klorosctl loop` and `klorosctl consent`: the continuous loop, and what it did without a person beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import click

from orchestration.host.rotated import newest_lines
from orchestration.loop.records import CONSENT
from orchestration.operator.console import Console, json_option


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
@json_option
@click.pass_obj
def loop(console: Console, *, flags: tuple[str, ...]) -> int:
    """Run a command again and again, with prerequisites, records and backoff.

    The same as python -m orchestration.run_loop; see its flags with: klorosctl loop --help
    """
    from orchestration import run_loop
    from orchestration.loop import options

    given = (*flags, "--json") if console.as_json else flags
    return run_loop.run(options.read(given, console.environ, "klorosctl loop", raises=True), console.environ)


@click.group()
def consent() -> None:
    """Look at what was run without a person's consent at the time."""


@consent.command("list")
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="At most so many.")
@json_option
@click.pass_obj
def list_(console: Console, *, limit: int) -> None:
    """Show unattended consents, newest first: who configured it where, when, for which command, and its hash."""
    console.become_owner()
    found = list(_consents(newest_lines(console.path(CONSENT), limit)))[::-1]
    console.answer(found, lambda: _lines(console, found))


def _consents(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the records, oldest first; what is no JSON was torn by a power cut."""
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _lines(console: Console, found: list[dict[str, Any]]) -> Iterator[str]:
    import shlex

    if not found:
        yield "No command was run unattended by the loop yet."
        return
    rows = [
        (
            one["at"],
            one.get("configured_at", ""),  # a record from before there was one
            f"{one['who']} by {one['source']}",
            one["sha256"][:12],
            shlex.join(one["command"]),
        )
        for one in found
    ]
    yield from console.screen.table(("AT (UTC)", "CONFIGURED AT", "BY", "SHA-256", "COMMAND"), rows)
