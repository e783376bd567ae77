"""The leader's image of what every host of the scope has shared: `<state>/scope/{promotions,acks,intents,cycles}/`.

A file `x.json` of host `a` lies there as `a@x.json`, so no two collide, and the kernel works on these folders as it works
on those of a single host. The image is a function of the store: whatever else lies there, an ack that a killed tick wrote
and never shared, what a former leadership left, is gone before the kernel looks. So nothing here need survive anything, and
nothing is synced; `image.json` remembers which contents were written since this boot, which only saves fetching them again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar, cast

from orchestration.errors import Unwritable
from orchestration.host import files
from orchestration.store.port import Database, Row

SEPARATOR = "@"
FLAT = ("promotions", "acks", "intents")
_IMAGE = "image.json"
_VISIBLE = {
    "promotions": ("there",),
    "acks": ("given", "done"),
    "intents": ("there", "given"),
    "cycles": ("there",),
}
_BATCH_FILES, _BATCH_BYTES = 500, 4 * 1024 * 1024  # of one statement: a writer keeps the others waiting
_One = TypeVar("_One")


class Shared(NamedTuple):
    """One row of `shared_files`, less its content."""

    host: str
    folder: str
    name: str
    state: str = ""
    mark: str = ""
    sha256: str = ""
    content_sha: str = ""
    stand_in: str = ""
    changed_at: float = 0.0
    filed_as: str = ""
    decided_at: str = ""
    intent_type: str = ""
    size: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        """What names it in the store."""
        return (self.host, self.folder, self.name)

    @property
    def place(self) -> str:
        """Where it lies in the mirror."""
        return place_of(*self.key)


class Content(NamedTuple):
    """A file's content as the store had it when it was fetched."""

    host: str
    folder: str
    name: str
    sha256: str
    stand_in: str
    changed_at: float
    data: bytes
    owner: str = ""


def place_of(host: str, folder: str, name: str) -> str:
    """Return where a file lies in the mirror; what cycles left is named by its cycle, not by its host."""
    return f"{folder}/{name}" if folder == "cycles" else f"{folder}/{host}{SEPARATOR}{name}"


def origin_of(name: str) -> tuple[str, str]:
    """Return host and name of what the mirror calls by this name; no host for a name of another form."""
    host, at, own = name.partition(SEPARATOR)
    return (host, own) if at else ("", name)


def contents(db: Database, wanted: list[Shared]) -> dict[tuple[str, str, str], Content]:
    """Fetch the contents of some rows; what has gone meanwhile is not among them."""
    found: dict[tuple[str, str, str], Content] = {}
    for batch in in_batches(wanted, lambda row: row.size):
        for row in db.rows("shared_files.contents", files=json.dumps([one.key for one in batch])):
            one = content_of(row)
            found[one.host, one.folder, one.name] = one
    return found


def content_of(row: Row) -> Content:
    """Read one row of a query that gives contents."""
    import base64

    return Content(
        host=cast("str", row["host"]),
        folder=cast("str", row["folder"]),
        name=cast("str", row["name"]),
        sha256=cast("str", row["sha256"]),
        stand_in=cast("str", row["stand_in"]),
        changed_at=float(cast("float", row["changed_at"])),
        data=base64.b64decode(cast("str", row["content"])),
        owner=cast("str", row["owner"]),
    )


def in_batches(found: Iterable[_One], size_of: Callable[[_One], int]) -> list[list[_One]]:
    """Put these into batches that are neither many files nor many bytes."""
    batches: list[list[_One]] = []
    size = 0
    for one in found:
        if not batches or size + size_of(one) > _BATCH_BYTES or len(batches[-1]) >= _BATCH_FILES:
            batches.append([])
            size = 0
        batches[-1].append(one)
        size += size_of(one)
    return batches


class Mirror:
    """The image under one folder."""

    def __init__(self, folder: str, *, boot_id: str) -> None:
        self.folder = folder
        self._boot_id = boot_id

    def path(self, *names: str) -> str:
        """Return a path in it."""
        return os.path.join(self.folder, *names)

    def keep_up(self, db: Database, rows: list[Shared]) -> None:
        """Make it what the store says, as `rows` tell.

        Raises:
            StoreUnreachable: a content can't be had. Unwritable: disk full or not ours.
        """
        wanted = {row.place: row for row in rows if row.state in _VISIBLE[row.folder]}
        written = self._written()
        present = {f"{folder}/{name}" for folder in FLAT for name in self._names(folder)}
        missing = [row for place, row in wanted.items() if not self._is_there(place, row, written, present)]
        fetched = contents(db, missing)
        for folder in FLAT if missing or not present else ():
            files.make_folder(self.path(folder))
        for one in fetched.values():
            self.put(one)
        gone = {row.place for row in missing} - {place_of(*key) for key in fetched}
        for place in present - (wanted.keys() - gone):
            _remove(self.path(place))
        self._drop_cycles(wanted.keys() - gone)
        image = {place: row.sha256 for place, row in wanted.items() if place not in gone}
        image |= {place_of(*key): one.sha256 for key, one in fetched.items()}
        if image != written:
            content = json.dumps({"boot_id": self._boot_id, "files": image})
            files.replace(self.path(_IMAGE), content.encode(), durable=False)

    def put(self, one: Content) -> None:
        """Write one file as it is on its host: content and time, or what stands in for it.

        Raises:
            Unwritable: disk full or not ours.
        """
        path = self.path(place_of(one.host, one.folder, one.name))
        folder, name = os.path.split(path)
        temporary = os.path.join(folder, files.temporary_name(name))
        files.make_folder(folder)
        try:
            _remove(temporary)
            if one.stand_in:
                os.symlink(one.stand_in, temporary)
            else:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
                with open(descriptor, "wb") as file:
                    file.write(one.data)
            os.utime(temporary, (one.changed_at, one.changed_at), follow_symlinks=False)
            os.rename(temporary, path)
        except OSError as error:
            raise files.unwritable(path, error) from error

    def _is_there(self, place: str, row: Shared, written: dict[str, str], present: set[str]) -> bool:
        if row.folder == "cycles":
            return written.get(place) == row.sha256 and os.path.lexists(self.path(place))
        if place not in present:
            return False
        return written.get(place) == row.sha256 or (not row.stand_in and _sha(self.path(place)) == row.sha256)

    def _written(self) -> dict[str, str]:
        try:
            with open(self.path(_IMAGE), encoding="utf-8") as file:
                image = json.load(file)
            # a power cut may have left less than was written
            return dict(image["files"]) if image["boot_id"] == self._boot_id else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _names(self, folder: str) -> list[str]:
        try:
            return os.listdir(self.path(folder))
        except FileNotFoundError:
            return []
        except OSError as fault:
            raise Unwritable(
                f"{self.path(folder)} can't be listed: {fault.strerror}", hint=f"ls -ld {self.folder}"
            ) from fault

    def _drop_cycles(self, wanted: set[str]) -> None:
        kept = {place.split("/")[1] for place in wanted if place.startswith("cycles/")}
        for name in self._names("cycles"):
            if name not in kept:
                _remove(self.path("cycles", name))


def _sha(path: str) -> str | None:
    import hashlib

    try:
        if os.path.islink(path):
            return None
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):
        import shutil  # no quiet tick comes here

        shutil.rmtree(path, ignore_errors=True)  # such as processed/, where the kernel files the image's intents
