"""A cycle's bundle: its whole folder in one file with a checksum, `out/cycle_00042.tar.zst`.

The same folder gives the same bytes, with the same release of the compressor: names in order of their bytes, owner 0, one
fixed time, nobody else may write. `.tar.zst` where `zstandard` is installed (extra `bundle`), else `.tar.gz`. Beside it is
`….sha256`, which `sha256sum -c` reads; a bundle counts only with it. Left out, and named: pipes, sockets, devices, and links
that leave the folder, for no careful reader would take them.

Owns making one, and taking it away; who reads one is `unbundling.py`.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import stat
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, cast

from orchestration.cycles import archive
from orchestration.cycles.archive import CHUNK, Head, Kind
from orchestration.cycles.inventory import is_our_temporary
from orchestration.cycles.links import Path, stays_inside
from orchestration.errors import KlorosError, Malformed
from orchestration.host import files, folders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ZSTD: Final = ".tar.zst"
GZIP: Final = ".tar.gz"
CHECKSUM: Final = ".sha256"
_LEVELS: Final = {ZSTD: 3, GZIP: 6}  # the commands' own


class Made(NamedTuple):
    """A bundle that was written."""

    path: str
    sha256: str
    size: int  # bytes of the file
    entries: int
    left_out: tuple[tuple[str, str], ...]  # path in the folder, and why


def can_zstd() -> bool:
    """Tell whether `zstandard` is installed."""
    from importlib.util import find_spec

    return find_spec("zstandard") is not None


def path_of(folder_name: str, out: str) -> str | None:
    """Return the bundle of a cycle's folder in `out`, None when there is none."""
    paths = (os.path.join(out, folder_name + form) for form in (ZSTD, GZIP))
    return next(filter(os.path.exists, paths), None)


def size_of(folder: str) -> int:
    """Return how many bytes of content a bundle of this folder takes in."""
    heads, _ = _walk(folder)
    return sum(head.size for head, _ in heads)


def make(folder: str, out: str, *, form: str | None = None, progress: Callable[[int], None] | None = None) -> Made:
    """Write the bundle of a cycle's folder into `out`, over an older one.

    Args:
        folder: a finished cycle's. out: made if absent. form: `ZSTD` or `GZIP`; None takes what is installed.
        progress: told how many bytes of content have been added, again and again.

    Raises:
        Malformed: the folder changed meanwhile. KlorosError: something in it can't be read.
        Unwritable: disk full, read-only or not ours; an older bundle is still there.
    """
    form = form or (ZSTD if can_zstd() else GZIP)
    name = os.path.basename(folder)
    files.make_folder(out)
    files.sweep(out, os.listdir(out))
    heads, left_out = _walk(folder)
    path = os.path.join(out, name + form)
    digest = hashlib.sha256()
    with files.writing(path, 0o640) as file:
        with _compressing(_Hashing(file, digest), form) as stream:
            for head, source in heads:
                _add(stream, head._replace(path=(name, *head.path)), source, progress)
            stream.write(archive.END)
        size = file.tell()
        if checksum_of(path) not in (None, digest.hexdigest()):
            _remove(path + CHECKSUM)  # of the older one: without it neither counts, whenever we are killed
    files.replace(path + CHECKSUM, f"{digest.hexdigest()}  {name}{form}\n".encode(), 0o640)
    discard(name, out, forms=[other for other in (ZSTD, GZIP) if other != form])
    return Made(path, digest.hexdigest(), size, len(heads), tuple(left_out))


def discard(folder_name: str, out: str, *, forms: tuple[str, ...] | list[str] = (ZSTD, GZIP)) -> None:
    """Remove the bundle of a cycle's folder, if there is one; the checksum first, since a bundle counts only with it.

    Raises:
        Unwritable: it is there, and can't be removed.
    """
    for form in forms:
        _remove(os.path.join(out, folder_name + form + CHECKSUM))
        _remove(os.path.join(out, folder_name + form))


def checksum_of(path: str) -> str | None:
    """Return what the checksum file says of a bundle, or None."""
    try:
        with open(path + CHECKSUM, encoding="utf-8", errors="replace") as file:
            line = file.read(4096)
    except OSError:
        return None
    found = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)\n?", line)
    return found[1] if found and found[2] == os.path.basename(path) else None


@contextmanager
def opened(path: str, *, follow: bool = True) -> Iterator[IO[bytes]]:
    """Open a regular file for reading, without waiting at a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise KlorosError(f"{path} is no regular file", hint="name the bundle itself")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _walk(folder: str) -> tuple[list[tuple[Head, str]], list[tuple[str, str]]]:
    """List what goes into a bundle, each with its path on disk, and what does not, with the reason."""
    heads, left_out, links = [], [], dict[Path, str]()
    for path, source, status in folders.tree(folder, refused=_refuse):
        if is_our_temporary("/".join(path)):
            continue
        if stat.S_ISDIR(status.st_mode):
            heads.append((Head(path, Kind.FOLDER, status.st_mode), source))
        elif stat.S_ISREG(status.st_mode):
            heads.append((Head(path, Kind.FILE, status.st_mode, status.st_size), source))
        elif stat.S_ISLNK(status.st_mode):
            links[path] = os.readlink(source)
            heads.append((Head(path, Kind.LINK, 0, target=links[path]), source))
        else:
            left_out.append(("/".join(path), "it is a pipe, a socket or a device"))
    leaving = {path for path in links if not stays_inside(path, links)}
    left_out += [("/".join(path), f"it leads out of the folder: {links[path]}") for path in sorted(leaving)]
    return [(head, source) for head, source in heads if head.path not in leaving], left_out


def _add(stream: IO[bytes], head: Head, source: str, progress: Callable[[int], None] | None) -> None:
    stream.write(archive.header(head))
    if head.kind is not Kind.FILE:
        return
    left = head.size
    with opened(source, follow=False) as file:
        while left:
            chunk = file.read(min(left, CHUNK))
            if not chunk:
                raise Malformed(f"{source} became shorter while it was read", hint="is a process still writing to it?")
            stream.write(chunk)
            left -= len(chunk)
            if progress is not None:
                progress(len(chunk))
    stream.write(archive.padding(head.size))


class _Hashing:
    """A file that takes the checksum of what is written to it."""

    def __init__(self, file: IO[bytes], digest: hashlib._Hash) -> None:
        self._file = file
        self._digest = digest

    def write(self, data: bytes, /) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


@contextmanager
def _compressing(file: _Hashing, form: str) -> Iterator[IO[bytes]]:
    stream: Any
    if form == ZSTD:
        import zstandard

        stream = zstandard.ZstdCompressor(level=_LEVELS[form]).stream_writer(cast("IO[bytes]", file), closefd=False)
    else:
        stream = gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVELS[form], fileobj=file, mtime=0)
    with stream:
        yield stream


def _refuse(path: str, error: OSError) -> NoReturn:
    raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> KlorosError:
    return KlorosError(f"{path} can't be read: {error.strerror}", hint="check its path, owner and mode: ls -ld")


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise files.unwritable(path, error) from error
