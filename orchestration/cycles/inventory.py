"""What a cycle has left in its folder: every file's path, size, SHA-256 and media type.

Taken once, when the command's whole tree is gone, and kept in the store, so that the manifest can be made again from there.
Reads and never follows a link; what can't be read is listed without a checksum. Refuses to know what a file is for.
Media types are IANA's; what is no regular file has the `inode/…` type of the shared MIME database (freedesktop.org).
"""

from __future__ import annotations

import hashlib
import mimetypes
import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

from orchestration.host import folders

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_FILES: Final = 20_000  # listed one by one: about 4 MB in the store
_CHUNK: Final = 1 << 20
_UNKNOWN: Final = "application/octet-stream"
_ENCODED: Final = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
_OURS: Final = {
    ".jsonl": "application/x-ndjson",
    ".log": "text/plain",
    ".md": "text/markdown",
    ".prom": "text/plain",
    ".toml": "application/toml",
    ".zst": "application/zstd",  # RFC 8878
}
_INODES: Final = (
    (stat.S_ISLNK, "inode/symlink"),
    (stat.S_ISDIR, "inode/directory"),
    (stat.S_ISFIFO, "inode/fifo"),
    (stat.S_ISSOCK, "inode/socket"),
    (stat.S_ISBLK, "inode/blockdevice"),
    (stat.S_ISCHR, "inode/chardevice"),
)


class File(NamedTuple):
    """One file, as it was when the cycle ended."""

    path: str  # relative to the cycle's folder; bytes that are no UTF-8 as surrogates (PEP 383)
    size: int | None  # bytes; None for what is no regular file
    sha256: str | None  # hexadecimal; None for what is no regular file, or could not be read
    media_type: str


class Inventory(NamedTuple):
    """Every file of a folder, by path; `omitted` counts those beyond `MOST_FILES`."""

    files: tuple[File, ...]
    omitted: int = 0


def take(folder: str, *, limit: int = MOST_FILES) -> Inventory:
    """List what a cycle left in its folder, less our own manifest; empty when there is no folder. Never raises OSError."""
    names = sorted(_names(folder))
    listed = (_file(folder, name) for name in names[:limit])
    return Inventory(tuple(file for file in listed if file is not None), max(0, len(names) - limit))


def media_type(name: str) -> str:
    """Guess the media type by the name's ending, the same on every host."""
    known = mimetypes.MimeTypes(filenames=())
    for ending, ours in _OURS.items():
        known.add_type(ours, ending)
    kind, encoding = known.guess_type(f"file:{os.path.basename(name)}")
    return _ENCODED.get(encoding, _UNKNOWN) if encoding else kind or _UNKNOWN


def is_our_temporary(path: str) -> bool:
    """Tell whether a path in a cycle's folder is that of a manifest that is being written."""
    return path.startswith(".manifest.json.") and path.endswith(".tmp")


def _names(folder: str) -> Iterator[str]:
    """Name everything that is no readable folder, relative to `folder`."""
    unreadable: list[str] = []
    for names, _, status in folders.tree(folder, refused=lambda path, _: unreadable.append(path)):
        path = "/".join(names)
        if not stat.S_ISDIR(status.st_mode) and path != "manifest.json" and not is_our_temporary(path):
            yield path
    yield from (os.path.relpath(path, folder) for path in unreadable if path != folder)


def _file(folder: str, name: str) -> File | None:
    path = os.path.join(folder, name)
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return None  # gone meanwhile: a process that we may not kill is still at it
    for is_kind, kind in _INODES:
        if is_kind(mode):
            return File(name, None, None, kind)
    size, digest = _digest(path)
    return File(name, size, digest, media_type(name))


def _digest(path: str) -> tuple[int | None, str | None]:
    """Return size and SHA-256 of one reading."""
    digest, size = hashlib.sha256(), 0
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None, None
            while chunk := os.read(descriptor, _CHUNK):
                digest.update(chunk)
                size += len(chunk)
        finally:
            os.close(descriptor)
    except OSError:
        return _size(path), None
    return size, digest.hexdigest()


def _size(path: str) -> int | None:
    try:
        return os.lstat(path).st_size
    except OSError:
        return None
