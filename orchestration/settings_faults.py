"""From a TOML file and variables to `Settings`, or to one message that lists every fault at once.

Each fault says where it stands (file or variable), the key, the value found there, and what to write instead.
"""

from __future__ import annotations

import difflib
import shlex
import tomllib
from collections.abc import Mapping
from typing import Any, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestration.errors import SettingsInvalid
from orchestration.settings import Settings

Key = tuple[str, ...]
_LISTS = ("backoff", "require_modules", "require_executables", "require_variables", "require_hosts", "hosts")

_WANTED = {  # kind of fault of pydantic's, whose own words are Python's → TOML's
    "tuple_type": "a list is wanted",
    "list_type": "a list is wanted",
    "dict_type": "a table is wanted",
    "model_type": "a table is wanted",
    "string_type": "a text is wanted",
    "float_type": "a number is wanted",
    "float_parsing": "a number is wanted",
    "int_type": "a whole number is wanted",
    "int_parsing": "a whole number is wanted",
    "int_from_float": "a whole number is wanted",
    "bool_type": "true or false is wanted",
    "bool_parsing": "true or false is wanted",
}


def read_file(path: str, *, must_exist: bool) -> dict[str, Any]:
    """Return the content of the TOML file; an absent one is empty unless it was asked for.

    Raises:
        SettingsInvalid: unreadable, not UTF-8, or not TOML.
    """
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        if not must_exist:
            return {}
        raise SettingsInvalid(
            f"{path}: KLR_CONFIG names this file, and it does not exist",
            hint="create it, correct KLR_CONFIG, or unset KLR_CONFIG to use the defaults",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{path}: not TOML: {error}", hint="the format: https://toml.io") from error
    except OSError as error:
        raise SettingsInvalid(f"{path}: {error.strerror}", hint=f"see who may read it: ls -l {path}") from error


def read_variables(values: dict[str, Any], environ: Mapping[str, str], known: Mapping[str, Key]) -> dict[Key, str]:
    """Put the variables that are set over `values`, in place; return which variable gave which key.

    Raises:
        SettingsInvalid: a command can't be split into its words.
    """
    sources: dict[Key, str] = {}
    for variable, key in known.items():
        try:
            if variable in environ and _put(values, key, environ[variable]):
                sources[key] = variable
        except ValueError as error:
            raise SettingsInvalid(
                f"{variable}: {environ[variable]!r} can't be split into words: {str(error).lower()}",
                hint="close every quote, as for a shell: KLR_DREAM_COMMAND='python3 -m \"my module\"'",
            ) from error
    return sources


def _put(values: dict[str, Any], key: Key, text: str) -> bool:
    section = values
    for name in key[:-1]:
        section = section.setdefault(name, {})
        if not isinstance(section, dict):
            return False  # the file holds something else there; validation will say so
    section[key[-1]] = _split(key[-1], text)
    return True


def _split(name: str, text: str) -> object:
    """Read a list out of a variable: commands as a shell would split them, waits at commas."""
    if name in ("command", "trial", "prerequisites"):
        return shlex.split(text)
    if name not in _LISTS:
        return text
    return [part.strip() for part in text.split(",") if part.strip()]


def validated(values: dict[str, Any], path: str, sources: Mapping[Key, str]) -> Settings:
    """Validate merged values.

    Raises:
        SettingsInvalid: with every fault, one a line.
    """
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False)
        written = [detail for detail in details if detail["loc"][:1] and detail["loc"][0] in values]
        faults = [_fault(detail, path, sources) for detail in written or details]  # not those that follow from state_dir
        many = f"{len(faults)} settings are invalid" if len(faults) > 1 else "a setting is invalid"
        raise SettingsInvalid(
            "\n".join((f"{many}; nothing was done:", *(f"  {fault}" for fault in faults))),
            hint="check again with: klorosctl config check",
        ) from None


def _fault(detail: ErrorDetails, path: str, sources: Mapping[Key, str]) -> str:
    key = tuple(str(part) for part in detail["loc"])
    source = next((variable for end, variable in sources.items() if key[: len(end)] == end), path)
    message = _WANTED.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")
    found = repr(detail["input"])
    found = found if len(found) <= 80 else f"{found[:77]}..."
    return f"{source}: {'.'.join(key) or 'settings'} = {found}: {message}; {_advice(detail, key)}"


def _advice(detail: ErrorDetails, key: Key) -> str:
    section = _section(key[:-1])
    if section is None and len(key) > 1:  # one of a list
        key = key[:-1]
        section = _section(key[:-1])
    if section is None or not key:
        return "see docs/reference/settings.md"
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key[-1], section.model_fields, n=1)
        return f"write {near[0]} instead" if near else f"known here: {', '.join(section.model_fields)}"
    field = section.model_fields.get(key[-1])
    if field is not None and _is_section(field.annotation):
        return f"write its settings under a line [{'.'.join(key)}]"
    if field is None or not field.examples or (detail["type"] == "value_error" and get_origin(field.annotation) is dict):
        return "see docs/reference/settings.md"
    example = field.examples[0]
    if get_origin(field.annotation) is dict:
        return f"write for example {example}" if example.startswith("[") else f"write for example {key[-1]} = {{{example}}}"
    whole = isinstance(example, str) and example.startswith(f"{key[-1]} = ")
    return f"write for example {example if whole else f'{key[-1]} = {_toml(example)}'}"


def _section(key: Key) -> type[BaseModel] | None:
    """Return the model behind a table; of a table of tables (`[phase.domains.NAME]`), or a list, that of each of them."""
    model: type[BaseModel] = Settings
    names = iter(key)
    for name in names:
        field = model.model_fields.get(name)
        annotation = None if field is None else field.annotation
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1] if next(names, None) else None
        elif get_origin(annotation) is tuple and _is_section(get_args(annotation)[0]):
            annotation = get_args(annotation)[0] if next(names, None) else None
        if not _is_section(annotation):
            return None
        model = cast("type[BaseModel]", annotation)
    return model


def _is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case list():
            return f"[{', '.join(_toml(item) for item in value)}]"
        case str():
            return f'"{value}"'
        case _:
            return str(value)
