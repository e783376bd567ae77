"""The place that bundles are copied to: few verbs over any store that fsspec knows.

Owns how each kind of store takes a file whole and replaces one by compare-and-swap; refuses to know what the files mean.

| store | a file is whole because | compare-and-swap |
|---|---|---|
| `file://` | it is written beside its place, synced, renamed | under flock(2) on a file beside it, by its SHA-256 |
| S3 | a PUT is one | `If-Match` and `If-None-Match`, by its ETag |
| others | object stores: a PUT is one; else written beside, then moved | none: whoever replaces must look again |

S3: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from orchestration.errors import KlorosError, LockHeld
from orchestration.host import files
from orchestration.host.lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHUNK: Final = 4 * 1024 * 1024
_PART: Final = 8 * 1024 * 1024  # of an upload to S3; s3fs makes them larger where more than 10,000 would be needed
_PARTS_AT_ONCE: Final = 4  # in memory; s3fs's own would be 10 of 50 MiB
_REQUESTS_AT_ONCE: Final = 64
_WHOLE_PUTS: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "memory"})
_OTHER_WAS_FASTER: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_NO_CONDITIONS: Final = frozenset({"NotImplemented", "501"})


class Version(NamedTuple):
    """A file's content, and the mark by which `swap` knows that it is still that content."""

    content: bytes
    mark: str


class Remote:
    """A folder in any store of fsspec. Its failures are whatever fsspec and its packages raise."""

    def __init__(self, system: Any, root: str, *, writer: str) -> None:
        """Take fsspec's file system and the path of the folder in it; `writer` names us in unfinished files."""
        self._system = system
        self._root = root.rstrip("/")
        self._writer = writer
        self.compares = False  # whether `swap` refuses to replace what changed meanwhile

    def path(self, name: str) -> str:
        """Return a file's path in the file system."""
        return f"{self._root}/{name}"

    def holds(self, name: str, *, size: int, sha256: str) -> bool:
        """Read a file back and say whether it is this very content; one of another size is not read."""
        try:
            if self._system.info(self.path(name))["size"] != size:
                return False
        except FileNotFoundError:
            return False
        digest = hashlib.sha256()
        with self._system.open(self.path(name), "rb", block_size=_CHUNK, cache_type="none") as file:
            if hasattr(file, "prefetch"):  # paramiko's: without it each 32 KiB waits for the one before
                file.prefetch(size, _REQUESTS_AT_ONCE)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest() == sha256

    def put(self, source: str, name: str) -> None:
        """Copy a local file to `name`, over whatever is there; nobody sees a part of it under that name."""
        if self._puts_whole():
            self._system.put_file(source, self.path(name))
            return
        part = self._part(name)
        self._system.put_file(source, part)
        self._system.mv(part, self.path(name))

    def read(self, name: str) -> Version | None:
        """Return a small file with its mark, or None when there is none."""
        try:
            content: bytes = self._system.cat_file(self.path(name))
        except FileNotFoundError:
            return None
        return Version(content, hashlib.sha256(content).hexdigest())

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, over whatever is there."""
        if self._puts_whole():
            self._system.pipe_file(self.path(name), content)
            return
        part = self._part(name)
        self._system.pipe_file(part, content)
        self._system.mv(part, self.path(name))

    def swap(self, name: str, content: bytes, before: str | None) -> bool:
        """Replace what has the mark `before` (None: make it anew); False when it has changed, and nothing was written.

        Where the store can't compare, it replaces whatever is there.
        """
        self.write(name, content)
        return True

    def names(self, folder: str) -> set[str]:
        """List the files below a folder, by their names from our own folder on; unfinished ones left out."""
        start = self.path(folder)
        self._system.invalidate_cache()
        try:
            found = self._system.find(start)
        except FileNotFoundError:
            return set()
        tails = (path[path.index(start) + len(start) :] for path in found)
        return {f"{folder}{tail}" for tail in tails if not os.path.basename(tail).startswith(".")}

    def _puts_whole(self) -> bool:
        given = self._system.protocol
        return bool(_WHOLE_PUTS.intersection((given,) if isinstance(given, str) else given))

    def _part(self, name: str) -> str:
        folder, base = os.path.split(self.path(name))
        self._system.makedirs(folder, exist_ok=True)
        return f"{folder}/.{base}.{self._writer}.part"


class Folder(Remote):
    """A folder of this host, or one that is mounted here."""

    def __init__(self, system: Any, root: str, *, writer: str) -> None:
        super().__init__(system, root, writer=writer)
        self.compares = True

    def put(self, source: str, name: str) -> None:
        """See `Remote`; it survives a power cut."""
        path = self._place(name)
        with open(source, "rb") as given, files.writing(path, 0o644) as file:
            while chunk := given.read(_CHUNK):
                file.write(chunk)

    def write(self, name: str, content: bytes) -> None:
        """See `Remote`; it survives a power cut."""
        files.replace(self._place(name), content, 0o644)

    def swap(self, name: str, content: bytes, before: str | None) -> bool:
        """See `Remote`. False also while another is at it."""
        folder, base = os.path.split(self._place(name))
        try:
            with FileLock(os.path.join(folder, f".{base}.lock")).held(self._writer):
                found = self.read(name)
                if before != (None if found is None else found.mark):
                    return False
                self.write(name, content)
        except LockHeld:
            return False
        return True

    def _place(self, name: str) -> str:
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        files.sweep(os.path.dirname(path), os.listdir(os.path.dirname(path)))
        return path


class Bucket(Remote):
    """A place in S3, or in a store that speaks its language."""

    def __init__(self, system: Any, root: str, *, writer: str) -> None:
        super().__init__(system, root, writer=writer)
        self.compares = True

    def put(self, source: str, name: str) -> None:
        """See `Remote`. In parts from two of them on; it appears when the last one is there."""
        self._system.put_file(source, self.path(name), chunksize=_PART, max_concurrency=_PARTS_AT_ONCE)

    def read(self, name: str) -> Version | None:
        """See `Remote`. The mark is taken first: content that is newer than its mark can't be swapped."""
        self._system.invalidate_cache()
        try:
            mark = str(self._system.info(self.path(name))["ETag"])
            return Version(self._system.cat_file(self.path(name)), mark)
        except FileNotFoundError:
            return None

    def swap(self, name: str, content: bytes, before: str | None) -> bool:
        """See `Remote`; a store that knows no conditions is treated as one that can't compare."""
        bucket, _, key = self.path(name).partition("/")
        condition = {"IfNoneMatch": "*"} if before is None else {"IfMatch": before}
        try:
            self._system.call_s3("put_object", Bucket=bucket, Key=key, Body=content, **condition)
        except OSError as error:
            code = _code(error)
            if code in _NO_CONDITIONS:
                self.compares = False
                return super().swap(name, content, before)
            if code in _OTHER_WAS_FASTER:
                return False
            raise
        return True


def remote(target: str, options: Mapping[str, object], *, writer: str) -> Remote:
    """Give the place that a URL names.

    Raises:
        KlorosError: fsspec, or what it needs for such a URL, is not installed; or it knows no such URL.
    """
    try:
        from fsspec.core import url_to_fs

        system, root = url_to_fs(target, skip_instance_cache=True, **_completed(target, options))
    except ImportError as error:
        hint = "pip install 'kloros-orchestration[federation]'; for s3:// and sftp:// the extras s3 and sftp"
        raise KlorosError(f"federation to {public(target)} needs a package: {error}", hint=hint) from error
    except ValueError as error:
        hint = "federation.target must be a URL that fsspec knows"
        raise KlorosError(f"{public(target)} names no place: {error}", hint=hint) from error
    protocols = {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)
    if "file" in protocols:
        return Folder(system, root, writer=writer)
    return (Bucket if "s3" in protocols else Remote)(system, root, writer=writer)


def _completed(target: str, options: Mapping[str, object]) -> dict[str, object]:
    """Add what we want of fsspec: no listing from memory; by SFTP, unless the options say otherwise, only known servers.

    fsspec's SFTP gives every option on to paramiko, which refuses those that it does not know.
    """
    given, scheme = dict(options), urlsplit(target).scheme
    if scheme in _WHOLE_PUTS:
        return {"use_listings_cache": False, **given}
    if scheme not in ("sftp", "ssh"):
        return given
    from orchestration.cycles.host_keys import KnownHosts

    path = str(given.pop("known_hosts", ""))
    return {"host_key_policy": KnownHosts(path), **given}


def public(target: str) -> str:
    """Return a target for people to see, without user and password."""
    parts = urlsplit(target)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host).geturl() if "@" in parts.netloc else target


def _code(error: BaseException) -> str:
    """Return S3's own name for a failure, from botocore's error behind it."""
    seen: BaseException | None = error
    while seen is not None:
        response = getattr(seen, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        seen = seen.__cause__
    return ""
