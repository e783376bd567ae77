"""What a cycle needs of other hosts, and they of it, where several share a store; nothing of it on a single host.

Before its command: the promotions it tries, which lie on the hosts that D-REAM left them on, and this host's copy of the
baseline. After it: what settling it reads, wherever the leader is. That is put into the store in the transaction that
records the end, so that a cycle that has ended can be settled though its host has gone.
"""

from __future__ import annotations

import hashlib
import json
import os
from base64 import b64encode
from typing import TYPE_CHECKING, Final

from orchestration.cycles import artifacts
from orchestration.cycles.cycle import Cycle, JobName, folder_name
from orchestration.errors import LockHeld, Unwritable
from orchestration.host import files, stand_in
from orchestration.host.journal import Event, Priority, log

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestration.cycles.cycle import Result
    from orchestration.store.port import Database

_PROMOTIONS: Final = "promotions"
_REPORT_LIMIT: Final = 4 * 1024 * 1024  # bytes; of a longer one nothing is read, see phase/report.py
_INTENTS_READ: Final = 100  # of a reflection's intents no more are looked at, see tick/reflected.py
_PATIENCE: Final = 20.0  # seconds that a tick may take with the files of the baseline


def bring_up_baseline(db: Database, state_dir: str) -> None:
    """Write this host's copy of the baseline if the store has a newer one, as a tick of this host does each minute.

    Before a cycle is claimed, which notes the version that it runs under. What hinders it is told; a cycle that would be
    given files that are not as the store says is then refused by `copies.check_in_force`, as ever.
    """
    from orchestration.baseline import copies, history
    from orchestration.host.lock import FileLock

    if not db.is_shared or not history.unwritten(db):
        return
    lock = FileLock(os.path.join(state_dir, "locks", "orchestrator.lock"))  # a tick may be at the same files
    try:
        with lock.held("runner", patience=_PATIENCE):
            copies.bring_up(db, os.path.join(state_dir, "baseline"))
    except (LockHeld, Unwritable) as error:
        told = f"the files of the baseline are not those of its newest version: {error.message}"
        log(Event.BASELINE_REPLACED, told, priority=Priority.WARNING)


def fetch_promotions(db: Database, stems: Iterable[str], folder: str) -> tuple[str, dict[str, str]]:
    """Put promotions of any host into a cycle's own folder, where its command finds them as long as it runs.

    Returns:
        The folder they lie in, and whose files they are: stem → OS user on the host it came from.

    Raises:
        Unwritable: disk full, read-only or not ours.
    """
    from base64 import b64decode

    place = os.path.join(folder, _PROMOTIONS)
    files.make_folder(place)
    owners: dict[str, str] = {}
    for stem in stems:  # one by one: each may have 1 MiB
        for row in db.rows("shared_files.of_promotions", names=json.dumps([f"{stem}.json"])):
            path = os.path.join(place, f"{stem}.json")
            if row["stand_in"]:
                files.link(path, str(row["stand_in"]))
                continue
            files.replace(path, b64decode(str(row["content"])), 0o640, durable=False)
            changed_at = float(str(row["changed_at"]))
            os.utime(path, (changed_at, changed_at))
            owners[stem] = str(row["owner"])
    return place, owners


def left_by(cycle: Cycle, folder: str, result: Result) -> list[dict[str, object]]:
    """Read what settling a cycle that ends now will need of its folder."""
    if cycle.job is JobName.DREAM:
        found = [_file(cycle, folder, path) for path in (artifacts.handover_path(folder), artifacts.verdicts_path(folder))]
    elif cycle.job is JobName.PHASE and result.report is not None:
        report = _row(cycle, os.path.relpath(artifacts.report_path(folder), folder), result.report, _REPORT_LIMIT)
        found = [report]
    elif cycle.job is JobName.REFLECTION:
        found = _intents(cycle, folder)
    else:
        found = []
    return [one for one in found if one is not None]


def keep(db: Database, left: list[dict[str, object]]) -> None:
    """Put it where the leader finds it. Inside the transaction that records the cycle's end."""
    for one in left:
        db.run("shared_files.keep", files=json.dumps([one]))


def _intents(cycle: Cycle, folder: str) -> list[dict[str, object] | None]:
    from orchestration.intents import inbox

    place = artifacts.intents_path(folder)
    within = os.path.relpath(place, folder)
    if any(os.path.islink(one) for one in (place, os.path.dirname(place))):
        return [_stand_in(cycle, within, "symbolic link", "leads elsewhere by a symbolic link")]
    try:
        names = inbox.list_names(place)
    except Unwritable as error:
        return [_stand_in(cycle, within, "unreadable", error.message)]
    rows = [_intent(cycle, within, place, name) for name in names[:_INTENTS_READ]]
    # of the rest only the number counts
    return [*rows, *(_as_row(cycle, f"{within}/{inbox.key_of(name)}", b"") for name in names[_INTENTS_READ:])]


def _intent(cycle: Cycle, within: str, place: str, name: str) -> dict[str, object] | None:
    from orchestration.host import clock
    from orchestration.intents import inbox
    from orchestration.intents.reading import take

    key = f"{within}/{inbox.key_of(name)}"
    taken = take(place, name, clock.now())
    if taken is None:
        return None
    dropped, data = taken
    if dropped.content_sha.startswith("kind:"):
        return _stand_in(cycle, key, dropped.content_sha.removeprefix("kind:"), dropped.fault)
    return _as_row(cycle, key, data, changed_at=dropped.changed.timestamp())


def _file(cycle: Cycle, folder: str, path: str) -> dict[str, object] | None:
    return _row(cycle, os.path.relpath(path, folder), path, artifacts.LIMIT)


def _row(cycle: Cycle, within: str, path: str, limit: int) -> dict[str, object] | None:
    from orchestration.promotions.scan import read_regular

    try:
        data, changed_at = read_regular(path, limit=limit)
    except FileNotFoundError:
        return None
    except OSError as error:
        log(Event.CYCLE_ENDED, f"{path} can't be shared: {error}", priority=Priority.WARNING, cycle=cycle.cycle)
        return None
    return _as_row(cycle, within, data, changed_at=changed_at) if len(data) <= limit else None


def _stand_in(cycle: Cycle, within: str, code: str, reason: str) -> dict[str, object]:
    return {**_as_row(cycle, within, b""), "stand_in": stand_in.text(code, reason)}


def _as_row(cycle: Cycle, within: str, data: bytes, *, changed_at: float = 0.0) -> dict[str, object]:
    return {
        "name": f"{folder_name(cycle.cycle)}/{within}",
        "sha256": hashlib.sha256(data).hexdigest(),
        "content": b64encode(data).decode(),
        "stand_in": "",
        "changed_at": changed_at,
    }
