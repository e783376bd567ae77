"""A host's side of what a scope shares: brings its own files up to the store, and puts back what the scope answers.

Owns the folders of one host: `promotions/`, `promotions_ack/`, `intents/`. In `shared_files` a host has one row for each
promotion of its own without an ack, for each intent that lies in its inbox, and for what is on its way back to it:

    promotions   there (until it has an ack, or is taken away)
    intents      there ──decided──► filed ──moved by its host──► (gone)          given ──put in place──► there
    acks         given ──written by its host──► done ──no cycle needs it──► (gone)

Every tick compares the folders with the rows and shares the difference: nothing is remembered of what was done, so a tick
that was killed, doubled or missed for a day changes nothing in the end. What lies on the host's disk is right about the
past: an ack that is there stays, whoever wrote it, and is what the scope believes from then on. A million answered
promotions cost nothing but a listing, and that only when the change time of a folder is another one; once an hour in any
case.

`known.json` keeps the rows as they were under a revision of the table, and the change times under which they agreed with
the folders. It only saves work: without it everything is asked for and looked at again.

On the path of every tick of a scope, so what is needed when something is new has modules of its own: `comparing.py`,
`putting_back.py`. Refuses to know what is decided. The leader's side is `mirror.py`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

from orchestration.errors import KlorosError
from orchestration.host import files
from orchestration.promotions.scan import ack_name
from orchestration.scope.marks import SETTLED, base64_of, changed_at, mark_of, sha_of
from orchestration.scope.mirror import Content, Mirror, Shared, contents, in_batches, origin_of
from orchestration.store.port import Database

if TYPE_CHECKING:
    from datetime import datetime

    from orchestration.scope.comparing import Changes
    from orchestration.scope.own_files import Local
    from orchestration.settings import Settings

_KNOWN = "known.json"
_LOOKS_ANYWAY = 3600.0  # seconds after which folders are looked at although nothing tells that they have changed


class _Known(NamedTuple):
    """What the last look left."""

    revision: str = ""
    everything: bool = False
    rows: tuple[Shared, ...] = ()
    agreed: Mapping[str, int] = {}  # folder → its change time when it agreed with the rows
    agreed_at: float = 0.0
    older: Mapping[str, str] = {}  # acks of the older forms: file name → the id that it answers


class Sharing:
    """One host's part in what its scope shares."""

    def __init__(self, settings: Settings, db: Database, here: str, *, boot_id: str, mirror: Mirror | None = None) -> None:
        """Take the host's settings and its store.

        Args:
            here: the host's name in the scope.
            mirror: by default that in `scope` in the state folder, which is the tick's, under its lock.
        """
        self._settings, self._db, self.here = settings, db, here
        self.mirror = mirror or Mirror(os.path.join(settings.state_dir, "scope"), boot_id=boot_id)
        self._known: _Known | None = None
        self._kept: _Known | None = None  # as `known.json` has it
        self.is_answered = False  # this process has put something on its way to a host
        self.fault: KlorosError | None = None
        """What kept a file of this host from its place, to be raised when all else is done."""

    def exchange(self, *, leading: bool = False) -> None:
        """Put back what the scope has answered, and share what is new; the leader's mirror then says what the store says.

        Costs one query and a look at three folders' change times when nothing is new.

        Raises:
            StoreUnreachable: nothing is lost; the next tick goes on there.
            LeaseLost: as of every write.
            Unwritable: the mirror can't be written. What is wrong with this host's own folders is held in `fault`.
        """
        self.fault = None
        self._look(everything=leading)
        changes, agreed = self._differences()
        swept = self._sweep() if leading else False
        if changes:
            self._tell(changes)
        if changes or swept:
            self._look(everything=leading)
        self._remember(agreed)
        if leading:
            self.mirror.keep_up(self._db, list(self._rows))

    def settled_here(self) -> list[str]:
        """Name the folders of cycles of this host that are settled, and whose manifests are to be written."""
        return [row.name.partition("/")[0] for row in self._mine() if row.folder == "cycles" and row.state == "filed"]

    def forget(self, folder: str) -> None:
        """Let go of one of them."""
        self._db.run("shared_files.withdraw", files=json.dumps([("cycles", f"{folder}/manifest.json", "filed")]))

    def look(self) -> None:
        """Make the mirror what the store says, and leave the host's own folders alone: for people who look or answer."""
        self._look(everything=True)
        self.mirror.keep_up(self._db, list(self._rows))

    # ── What the scope answers ─────────────────────────────────────────────────────────────────────────────────────────

    def answer(self, stems: Iterable[str]) -> bool:
        """Share the acks that lie in the mirror for these promotions, before anything rests on them.

        From then on they stand, whoever leads; each waits for its host. One that somebody else has answered meanwhile keeps
        that answer, which then lies in the mirror.

        Returns:
            False when one of them had another answer: what the caller has made of it holds no more.

        Raises:
            LeaseLost: another leads by now, and answers for itself.
        """
        given = [one for stem in stems if (one := self._ack_in_mirror(stem)) is not None]
        if not given:
            return True
        self.is_answered = True
        with self._db.transaction():
            new = self._give(given)
        keys = [(str(one["host"]), "acks", str(one["name"])) for one in given]
        old = [Shared(*key) for key in keys if key not in new]
        ours = {key: one["sha256"] for key, one in zip(keys, given, strict=True)}
        theirs = [found for key, found in contents(self._db, old).items() if found.sha256 != ours[key]]
        for found in theirs:
            self.mirror.put(found)
        return not theirs

    def give_intents(self, left: Iterable[tuple[str, bytes]], *, now: datetime) -> None:
        """Put intents of our own making (name, content) into this host's inbox and the mirror. Inside a transaction."""
        from orchestration.intents.document import parse

        given: list[dict[str, object]] = []
        for name, data in left:
            when, sha = now.timestamp(), sha_of(data)
            found = {"host": self.here, "folder": "intents", "name": name, "sha256": sha, "content": base64_of(data)}
            given.append({**found, "content_sha": parse(data).content_sha, "changed_at": when})
            self.mirror.put(Content(self.here, "intents", name, sha, "", when, data))
        if given:
            self.is_answered = True
            self._give(given)

    def _give(self, given: list[dict[str, object]]) -> set[tuple[str, str, str]]:
        rows = self._db.rows("shared_files.give", files=json.dumps(given))
        return {(str(row["host"]), str(row["folder"]), str(row["name"])) for row in rows}

    def _ack_in_mirror(self, stem: str) -> dict[str, object] | None:
        from orchestration.scope.own_files import read_ack

        name = ack_name(stem)
        host, own = origin_of(name)
        found = read_ack(self.mirror.path("acks", name), own)
        return found and {**found, "host": host or self.here, "folder": "acks", "content_sha": ""}

    # ── What the store says ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _rows(self) -> tuple[Shared, ...]:
        assert self._known is not None
        return self._known.rows

    def _mine(self) -> list[Shared]:
        return [row for row in self._rows if row.host == self.here]

    def _look(self, *, everything: bool) -> None:
        """Bring `_known` up to the store."""
        if self._known is None:
            self._known = self._kept = self._recalled()
        known = self._known
        usable = known.revision if known.everything or not everything else ""
        (row,) = self._db.rows("shared_files.look", known=usable, everything=int(everything))
        if row["listing"] is None:
            return
        rows = tuple(Shared(*one) for one in json.loads(cast("str", row["listing"])))
        self._known = known._replace(revision=str(row["revision"]), everything=everything, rows=rows, agreed_at=0.0)

    def _recalled(self) -> _Known:
        try:
            with open(self.mirror.path(_KNOWN), encoding="utf-8") as file:
                found = json.load(file)
            return _Known(**found)._replace(rows=tuple(Shared(*row) for row in found["rows"]))
        except (OSError, ValueError, TypeError, KeyError):
            return _Known()

    def _remember(self, agreed: dict[str, int] | None) -> None:
        """Keep what is known, if it is other than what was kept."""
        assert self._known is not None
        if agreed is not None:
            self._known = self._known._replace(agreed=agreed, agreed_at=time.time())
        if self._known == self._kept:
            return
        self._kept = self._known
        files.make_folder(self.mirror.folder)
        content = {**self._known._asdict(), "rows": [list(row) for row in self._known.rows]}
        files.replace(self.mirror.path(_KNOWN), json.dumps(content).encode(), durable=False)

    def _sweep(self) -> bool:
        if not any((row.folder, row.state) in (("cycles", "there"), ("acks", "done")) for row in self._rows):
            return False
        return bool(self._db.run("shared_files.sweep"))

    # ── What lies here ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _differences(self) -> tuple[Changes | None, dict[str, int] | None]:
        """Put back what waits, and find how the folders differ from the rows.

        Returns:
            What is to be told, if anything; the folders' change times if these can be relied on later, {} if they can't,
            None if nothing was looked at.
        """
        assert self._known is not None
        own = self._own_folders()
        times = {folder: changed_at(path) for folder, path in own.items()}
        waiting = [row for row in self._mine() if row.state in ("given", "filed") and row.folder != "cycles"]
        if not waiting and self._agrees(own, times):
            return None, None
        from orchestration.scope.comparing import Changes, Comparison
        from orchestration.scope.own_files import OwnFiles
        from orchestration.scope.putting_back import PuttingBack

        looked_at = time.time()
        changes, folders = Changes([], [], [], [], []), OwnFiles(self.here, **own)
        putting_back = PuttingBack(folders, self._settings.state_dir, changes)
        putting_back.run(self._db, waiting)
        mine = {(row.folder, row.name): row for row in self._mine()}
        comparison = Comparison(folders, mine, changes, self._known.older)
        comparison.run()
        self._known = self._known._replace(older=comparison.older)
        self.fault = putting_back.fault or comparison.fault
        settled = all(changed < (looked_at - SETTLED) * 1e9 for changed in times.values())
        whole = settled and putting_back.is_whole and comparison.is_whole and self.fault is None
        return changes if any(changes) else None, times if whole else {}

    def _own_folders(self) -> dict[str, str]:
        settings = self._settings
        intents = os.path.join(settings.state_dir, "intents")
        return {"promotions": settings.promotions_dir, "acks": settings.acks_dir, "intents": intents}

    def _agrees(self, own: Mapping[str, str], times: Mapping[str, int]) -> bool:
        """Tell whether the folders can't differ from the rows."""
        known = self._known
        assert known is not None
        if known.agreed != times or not 0 <= time.time() - known.agreed_at < _LOOKS_ANYWAY:
            return False
        shared = [row for row in self._mine() if row.folder in ("promotions", "intents")]
        return all(not row.stand_in and mark_of(os.path.join(own[row.folder], row.name)) == row.mark for row in shared)

    def _tell(self, changes: Changes) -> None:
        """Tell the store, what ends first. Every statement compares for itself, so each part may be told again."""
        batches = in_batches(changes.share, lambda one: len(one.data))
        with self._db.transaction():
            for query, part in (
                ("shared_files.withdraw", changes.withdraw),
                ("shared_files.delivered", changes.delivered),
                ("shared_files.found", changes.found),
                ("shared_files.touch", changes.touch),
            ):
                if part:
                    self._db.run(query, files=json.dumps(part))
            if batches:
                self._share(batches[0])
        for batch in batches[1:]:
            with self._db.transaction():
                self._share(batch)

    def _share(self, batch: list[Local]) -> None:
        self._db.run("shared_files.share", files=json.dumps([one.as_row() for one in batch]))
