"""Handing a notice to Apprise's URLs, each with a deadline. The one module that imports `apprise`.

Owns reading the file of URLs and sending; refuses to know what is told and when. A URL holds passwords and tokens in any of
its parts, so what is said of one is its line in the file and its scheme, never more.
Apprise's API: https://github.com/caronc/apprise/wiki/Development_API. Credentials: systemd.exec(5), LoadCredential=.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from orchestration.errors import KlorosError
from orchestration.pulse.notice import Notice

CREDENTIAL = "notices.urls"
SYSTEM_FILE = "/etc/kloros/notices.urls"
DEADLINE = 10.0  # seconds for one attempt, all targets together
_OTHERS = 0o077


class NotDeliverable(KlorosError):
    """The URLs can't be used at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One URL. `name` says which without saying it; `key` is the same for the same URL on whichever line."""

    key: str
    name: str
    url: str


def targets(urls_file: str, environ: Mapping[str, str]) -> tuple[Target, ...]:
    """Return the targets of systemd's credential, else of the file that the settings name; none where there is neither.

    Raises:
        NotDeliverable: the file can't be read, or others may read it.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY")
    credential = os.path.join(folder, CREDENTIAL) if folder else ""
    if credential and os.path.exists(credential) and (found := _read(credential)):
        return found
    if urls_file:
        _refuse_readable_by_others(urls_file)
        return _read(urls_file)
    return _read(SYSTEM_FILE) if os.access(SYSTEM_FILE, os.R_OK) else ()


def _refuse_readable_by_others(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # reading it says why
    if mode & _OTHERS:
        raise NotDeliverable(f"{path} may be read by others than its owner, and URLs hold secrets", hint=f"chmod 600 {path}")


def _read(path: str) -> tuple[Target, ...]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file]
    except OSError as error:
        raise NotDeliverable(f"{path} can't be read: {error.strerror}", hint=f"ls -l {path}") from error
    return tuple(_target(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#"))


def _target(number: int, url: str) -> Target:
    scheme = re.match(r"[A-Za-z0-9+.-]{1,20}://", url)
    name = f"line {number} ({scheme[0]}…)" if scheme else f"line {number}"
    return Target(key=sha256(url.encode()).hexdigest()[:16], name=name, url=url)


def deliver(notice: Notice, to: Sequence[Target], *, deadline: float = DEADLINE) -> dict[str, str]:
    """Send a notice to all targets at once; return of each that did not take it, by key, why."""
    faults: dict[str, str] = {}
    threads = [_start(_send, notice, target, faults) for target in to]
    within(threads, deadline)
    for target, thread in zip(to, threads, strict=True):
        if thread.is_alive():
            faults[target.key] = f"{target.name}: no answer within {deadline:g} s"
    return faults


def _start(run: Callable[..., None], *arguments: object) -> threading.Thread:
    """Run it in a thread that keeps nobody from ending: what hangs in a name server can't be called off."""
    thread = threading.Thread(target=run, args=arguments, daemon=True)
    thread.start()
    return thread


def within(threads: Sequence[threading.Thread], seconds: float) -> None:
    """Wait for threads, so long together."""
    from orchestration.host import clock

    ends = clock.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, ends - clock.monotonic()))


def _send(notice: Notice, target: Target, faults: dict[str, str]) -> None:
    try:
        fault = _hand_over(notice, target.url)
    except Exception as error:
        fault = f"its plugin failed: {type(error).__name__}"  # whose text may hold the URL
    if fault:
        faults[target.key] = f"{target.name}: {fault}"


def _hand_over(notice: Notice, url: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import apprise
        except ImportError:
            return "the package apprise is missing: install again with --with notices"
    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # it writes URLs
    service = apprise.Apprise.instantiate(url, suppress_exceptions=True)
    if service is None:
        return "no URL that Apprise knows"
    one = apprise.Apprise()
    one.add(service)
    # Said to be text, so that it is escaped for those who take HTML, as mail does.
    kind, form = apprise.NotifyType(notice.severity.value), apprise.NotifyFormat.TEXT
    taken = one.notify(body=notice.body, title=notice.title, notify_type=kind, body_format=form)
    return "" if taken else "not taken"
