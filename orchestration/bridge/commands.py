"""The one set of commands: HTTP, MCP and klorosctl all call these, one coroutine per entry of `methods.METHODS`.

Each gets the verified caller and a model of the wire, and answers with a model or raises `Refused`. The commands lie in
`commanding/`, a module for each noun.
"""

from __future__ import annotations

from orchestration.bridge.commanding.archives import ArchiveCommands
from orchestration.bridge.commanding.desk import Rules
from orchestration.bridge.commanding.messages import MessageCommands
from orchestration.bridge.commanding.participants import ParticipantCommands
from orchestration.bridge.commanding.sessions import AuditCommands, SessionCommands


class Commands(ArchiveCommands, MessageCommands, ParticipantCommands, SessionCommands, AuditCommands):
    """All commands over one store and one set of rules; `export_thread` and `import_thread` are an operator's."""


__all__ = ["Commands", "Rules"]
