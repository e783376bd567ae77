"""The loop's files: the history, one log per iteration, `latest.json`, and the consents.

The history and `latest.json` are copies of the store. A row is noted there first and appended then; killed in between, the
next loop looks for it at the end of the file and appends it if it is missing, so no row is lost or doubled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from orchestration.host import files
from orchestration.loop import ledger
from orchestration.store.instants import to_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.store.port import Database

LATEST: Final = "latest.json"
CONSENT: Final = "consent.jsonl"
_LOOKED_AT: Final = 1 << 20  # bytes at the end of a history in which a row may stand already


def make_folder(path: str) -> None:
    """Make a folder for a file of ours.

    Raises:
        Unwritable: it can't be made.
    """
    files.make_folder(path, 0o755)


def write_history(db: Database) -> None:
    """Append the rows that are not in their file yet, each once.

    Raises:
        Unwritable: they stay in the store, and are appended later.
    """
    for iteration, path, line in ledger.unwritten(db):
        make_folder(os.path.dirname(path))
        append_once(path, line)
        ledger.note_written(db, iteration)


def append_once(path: str, line: str) -> None:
    """Append a line to a file unless it is near its end already, or near that of the file that logrotate made of it.

    Raises:
        Unwritable: disk full, read-only or not ours.
    """
    if not (_stands(path, line) or _stands(f"{path}.1", line)):
        files.append_line(path, line, 0o640)


def _stands(path: str, line: str) -> bool:
    """Tell whether a line is at the end of a file already; first cuts off a last line that was torn by a kill."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise files.unwritable(path, error) from error
    try:
        size = os.fstat(descriptor).st_size
        start = max(0, size - _LOOKED_AT)
        whole, newline, torn = os.pread(descriptor, _LOOKED_AT, start).rpartition(b"\n")
        if torn and (newline or not start):
            os.ftruncate(descriptor, size - len(torn))
        return line.encode() in whole.split(b"\n")
    finally:
        os.close(descriptor)


def claim_log(folder: str, started_at: datetime) -> str:
    """Make an empty log whose name nothing has, and return its path: `20261121T030000.log`, else `20261121T030000-1.log`…

    Raises:
        Unwritable: disk full, read-only or not ours.
    """
    make_folder(folder)
    name, taken = f"{started_at:%Y%m%dT%H%M%S}", 0
    path = os.path.join(folder, f"{name}.log")
    while not _claimed(path):
        taken += 1
        path = os.path.join(folder, f"{name}-{taken}.log")
    return path


def _claimed(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))
    except FileExistsError:
        return False
    except OSError as error:
        raise files.unwritable(path, error) from error
    return True


def fill_log(path: str, *, output: str | None, otherwise: str) -> None:
    """Put a command's output into the log that was claimed for it, or a text when there is none. Repeatable.

    The output is linked, not copied, where both are on one file system.

    Raises:
        Unwritable: disk full, read-only or not ours.
    """
    make_folder(os.path.dirname(path))
    if output is None or not _has_content(output):
        files.replace(path, f"{otherwise}\n".encode() if otherwise else b"", 0o640)
        return
    beside = f"{path}.writing"
    try:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        try:
            os.link(output, beside)
        except OSError:
            shutil.copyfile(output, beside)
        os.rename(beside, path)
        with suppress(FileNotFoundError):  # rename(2) leaves both names when they are the same file already
            os.unlink(beside)
    except OSError as error:
        raise files.unwritable(path, error) from error


def _has_content(path: str) -> bool:
    try:
        return os.path.getsize(path) > 0
    except OSError:
        return False


def write_latest(folder: str, document: dict[str, Any]) -> None:
    """Replace `latest.json` in one step.

    Raises:
        Unwritable: the old one is still there.
    """
    make_folder(folder)
    files.replace(os.path.join(folder, LATEST), json.dumps(document).encode() + b"\n", 0o644, durable=False)


def sweep(folder: str) -> None:
    """Remove what a killed loop left half-written."""
    with suppress(OSError):
        files.sweep(folder, os.listdir(folder))


def consent_of(
    command: Sequence[str], *, who: str, configured_at: datetime, source: str, now: datetime, **more: object
) -> dict[str, Any]:
    """Make the record of an unattended consent: who configured it where, when, for which command, and its hash."""
    words = list(command)
    digest = hashlib.sha256(json.dumps(words).encode()).hexdigest()
    configured = {"who": who, "configured_at": to_text(configured_at), "source": source}
    return {"at": to_text(now), **configured, "command": words, "sha256": digest, **more}


def note_consent(state_dir: str, consent: dict[str, Any]) -> None:
    """Append a consent to `consent.jsonl`.

    Raises:
        Unwritable: nothing may be run then.
    """
    files.append_line(os.path.join(state_dir, CONSENT), json.dumps(consent))
