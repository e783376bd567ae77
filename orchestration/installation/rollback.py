"""Taking back rollouts: what becomes of each path, version and unit, said first and then done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from orchestration.installation import files, metrics_folder, versions
from orchestration.installation.files import WATCHING, Look
from orchestration.installation.record import RECORD, Place, Refused, Rollout
from orchestration.installation.step import Step
from orchestration.installation.units import Units

_OWN_ENTRIES = ("bin", "versions", "rollouts")


class Change(NamedTuple):
    """What rollouts did to one path; `after` None: nobody knows any more what they left there."""

    before: Look
    after: Look | None
    kept: str  # file with the bytes before; empty when there are none


class Undoing:
    """Taking back rollouts: the newest one, or all of them with everything that a lost record would have named."""

    def __init__(self, place: Place, rollouts: Sequence[Rollout], *, force: bool) -> None:
        """Take the rollouts that go, oldest first; what an operator changed since stays, unless `force`."""
        self.place = place
        self.rollouts = rollouts
        self.force = force
        self.target = rollouts[0].previous if rollouts else ""
        """The version that runs afterwards; empty for none."""
        self.user = bool(rollouts) and rollouts[-1].content["kind"] == "user"
        self.changes: dict[str, Change] = {}
        for rollout in rollouts:
            for path, change in rollout.paths.items():
                kept = change["kept"] and os.path.join(rollout.folder, change["kept"])
                found = Change(change["before"], change["after"], kept)
                self.changes[path] = self.changes.get(path, found)._replace(after=change["after"])

    @classmethod
    def of_everything(cls, place: Place, paths: Iterable[str], *, user: bool) -> Undoing:
        """Go back to no installation; of these paths it takes for created what no record says otherwise of."""
        try:
            undoing = cls(place, place.records(), force=True)
        except Refused:
            shutil.rmtree(place.rollouts)
            undoing = cls(place, [], force=True)
        undoing.changes = {path: Change({}, None, "") for path in paths} | undoing.changes
        if undoing.target:  # the oldest record is of an upgrade of something that kept none
            undoing.changes = {path: change._replace(before={}) for path, change in undoing.changes.items()}
        undoing.target, undoing.user = "", user
        return undoing

    @property
    def versions(self) -> list[str]:
        """The versions that go."""
        if not self.target:
            return versions.installed(self.place)
        return sorted({rollout.version for rollout in self.rollouts} - {self.target})

    def steps(self) -> list[Step]:
        """Say what becomes of each thing. Changes nothing."""
        found = [self._step(path) for path in self._in_order()]
        found += [versions.removal(self.place, name) for name in self.versions]
        if not self.target:
            found += self._kept()
        return found

    def check(self) -> None:
        """Raise Refused where going back can't lead to a program that works."""
        self.place.refuse_half_removed()
        if self.target and not os.path.exists(os.path.join(self.place.version(self.target), ".complete")):
            raise Refused(
                f"the version before, {self.target}, is no longer in {self.place.base}/versions",
                "install it again from its source, or remove all: install.sh --uninstall",
            )
        changed = [path for path in self.changes if self._launches(path) and self._step(path).action == "leave"]
        if self.target and changed:
            raise Refused(f"changed since: {', '.join(changed)}", "look at them; --force overwrites them")

    def undo(self, tell: Callable[[Step], object], *, at_rest: Callable[[], object] | None = None) -> None:
        """Do it, and tell each step. `at_rest` is called where nothing ticks or serves and the older program is in place."""
        for rollout in reversed(self.rollouts):  # where the newest alone is marked, nothing has been changed
            rollout.content["undoing"] = True
            if at_rest is not None:
                rollout.content.setdefault("paused", self._units.at_work())
            rollout.save()
        if at_rest is not None:
            self._units.systemctl("stop", *self._units.at_work())
        self._units.stop_for_good(self._created_units())
        paths = self._in_order()
        launchers = [path for path in paths if self._launches(path)]
        others = [path for path in paths if path not in launchers]
        # Whatever starts meanwhile gets the older program; without one, this command can be given again to the end.
        for path in [*launchers, *others] if self.target else others:
            tell(self._change(path))
        if not self.target and not self.user:
            metrics_folder.close()
        self._take_up_units()
        if at_rest is not None:
            at_rest()
        paused = {unit for rollout in self.rollouts for unit in rollout.content.get("paused", [])}
        if going := self._units.existing(sorted(paused)):
            self._units.systemctl("start", *going)
        for path in [] if self.target else launchers:
            tell(self._change(path))
        self._remove_records()
        # Last, because this program may run from one of them.
        for name in self.versions:
            step = versions.removal(self.place, name, patience=3.0)
            if step.action == "remove":
                versions.remove(self.place, name)
            tell(step)
        if not self.target:
            for entry in (*_OWN_ENTRIES, ""):
                with suppress(OSError):
                    os.rmdir(os.path.join(self.place.base, entry))

    def _remove_records(self) -> None:
        for folder in sorted({one for rollout in self.rollouts for one in rollout.content["folders"]}, reverse=True):
            with suppress(OSError):
                os.rmdir(folder)
        for rollout in reversed(self.rollouts):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(rollout.folder, RECORD))
            shutil.rmtree(rollout.folder, ignore_errors=True)

    # single things

    def _launches(self, path: str) -> bool:
        """Tell whether a path is how the program is started."""
        link = (self.changes[path].after or {}).get("link", "")
        return os.path.dirname(path) == os.path.join(self.place.base, "bin") or link.startswith(f"{self.place.base}/")

    def _in_order(self) -> list[str]:
        return sorted(self.changes, key=lambda path: (not files.is_unit(path), path))

    def _step(self, path: str) -> Step:
        before, after, _ = self.changes[path]
        now, kind = files.look(path), "unit" if files.is_unit(path) else "file"
        if not now and not before:
            return Step(kind, path, "done", "is gone already")
        if now == before:
            return Step(kind, path, "done", "is as it was before")
        action = "restore" if before else "remove"
        if after is None or self.force or not now or now == after:
            return Step(kind, path, action)
        return Step(kind, path, "leave", "changed since; --force goes over it")

    def _change(self, path: str) -> Step:
        step, change = self._step(path), self.changes[path]
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(files.temporary_name(path))  # of an installation that was killed
        if step.action == "remove":
            with suppress(FileNotFoundError):
                os.unlink(path)
        elif step.action == "restore":
            files.put(path, change.before, change.kept)
        return step

    def _kept(self) -> Iterator[Step]:
        about = self.rollouts[-1].content if self.rollouts else {}
        for kind in ("state", "settings"):
            if about.get(kind) and os.path.exists(about[kind]):
                yield Step(kind, about[kind], "keep", "cycles, store, history, acks" if kind == "state" else "")
        if about and not self.user:
            yield Step("user", "kloros", "keep", "owns the state")
        if about.get("packages"):
            yield Step("packages", " ".join(about["packages"]), "keep", "other programs may use them by now")

    # systemd

    @property
    def _units(self) -> Units:
        return Units(self.rollouts[-1].content["unit_folder"] if self.rollouts else "", self.user)

    def active(self) -> list[str]:
        """Name the units that are at work and go; systemd stops them."""
        return self._units.active(self._created_units())

    def _created_units(self) -> list[str]:
        paths = [
            path for path, change in self.changes.items() if files.is_unit(path) and not change.before and "@" not in path
        ]
        names = (os.path.basename(path) for path in paths if os.path.lexists(path))
        return sorted(names, key=lambda unit: (not unit.endswith(WATCHING), unit))

    def _take_up_units(self) -> None:
        if self.target:
            changed = [path for path in self.changes if path.endswith(WATCHING) and os.path.lexists(path)]
            self._units.take_up([os.path.basename(path) for path in changed])
        else:
            self._units.forget()
