"""The tar stream in a bundle: written so that one folder always gives the same bytes, read so that nothing is believed.

Format: ustar with pax records for what does not fit (POSIX.1-2017, pax: "ustar Interchange Format", "pax Extended Header").
Reading accepts what writing makes and refuses the rest with its reason: absolute names and `..`, devices, pipes and hard
links, names that come twice or below something that is no folder, headers of other forms, more than the limits allow.
Refuses to know where the bytes come from and where they go; what links mean is asked of `links`.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple, Protocol

from orchestration.cycles.links import Path, stays_inside
from orchestration.errors import Malformed

BLOCK: Final = 512
CHUNK: Final = 1 << 20
_TIME: Final = 315532800  # 1980-01-01, which every tar and zip takes without a complaint
_LONGEST_HEADER: Final = 64 * 1024
_LONGEST_PATH: Final = 4096  # PATH_MAX
_LONGEST_NAME: Final = 255  # NAME_MAX
_REFUSED: Final = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device node",
    tarfile.BLKTYPE: "a device node",
    tarfile.FIFOTYPE: "a pipe",
}


class Kind(Enum):
    """What an entry can be."""

    FILE = tarfile.REGTYPE
    FOLDER = tarfile.DIRTYPE
    LINK = tarfile.SYMTYPE


class Limits(NamedTuple):
    """How much a bundle may unpack to."""

    size: int = 16 * 1024**3  # bytes of the whole stream
    entries: int = 1_000_000


USUAL: Final = Limits()


class Head(NamedTuple):
    """One entry without its content. The first name is that of the cycle's folder."""

    path: Path
    kind: Kind
    mode: int
    size: int = 0  # of a file
    target: str = ""  # of a link


class Source(Protocol):
    """A decompressed stream."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""
        ...


def header(head: Head) -> bytes:
    """Write an entry's header; for a file, `size` bytes of content and then `padding` follow."""
    info = tarfile.TarInfo("/".join(head.path))
    info.type, info.mode, info.size, info.linkname = head.kind.value, mode(head.kind, head.mode), head.size, head.target
    info.mtime = _TIME
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def mode(kind: Kind, bits: int) -> int:
    """Return the permission bits that are kept: ours to use, never others' to write, no set-uid."""
    if kind is Kind.LINK:
        return 0o777
    return bits & 0o755 | (0o700 if kind is Kind.FOLDER else 0o600)


def padding(size: int) -> bytes:
    """Return what fills the last block of a content."""
    return b"\0" * (-size % BLOCK)


END: Final = b"\0" * (2 * BLOCK)


def entries(source: Source, limits: Limits) -> Iterator[tuple[Head, Iterator[bytes]]]:
    """Read a stream entry by entry, each with its content, which is skipped when it is not taken.

    A parent comes before what it holds. Links are checked, and a refusal raised, after the last entry.

    Raises:
        Malformed: this is no bundle, or none that we would make; says which entry and why.
    """
    stream, seen = _Stream(source, limits.size), _Seen()
    while (head := _next(stream)) is not None:
        seen.add(head)
        if len(seen.kinds) > limits.entries:
            raise Malformed(f"it has more than {limits.entries} entries", hint="nothing that large is unpacked")
        stream.expect(head.size, "/".join(head.path))
        content = stream.content(head.size)
        yield head, content
        for _ in content:
            pass
    seen.check()


class _Seen:
    """What came before in the stream."""

    def __init__(self) -> None:
        self.kinds: dict[Path, Kind] = {}
        self.links: dict[Path, str] = {}

    def add(self, head: Head) -> None:
        name = "/".join(head.path)
        if head.path in self.kinds:
            raise Malformed(f"{name!a} is in it twice")
        if self.kinds and self.kinds.get(head.path[:-1]) is not Kind.FOLDER:
            raise Malformed(f"{name!a} is below nothing, or below something that is no folder")
        if not self.kinds and (len(head.path) != 1 or head.kind is not Kind.FOLDER):
            raise Malformed(f"it begins with {name!a} and not with a folder")
        self.kinds[head.path] = head.kind
        if head.kind is Kind.LINK:
            self.links[head.path[1:]] = head.target

    def check(self) -> None:
        if not self.kinds:
            raise Malformed("it is empty")
        for path, target in self.links.items():
            if not stays_inside(path, self.links):
                raise Malformed(f"the link {'/'.join(path)!a} leads out of its folder: {target!a}")


def _next(stream: _Stream) -> Head | None:
    records: dict[str, str] = {}
    while True:
        block = stream.exactly(BLOCK)
        if not any(block):
            stream.end()
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise Malformed(f"it is no tar archive from byte {stream.taken - BLOCK} on: {error}") from error
        if info.type != tarfile.XHDTYPE:
            return _head(info, records)
        if records or not 0 < info.size <= _LONGEST_HEADER:
            raise Malformed("it has an extended header of a form that we don't write")
        records = _records(b"".join(stream.content(info.size)))


def _head(info: tarfile.TarInfo, records: dict[str, str]) -> Head:
    name = records.get("path", info.name)
    if info.type in _REFUSED:
        raise Malformed(f"{name!a} is {_REFUSED[info.type]}")
    try:
        kind = Kind(tarfile.REGTYPE if info.type == tarfile.AREGTYPE else info.type)
        size = int(records.get("size", info.size))
    except ValueError:
        raise Malformed(f"{name!a} has a header of a form that we don't write") from None
    if size < 0 or (size and kind is not Kind.FILE):
        raise Malformed(f"{name!a} has an impossible size: {size}")
    target = records.get("linkpath", info.linkname) if kind is Kind.LINK else ""
    if kind is Kind.LINK and (not target or "\0" in target or len(target) > _LONGEST_PATH):
        raise Malformed(f"{name!a} is a link to nothing")
    return Head(_path(name, kind), kind, info.mode, size, target)


def _path(name: str, kind: Kind) -> Path:
    names = tuple((name.removesuffix("/") if kind is Kind.FOLDER else name).split("/"))
    if name.startswith("/"):
        raise Malformed(f"{name!a} is an absolute name")
    if ".." in names:
        raise Malformed(f"{name!a} leads out of the folder")
    encoded = [one.encode("utf-8", "surrogateescape") for one in names]
    if (
        not all(encoded)
        or "." in names
        or "\0" in name
        or max(map(len, encoded)) > _LONGEST_NAME
        or len(name) > _LONGEST_PATH
    ):
        raise Malformed(f"{name[:100]!a} is no name that we would write")
    return names


def _records(data: bytes) -> dict[str, str]:
    """Read pax records: `LENGTH KEY=VALUE\\n`, the length counting itself."""
    found: dict[str, str] = {}
    while data:
        length, _, _ = data[:10].partition(b" ")
        if not length.isdigit() or not len(length) + 3 < int(length) <= len(data):
            raise Malformed("it has a broken extended header")
        record, data = data[len(length) + 1 : int(length)], data[int(length) :]
        key, equals, value = record.decode("utf-8", "surrogateescape").partition("=")
        if not equals or not value.endswith("\n") or key not in ("path", "linkpath", "size", "hdrcharset"):
            raise Malformed(f"it has an extended header that we don't write: {key[:50]!a}")
        found[key] = value[:-1]
    return found


class _Stream:
    """A source that is read to the byte, and never beyond the limit."""

    def __init__(self, source: Source, limit: int) -> None:
        self.taken = 0
        self._source = source
        self._limit = limit

    def expect(self, size: int, name: str) -> None:
        if self.taken + size > self._limit:
            raise Malformed(
                f"it unpacks to more than {self._limit} bytes, from {name!a} on",
                hint="if you trust it, allow more: --max-bytes",
            )

    def exactly(self, size: int) -> bytes:
        parts, missing = [], size
        while missing:
            part = self._source.read(missing)
            if not part:
                raise Malformed(f"it ends too early, after {self.taken} bytes unpacked")
            parts.append(part)
            missing -= len(part)
            self.taken += len(part)
        self.expect(0, "its end")
        return b"".join(parts)

    def content(self, size: int) -> Iterator[bytes]:
        left = size
        while left:
            chunk = self.exactly(min(left, CHUNK))
            left -= len(chunk)
            yield chunk
        if size % BLOCK:
            self.exactly(-size % BLOCK)

    def end(self) -> None:
        if any(self.exactly(BLOCK)):
            raise Malformed("something follows the block that ends it")
        while rest := self._source.read(CHUNK):
            self.taken += len(rest)
            self.expect(0, "its end")
            if any(rest):
                raise Malformed("something follows its end")
