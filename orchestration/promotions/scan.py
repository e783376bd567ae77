"""Which promotions have no ack: file names only, no file of either folder is opened for it.

On the path of every quiet tick, so it is built of C-level passes over the names: the promotions' names are turned
into the names their acks would have by one `str.replace` over the joined text ('/' can't occur in a name), and
the acks' names are taken out of that set. Measured with 100,000 of each: 1.1 times two bare `os.scandir` passes and a
set difference.

Acks have three forms (issue 2; KLoROS's `docs` on "ACK naming" and src/dream_promotion_applier.py, both in
HomoYouDidnt/kloros at 878cac6):
  `<stem>_ack.json`          ours and KLoROS's present one: the name says everything
  `<id>.ack.json`            with ':' in the id written as '_'
  `<timestamp>….json`        only its content says, in `promotion_id`, what it answers
The last two are opened once in their life and remembered in the store.
"""

import json
import os
import stat
import time
from collections.abc import Iterable
from typing import NamedTuple, cast

from orchestration.errors import Unwritable
from orchestration.store.port import Database

_OLDEST_UNFINISHED = 1.0  # seconds: a file changed this recently may still be in the writing
_MAX_ACK_BYTES = 1024 * 1024
_ACK_ENDING = "_ack.json"


class Listing(NamedTuple):
    """What the names in the two folders say."""

    unacked: list[str]
    """Names of promotion files for which no `<stem>_ack.json` exists; sorted."""
    others: list[str]
    """Names in the acks folder that may be acks of an older form."""


class Scan(NamedTuple):
    """The unacked promotions, by file name, sorted."""

    waiting: list[str]
    """Those to be tried."""
    parked: list[str]
    """Those that failed too often and wait for a person."""
    older_answers: frozenset[str]
    """What acks of the older forms answer, as `answer_key` writes an id: asked once more when an id is first read."""


def scan_unacked(db: Database | None, *, promotions_dir: str, acks_dir: str, remember: bool = True) -> Scan:
    """Find the promotions without an ack of any form.

    A missing folder counts as empty. With `remember` false (a dry run) the store is only read; None is a host that has
    no store yet. Costs no query at all
    when every promotion has an ack of our form and the acks folder holds nothing else.

    Raises:
        Unwritable: a folder is there and can't be listed.
        StoreUnreachable: the store can't be read.
    """
    listing = list_unacked(promotions_dir, acks_dir)
    if not listing.unacked:
        return Scan([], [], frozenset())
    answers = _older_answers(db, acks_dir, listing.others, remember=remember) if listing.others else frozenset()
    names = json.dumps([stem_of(name) for name in listing.unacked])
    rows = db.rows("promotions.known", stems=names) if db else []
    known = {cast(str, row["stem"]): row for row in rows}
    waiting: list[str] = []
    parked: list[str] = []
    for name in listing.unacked:
        stem = stem_of(name)
        row = known.get(stem)
        identity = cast(str, row["promotion_id"]) if row else stem
        if answers and (answer_key(stem) in answers or answer_key(identity) in answers):
            continue
        (parked if row and row["state"] == "parked" else waiting).append(name)
    return Scan(waiting, parked, answers)


def list_unacked(promotions_dir: str, acks_dir: str) -> Listing:
    """Compare the names in both folders. Names that start with a dot or don't end in `.json` are no promotions.

    Acks are listed last: one that appears meanwhile only makes a promotion answered a tick earlier.
    """
    promotions = _names(promotions_dir)
    return compare(promotions, _names(acks_dir))


def compare(promotions: list[str], acks_present: list[str]) -> Listing:
    """Compare two listings; pure."""
    wanted = _ack_names(promotions)
    acks = set(acks_present)
    missing = wanted - acks
    unacked = sorted(
        f"{name[: -len(_ACK_ENDING)]}.json"
        for name in missing
        if name.endswith(_ACK_ENDING) and name[0] != "." and name != _ACK_ENDING
    )
    nothing_else = len(acks) == len(wanted) - len(missing)
    return Listing(unacked, [] if nothing_else or not unacked else _maybe_older(acks - wanted))


def stem_of(name: str) -> str:
    """Return a promotion file's name without `.json`."""
    return name[: -len(".json")]


def ack_name(stem: str) -> str:
    """Return the name of our ack for a promotion's stem."""
    return f"{stem}_ack.json"


def answer_key(identity: str) -> str:
    """Write a promotion's id as the older acks' file names do: ':' became '_'."""
    return identity.replace(":", "_")


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as fault:
        raise Unwritable(f"{folder} can't be listed: {fault.strerror}", hint=f"ls -ld {folder}") from fault


def _ack_names(promotions: list[str]) -> set[str]:
    """Name the ack of every promotion; names that are no promotions stay as they are."""
    names = set(f"{'/'.join(promotions)}/".replace(".json/", f"{_ACK_ENDING}/").split("/"))
    names.discard("")
    return names


def _maybe_older(names: Iterable[str]) -> list[str]:
    """Drop what can't be an older ack: our own form for a promotion that is gone, unless its stem looks like a time.

    In a scope's mirror a stem begins with the name of a host, as `2lab@gen5`, which may begin with a digit.
    """
    return [
        name
        for name in names
        if name.endswith(".json")
        and name[0] != "."
        and ((name[0].isdigit() and "@" not in name) or not name.endswith(_ACK_ENDING))
    ]


def _older_answers(db: Database | None, acks_dir: str, names: list[str], *, remember: bool) -> frozenset[str]:
    rows = db.rows("promotions.older_acks") if db else []
    known = {cast(str, row["file_name"]): cast(str, row["promotion_id"]) for row in rows}
    new = {name: found for name in names if name not in known and (found := opened(acks_dir, name)) is not None}
    if new and db and remember:
        db.run("promotions.remember_older_acks", acks=json.dumps(new))
    answers = (known.get(name) or new.get(name) for name in names)
    return frozenset(answer_key(identity) for identity in answers if identity)


def opened(acks_dir: str, name: str) -> str | None:
    """Read which promotion an older ack answers: "" for a file that is no ack, None when it can't be told yet."""
    path = os.path.join(acks_dir, name)
    try:
        name.encode("utf-8")  # a name that is not UTF-8 can't be remembered
        data, changed_at = read_regular(path, limit=_MAX_ACK_BYTES)
    except (OSError, UnicodeEncodeError):
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None if 0 <= time.time() - changed_at < _OLDEST_UNFINISHED else ""
    identity = value.get("promotion_id") if isinstance(value, dict) else None
    return identity if isinstance(identity, str) and identity.isprintable() else ""


def read_regular(path: str, *, limit: int) -> tuple[bytes, float]:
    """Read up to `limit` + 1 bytes of a regular file, and when it changed last (seconds since 1970).

    Never waits on a FIFO and never follows a symlink in the last component.

    Raises:
        OSError: it can't be read, or is not a regular file.
    """
    data, status = read_with_status(path, limit=limit)
    return data, status.st_mtime


def read_with_status(path: str, *, limit: int) -> tuple[bytes, os.stat_result]:
    """Read as `read_regular` does, and tell all of the very file that was read. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit + 1), status
    finally:
        os.close(descriptor)
