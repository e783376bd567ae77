"""Where the settings come from: the TOML file, the `KLR_*` variables, or the snapshot of an earlier tick.

Validating costs more than a whole quiet tick, so a valid result is kept in the state folder and used as long as
everything it was made from is the same: the file's identity, the variables, our version. The snapshot is plain JSON;
reading one can run no code, whoever wrote it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from datetime import time, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from orchestration.host import files

if TYPE_CHECKING:
    from orchestration.settings import Settings

DEFAULT_CONFIG = "/etc/kloros/orchestrator.toml"
SYSTEM_STATE_DIR = "/var/lib/kloros"
_SNAPSHOT = "settings.snapshot.json"
_RENAMED: dict[tuple[str, ...], str] = {
    ("intents", "max_pending"): "KLR_MAX_INTENT_QUEUE",
    ("bridge", "auth_jwks_url"): "AUTH_JWKS_URL",
    ("bridge", "auth_issuer"): "AUTH_ISSUER",
    ("bridge", "auth_audience"): "AUTH_AUDIENCE",
}


def load(environ: Mapping[str, str]) -> Settings:
    """Read, merge and validate every setting.

    Raises:
        SettingsInvalid: the message lists every fault with its file or variable, key, value and what to write.
    """
    from orchestration.settings import Settings
    from orchestration.settings_faults import read_file, read_variables, validated

    path = config_path(environ)
    values = read_file(path, must_exist="KLR_CONFIG" in environ)
    sources = read_variables(values, environ, variables(Settings))
    values.setdefault("state_dir", default_state_dir(environ))
    return validated(values, path, sources)


def load_remembered(environ: Mapping[str, str]) -> Settings | None:
    """Return the settings of the snapshot, or None when there is none or anything it was made from has changed."""
    try:
        with open(_snapshot_path(environ), encoding="utf-8", opener=_open_own) as file:
            snapshot = json.load(file, object_hook=_decode)
        return cast("Settings", snapshot.settings) if snapshot.identity == _identity(environ) else None
    except (OSError, ValueError, AttributeError):
        return None


def _open_own(path: str, flags: int) -> int:
    """Open a regular file of ours without following a link, and without waiting for one that is none.

    The state folder is the service user's. As root we believe nothing in it that root has not written: a snapshot says
    whose state folder it is, and which commands are run.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    found = os.fstat(descriptor)
    if found.st_uid == os.geteuid() and stat.S_ISREG(found.st_mode):
        return descriptor
    os.close(descriptor)
    raise PermissionError(f"{path} is not ours")


def remember(settings: Settings, environ: Mapping[str, str]) -> None:
    """Keep valid settings for later ticks, if the default state folder is the one in use."""
    path = _snapshot_path(environ)
    if os.path.dirname(path) == settings.state_dir:
        content = {"+section": {"identity": _identity(environ), "settings": _encode(settings)}}
        files.replace(path, json.dumps(content).encode(), mode=0o600)


def is_remembered(settings: Settings) -> bool:
    """Tell whether these settings came from the snapshot."""
    return isinstance(settings, SimpleNamespace)


def config_path(environ: Mapping[str, str]) -> str:
    """Return the path of the TOML file, which may be absent."""
    return environ.get("KLR_CONFIG") or DEFAULT_CONFIG


def default_state_dir(environ: Mapping[str, str]) -> str:
    """Return the state folder for this user when neither file nor variable names one."""
    if os.geteuid() == 0 or os.access(SYSTEM_STATE_DIR, os.W_OK | os.X_OK):
        return SYSTEM_STATE_DIR
    home = environ.get("HOME") or os.path.expanduser("~")
    return os.path.join(environ.get("XDG_STATE_HOME") or os.path.join(home, ".local/state"), "kloros")


def variables(model: type[Settings]) -> dict[str, tuple[str, ...]]:
    """Return the `KLR_*` variable of every setting that can be given by one, with the setting's key."""
    return {_RENAMED.get(key, _variable(key)): key for key in _keys(model)}


def _variable(key: tuple[str, ...]) -> str:
    return "_".join(("RUN_CYCLE", *key[1:]) if key[0] == "loop" else ("KLR", *key)).upper()


def _keys(model: type[Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            yield from _keys(field.annotation, (*prefix, name))
        elif not any(text in str(field.annotation) for text in ("dict", "orchestration.settings.")):  # tables, lists of them
            yield (*prefix, name)


def _snapshot_path(environ: Mapping[str, str]) -> str:
    return os.path.join(environ.get("KLR_STATE_DIR") or default_state_dir(environ), _SNAPSHOT)


def _identity(environ: Mapping[str, str]) -> tuple[object, ...]:
    """Return everything that a snapshot depends on, in a form that JSON gives back equal."""
    prefixes = ("KLR_", "RUN_CYCLE_", "AUTH_")
    ours = tuple(sorted((k, v) for k, v in environ.items() if k.startswith(prefixes) or k == "XDG_STATE_HOME"))
    model = os.path.join(os.path.dirname(__file__), "settings")
    files = sorted(entry.path for entry in os.scandir(model) if entry.name.endswith(".py"))
    return (ours, os.geteuid(), config_path(environ), *map(_file_identity, (config_path(environ), *files)))


def _file_identity(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _encode(value: Any) -> Any:
    """Write a settings value as JSON with tags for what JSON lacks; `_decode` is its inverse."""
    if hasattr(value, "model_fields_set"):
        return {"+section": {name: _encode(getattr(value, name)) for name in type(value).model_fields}}
    if isinstance(value, dict):
        return {"+map": {key: _encode(item) for key, item in value.items()}}
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if isinstance(value, timedelta):
        return {"+seconds": value.total_seconds()}
    if isinstance(value, time):
        return {"+time": value.isoformat()}
    return value


def _decode(tagged: dict[str, Any]) -> Any:
    if "+section" in tagged:
        return SimpleNamespace(**{key: _as_tuple(item) for key, item in tagged["+section"].items()})
    if "+map" in tagged:
        return {key: _as_tuple(item) for key, item in tagged["+map"].items()}
    if "+seconds" in tagged:
        return timedelta(seconds=tagged["+seconds"])
    if "+time" in tagged:
        return time.fromisoformat(tagged["+time"])
    return tagged


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value
