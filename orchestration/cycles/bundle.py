"""A cycle's bundle: its whole folder in one file with a checksum, `out/cycle_00042.tar.zst`.

The same folder gives the same bytes, with the same release of the compressor: names in order of their bytes, owner 0, one
fixed time, nobody else may write. `.tar.zst` where `zstandard` is installed (extra `bundle`), else `.tar.gz`. Beside it is
`….sha256`, which `sha256sum -c` reads; a bundle counts only with it. Left out, and named: pipes, sockets, devices, and links
that leave the folder, for no careful reader would take them.

Bundles may come from elsewhere: `verify` and `extract` believe nothing (archive.py), and nothing is written before all of it
has been verified.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import stat
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, cast

from orchestration.cycles import archive
from orchestration.cycles.archive import CHUNK, USUAL, Head, Kind, Limits
from orchestration.cycles.inventory import is_our_temporary
from orchestration.cycles.links import Path, stays_inside
from orchestration.errors import KlorosError, Malformed
from orchestration.host import files, folders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ZSTD: Final = ".tar.zst"
GZIP: Final = ".tar.gz"
CHECKSUM: Final = ".sha256"
_FOLDER: Final = re.compile(r"cycle_[0-9]{5,15}(\.[0-9]{1,9})?")
_LEVELS: Final = {ZSTD: 3, GZIP: 6}  # the commands' own
_WINDOW: Final = 1 << 27  # bytes of memory that a foreign zstd frame may ask for; our level asks for 2 MiB
_LONGEST_MANIFEST: Final = 64 * 1024 * 1024


class Made(NamedTuple):
    """A bundle that was written."""

    path: str
    sha256: str
    size: int  # bytes of the file
    entries: int
    left_out: tuple[tuple[str, str], ...]  # path in the folder, and why


class Verified(NamedTuple):
    """A bundle that is in order."""

    folder: str  # the name of the folder in it
    sha256: str
    entries: int
    size: int  # bytes of all contents
    listed: int | None  # files that stand in its manifest with this checksum; None: it has no manifest


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
        if _checksum_of(path) not in (None, digest.hexdigest()):
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


def verify(path: str, *, limits: Limits = USUAL, progress: Callable[[int], None] | None = None) -> Verified:
    """Read a bundle to its end and believe it only then: checksum, form, names, links, limits, manifest.

    Raises:
        Malformed: says what is wrong.
        KlorosError: it can't be read.
    """
    with _opened(path) as file:
        return _verify(file, path, limits, progress)


def extract(path: str, to: str, *, limits: Limits = USUAL, progress: Callable[[int], None] | None = None) -> str:
    """Unpack a bundle into a new folder of its name below `to`, all of it or nothing; return that folder.

    Raises:
        Malformed: it is not in order; nothing was written.
        KlorosError: it can't be read, or the folder is there already.
        Unwritable: disk full, read-only or not ours; what was written is gone again.
    """
    with _opened(path) as file:
        name = _verify(file, path, limits, None).folder
        target = os.path.join(to, name)
        if os.path.lexists(target):
            raise KlorosError(f"{target} is there already", hint="move it away, or extract to another place: --to")
        files.make_folder(to)
        staging = os.path.join(to, files.temporary_name(name))
        try:
            file.seek(0)
            _unpack(file, path, staging, limits, progress)
            os.rename(os.path.join(staging, name), target)
        except OSError as error:
            raise files.unwritable(target, error) from error
        finally:
            folders.remove(staging)
    return target


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
    with _opened(source, follow=False) as file:
        while left:
            chunk = file.read(min(left, CHUNK))
            if not chunk:
                raise Malformed(f"{source} became shorter while it was read", hint="is a process still writing to it?")
            stream.write(chunk)
            left -= len(chunk)
            if progress is not None:
                progress(len(chunk))
    stream.write(archive.padding(head.size))


def _verify(file: IO[bytes], path: str, limits: Limits, progress: Callable[[int], None] | None) -> Verified:
    digest = _check_checksum(file, path)
    file.seek(0)
    sums: dict[str, str] = {}
    size, number, folder, manifest = 0, 0, "", None
    with _reading(file, path) as stream:
        for head, content in archive.entries(stream, limits):
            folder, number, size = head.path[0], number + 1, size + head.size
            if not _FOLDER.fullmatch(folder):
                raise Malformed(f"{path}: {folder!a} is no cycle's folder")
            if head.kind is Kind.FILE:
                keep = head.path[1:] == ("manifest.json",) and head.size <= _LONGEST_MANIFEST
                sums["/".join(head.path[1:])], kept = _summed(content, keep=keep, progress=progress)
                manifest = kept if keep else manifest
    listed = None if manifest is None else _check_manifest(manifest, sums, path)
    return Verified(folder, digest, number, size, listed)


def _check_checksum(file: IO[bytes], path: str) -> str:
    expected = _checksum_of(path)
    if expected is None:
        raise Malformed(
            f"{path}{CHECKSUM} is missing, or is no checksum of it",
            hint="fetch it from where the bundle came; a bundle of this host is made again by: klorosctl bundle make N",
        )
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    if digest.hexdigest() != expected:
        raise Malformed(
            f"{path} is not what its checksum says: SHA-256 {digest.hexdigest()}, expected {expected}",
            hint="it was changed or cut on its way: fetch it again",
        )
    return expected


def _checksum_of(path: str) -> str | None:
    """Return what the checksum file says of a bundle, or None."""
    try:
        with open(path + CHECKSUM, encoding="utf-8", errors="replace") as file:
            line = file.read(4096)
    except OSError:
        return None
    found = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)\n?", line)
    return found[1] if found and found[2] == os.path.basename(path) else None


def _check_manifest(content: bytes, sums: Mapping[str, str], path: str) -> int:
    """Compare the files with those that the manifest lists; return how many it lists with a checksum."""
    try:
        manifest: dict[str, Any] = json.loads(content)
        groups = [manifest.get(name) or [] for name in ("artifacts", "telemetry", "logs", "others")]
        listed = {str(one["path"]): str(one["sha256"]) for group in groups for one in group if one["sha256"]}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Malformed(f"{path}: its manifest.json is none of ours") from error
    for name, digest in listed.items():
        if sums.get(name) != digest:
            what = "is missing" if name not in sums else f"is another: SHA-256 {sums[name]}"
            raise Malformed(f"{path}: {name!a} {what}; its manifest lists {digest}", hint="changed after the cycle ended?")
    return len(listed)


def _summed(content: Iterator[bytes], *, keep: bool, progress: Callable[[int], None] | None) -> tuple[str, bytes]:
    digest, kept = hashlib.sha256(), []
    for chunk in content:
        digest.update(chunk)
        if keep:
            kept.append(chunk)
        if progress is not None:
            progress(len(chunk))
    return digest.hexdigest(), b"".join(kept)


def _unpack(file: IO[bytes], path: str, staging: str, limits: Limits, progress: Callable[[int], None] | None) -> None:
    """Write every entry below `staging`, which is ours alone; links last, so that nothing is written through one."""
    os.mkdir(staging, 0o700)
    links: list[tuple[str, str]] = []
    with _reading(file, path) as stream:
        for head, content in archive.entries(stream, limits):
            place = os.path.join(staging, *head.path)
            match head.kind:
                case Kind.FOLDER:
                    os.mkdir(place, 0o700)
                    os.chmod(place, archive.mode(head.kind, head.mode))
                case Kind.FILE:
                    _write(place, content, archive.mode(head.kind, head.mode), progress)
                case Kind.LINK:
                    links.append((head.target, place))
    for target, place in links:
        os.symlink(target, place)


def _write(place: str, content: Iterator[bytes], mode: int, progress: Callable[[int], None] | None) -> None:
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        for chunk in content:
            file.write(chunk)
            if progress is not None:
                progress(len(chunk))


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


@contextmanager
def _reading(file: IO[bytes], path: str) -> Iterator[archive.Source]:
    """Decompress; every fault in the stream or of the archive is told with the bundle's path."""
    broken: tuple[type[Exception], ...] = (EOFError, gzip.BadGzipFile, zlib.error)
    stream: Any
    if path.endswith(GZIP):
        stream = gzip.GzipFile(fileobj=file, mode="rb")
    elif path.endswith(ZSTD):
        if not can_zstd():
            raise KlorosError(f"{path} needs zstandard", hint="pip install 'kloros-orchestration[bundle]'")
        import zstandard

        broken = (*broken, zstandard.ZstdError)
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        stream = decompressor.stream_reader(file, read_across_frames=True, closefd=False)
    else:
        raise Malformed(f"{path} is no bundle by its name", hint=f"a bundle ends in {ZSTD} or {GZIP}")
    try:
        yield stream
    except broken as error:
        raise Malformed(f"{path} can't be decompressed: {error}", hint="fetch it again") from error
    except Malformed as error:
        told = error.message if error.message.startswith(path) else f"{path}: {error.message}"
        raise Malformed(told, hint=error.hint) from error


@contextmanager
def _opened(path: str, *, follow: bool = True) -> Iterator[IO[bytes]]:
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
