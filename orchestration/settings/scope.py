"""The scope: the hosts that decide together, by one PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from orchestration.settings.fields import PositiveDuration, Section


class Scope(Section):
    """Hosts that decide together, one of which leads at a time. It counts once `database_url` names a PostgreSQL; one
    database holds one scope. See docs/reference/scope.md."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", examples=["night-lab"])] = "default"
    """Name of the scope. A database that holds another scope is refused, so that two of them never mix by mistake."""
    host: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$", examples=["lab-1"])] = ""
    """Name of this host in the scope; empty: its host name. Two machines under one name are refused, because each would take
    the other's lease and cycles for its own."""
    lease: Annotated[PositiveDuration, Field(le=timedelta(minutes=10), examples=["65s"])] = timedelta(seconds=65)
    """How long a leader that says nothing stays the leader. A tick renews it, so it must be longer than the minute between
    two ticks, or the lead changes without need. A takeover takes 25 s longer than this at most."""
    silent_after: Annotated[PositiveDuration, Field(examples=["15min"])] = timedelta(minutes=15)
    """A host without a tick for this long is silent: the leader ends the cycles that run there as `lost`."""
