"""The loop's flags: one for each setting of `[loop]`, over its `RUN_CYCLE_*` variable, over the TOML file.

Owns which of two settings that exclude each other counts: the one from the stronger source.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import TypeAdapter, ValidationError

from orchestration import configuration
from orchestration.command_line import Parser, RaisingParser
from orchestration.errors import KlorosError, SettingsInvalid, Usage
from orchestration.settings import Loop, Settings
from orchestration.settings_faults import read_file, read_variables, validated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DRY_RUN: Final = "RUN_CYCLE_DRY_RUN"
_COMMANDS: Final = ("command", "prerequisites")
_TRUTH: Final = TypeAdapter(bool)
_RIVALS = (("goal", "goal_file"), ("iterations", "continuous"))
_EPILOG = (
    "A flag beats its variable, the variable beats [loop] in the TOML file. "
    "exit codes: 0 done or stopped, 1 the last of the iterations failed, 2 disabled, 3 failure limit reached, 20 halted, "
    "64 usage, 69 store, 70 defect, 74 disk, 75 another loop is at work, 78 settings"
)


class Options(NamedTuple):
    """What one call of the loop is to do, and where each setting of the loop comes from."""

    settings: Settings
    sources: Mapping[str, str]
    dry_run: bool
    json: bool


def read(arguments: Sequence[str], environ: Mapping[str, str], prog: str, *, raises: bool = False) -> Options:
    """Read flags, variables and file.

    Raises:
        SettingsInvalid: variables or file are wrong.
        Usage: a flag's value is wrong, or `working_dir` is no folder; a flag that is none ends the process, unless `raises`.
    """
    kind = RaisingParser if raises else Parser
    given = vars(_parser(kind, environ, prog, helps=not {"-h", "--help"}.isdisjoint(arguments)).parse_args(arguments))
    dry_run, as_json = _dry_run(given.pop("dry_run"), environ), given.pop("json")
    flags = {_flag(name): _text(value) for name, value in given.items() if value is not None}
    configuration.load(environ)
    try:
        settings, sources = _merged(environ, flags)
    except SettingsInvalid as error:
        raise Usage(error.message, hint=f"{prog} --help") from None
    _refuse_absent(settings.loop.working_dir, sources.get("working_dir", ""))
    return Options(settings, sources, dry_run, as_json)


def _dry_run(flag: bool | None, environ: Mapping[str, str]) -> bool:
    if flag is not None or DRY_RUN not in environ:
        return bool(flag)
    try:
        return _TRUTH.validate_python(environ[DRY_RUN])
    except ValidationError:
        what = f"{DRY_RUN} = {environ[DRY_RUN]!r}: neither true nor false; nothing was done"
        raise SettingsInvalid(what, hint=f"write for example {DRY_RUN}=true, or unset it") from None


def _text(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value


def _refuse_absent(folder: str, source: str) -> None:
    """Refuse a folder that is none: records that are made below it would hide the slip."""
    if folder and not os.path.isdir(folder):
        what = f"{source}: loop.working_dir = {folder!r}: no folder, or not one that this user may enter; nothing was done"
        raise Usage(what, hint=f"correct the path, or make the folder first: mkdir -p {shlex.quote(folder)}")


def _merged(environ: Mapping[str, str], flags: Mapping[str, str]) -> tuple[Settings, dict[str, str]]:
    path = configuration.config_path(environ)
    values = read_file(path, must_exist="KLR_CONFIG" in environ)
    values.setdefault("state_dir", configuration.default_state_dir(environ))
    in_file = dict.fromkeys(values.get("loop", {}), path)
    variables = configuration.variables(Settings)
    by_variable = read_variables(values, environ, variables)
    by_flag = read_variables(values, flags, {_flag(name): ("loop", name) for name in Loop.model_fields})
    named = {key[1]: source for key, source in {**by_variable, **by_flag}.items() if key[0] == "loop"}
    sources = {**in_file, **named}
    if _is_false(values.get("loop", {}).get("continuous")):
        del values["loop"]["continuous"]  # what is not wanted excludes nothing; the default is the same
    for pair in _RIVALS:
        _drop_weaker(values.get("loop", {}), pair, sources, path)
    return validated(values, path, {**by_variable, **by_flag}), sources


def _is_false(value: object) -> bool:
    try:
        return value is not None and not _TRUTH.validate_python(value)
    except ValidationError:
        return False  # validation will say so


def _drop_weaker(section: dict[str, Any], pair: tuple[str, str], sources: dict[str, str], path: str) -> None:
    """Leave out the one of two settings that a weaker source gives; of equals, the second one counts."""
    if not all(name in section for name in pair):
        return
    ranks = [_rank(sources[name], path) for name in pair]
    weaker = pair[0] if ranks[0] <= ranks[1] else pair[1]
    del section[weaker], sources[weaker]


def _rank(source: str, path: str) -> int:
    return 2 if source.startswith("--") else 0 if source == path else 1


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _parser(kind: type[Parser], environ: Mapping[str, str], prog: str, *, helps: bool) -> Parser:
    parser = kind(
        prog=prog,
        description="Run a command again and again: prerequisites, command, archive, records.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--dry-run", action=argparse.BooleanOptionalAction, help=f"print what would be done, and do nothing [{DRY_RUN}]"
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON per iteration")
    variables = {key: name for name, key in configuration.variables(Settings).items()}
    now = _in_force(environ) if helps else str
    for name, field in Loop.model_fields.items():
        about = f"{' '.join((field.description or '').split()).replace('`', '')}{_written(name, field.annotation)}"
        help_text = f"{about} [{variables['loop', name]}, loop.{name}; now {now(name)}]".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(_flag(name), dest=name, action=argparse.BooleanOptionalAction, help=help_text)
        else:
            parser.add_argument(_flag(name), dest=name, metavar=name.rpartition("_")[2].upper(), help=help_text)
    return parser


def _written(name: str, annotation: object) -> str:
    """Say how a setting of many words is written after its flag."""
    if name in _COMMANDS:
        return " As one quoted string."
    return " Between commas." if str(annotation).startswith("tuple") else ""


def _in_force(environ: Mapping[str, str]) -> Callable[[str], str]:
    """Return what tells of a setting the value that counts without flags, and where it comes from."""
    try:
        settings, sources = _merged(environ, {})
    except KlorosError:
        return lambda _name: "the settings are invalid"
    return lambda name: f"{shown(name, getattr(settings.loop, name))} from {sources.get(name, 'the default')}"


def shown(name: str, value: object) -> str:
    """Write the value of a setting as people read it, and as its flag takes it."""
    if isinstance(value, tuple):
        words = [shown(name, one) for one in value]
        return (shlex.join(words) if name in _COMMANDS else ", ".join(words)) or "none"
    if value is None or value == "":
        return "none"
    seconds = getattr(value, "total_seconds", None)
    return f"{seconds():g} s" if seconds else str(value).lower() if isinstance(value, bool) else str(value)


def listed(options: Options) -> Iterator[tuple[str, str, str]]:
    """Yield each setting of the loop: name, value, source."""
    for name in Loop.model_fields:
        yield name, shown(name, getattr(options.settings.loop, name)), options.sources.get(name, "the default")
