"""Puts what the scope gives a host into its folders, and files what was decided on. Imported when something waits.

Each act may be done again: a tick that was killed after it, and before the store was told, finds it done.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from orchestration.errors import KlorosError, Unwritable
from orchestration.host import files
from orchestration.intents import filing
from orchestration.promotions.scan import ack_name, stem_of
from orchestration.scope.marks import mark_of
from orchestration.scope.mirror import Content, Shared, contents

if TYPE_CHECKING:
    from orchestration.scope.comparing import Changes
    from orchestration.scope.own_files import OwnFiles
    from orchestration.store.port import Database

_MOVES_PER_TICK = 250  # each syncs two folders
_MODE = 0o640


class PuttingBack:
    """What waits for one host."""

    def __init__(self, own: OwnFiles, state_dir: str, changes: Changes) -> None:
        """Take the host's folders; what comes of it is added to the changes."""
        self._own, self._state_dir, self._changes = own, state_dir, changes
        self.is_whole = True
        """Whether nothing is left for the next tick."""
        self.fault: KlorosError | None = None

    def run(self, db: Database, waiting: Iterable[Shared]) -> None:
        """Put all of it in place; what can't be waits on, and holds up nothing else."""
        waiting = list(waiting)
        fetched = contents(db, [row for row in waiting if row.state == "given" or not row.mark])
        moved = 0
        for row in waiting:
            try:
                if row.folder == "acks":
                    self._ack(row, fetched.get(row.key))
                elif row.state == "given":
                    self._intent(row, fetched.get(row.key))
                elif moved < _MOVES_PER_TICK:
                    moved += 1
                    self._file(row, fetched.get(row.key))
                else:
                    self.is_whole = False
            except (KlorosError, OSError) as error:
                self.fault = self.fault or _as_ours(row, error)

    def _ack(self, row: Shared, one: Content | None) -> None:
        """Write an ack unless there is one; what is there then is what the scope is told."""
        if one is None:
            return
        promotion = f"{row.name.removesuffix('_ack.json')}.json"
        name = ack_name(stem_of(self._own.named("promotions", promotion)))
        path = self._own.path("acks", name)
        try:
            os.makedirs(self._own.acks, mode=0o700, exist_ok=True)
        except OSError as error:
            raise files.unwritable(self._own.acks, error) from error
        if os.path.lexists(path) or not files.create(path, one.data, mode=_MODE):
            theirs = self._own.ack(name, row.name)
            if theirs is not None and theirs["sha256"] != one.sha256:
                self._changes.found.append(theirs)
                return
        self._changes.delivered.append(("acks", row.name, "done", ""))

    def _intent(self, row: Shared, one: Content | None) -> None:
        if one is None:
            return
        files.make_folder(self._own.intents)
        path = self._own.path("intents", row.name)
        files.create(path, one.data)
        self._changes.delivered.append(("intents", row.name, "there", mark_of(path) or ""))

    def _file(self, row: Shared, one: Content | None) -> None:
        """Move a decided intent, after its line in a log if it is a note; what has another content by now is another one."""
        decided = filing.Decided(row.name, row.content_sha, row.filed_as, row.decided_at, row.intent_type)
        entry = self._own.named("intents", row.name)
        if not row.mark and one is not None and not self._is_filed(row, one):  # decided on before it was ever put in place
            files.make_folder(self._own.intents)
            files.create(self._own.path("intents", entry), one.data)
        filing.finish(self._own.intents, entry, self._state_dir, decided, repeated=True)
        self._changes.withdraw.append((row.folder, row.name, "filed"))

    def _is_filed(self, row: Shared, one: Content) -> bool:
        try:
            with open(self._own.path("intents", os.path.join("processed", row.filed_as, row.name)), "rb") as file:
                return file.read() == one.data
        except FileNotFoundError:
            return False


def _as_ours(row: Shared, error: KlorosError | OSError) -> KlorosError:
    if isinstance(error, KlorosError):
        return error
    return Unwritable(f"{row.name} can't be put where it belongs: {error.strerror}", hint="klorosctl doctor")
