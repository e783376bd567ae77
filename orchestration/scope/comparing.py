"""Finds how a host's folders differ from its rows, for the store to be told. Imported when they may differ; changes nothing.

What lies on the host's disk is right about the past: a promotion with an ack is answered, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from orchestration.errors import KlorosError, Unwritable
from orchestration.intents.inbox import list_names
from orchestration.promotions.scan import ack_name, compare, stem_of
from orchestration.scope.marks import mark_of
from orchestration.scope.mirror import Shared
from orchestration.scope.own_files import Local, OwnFiles, by_answer

_FILES_PER_TICK, _BYTES_PER_TICK = 5000, 64 * 1024 * 1024

Rows = Mapping[tuple[str, str], Shared]
"""A host's own, by folder and name."""


class Changes(NamedTuple):
    """What is to be told to the store."""

    share: list[Local]
    touch: list[tuple[str, str, str]]  # folder, name, mark
    withdraw: list[tuple[str, str, str]]  # folder, name, the state it stands in
    found: list[dict[str, object]]  # acks that lie here
    delivered: list[tuple[str, str, str, str]]  # folder, name, new state, mark


class Comparison:
    """One comparison of a host's folders with its rows."""

    def __init__(self, own: OwnFiles, mine: Rows, changes: Changes, older: Mapping[str, str]) -> None:
        """Take what there is, and what putting back has changed of it, to which the differences are added."""
        self._own, self._mine, self._changes = own, mine, changes
        self._room = _BYTES_PER_TICK
        self.older = dict(older)
        """Acks of the older forms that were ever opened: file name → the id that it answers."""
        self.is_whole = True
        """Whether all was looked at, and nothing is to be looked at again."""
        self.fault: KlorosError | None = None

    def run(self) -> None:
        """Compare; a folder that can't be listed is left as the store knows it."""
        for part in (self._promotions, self._intents):
            try:
                part()
            except Unwritable as error:
                self.fault = self.fault or error

    def _promotions(self) -> None:
        names, acks = self._own.names("promotions"), self._own.names("acks")
        listing = compare(names, acks)
        unacked = {self._own.key(name): name for name in listing.unacked}
        answered_by = self._answered_by(unacked, listing.others)
        acked_now = {str(one["name"]) for one in self._changes.found} | {one[1] for one in self._changes.delivered}
        for key, name in unacked.items():
            if key in answered_by:
                continue
            ack = self._mine.get(("acks", ack_name(stem_of(key))))
            if ack is not None and ack.state == "done" and ack.name not in acked_now:
                self._changes.withdraw.append(("acks", ack.name, "done"))  # it was taken away: its promotion is to go again
            self._file("promotions", key, name, self._mine.get(("promotions", key)))
        own_acks = set(acks)
        for (folder, key), row in self._mine.items():
            if folder != "promotions" or (key in unacked and key not in answered_by):
                continue
            self._changes.withdraw.append(("promotions", key, row.state))
            ours = ack_name(stem_of(key))
            theirs = answered_by.get(key, ours if ours in own_acks else "")
            if theirs and ("acks", ours) not in self._mine and (one := self._own.ack(theirs, ours)) is not None:
                self._changes.found.append(one)

    def _answered_by(self, unacked: Mapping[str, str], others: list[str]) -> dict[str, str]:
        """Return which of these an ack of an older form answers: key → the ack's name."""
        if not others:
            return {}
        self.older = self._own.older_answers(others, self.older)
        older = by_answer(self.older)
        found = {key: self._own.answered_by(name, older) for key, name in unacked.items()} if older else {}
        return {key: answer for key, answer in found.items() if answer}

    def _intents(self) -> None:
        ended = {name for folder, name, _ in self._changes.withdraw if folder == "intents"}
        present = {self._own.key(name): name for name in list_names(self._own.intents)}
        for key, name in present.items():
            row = self._mine.get(("intents", key))
            if row is not None and row.state != "there":
                if key not in ended:
                    continue  # its file is still to be moved, or has just been put there
                row = None
            self._file("intents", key, name, row)
        for (folder, key), row in self._mine.items():
            if folder == "intents" and row.state == "there" and key not in present:
                self._changes.withdraw.append(("intents", key, "there"))

    def _file(self, folder: str, key: str, name: str, row: Shared | None) -> None:
        mark = mark_of(self._own.path(folder, name))
        if mark is None or (row is not None and row.mark == mark and not row.stand_in):
            return
        if len(self._changes.share) >= _FILES_PER_TICK or self._room <= 0:
            self.is_whole = False
            return
        take = self._own.promotion if folder == "promotions" else self._own.intent
        taken = take(key, name, mark)
        if taken is None:
            self.is_whole = False
        elif row is None or (row.sha256, row.stand_in) != (taken.sha256, taken.stand_in):
            self._changes.share.append(taken)
            self._room -= len(taken.data)
        elif row.mark != mark:
            self._changes.touch.append((folder, key, mark))
