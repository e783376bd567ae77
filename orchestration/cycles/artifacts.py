"""A cycle's folder, `cycles/cycle_00042/`: what is in it, where, and how it is read back.

    manifest.json        what the store knows, see manifest.py
    promotions.json      D-REAM: what was handed to the command
    digest.json          reflection: what is open
    prompt.txt           turn of an agent: what it is told on standard input
    logs/output.log      both streams of the command
    logs/*.jsonl         telemetry that the command writes
    artifacts/           what the command leaves: report.json (PHASE), verdicts.json (D-REAM), reflection.md and intents/
                         (reflection), anything else

Owns names and reading; refuses to judge.
"""

from __future__ import annotations

import hashlib
import os
import stat
from itertools import count
from typing import TYPE_CHECKING, Final

from orchestration.cycles import manifest
from orchestration.cycles.cycle import Cycle, CycleNumber, folder_name
from orchestration.errors import Malformed
from orchestration.host import files
from orchestration.host.journal import Event, Priority, log

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from orchestration.cycles.products import Products
    from orchestration.promotions.handover import Handover
    from orchestration.promotions.verdict import Verdicts
    from orchestration.settings import Settings

LIMIT: Final = 64 * 1024 * 1024  # bytes of a file that we read whole


def cycle_dir(cycles_dir: str, cycle: CycleNumber) -> str:
    """Return a cycle's folder."""
    return os.path.join(cycles_dir, folder_name(cycle))


def output_path(folder: str) -> str:
    """Return where the command's output is kept."""
    return os.path.join(folder, "logs", "output.log")


def report_path(folder: str) -> str:
    """Return where a PHASE leaves its report."""
    return os.path.join(folder, "artifacts", "report.json")


def verdicts_path(folder: str) -> str:
    """Return where a D-REAM cycle may leave its verdicts."""
    return os.path.join(folder, "artifacts", "verdicts.json")


def reflection_path(folder: str) -> str:
    """Return where a reflection may leave its report."""
    return os.path.join(folder, "artifacts", "reflection.md")


def intents_path(folder: str) -> str:
    """Return the folder where a reflection may leave intents."""
    return os.path.join(folder, "artifacts", "intents")


def digest_path(folder: str) -> str:
    """Return where a reflection finds what is open."""
    return os.path.join(folder, "digest.json")


def prompt_path(folder: str) -> str:
    """Return where a turn's prompt lies, unless it is an argument."""
    return os.path.join(folder, "prompt.txt")


def handover_path(folder: str) -> str:
    """Return where a D-REAM cycle finds its promotions."""
    return os.path.join(folder, "promotions.json")


def put_aside(cycles_dir: str, cycle: CycleNumber) -> str | None:
    """Put aside a folder of this number, as `.1`, `.2`…, so that nothing of another run is ever taken for this one's.

    There is one when the cycle is run again, or when the store was set back to an older copy.

    Returns:
        Where it is now; None when there was none.

    Raises:
        Unwritable: disk full, read-only or not ours.
    """
    folder = cycle_dir(cycles_dir, cycle)
    if not os.path.lexists(folder):
        return None
    free = next(number for number in count(1) if not os.path.lexists(f"{folder}.{number}"))
    aside = files.move_no_replace(folder, cycles_dir, f"{folder_name(cycle)}.{free}")
    log(Event.LEFTOVER_REAPED, f"{folder} was there before its cycle; it is {aside} now", cycle=cycle)
    return aside


def make_folder(cycles_dir: str, cycle: CycleNumber) -> str:
    """Make the folder of a cycle that starts now, and return it; one that is there already is put aside.

    Raises:
        Unwritable: disk full, read-only or not ours.
    """
    put_aside(cycles_dir, cycle)
    folder = cycle_dir(cycles_dir, cycle)
    for name in ("logs", "artifacts"):
        files.make_folder(os.path.join(folder, name))
    return folder


def carry_over(old: str, folder: str) -> None:
    """Copy the artifacts of an earlier run, links as links; what is neither file, folder nor link stays behind.

    Raises:
        Unwritable: disk full, or something can't be read.
    """
    import shutil

    from orchestration.host import folders

    def refuse(path: str, error: OSError) -> None:
        raise files.unwritable(path, error) from error

    for names, path, status in folders.tree(os.path.join(old, "artifacts"), refused=refuse):
        target = os.path.join(folder, "artifacts", *names)
        try:
            if stat.S_ISDIR(status.st_mode):
                os.makedirs(target, mode=0o700, exist_ok=True)
            elif stat.S_ISLNK(status.st_mode):
                os.symlink(os.readlink(path), target)
            elif stat.S_ISREG(status.st_mode):
                shutil.copy2(path, target, follow_symlinks=False)
        except OSError as error:
            raise files.unwritable(target, error) from error


def write_manifest(cycles_dir: str, cycle: Cycle, products: Products) -> None:
    """Write the manifest as the store says; the same rows give the same bytes.

    Raises:
        Unwritable: disk full, read-only or not ours.
    """
    folder = cycle_dir(cycles_dir, cycle.cycle)
    files.make_folder(folder)
    files.replace(os.path.join(folder, "manifest.json"), manifest.to_bytes(cycle, products), 0o640)


def hand_over(
    cycle: Cycle,
    folder: str,
    settings: Settings,
    *,
    now: datetime,
    promotions_dir: str | None = None,
    owners: Mapping[str, str] | None = None,
) -> None:
    """Write what a D-REAM command is given to try: those of the cycle's promotions that can still be read and are valid.

    Args:
        promotions_dir: where they lie, if not where the settings say.
        owners: stem → OS user, where the files themselves don't tell whose they are.

    Raises:
        Malformed: the cycle has promotions, and none of them can be tried any more.
        BaselineInvalid: it has promotions, and there is no telling what they would be accepted into.
        Unwritable: disk full, read-only or not ours.
    """
    from orchestration.host import users
    from orchestration.promotions.baseline import baseline_path, read_baseline
    from orchestration.promotions.handover import hand_over, to_bytes
    from orchestration.promotions.reading import read_promotions

    stems = cycle.origin.promotions
    if stems:
        read_baseline(baseline_path(settings.state_dir))
    found = read_promotions(
        promotions_dir or settings.promotions_dir,
        [f"{stem}.json" for stem in stems],
        bounds=settings.promotions.bounds,
        strict=settings.promotions.strict,
        now=now,
    )
    if stems and not found.candidates:
        raise Malformed(f"none of the cycle's {len(stems)} promotions can be read any more: {', '.join(stems[:5])}")
    handed = to_bytes(hand_over(cycle.cycle, found.candidates, user=users.name_of, owners=owners))
    files.replace(handover_path(folder), handed, 0o640)


def read_handover(folder: str) -> Handover:
    """Read what was handed to a D-REAM command; none of it when the file is gone or broken.

    Then nothing of the cycle can be answered, and its promotions go again: a missing file must not stop every
    later tick.
    """
    from orchestration.promotions.handover import Handover, parse_handover

    content = _read(handover_path(folder))
    read = None if content is None else parse_handover(content)
    if isinstance(read, Handover):
        return read
    why = "it is missing" if read is None else read.reason
    log(Event.PROMOTION_LEFT, f"{handover_path(folder)}: {why}", priority=Priority.WARNING)
    return Handover(cycle=0, promotions=())


def check_verdicts(folder: str) -> str | None:
    """Return the SHA-256 (hexadecimal) of the verdicts that a D-REAM command left; None when it left none.

    Raises:
        Malformed: there are some, and they can't be understood; says why.
    """
    if not os.path.lexists(verdicts_path(folder)):
        return None
    _, digest = _parsed_verdicts(folder)
    return digest


def read_verdicts(folder: str, digest: str | None) -> Verdicts | None:
    """Return the verdicts that had this digest when their cycle ended; None when it ended without any.

    Verdicts that have been changed or removed since then say nothing on any promotion: they are reported, and empty.
    """
    from orchestration.promotions.verdict import Verdicts

    if digest is None:
        return None
    try:
        read, found = _parsed_verdicts(folder)
        if found == digest:
            return read
        why = "its content is another"
    except Malformed as error:
        why = error.message
    told = f"{verdicts_path(folder)} was changed after its cycle had ended: {why}"
    log(Event.PROMOTION_LEFT, told, priority=Priority.ERROR)
    return Verdicts(schema="v1", verdicts=())


def _parsed_verdicts(folder: str) -> tuple[Verdicts, str]:
    from orchestration.promotions.document import Malformed as Unreadable
    from orchestration.promotions.verdict import parse_verdicts

    path = verdicts_path(folder)
    content = _read(path)
    if content is None:
        raise Malformed(f"{path} is no file that can be read, or is longer than {LIMIT} bytes")
    read = parse_verdicts(content)
    if isinstance(read, Unreadable):
        raise Malformed(f"{path}: {read.reason}")
    return read, hashlib.sha256(content).hexdigest()


def _read(path: str) -> bytes | None:
    from orchestration.promotions.scan import read_regular

    try:
        content, _ = read_regular(path, limit=LIMIT)
    except OSError:
        return None
    return content if len(content) <= LIMIT else None
