"""Whom the host tells: notices, and the heartbeat for a switch elsewhere."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from orchestration.settings.fields import STEPS, Duration, PositiveDuration, Section


class Notices(Section):
    """Whom the host tells when its verdict changes or a unit of ours fails, through Apprise URLs. Needs the extra
    `notices`. On systemd the URLs stand in `/etc/kloros/notices.urls`, one a line, which only root reads."""

    urls_file: Annotated[str, Field(pattern=r"^(/.*)?$", examples=["/home/ada/.config/kloros/notices.urls"])] = ""
    """File with one Apprise URL a line, for its owner alone (0600). For one person's installation and hosts without systemd;
    where systemd hands us `/etc/kloros/notices.urls`, that counts. Neither: nobody is told."""
    per_hour: Annotated[int, Field(ge=1, examples=[6])] = 6
    """Most notices within an hour; what is news then waits, and is told as it stands when its turn has come."""
    settle: Annotated[Duration, Field(examples=["5min"])] = timedelta(minutes=5)
    """Good news waits this long, so that a verdict that flaps is told once: a condition must have been gone for it."""
    backoff: Annotated[tuple[Duration, ...], Field(examples=[["1min", "5min", "15min", "30min"]])] = STEPS
    """Waits after the first, second, … attempt at a notice that was not taken; the last one repeats."""


class Heartbeat(Section):
    """A dead-man's switch somewhere else, which raises the alarm when this host falls silent. Off unless `url` is set."""

    url: Annotated[str, Field(pattern=r"^(https?://[^\s/]+\S*)?$", examples=["https://hc-ping.com/<uuid>"])] = ""
    """URL in the style of healthchecks.io: each tick pings `/start`, then the URL itself when it has decided, else
    `/<exit code>`. A host that is disabled, halted or gone pings nothing."""
    timeout: Annotated[PositiveDuration, Field(le=timedelta(seconds=10), examples=["5s"])] = timedelta(seconds=5)
    """Longest time for one ping, at most 10 s. It is spent beside the tick, never by it."""
