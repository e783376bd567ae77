"""The completion signal of a PHASE: a small file that vouches for its report, `signals/klr_phase_complete_<epoch>.json`.

Owns the file's name, form and check; refuses to know what a report says. Four fields, mode 0640: `epoch_id`, `ts` (whole
seconds since 1970), `report` (absolute path), `sha256` (of the report's bytes, 64 hexadecimal digits).

Name and fields are KLoROS's own, so either side reads what the other wrote: its reader takes the file by the epoch id in
its name and compares `sha256` with the file at `report` (HomoYouDidnt/kloros, src/orchestration/phase_trigger.py); its
writers put `no_report` for the sum when there is no report, which is refused here as the missing report it is. Its empty
marker `/tmp/klr_phase_complete_<epoch>` is not written: a unit with PrivateTmp would show it to nobody.

The command of a PHASE may write the signal of the epoch it was given. One that counts epochs of its own, as KLoROS's
`src.phase.run_all_domains` does, leaves a signal under another name in the same folder: it is checked just the same, and
the signal of our epoch then vouches for the same report.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from datetime import datetime
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestration.errors import Malformed
from orchestration.host import files
from orchestration.phase.epoch import SIGNAL_PREFIX

_MODE: Final = 0o640
_LIMIT: Final = 64 * 1024
_EPOCH: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")


class Signal(BaseModel):
    """What a signal says; `verify_signal` has compared it with the report."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    epoch_id: Annotated[str, Field(pattern=rf"^{_EPOCH.pattern}$")]
    ts: Annotated[int, Field(ge=0)]
    report: Annotated[str, Field(pattern="^/")]
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64}|no_report)$")]


def signal_path(folder: str, epoch: str) -> str:
    """Return where the signal of an epoch lies in the folder of signals.

    Raises: Malformed for an epoch that is no plain name.
    """
    if not _EPOCH.fullmatch(epoch):
        raise Malformed(f"epoch {epoch!r} is no plain name", hint="Use letters, digits, - and _ only.")
    return os.path.join(folder, f"{SIGNAL_PREFIX}{epoch}.json")


def settle_signal(folder: str, epoch: str, *, report: str, started: datetime, now: datetime) -> Signal:
    """Return the checked signal of a PHASE whose command has ended well; write it if the command did not.

    `report` is where the command's report is expected; a signal that the command wrote may name another. `started` is when
    the command started (aware): older signals under other names are none of its.

    Raises: Malformed when a signal, or the report it vouches for, is missing, broken or changed: the PHASE has failed.
        Unwritable when the signal can't be written.
    """
    if os.path.lexists(signal_path(folder, epoch)):
        return verify_signal(folder, epoch)
    foreign = _newest_since(folder, started)
    if foreign is not None:
        report = verify_signal(folder, foreign).report
    return write_signal(folder, epoch, report=report, at=now)


def put_aside(folder: str, epoch: str) -> None:
    """Put aside a signal of an epoch whose PHASE has not begun yet, as `….json.earlier`.

    It is of a PHASE that was queued within the same second, and would vouch for that one's report.

    Raises: Malformed for an epoch that is no plain name. Unwritable.
    """
    path = signal_path(folder, epoch)
    if os.path.lexists(path):
        files.move_no_replace(path, folder, f"{os.path.basename(path)}.earlier")


def write_signal(folder: str, epoch: str, *, report: str, at: datetime) -> Signal:
    """Write the signal of an epoch for the report at path `report`; one that is there already is checked instead.

    Raises: Malformed when the report is missing or is no file. Unwritable.
    """
    path = signal_path(folder, epoch)
    signal = Signal(epoch_id=epoch, ts=int(at.timestamp()), report=os.path.abspath(report), sha256=_sum(report))
    content = json.dumps(signal.model_dump(), indent=2) + "\n"
    return signal if files.create(path, content.encode(), _MODE) else verify_signal(folder, epoch)


def verify_signal(folder: str, epoch: str) -> Signal:
    """Read the signal of an epoch and compare it with its report.

    Raises: Malformed, saying why, when there is none, it breaks its form, is of another epoch, or its report is missing
        or has another sum.
    """
    path = signal_path(folder, epoch)
    try:
        signal = Signal.model_validate_json(_content(path, "signal"))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'content'}: {e['msg']}" for e in error.errors())
        raise Malformed(
            f"signal {path}: {faults}", hint="It needs epoch_id, ts (a whole number), report (absolute path), sha256."
        ) from error
    if signal.epoch_id != epoch:
        raise Malformed(f"signal {path} is of epoch {signal.epoch_id}, not {epoch}", hint="Use KLR_EPOCH as it is.")
    found = _sum(signal.report)
    if found != signal.sha256:
        raise Malformed(
            f"signal {path}: sha256 of {signal.report} is {found}, and the signal says {signal.sha256}",
            hint="Write the report completely, and the signal after it.",
        )
    return signal


def _newest_since(folder: str, started: datetime) -> str | None:
    """Return the epoch of the newest signal in the folder that was written at `started` or later."""
    since = started.timestamp()
    try:
        with os.scandir(folder) as entries:
            named = [e for e in entries if e.name.startswith(SIGNAL_PREFIX) and e.name.endswith(".json")]
            found = [(e.stat(follow_symlinks=False).st_mtime, e.name) for e in named]
    except FileNotFoundError:
        return None
    recent = [name for written, name in sorted(found) if written >= since]
    return recent[-1].removeprefix(SIGNAL_PREFIX).removesuffix(".json") if recent else None


def _sum(report: str) -> str:
    """Return the SHA-256 of the report's bytes in hexadecimal.

    Raises: Malformed when it is missing or is no file.
    """
    with os.fdopen(_open(report, "report"), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _content(path: str, what: str) -> bytes:
    with os.fdopen(_open(path, what), "rb") as file:
        content = file.read(_LIMIT + 1)
    if len(content) > _LIMIT:
        raise Malformed(f"{what} {path} is longer than {_LIMIT} bytes")
    return content


def _open(path: str, what: str) -> int:
    """Open a regular file for reading, and nothing that could block or is a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise Malformed(f"{what} {path} is missing", hint="Let the command write it before it exits.") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise Malformed(f"{what} {path!r} can't be read: {error}") from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise Malformed(f"{what} {path} is no regular file")
