"""Opens unacked promotion files and sorts them: fit for a trial, refused, left for a later tick, or answered.

A file is opened without following a link and without waiting, so a FIFO or a device can't hold up a tick.
What can never become a promotion (a folder, a FIFO, a link out of the folder, wrong content) is refused; what
may yet become readable (permissions, a link to nothing, a file in the writing) is left, with the reason, and
looked at again by the next tick.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from orchestration.host import stand_in
from orchestration.promotions.document import MAX_BYTES, Malformed
from orchestration.promotions.promotion import Bounds, Promotion, parse
from orchestration.promotions.scan import ack_name, answer_key, read_with_status, stem_of

_NAME_MAX = 255  # bytes, limits.h; the ack's name must fit as well
_UNFIT, _NOT_YET = "refused", "left"  # codes of stand-ins
_SETTLES_AFTER = 1.0  # seconds since the last change; younger bytes that are no JSON may be half of a file


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A valid promotion and the file it came from."""

    stem: str
    path: str
    promotion: Promotion
    owner: int
    """The uid of the file that was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A file that is to be acked as rejected without a cycle."""

    stem: str
    promotion_id: str
    """Its own id where that can be read, else the stem."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A file whose id an ack of an older form answers; valid or not, there is nothing left to do with it.

    Once `ledger.see` has noted the id, the file is no longer opened.
    """

    stem: str
    promotion_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A file that stays unacked for now, and why: for a warning, not for the store."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """What became of the files that were read; each list in the order of the names."""

    candidates: tuple[Candidate, ...]
    refused: tuple[Refused, ...]
    left: tuple[Left, ...]
    answered: tuple[Answered, ...]


_Found: TypeAlias = Candidate | Refused | Left | Answered | None


class _Unfit(Exception):
    """This file can never be a promotion."""


class _NotYet(Exception):
    """This file may become one."""


def read_promotions(
    folder: str,
    names: Iterable[str],
    *,
    bounds: Bounds,
    strict: bool,
    now: datetime,
    older_answers: frozenset[str] = frozenset(),
) -> Sorted:
    """Read the named files of the promotions folder. Never raises for what is in them, and never waits."""
    read = [_read(folder, name, bounds=bounds, strict=strict, now=now) for name in names]
    found = [_unless_answered(one, older_answers) for one in read]
    return Sorted(
        candidates=tuple(one for one in found if isinstance(one, Candidate)),
        refused=tuple(one for one in found if isinstance(one, Refused)),
        left=tuple(one for one in found if isinstance(one, Left)),
        answered=tuple(one for one in found if isinstance(one, Answered)),
    )


def _unless_answered(one: _Found, older_answers: frozenset[str]) -> _Found:
    if isinstance(one, Candidate) and answer_key(one.promotion.id) in older_answers:
        return Answered(stem=one.stem, promotion_id=one.promotion.id)
    if isinstance(one, Refused) and answer_key(one.promotion_id) in older_answers:
        return Answered(stem=one.stem, promotion_id=one.promotion_id)
    return one


def fetch(folder: str, name: str) -> tuple[bytes, os.stat_result] | str | None:
    """Read one file for somebody who is to judge it elsewhere.

    Returns:
        Its content, up to one byte more than is allowed, and its status; or the text of a stand-in for what can't be read;
        None when it is gone.
    """
    try:
        return _content(folder, name)
    except FileNotFoundError:
        return None
    except _Unfit as error:
        return stand_in.text(_UNFIT, str(error))
    except _NotYet as error:
        return stand_in.text(_NOT_YET, str(error))
    except OSError as error:
        return stand_in.text(_NOT_YET, f"can't be read: {error.strerror or error}")


def _content(folder: str, name: str) -> tuple[bytes, os.stat_result]:
    _check_name(name)
    return read_with_status(_target(folder, os.path.join(folder, name)), limit=MAX_BYTES)


def _read(folder: str, name: str, *, bounds: Bounds, strict: bool, now: datetime) -> _Found:
    stem = stem_of(name)
    path = os.path.join(folder, name)
    try:
        data, status = _content(folder, name)
    except _Unfit as error:
        return Refused(stem=stem, promotion_id=stem, reason=str(error))
    except _NotYet as error:
        return Left(name=name, reason=str(error))
    except FileNotFoundError:
        return None  # taken away between the listing and now
    except OSError as error:
        return Left(name=name, reason=f"can't be read: {error.strerror or error}")
    result = parse(data, bounds=bounds, strict=strict)
    if isinstance(result, Promotion):
        return Candidate(stem=stem, path=path, promotion=result, owner=status.st_uid)
    return _judge_malformed(stem, name, result, age=now.timestamp() - status.st_mtime)


def _judge_malformed(stem: str, name: str, result: Malformed, *, age: float) -> Refused | Left:
    if result.unfinished and -_SETTLES_AFTER < age < _SETTLES_AFTER:
        return Left(name=name, reason=f"changed within the last second and can't be read yet: {result.reason}")
    return Refused(stem=stem, promotion_id=result.identity or stem, reason=result.reason)


def _check_name(name: str) -> None:
    try:
        length = len(ack_name(stem_of(name)).encode("utf-8"))
    except UnicodeEncodeError:
        raise _NotYet("its name is not UTF-8, so no ack can be named after it; rename it") from None
    if length > _NAME_MAX:
        raise _NotYet(f"its ack's name would have {length} bytes, more than {_NAME_MAX}; rename it") from None


def _target(folder: str, path: str) -> str:
    """Return the path to open: the file itself, or what a link inside the folder leads to.

    Raises:
        _Unfit: it is no regular file, or a link that leads out of the folder.
        _NotYet: a link that leads nowhere.
        OSError: it can't be looked at.
    """
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        if told := stand_in.read(path):
            raise (_Unfit if told[0] == _UNFIT else _NotYet)(told[1])
        real = os.path.realpath(path)
        if os.path.dirname(real) != os.path.realpath(folder):
            raise _Unfit(f"the file is a symbolic link that leads out of the folder, to {real!a}")
        try:
            status, path = os.lstat(real), real
        except FileNotFoundError:
            raise _NotYet(f"it is a symbolic link to {real!a}, which does not exist") from None
        if stat.S_ISLNK(status.st_mode):
            raise _Unfit("the file is a symbolic link that leads in a circle")
    if not stat.S_ISREG(status.st_mode):
        raise _Unfit(f"not a regular file but {_kind(status.st_mode)}")
    return path


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
