"""What the older orchestrator left, read without changing a byte: files as they are, and why one can't be read.

Its places, as HomoYouDidnt/kloros has them (src/kloros/orchestration at 878cac6: coordinator, promotion_daemon,
baseline_manager; src/orchestration/phase_trigger.py at 45c8d78):

    ~/.kloros/processed/epochs.jsonl   ~/.kloros/intents/*.json   ~/.kloros/signals/klr_phase_complete_*.json
    artifacts/dream/promotions_ack/*.json
    ~/system/baseline/{baseline.yaml,manifest.json}, versions/{baseline_v0042.yaml,manifest_v0042.json}

Root reads each of the trees as its owner, so that a link in one can't make it read what that owner may not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from orchestration.host.borrowed import as_owner_of
from orchestration.phase.epoch import SIGNAL_PREFIX
from orchestration.promotions.scan import read_regular

_LIMIT = 1024 * 1024  # bytes of one file, as for a promotion or an intent
_EPOCHS_LIMIT = 64 * 1024 * 1024
_ACKS = ("dream/promotions_ack", "promotions_ack")
_PROMOTIONS = ("dream/promotions", "promotions")
_BASELINES = ("baseline", "system/baseline", "../system/baseline")


class Found(NamedTuple):
    """One file; `fault` says why it can't be read, and is empty when it could."""

    path: str
    data: bytes = b""
    changed_at: float = 0.0  # seconds since 1970
    fault: str = ""

    @property
    def name(self) -> str:
        """Its name without its folder; bytes that are not UTF-8 are escaped where it is shown."""
        return os.path.basename(self.path)


class Tree(NamedTuple):
    """Everything that was found."""

    epochs: Found | None
    acks: tuple[Found, ...]
    signals: tuple[Found, ...]
    intents: tuple[Found, ...]
    baseline: str  # the folder; empty when there is none
    versions: tuple[Found, ...]  # the files in it and in its folder `versions`
    promotions: str  # where D-REAM leaves promotions; empty when that folder is not there


def read_tree(home: str, *, artifacts: str = "", baseline: str = "") -> Tree:
    """Read the older state folder, the artifacts and the baseline; a folder that is not given or absent counts as empty."""
    with as_owner_of(home):
        epochs = _read(os.path.join(home, "processed", "epochs.jsonl"), _EPOCHS_LIMIT)
        signals = _files(os.path.join(home, "signals"), prefix=SIGNAL_PREFIX)
        intents = _files(os.path.join(home, "intents"))
        acks = _acks(home, _ACKS)
    promotions = ""
    if artifacts:
        with as_owner_of(artifacts):
            acks += _acks(artifacts, _ACKS)
            promotions = next(_folders(artifacts, _PROMOTIONS), "")
    folder = baseline or next(_baselines(home, artifacts), "")
    versions: tuple[Found, ...] = ()
    if folder:
        with as_owner_of(folder):
            versions = _files(folder, endings=(".yaml", ".yml", ".json"))
            versions += _files(os.path.join(folder, "versions"), endings=(".yaml", ".yml", ".json"))
    return Tree(epochs, acks, signals, intents, folder, versions, promotions)


def _acks(root: str, names: Iterable[str]) -> tuple[Found, ...]:
    return tuple(found for folder in _folders(root, names) for found in _files(folder))


def _baselines(home: str, artifacts: str) -> Iterator[str]:
    yield from _folders(home, _BASELINES)
    if artifacts:
        yield from _folders(artifacts, _BASELINES)


def _folders(root: str, names: Iterable[str]) -> Iterator[str]:
    paths = (os.path.normpath(os.path.join(root, name)) for name in names)
    return (path for path in paths if os.path.isdir(path))


def _files(folder: str, *, prefix: str = "", endings: tuple[str, ...] = (".json",)) -> tuple[Found, ...]:
    """Read every file of a folder whose name fits; hidden ones are in the writing, or nobody's business."""
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        return (Found(folder, fault=f"can't be listed: {error.strerror}"),)
    wanted = (n for n in names if n.startswith(prefix) and n.endswith(endings) and not n.startswith("."))
    read = (_read(os.path.join(folder, name), _LIMIT) for name in wanted)
    return tuple(found for found in read if found is not None)


def _read(path: str, limit: int) -> Found | None:
    try:
        data, changed_at = read_regular(path, limit=limit)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Found(path, fault=f"can't be read: {error.strerror or error}")
    if len(data) > limit:
        return Found(path, changed_at=changed_at, fault=f"is larger than {limit} bytes")
    return Found(path, data, changed_at)
