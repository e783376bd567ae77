"""Waiting until something is so, by looking often and with a deadline: no test sleeps for a while and hopes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
_PAUSE = threading.Event()


def until(seen: Callable[[], _T | None], what: str = "it", *, within: float = 30.0) -> _T:
    """Return the first truthy value of `seen()`; fail, and say what was waited for, when none comes in so many seconds."""
    deadline = time.monotonic() + within
    while not (value := seen()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {within:g} s; last seen: {value!r}")
        _PAUSE.wait(0.01)
    return value
