"""One line of a TOML file that people wrote, changed without touching anything else of it."""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib

from orchestration.errors import KlorosError, SettingsInvalid
from orchestration.host import files


def set_top_level(path: str, key: str, value: str) -> bool:
    """Set `key = "value"` before the first table, keeping every other byte; False when it stood there already.

    Makes the file if there is none. The new text takes the file's place only if a TOML reader finds in it what was
    there before, and this key: so no string or table that merely looks like the line can be hit.

    Raises:
        SettingsInvalid: the file is no TOML as it is.
        KlorosError: the line can't be found without doubt.
        Unwritable: not ours to write.
    """
    before, mode = _read(path)
    try:
        wanted = {**tomllib.loads(before), key: value}
    except tomllib.TOMLDecodeError as error:
        raise SettingsInvalid(f"{path}: not TOML: {error}", hint="repair it first; klorosctl config check") from error
    if tomllib.loads(before) == wanted:
        return False
    after = _with_line(before, key, f"{key} = {json.dumps(value)}")
    try:
        same = tomllib.loads(after) == wanted
    except tomllib.TOMLDecodeError:
        same = False
    if not same:
        raise KlorosError(
            f"{path}: the line {key} can't be changed without doubt", hint=f'set it by hand: {key} = "{value}"'
        )
    if not before:
        _make_folder(os.path.dirname(path))
    owner = os.stat(path) if before else None
    files.replace(path, after.encode(), mode=mode)
    if owner is not None and os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid)  # root may be editing a file of somebody else
    return True


def _read(path: str) -> tuple[str, int]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read(), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except FileNotFoundError:
        return "", 0o644
    except UnicodeDecodeError as error:
        raise SettingsInvalid(f"{path}: not UTF-8: {error}", hint="repair it first; klorosctl config check") from error
    except OSError as error:
        raise files.unwritable(path, error) from error


def _with_line(text: str, key: str, line: str) -> str:
    lines = text.splitlines(keepends=True)
    table = next((number for number, one in enumerate(lines) if re.match(r"\s*\[", one)), len(lines))
    for number, one in enumerate(lines[:table]):
        if match := re.match(rf"(\s*{key}\s*=\s*)(\"[^\"\\]*\"|'[^']*')(.*)", one, re.DOTALL):
            lines[number] = f"{line}{match[3]}"
            return "".join(lines)
    # After the comments at its head, so that those stay what they are about.
    head = next((number for number, one in enumerate(lines) if not one.lstrip().startswith("#")), len(lines))
    if head and not lines[head - 1].endswith("\n"):
        lines[head - 1] += "\n"
    return "".join((*lines[:head], f"{line}\n", *lines[head:]))


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise files.unwritable(folder, error) from error
