"""A bundle, verified or unpacked: `bundle.py` makes them. One may come from anywhere, so nothing of it is believed
(archive.py), and nothing is written before all of it has been verified.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from orchestration.cycles import archive
from orchestration.cycles.archive import CHUNK, USUAL, Kind, Limits
from orchestration.cycles.bundle import CHECKSUM, GZIP, ZSTD, can_zstd, checksum_of, opened
from orchestration.errors import KlorosError, Malformed
from orchestration.host import files, folders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_FOLDER: Final = re.compile(r"cycle_[0-9]{5,15}(\.[0-9]{1,9})?")
_WINDOW: Final = 1 << 27  # bytes of memory that a foreign zstd frame may ask for; our level asks for 2 MiB
_LONGEST_MANIFEST: Final = 64 * 1024 * 1024


class Verified(NamedTuple):
    """A bundle that is in order."""

    folder: str  # the name of the folder in it
    sha256: str
    entries: int
    size: int  # bytes of all contents
    listed: int | None  # files that stand in its manifest with this checksum; None: it has no manifest


def verify(path: str, *, limits: Limits = USUAL, progress: Callable[[int], None] | None = None) -> Verified:
    """Read a bundle to its end and believe it only then: checksum, form, names, links, limits, manifest.

    Raises:
        Malformed: says what is wrong.
        KlorosError: it can't be read.
    """
    with opened(path) as file:
        return _verify(file, path, limits, progress)


def extract(path: str, to: str, *, limits: Limits = USUAL, progress: Callable[[int], None] | None = None) -> str:
    """Unpack a bundle into a new folder of its name below `to`, all of it or nothing; return that folder.

    Raises:
        Malformed: it is not in order; nothing was written.
        KlorosError: it can't be read, or the folder is there already.
        Unwritable: disk full, read-only or not ours; what was written is gone again.
    """
    with opened(path) as file:
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
    expected = checksum_of(path)
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
