"""`klorosctl config`: each setting with where it comes from, and whether all of them are valid."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import time, timedelta
from typing import Any, NamedTuple, cast

import click
from pydantic import BaseModel

from orchestration import configuration
from orchestration.cycles.environment import CYCLE_VARIABLES
from orchestration.errors import SettingsInvalid
from orchestration.exits import Exit
from orchestration.operator.console import Console, json_option

OURS = CYCLE_VARIABLES | {"KLR_CONFIG"}
"""Variables that are no settings: where the file is, and what a cycle's command is given."""


class Setting(NamedTuple):
    """One setting as it is in force."""

    key: str
    value: object
    source: str


@click.group()
def config() -> None:
    """Look at the settings."""


@config.command()
@json_option
@click.pass_obj
def show(console: Console) -> None:
    """Show every setting and where its value comes from."""
    found = list(settings_in_force(console))
    document = {one.key: {"value": _json(one.value), "source": one.source} for one in found}
    console.answer(document, lambda: _lines(console, found))


@config.command()
@json_option
@click.pass_obj
def check(console: Console) -> int:
    """Check the settings: every fault with what to write instead; exit code 78 if there is one."""
    stray = [f"{name} is no setting{_near(name)}; it changes nothing" for name in strays(console.environ)]
    path = configuration.config_path(console.environ)
    try:
        configuration.load(console.environ)
    except SettingsInvalid as error:
        if not console.as_json:
            _warn(stray)
            raise
        lines = [line.strip() for line in error.message.splitlines()]
        document = {"valid": False, "faults": lines[1:] or lines, "warnings": stray}
        console.answer(document, list)
        return Exit.SETTINGS_INVALID
    if not console.as_json:
        _warn(stray)
    document = {"valid": True, "faults": [], "warnings": stray}
    console.answer(document, lambda: [f"The settings are valid ({path}, then KLR_* variables)."])
    return Exit.DONE


def _warn(stray: list[str]) -> None:
    for text in stray:
        click.echo(f"warning: {text}", err=True)


def strays(environ: dict[str, str]) -> list[str]:
    """Return the KLR_ variables that no setting has."""
    from orchestration.settings import Settings

    known = configuration.variables(Settings)
    return sorted(name for name in environ if name.startswith("KLR_") and name not in known and name not in OURS)


def _near(name: str) -> str:
    import difflib

    from orchestration.settings import Settings

    near = difflib.get_close_matches(name, configuration.variables(Settings), n=1)
    return f", did you mean {near[0]}?" if near else ""


def settings_in_force(console: Console) -> Iterator[Setting]:
    """Yield every setting, in the order of the model. Raises: SettingsInvalid."""
    from orchestration.settings import Settings
    from orchestration.settings_faults import read_file

    environ = console.environ
    settings = configuration.load(environ)
    path = configuration.config_path(environ)
    written = read_file(path, must_exist=False)
    variables = {key: name for name, key in configuration.variables(Settings).items() if name in environ}
    for key, value in _leaves(settings):
        if key in variables:
            name = variables[key]
            unit = console.from_unit.get(name)
            source = f"{name} in {unit[1]}" if unit and name not in console.caller else name
        else:
            source = path if _stands(written, key) else _default(key)
        yield Setting(".".join(key), value, source)


_IN_THE_STATE = (("promotions_dir",), ("acks_dir",), ("cycles_dir",), ("bundles_dir",), ("textfile",))


def _default(key: tuple[str, ...]) -> str:
    return "follows state_dir" if key in _IN_THE_STATE else "default"


def _leaves(section: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if hasattr(type(value), "model_fields"):
            yield from _leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def _stands(written: dict[str, Any], key: tuple[str, ...]) -> bool:
    at: Any = written
    for name in key:
        if not isinstance(at, dict) or name not in at:
            return False
        at = at[name]
    return True


def _lines(console: Console, found: list[Setting]) -> Iterator[str]:
    """Write the settings as a file of them: each section once, its maps after its values, as TOML wants it."""
    sections: dict[str, list[Setting]] = {}
    for one in found:
        sections.setdefault(one.key.rpartition(".")[0], []).append(one)
    for section, settings in sections.items():
        if section:
            yield from ("", console.screen.heading(f"[{section}]"))
        tables = [one for one in settings if isinstance(one.value, dict) and one.value]
        for one in settings:
            if one not in tables:
                yield from _line(console, f"{one.key.rpartition('.')[2]} = {toml(one.value)}", one.source)
        yield from _tables(console, tables)


def _tables(console: Console, tables: list[Setting]) -> Iterator[str]:
    for one in tables:
        entries = cast("dict[str, object]", one.value)
        nested = {name: value for name, value in entries.items() if isinstance(value, BaseModel)}
        if not nested:
            yield from ("", console.screen.heading(f"[{one.key}]"))
            for name, value in entries.items():
                yield from _line(console, f"{_key(name)} = {toml(value)}", one.source)
        for name, value in nested.items():
            yield from ("", console.screen.heading(f"[{one.key}.{_key(name)}]"))
            for field in type(value).model_fields:
                yield from _line(console, f"{field} = {toml(getattr(value, field))}", one.source)


def _line(console: Console, text: str, source: str) -> Iterator[str]:
    screen = console.screen
    remark = screen.style(f"# {source}", dim=True)
    if screen.width is not None and len(text) + len(source) + 4 > screen.width:
        yield from (text, f"    {remark}")
    else:
        yield f"{text}  {remark}"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def toml(value: object) -> str:
    """Write a value as the TOML file takes it."""
    match value:
        case bool():
            return str(value).lower()
        case timedelta():
            return f'"{exact_span(value)}"'
        case time():
            return f'"{value:%H:%M}"' if not value.second else f'"{value.isoformat()}"'
        case tuple():
            return f"[{', '.join(toml(item) for item in value)}]"
        case dict():
            return f"{{ {', '.join(f'{_key(key)} = {toml(item)}' for key, item in value.items())} }}" if value else "{}"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case BaseModel():  # a domain, a rule; TOML has no word for what is not given
            fields = {name: getattr(value, name) for name in type(value).model_fields}
            return toml({name: given for name, given in fields.items() if given is not None})
        case _:
            return repr(value)


def exact_span(length: timedelta) -> str:
    """Write a duration so that reading it gives the same one."""
    seconds = length.total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds and not seconds % size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"


def _json(value: object) -> object:
    match value:
        case timedelta():
            return value.total_seconds()
        case time():
            return value.isoformat()
        case tuple():
            return [_json(item) for item in value]
        case dict():
            return {key: _json(item) for key, item in value.items()}
        case BaseModel():
            return {name: _json(getattr(value, name)) for name in type(value).model_fields}
        case _:
            return value
