"""Pinging the dead-man's switch for what ticks left in `heartbeat/` (`liveness.py`), beside them.

`URL/start` when a tick has begun, then the URL itself when it has decided, else `URL/<exit code>`, each with
`rid=<run id>`: the pinging API of healthchecks.io (https://healthchecks.io/docs/http_api/). A tick that never says how it
ended was killed: `URL/fail`. A ping that is not taken is not sent again, for the next tick's is a minute away.
"""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

from orchestration.host import clock
from orchestration.host.journal import Event, Priority, log
from orchestration.pulse.liveness import FOLDER, NOTHING

STARTS_AFTER = 1.0
"""Seconds that a tick has to end by itself before its start is told: one that was turned away is not told at all."""
ENDS_WITHIN = 60.0
"""Seconds; a tick's unit gives it 50 (TimeoutStartSec=)."""
_LOOK_EVERY = 0.05
_TOO_OLD = 600.0  # seconds: what lies longer is no news to a switch


def send(url: str, state_dir: str, timeout: float) -> str | None:
    """Ping for every tick that is waiting; return why the last ping was not taken, empty when it was, None without any."""
    folder, fault = os.path.join(state_dir, FOLDER), None
    try:
        waiting = [os.path.join(folder, name) for name in os.listdir(folder)]
    except OSError:
        return None
    for path in sorted(waiting, key=_age, reverse=True):
        claimed = _claim(path)
        if claimed:
            fault = _see_through(url, os.path.basename(path), claimed, timeout, fault)
    if fault:
        log(Event.HEARTBEAT_FAILED, f"the dead-man's switch did not take a ping: {fault}", priority=Priority.WARNING)
    return fault


def _see_through(url: str, run: str, path: str, timeout: float, fault: str | None) -> str | None:
    """Tell the start and the end of one tick."""
    try:
        how = _outcome(path, STARTS_AFTER)
        if how == NOTHING:
            return fault
        started = ping(url, "start", run, timeout)
        how = how or _outcome(path, ENDS_WITHIN)
        suffix = {"0": "", "": "fail", NOTHING: "fail"}.get(how, how)
        return ping(url, suffix, run, timeout) or started
    finally:
        with suppress(OSError):
            os.unlink(path)


def _claim(path: str) -> str:
    """Take a file, so that a process beside us does not ping for it as well; what a dead one took is removed in the end."""
    if _age(path) > _TOO_OLD:
        with suppress(OSError):
            os.unlink(path)
        return ""
    if path.endswith(".taken"):
        return ""
    try:
        os.rename(path, f"{path}.taken")
    except OSError:
        return ""
    return f"{path}.taken"


def _outcome(path: str, within: float) -> str:
    """Wait until the tick has said how it ended; empty when it has not within so many seconds of its beginning."""
    ends = clock.monotonic() + max(0.0, within - _age(path))
    while True:
        with open(path, encoding="utf-8") as file:
            first, newline, _ = file.read(64).partition("\n")
        if newline and (first == NOTHING or first.isdigit()):
            return first
        if clock.monotonic() >= ends:
            return ""
        threading.Event().wait(_LOOK_EVERY)


def _age(path: str) -> float:
    """Return how long ago a file was made, in seconds; never negative."""
    try:
        return max(0.0, clock.now().timestamp() - os.stat(path).st_mtime)
    except OSError:
        return 0.0


def ping(url: str, suffix: str, run: str, timeout: float) -> str:
    """Ping once; return why it was not taken, without the URL, which is a secret."""
    fault: list[str] = []
    thread = threading.Thread(target=_get, args=(ping_url(url, suffix, run), timeout, fault), daemon=True)
    thread.start()
    thread.join(timeout)
    return _late(timeout) if thread.is_alive() else "".join(fault)


def _late(timeout: float) -> str:
    return f"no answer within {timeout:g} s"


def ping_url(url: str, suffix: str, run: str) -> str:
    """Put the suffix behind the path and the run id behind the query."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/") + (f"/{suffix}" if suffix else "")
    return urlunsplit(parts._replace(path=path, query="&".join(filter(None, (parts.query, f"rid={run}"))), fragment=""))


def _get(url: str, timeout: float, fault: list[str]) -> None:
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:  # noqa: S310 - settings admit http and https only
            answer.read(1024)
    except urllib.error.HTTPError as error:
        fault.append(f"HTTP status {error.code}")
    except urllib.error.URLError as error:
        late = isinstance(error.reason, TimeoutError)
        fault.append(_late(timeout) if late else f"it can't be reached: {type(error.reason).__name__}")
    except TimeoutError:
        fault.append(_late(timeout))
    except Exception as error:
        fault.append(f"it can't be reached: {type(error).__name__}")
