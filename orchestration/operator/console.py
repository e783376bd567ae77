"""What every command works with: the settings that ticks have, the store to look at or to act on, the screen.

The variables that the installed unit gives to ticks count here too, unless the caller's own say otherwise: so the
operator sees the mode, the window and the state folder that the ticks see.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestration import wiring
from orchestration.errors import Usage
from orchestration.host import clock, process_identity, users, zones
from orchestration.operator.screen import Screen, Times
from orchestration.operator.units import Units
from orchestration.store import opening
from orchestration.tick.kernel import Kernel

if TYPE_CHECKING:
    from datetime import datetime

    from orchestration.settings import Settings

MODE = "KLR_ORCHESTRATION_MODE"
_Command = TypeVar("_Command", bound=Callable[..., Any])


class Console:
    """One call of `klorosctl`."""

    def __init__(self, environ: Mapping[str, str], *, user_units: bool | None = None) -> None:
        """Take the caller's variables; `user_units` None means by who calls: root has the host's, others their own."""
        self.caller = dict(environ)
        self.as_json = False
        units = Units.of(self.caller, user=user_units)
        # Units of another installation than the one the caller names are none of ours, least of all to change.
        self.units = units if units.ticks_for(self.caller) else units._replace(folders=())
        self.actor = _actor(self.caller)
        self.identities = users.behind(self.caller)
        self.screen = Screen.of_stdout(self.caller)

    @cached_property
    def from_unit(self) -> dict[str, tuple[str, str]]:
        """The variables that the installed unit gives ticks: value, and the file that says so."""
        return {name: found for name, found in self.units.environment().items() if name.startswith("KLR_")}

    @cached_property
    def environ(self) -> dict[str, str]:
        """The caller's variables over the unit's."""
        return {**{name: value for name, (value, _) in self.from_unit.items()}, **self.caller}

    @cached_property
    def settings(self) -> Settings:
        """The settings, valid. Raises: SettingsInvalid."""
        return wiring.settings(self.environ)

    @cached_property
    def now(self) -> datetime:
        """One instant for the whole answer."""
        return clock.now()

    @cached_property
    def times(self) -> Times:
        """How instants are written: in the window's zone and in UTC."""
        zones.find(self.settings.phase.time_zone)
        return Times(self.settings.phase.time_zone, self.now)

    def mode_source(self) -> str:
        """Name what sets the mode: a variable of the caller, a unit's file, the TOML file, or nobody."""
        import tomllib

        from orchestration import configuration

        if MODE in self.caller:
            return f"the variable {MODE} of this shell"
        if MODE in self.from_unit:
            return self.from_unit[MODE][1]
        path = configuration.config_path(self.environ)
        try:
            with open(path, "rb") as file:
                return path if "orchestration_mode" in tomllib.load(file) else "the default"
        except (OSError, ValueError):
            return "the default"

    def path(self, *names: str) -> str:
        """Return a path in the state folder."""
        return os.path.join(self.settings.state_dir, *names)

    @property
    def here(self) -> str:
        """The name of this host in its scope."""
        return opening.here(self.settings.scope)

    def become_owner(self) -> None:
        """As root, go on as the owner of the state folder."""
        wiring.become_owner(self.settings.state_dir)

    @contextmanager
    def looking(self) -> Iterator[Kernel]:
        """Give a kernel over the store, read only, or over an empty one when there is none."""
        self.become_owner()
        zones.find(self.settings.phase.time_zone)
        db = opening.open_to_look(self.settings)
        try:
            with wiring.seen_of_others(self.settings, db) as sharing:
                yield Kernel(
                    settings=self.settings,
                    db=db,
                    start=lambda _entry: None,
                    publish=lambda: None,
                    now=lambda: self.now,
                    boot_id=process_identity.boot_id(),
                    shared=sharing,
                )
        finally:
            db.close()

    @contextmanager
    def trying(self) -> Iterator[Kernel]:
        """Give a kernel over a copy of the store, for thinking ticks through."""
        self.become_owner()
        with wiring.detached_kernel(self.settings) as kernel:
            yield kernel

    @contextmanager
    def acting(self) -> Iterator[Kernel]:
        """Give the kernel of the real world."""
        self.become_owner()
        with wiring.kernel(self.settings, self.environ) as kernel:
            yield kernel

    def note(self, command: str, message: str, **fields: object) -> None:
        """Log who did what."""
        from orchestration.host.journal import Event, Priority, log

        log(
            Event.OPERATOR_ACTED,
            f"{self.actor}: {message}",
            priority=Priority.NOTICE,
            command=command,
            operator=self.actor,
            **fields,
        )

    def answer(self, document: object, lines: Callable[[], Iterable[str]]) -> None:
        """Print one answer: the document with `--json`, else the lines for a person."""
        if self.as_json:
            click.echo(json.dumps(document, default=_plain))
        else:
            self.screen.print(lines())


def json_option(command: _Command) -> _Command:
    """Give a command `--json`."""

    def chosen(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            ctx.find_root().obj.as_json = True

    option = click.option(
        "--json", "as_json", is_flag=True, expose_value=False, callback=chosen, help="Answer in JSON, for programs."
    )
    return option(command)


def check_reason(reason: str) -> None:
    """Check that a reason that has to be given says something.

    Raises:
        Usage: it does not.
    """
    if not reason.strip():
        raise Usage("--reason is empty", hint="say why: whoever meets it later wants to know")


def unknown(kind: str, given: str, there: Iterable[str], *, more: str = "") -> Usage:
    """Make the answer to an id that names nothing: what there is, nearest first."""
    import difflib

    known = list(there)
    near = difflib.get_close_matches(given, known, n=3, cutoff=0.5)
    shown = [*near, *(name for name in known if name not in near)][:8]
    rest = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    hint = f"there is {', '.join(shown)}{rest}" if shown else f"there is no {kind} at all yet"
    return Usage(f"there is no {kind} {given!r}", hint="; ".join(filter(None, (hint, more))))


def _actor(environ: Mapping[str, str]) -> str:
    """Name who acts: the user of this process, and who became it by sudo."""
    name = users.name_of(os.getuid())
    sudo = environ.get("SUDO_USER")
    return f"{sudo} (sudo, as {name})" if sudo and sudo != name else name


def _plain(value: object) -> object:
    from datetime import date, datetime, timedelta

    from orchestration.store.instants import to_text

    if isinstance(value, datetime):
        return to_text(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, date) else str(value)
