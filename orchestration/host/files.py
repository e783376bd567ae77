"""Files that other programs may read at any moment: each is there whole or not at all.

Owns atomic writing, appending and moving, and its own temporary files; refuses to know what the content
means. A new file is written beside its place as `.{name}.{pid}.{starttime}.tmp`, synced, and then takes its
name in one step, and the folder is synced, so that it survives a power cut (rename(2), link(2), fsync(2)).
Such a temporary file whose process is gone is litter, and `sweep` removes it.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Final

from orchestration.errors import Unwritable
from orchestration.host import process_identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NAME_LIMIT: Final = 180  # bytes of the name kept in a temporary name; NAME_MAX is 255
_AT_FDCWD: Final = -100  # linux/fcntl.h
_RENAME_NOREPLACE: Final = 1  # linux/fs.h
_ADVICE: Final = {
    errno.ENOSPC: "Free some space on that file system (df -h, df -i), then run it again.",
    errno.EDQUOT: "Free some space within the user's quota (quota -s), then run it again.",
    errno.EROFS: "Mount it writable, or set state_dir to a folder that is (in a unit: ReadWritePaths=).",
    errno.EACCES: "Give it to the user that runs this (chown, chmod), or run as that user.",
    errno.EPERM: "Give it to the user that runs this (chown); look for an immutable flag (lsattr).",
    errno.EIO: "The disk reports an error: look at dmesg before anything else.",
    errno.ENOENT: "Make the folder, or correct its path in the settings.",
    errno.ENOTDIR: "A part of the path is a file: move it away, or correct the path in the settings.",
    errno.EISDIR: "A folder stands where the file belongs: move it away.",
    errno.ENAMETOOLONG: "Use a shorter name.",
    errno.EFBIG: "Raise the limit on file size (ulimit -f).",
    errno.EEXIST: "A file stands where the folder belongs: move it away.",
    errno.EBUSY: "Something is mounted on the file itself: mount its folder instead.",
    errno.ESTALE: "The server of that file system has lost it: mount it again.",
    errno.ENOTCONN: "The program behind that file system has ended: mount it again.",
    errno.ELOOP: "Symbolic links lead in a circle there: remove one.",
}


def unwritable(path: str, error: OSError) -> Exception:
    """Turn the refusal of a write into `Unwritable` with the path and what to do; others stay."""
    if error.errno not in _ADVICE:
        return error
    return Unwritable(f"{path} can't be written: {error.strerror}", hint=_ADVICE[error.errno])


def replace(path: str, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Put `data` at `path` in one step, over whatever file is there; readers see the old or the new.

    Args:
        path: where; its folder must exist.
        data: the whole content.
        mode: permission bits, whatever the umask.
        durable: whether it must survive a power cut; False for a copy that is made again anyway.

    Raises:
        Unwritable: disk full, read-only, not ours, or no such folder; the old content is still there.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, temporary_name(name))
    try:
        try:
            _write_new(temporary, data, mode, durable=durable)
            os.rename(temporary, path)
        except OSError:
            _unlink(temporary)
            raise
        if durable:
            _sync_folder(folder)
    except OSError as error:
        raise unwritable(path, error) from error


@contextmanager
def writing(path: str, mode: int = 0o600) -> Iterator[IO[bytes]]:
    """Give a file to write what may be large; it takes its name, as `replace` does, when the block ends well.

    Raises:
        Unwritable: disk full, read-only, not ours, or no such folder; the old content is still there.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, temporary_name(name))
    try:
        try:
            _unlink(temporary)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with open(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                yield file
                file.flush()
                os.fsync(descriptor)
            os.rename(temporary, path)
        except BaseException:
            _unlink(temporary)
            raise
        _sync_folder(folder)
    except OSError as error:
        raise unwritable(path, error) from error


def create(path: str, data: bytes, mode: int = 0o600, *, changed_at: float | None = None) -> bool:
    """Put `data` at `path` unless the name is taken; whole content or nothing, and exactly one caller wins.

    Args:
        path: where; its folder must exist.
        data: the whole content.
        mode: permission bits, whatever the umask.
        changed_at: when it counts as changed, in seconds since 1970, for a copy that is as old as its original; else now.

    Returns:
        True when this call made it, False when something had the name already (that is left as it is).

    Raises:
        Unwritable: disk full, read-only, not ours, or no such folder.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, temporary_name(name))
    try:
        try:
            _write_new(temporary, data, mode)
            if changed_at is not None:
                os.utime(temporary, (changed_at, changed_at))
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            _unlink(temporary)
        _sync_folder(folder)
    except OSError as error:
        raise unwritable(path, error) from error
    return True


def link(path: str, target: str) -> None:
    """Let the name `path` lead to `target`, in one step, over whatever file or link is there.

    Raises:
        Unwritable: disk full, read-only or not ours.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, temporary_name(name))
    _unlink(temporary)
    try:
        os.symlink(target, temporary)
        os.rename(temporary, path)
        _sync_folder(folder)
    except OSError as error:
        raise unwritable(path, error) from error


def make_folder(path: str, mode: int = 0o700) -> None:
    """Make a folder with its parents, all of that mode; one that is there is left as it is.

    Raises:
        Unwritable: disk full, read-only, not ours, or a file stands there.
    """
    try:
        parent = os.path.dirname(path)
        if parent and not os.path.isdir(parent):
            make_folder(parent, mode)  # makedirs gives its mode to the last one only
        os.makedirs(path, mode=mode, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def append_line(path: str, line: str, mode: int = 0o600) -> None:
    """Add one line to the end of a file, made if absent, and sync it; older lines stay whatever happens.

    A torn last line (a power cut, a full disk) is closed first, so that it can't swallow this one; readers
    skip what they can't parse.

    Args:
        line: text without a line break; one is added.

    Raises:
        Unwritable: disk full, read-only or not ours; nothing of the line stays.
    """
    data = line.encode() + b"\n"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, mode)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                data = b"\n" + data
            try:
                _write_all(descriptor, data)
                os.fdatasync(descriptor)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        if not size:
            _sync_folder(os.path.dirname(path))
    except OSError as error:
        raise unwritable(path, error) from error


def has_line(path: str, line: str) -> bool:
    """Tell whether the file, or the one rotated before it, has this very line, whole."""
    return any(_has_line(one, line.encode()) for one in (path, f"{path}.1"))


def _has_line(path: str, line: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return any(held.rstrip(b"\n") == line for held in file if held.endswith(b"\n"))
    except FileNotFoundError:
        return False


def move_no_replace(source: str, folder: str, name: str) -> str:
    """Move a file into `folder` (made if absent) as `name`, or `name.1`, `name.2`…; never over another.

    Repeatable: killed at any point, the file is at one of the two places, and calling it again ends the same
    way.

    Returns:
        The path it has now.

    Raises:
        FileNotFoundError: `source` is gone (somebody else moved it).
        Unwritable: disk full, read-only or not ours; the file is where it was.
    """
    os.lstat(source)
    candidate, taken = os.path.join(folder, name), 0
    try:
        for made in (os.path.dirname(folder), folder):  # makedirs gives its mode to the last one only
            os.makedirs(made or ".", mode=0o700, exist_ok=True)
        while not _rename_no_replace(source, candidate):
            taken += 1
            candidate = os.path.join(folder, f"{name}.{taken}")
        _sync_folder(folder)
        _sync_folder(os.path.dirname(source))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unwritable(candidate, error) from error
    return candidate


def is_stale_temp(name: str) -> bool:
    """Say whether a name is that of a temporary file of ours whose process is gone (or its pid reused)."""
    owner = _owner_of(name)
    return owner is not None and process_identity.start_time(owner[0]) != owner[1]


def sweep(folder: str, names: Iterable[str]) -> int:
    """Remove the temporary files of dead processes among `names`, a listing of `folder`; count them."""
    removed = 0
    for name in names:
        if is_stale_temp(name):
            removed += _unlink(os.path.join(folder, name))
    return removed


def temporary_name(name: str) -> str:
    """Return the name under which this process writes what will be `name`; `sweep` knows it by that."""
    short = os.fsdecode(os.fsencode(name)[:_NAME_LIMIT])
    pid = os.getpid()
    return f".{short}.{pid}.{process_identity.start_time(pid)}.tmp"


def _owner_of(name: str) -> tuple[int, int] | None:
    parts = name.rsplit(".", 3)
    if len(parts) != 4 or not parts[0].startswith(".") or parts[3] != "tmp":
        return None
    pid, ticks = parts[1], parts[2]
    if not (pid.isascii() and pid.isdigit() and ticks.isascii() and ticks.isdigit()):
        return None
    return int(pid), int(ticks)


def _write_new(path: str, data: bytes, mode: int, *, durable: bool = True) -> None:
    _unlink(path)  # ours by name: a write of this very process that failed half-way
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        _write_all(descriptor, data)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False  # absent, or not ours to remove: then making it fails and says so
    return True


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems can't sync a folder, and say so
            raise
    finally:
        os.close(descriptor)


def _rename_no_replace(source: str, target: str) -> bool:
    """Rename in one step; False when `target` exists.

    renameat2(2) with RENAME_NOREPLACE, not link and unlink: the kernel refuses hard links to files of other
    users (fs.protected_hardlinks, proc(5)), and others' files are what we move. Where a file system or libc
    lacks it, link and unlink it is; a kill between the two leaves both names, which the next call finishes.
    """
    import ctypes  # costs 3 ms: only ticks that move something pay it

    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        names = os.fsencode(source), os.fsencode(target)
        if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
            return True
        code = ctypes.get_errno()
        if code not in (errno.EEXIST, errno.ENOSYS, errno.EINVAL):
            raise OSError(code, os.strerror(code), target)
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        if not os.path.samestat(os.lstat(source), os.lstat(target)):
            return False
    os.unlink(source)
    return True
