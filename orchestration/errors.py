"""Every error we raise on purpose, as one tree.

The class says how a process ends because of it (`exit`) and whether trying again later can help (`retryable`).
The message names the thing, the place and the value; `hint` says what to do. Entry points turn an error into an
`Exit` once; no other module does.
"""

from __future__ import annotations

from typing import ClassVar

from orchestration.exits import Exit


class KlorosError(Exception):
    """A failure with a known meaning. `str()` gives the message and, on a second line, the hint."""

    exit: ClassVar[Exit] = Exit.FAILED
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class Usage(KlorosError):
    """The command line, or an id on it, does not name anything."""

    exit = Exit.USAGE


class SettingsInvalid(KlorosError):
    """One or more settings are wrong; the message lists every fault."""

    exit = Exit.SETTINGS_INVALID


class HostDoubled(SettingsInvalid):
    """Another machine ticks under this host's name: whatever we wrote would be taken for that one's."""


class StoreUnreachable(KlorosError):
    """The store can't be opened, read or migrated."""

    exit = Exit.STORE_UNREACHABLE
    retryable = True


class StoreEmpty(StoreUnreachable):
    """There is a store without tables: the first tick has not made them, or was killed at it. Reads as no store."""


class StoreOutdated(StoreUnreachable):
    """There is a store of an older release that no tick of this one has migrated yet: a reader works on a copy of it."""


class LeaseLost(KlorosError):
    """Another host leads the scope by now: what we decided under the former epoch is not written."""

    retryable = True


class Unwritable(KlorosError):
    """A file or folder of ours can't be written: disk full, read-only, or not ours."""

    exit = Exit.UNWRITABLE
    retryable = True


class LockHeld(KlorosError):
    """Another process holds the kernel lock; what the lock file says of it is for people."""

    exit = Exit.LOCK_HELD
    retryable = True


class Malformed(KlorosError):
    """Content from outside that breaks its format; recorded with its reason, never fatal to a tick."""


class CommandNotStarted(KlorosError):
    """A command could not be executed at all: not found, not executable, or no process to be had."""


class CommandLost(KlorosError):
    """A command's keeper was killed, so how the command ended is unknown; its tree was killed."""
