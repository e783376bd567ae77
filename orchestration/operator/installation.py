"""What install.sh put on this host, on record, and how it is taken back.

A rollout is one run of install.sh that changed something. It lays all its files into a stage first; `apply` compares the
stage with the host, keeps what would be overwritten, writes the record, and only then changes the host. `undo` goes back by
the newest record, `remove_all` by all of them. Every step may be repeated, so what was killed is finished by calling again.

install.sh runs this file itself, before there is any environment, so it imports the standard library alone. Records are in
the installation's own folder, not in the state: root acts on them, and the state belongs to the user that cycles run as.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import os
import re
import select
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

RECORD = "record.json"
METRICS = "/var/lib/prometheus/node-exporter"  # of Debian's package prometheus-node-exporter
_OWN_ENTRIES = ("bin", "versions", "rollouts")
_VERSION_ENTRY = re.compile(rb"/versions/([^/\s]+)/")
_MODE = re.compile(rb"^Environment=KLR_ORCHESTRATION_MODE=(\w*)$", re.MULTILINE)
_ENABLED = b"Environment=KLR_ORCHESTRATION_MODE=enabled"
_WATCHING = (".timer", ".path", ".socket")
_SERVING = ("kloros-pulse.service", "kloros-bridge.service", "kloros-supervisor.service")  # at work all day, on the store

Look = dict[str, Any]
"""What is at a path: `{}` for nothing, `{"link": target}`, or `{"sha256": …, "mode": …}`."""


class Refused(Exception):
    """What was asked for is not done, and nothing has been changed. The second argument says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Step(NamedTuple):
    """One thing that a rollback meets, and what becomes of it."""

    kind: str  # unit, file, version, store, settings, state, user, packages
    name: str
    action: str  # remove, restore, leave, keep, done
    why: str = ""


class Rollout(NamedTuple):
    """One record."""

    folder: str
    content: dict[str, Any]

    @property
    def number(self) -> int:
        return int(os.path.basename(self.folder))

    @property
    def version(self) -> str:
        return str(self.content["version"])

    @property
    def previous(self) -> str:
        """The version that ran before; empty when there was none."""
        return str(self.content["previous"])

    @property
    def paths(self) -> dict[str, dict[str, Any]]:
        """For each path `before` and `after`, each a Look; the bytes of a file before are in the file `kept`."""
        found: dict[str, dict[str, Any]] = self.content["paths"]
        return found

    def save(self) -> None:
        """Write the record whole, and have it on disk."""
        text = json.dumps(self.content, indent=1, sort_keys=True) + "\n"
        _write(os.path.join(self.folder, RECORD), text.encode(), 0o644)


class Place(NamedTuple):
    """Where an installation is."""

    base: str

    @property
    def rollouts(self) -> str:
        return os.path.join(self.base, "rollouts")

    def version(self, name: str) -> str:
        """Return the folder of a version."""
        return os.path.join(self.base, "versions", name)

    def records(self) -> list[Rollout]:
        """Return every rollout that has not been taken back, oldest first."""
        found = []
        for folder in sorted(glob.glob(os.path.join(glob.escape(self.rollouts), "[0-9]" * 4))):
            try:
                with open(os.path.join(folder, RECORD), encoding="utf-8") as file:
                    found.append(Rollout(folder, json.load(file)))
            except FileNotFoundError:
                continue  # killed before the record was written: nothing had been changed
            except ValueError as error:
                raise Refused(
                    f"{folder}/{RECORD} can't be read: {error}", "install.sh --uninstall goes without it"
                ) from error
        return found

    def refuse_half_removed(self) -> None:
        """Raise Refused where `install.sh --uninstall` was interrupted: of every version, some files are gone."""
        if any(rollout.content["undoing"] for rollout in self.records()[:-1]):
            raise Refused(f"an uninstallation of {self.base} was interrupted", "finish it: install.sh --uninstall")

    def running(self) -> str:
        """Return the version to which bin/python leads; empty for none."""
        try:
            with open(os.path.join(self.base, "bin", "python"), "rb") as file:
                found = _VERSION_ENTRY.search(file.read(65536))
        except OSError:
            return ""
        return found[1].decode() if found else ""


# --- doing -----------------------------------------------------------------------------------------------------


def apply(place: Place, stage: str, about: dict[str, Any]) -> Rollout | None:
    """Bring what is in the stage to the host, on record; None when all of it is there already.

    A rollout that was killed is gone on with: what was before it stays what was before.
    """
    place.refuse_half_removed()
    records = place.records()
    newest = records[-1] if records else None
    changes = {path: (found, _look(path)) for path, found in _staged(stage)}
    changes = {path: (after, before) for path, (after, before) in changes.items() if after != before}
    if newest is not None and (newest.content["undoing"] or not newest.content["complete"]):
        rollout = newest
        # A copy that the newer version may have been at is none to go back to; nor is one made while going back waits.
        if place.running() == rollout.previous and "paused" not in rollout.content:
            rollout.content["backup"] = about["backup"] or rollout.content["backup"]
        rollout.content.update(version=about["version"], complete=False, undoing=False)
    elif changes:
        number = newest.number + 1 if newest else 1
        folder = os.path.join(place.rollouts, f"{number:04d}")
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder, mode=0o755)
        start = {"paths": {}, "folders": [], "complete": False, "undoing": False, "previous": place.running()}
        rollout = Rollout(folder, {**about, **start, "at": _now()})
    else:
        return None
    for path, (after, before) in sorted(changes.items()):
        if path in rollout.paths:
            rollout.paths[path]["after"] = after
            continue
        kept = ""
        if "sha256" in before:
            kept = f"{len(rollout.paths):04d}"
            _write(os.path.join(rollout.folder, kept), _read(path), before["mode"])
        rollout.paths[path] = {"before": before, "after": after, "kept": kept}
        rollout.content["folders"] += [folder for folder in _absent_above(path) if folder not in rollout.content["folders"]]
    rollout.save()
    for path, (after, _) in changes.items():
        _put(path, after, stage + path)
    return rollout


def finish(rollout: Rollout) -> None:
    """Mark a rollout as complete; what a rollback of it had stopped, before it was killed, goes on."""
    if stopped := rollout.content.get("paused"):
        _systemctl("start", *stopped, user=rollout.content["kind"] == "user")
    rollout.content.pop("paused", None)
    rollout.content["complete"] = True
    rollout.save()


def created(rollout: Rollout, folder: str) -> list[str]:
    """Name the files in a folder that were not there before a rollout."""
    return [
        os.path.basename(path)
        for path, change in rollout.paths.items()
        if os.path.dirname(path) == folder and not change["before"]
    ]


def _staged(stage: str) -> Iterator[tuple[str, Look]]:
    for folder, folders, names in os.walk(stage):
        for name in [*names, *(one for one in folders if os.path.islink(os.path.join(folder, one)))]:
            path = os.path.join(folder, name)
            yield path[len(stage) :], _look(path)


# --- undoing ---------------------------------------------------------------------------------------------------


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
            return _listed(os.path.join(self.place.base, "versions"))
        return sorted({rollout.version for rollout in self.rollouts} - {self.target})

    def steps(self) -> list[Step]:
        """Say what becomes of each thing. Changes nothing."""
        found = [self._step(path) for path in self._in_order()]
        found += [self._version_step(name) for name in self.versions]
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
                rollout.content.setdefault("paused", self._at_work())
            rollout.save()
        if at_rest is not None:
            self.systemctl("stop", *self._at_work())
        self._stop_created()
        paths = self._in_order()
        launchers = [path for path in paths if self._launches(path)]
        others = [path for path in paths if path not in launchers]
        # Whatever starts meanwhile gets the older program; without one, this command can be given again to the end.
        for path in [*launchers, *others] if self.target else others:
            tell(self._change(path))
        if not self.target and not self.user:
            _close_metrics_folder()
        self._reload()
        if at_rest is not None:
            at_rest()
        paused = {unit for rollout in self.rollouts for unit in rollout.content.get("paused", [])}
        if going := sorted(unit for unit in paused if os.path.lexists(self._unit_path(unit))):
            self.systemctl("start", *going)
        for path in [] if self.target else launchers:
            tell(self._change(path))
        self._remove_records()
        # Last, because this program may run from one of them.
        for name in self.versions:
            step = self._version_step(name, patience=3.0)
            if step.action == "remove":
                remove_version(self.place, name)
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
        return sorted(self.changes, key=lambda path: (not _is_unit(path), path))

    def _step(self, path: str) -> Step:
        before, after, _ = self.changes[path]
        now, kind = _look(path), "unit" if _is_unit(path) else "file"
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
            os.unlink(_beside(path))  # of an installation that was killed
        if step.action == "remove":
            with suppress(FileNotFoundError):
                os.unlink(path)
        elif step.action == "restore":
            _put(path, change.before, change.kept)
        return step

    def _version_step(self, name: str, *, patience: float = 0.0) -> Step:
        folder = self.place.version(name)
        deadline = time.monotonic() + patience  # a tick that has just begun ends within it
        while (pids := _running_from(folder)) and (left := deadline - time.monotonic()) > 0:
            _await_end(pids[0], left)
        if pids:
            return Step("version", folder, "leave", f"process {pids[0]} runs from it; the next install.sh removes it")
        return Step("version", folder, "remove")

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

    def _created_units(self) -> list[str]:
        paths = [path for path, change in self.changes.items() if _is_unit(path) and not change.before and "@" not in path]
        return sorted((os.path.basename(path) for path in paths if os.path.lexists(path)), key=_watches)

    def _stop_created(self) -> None:
        if units := self._created_units():
            self.systemctl("stop", *units)
            self.systemctl("disable", "--quiet", *units)

    def active(self) -> list[str]:
        """Name the units that are at work and go; systemd stops them."""
        units = self._created_units()
        said = self.systemctl("is-active", *units)[1].split() if units else []
        return [unit for unit, state in zip(units, said, strict=False) if state in ("active", "activating", "deactivating")]

    def _unit_path(self, unit: str) -> str:
        return os.path.join(self.rollouts[-1].content["unit_folder"], unit)

    def _at_work(self) -> list[str]:
        """Name our units that start others or serve, and are active."""
        names = [os.path.basename(path) for path in glob.glob(self._unit_path("kloros-*"))]
        names = [name for name in names if name.endswith(_WATCHING) or name in _SERVING]
        said = self.systemctl("is-active", *names)[1].split() if names else []
        return sorted(name for name, state in zip(names, said, strict=False) if state == "active")

    def _reload(self) -> None:
        self.systemctl("daemon-reload")
        if not self.target:
            self.systemctl("reset-failed", "kloros-*")
            return
        changed = [os.path.basename(path) for path in self.changes if path.endswith(_WATCHING) and os.path.lexists(path)]
        serving = [unit for unit in _SERVING if os.path.lexists(self._unit_path(unit))]
        if changed or serving:
            self.systemctl("try-restart", *changed, *serving)

    def systemctl(self, *arguments: str) -> tuple[int, str]:
        """Ask this installation's systemd."""
        return _systemctl(*arguments, user=self.user)


def _systemctl(*arguments: str, user: bool) -> tuple[int, str]:
    """Ask systemd; what it can't do where it does not run is done at the next boot."""
    environ = {"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}", **os.environ}
    command = ["systemctl", *(("--user",) if user else ()), "--no-pager", *arguments]
    try:
        done = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        return 127, str(error)
    return done.returncode, (done.stdout or done.stderr).strip()


def remove_version(place: Place, name: str) -> None:
    """Remove the folder of a version; one that was begun no longer counts as a version."""
    folder = place.version(name)
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, ".complete"))
    shutil.rmtree(folder, ignore_errors=True)


def remove_old_versions(place: Place) -> list[Step]:
    """Remove the versions to which neither bin/ leads nor a rollback would go, unless a process runs from them."""
    records = place.records()
    needed = {place.running(), *(() if not records else (records[-1].version, records[-1].previous))}
    steps = []
    for name in _listed(os.path.join(place.base, "versions")):
        if name in needed:
            continue
        if _running_from(place.version(name)):
            steps.append(Step("version", name, "leave", "until the cycle that runs from it has ended and you install again"))
        else:
            remove_version(place, name)
    return steps


def known_schema(place: Place, version: str) -> int | None:
    """Return the newest schema of the store that a version knows, or None when that can't be told."""
    pattern = "lib/python3*/site-packages/orchestration/store/migrations/[0-9][0-9][0-9][0-9]_*.sql"
    found = glob.glob(os.path.join(glob.escape(place.version(version)), pattern))
    return max((int(os.path.basename(path)[:4]) for path in found), default=None)


def _running_from(folder: str) -> list[int]:
    needle, own, found = f"{folder}/".encode(), {os.getpid(), os.getppid()}, []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        pid = int(path.split("/")[2])
        with suppress(OSError), open(path, "rb") as file:
            if needle in file.read() and pid not in own:
                found.append(pid)
    return found


def _await_end(pid: int, seconds: float) -> None:
    with suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            select.select([process], [], [], seconds)
        finally:
            os.close(process)


def _close_metrics_folder() -> None:
    """Take back what install.sh's `open_metrics_folder` did, if it is as it left it."""
    if shutil.which("dpkg-statoverride") is None:
        return
    listed = subprocess.run(
        ["dpkg-statoverride", "--list", METRICS], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if not listed.stdout.startswith("root kloros 775 "):
        return
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(METRICS, "kloros.prom"))
    if os.path.isdir(METRICS):
        os.chown(METRICS, -1, 0)
        os.chmod(METRICS, 0o755)  # noqa: S103  # as Debian's package has it
    # Last: it is what tells that the folder is open.
    subprocess.run(["dpkg-statoverride", "--quiet", "--remove", METRICS], stdin=subprocess.DEVNULL, check=True)


# --- files -----------------------------------------------------------------------------------------------------


def _watches(unit: str) -> tuple[bool, str]:
    return not unit.endswith(_WATCHING), unit


def _is_unit(path: str) -> bool:
    return "/systemd/" in path and path.endswith((".service", *_WATCHING))


def _look(path: str) -> Look:
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    if stat.S_ISLNK(found.st_mode):
        return {"link": os.readlink(path)}
    if not stat.S_ISREG(found.st_mode):
        return {"other": stat.filemode(found.st_mode)}
    data = _read(path)
    if _is_unit(path):
        data = _MODE.sub(_ENABLED, data)  # operators switch it here, see the README: not a change of the unit
    return {"sha256": hashlib.sha256(data).hexdigest(), "mode": stat.S_IMODE(found.st_mode)}


def _put(path: str, wanted: Look, source: str) -> None:
    """Make a path what it is wanted to be, in one step. What an operator switched in a unit stays switched."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    if "link" in wanted:
        beside = _beside(path)
        with suppress(FileNotFoundError):
            os.unlink(beside)
        os.symlink(wanted["link"], beside)
        os.rename(beside, path)
        return
    data = _read(source)
    if _is_unit(path) and os.path.isfile(path) and (switched := _MODE.search(_read(path))):
        data = _MODE.sub(switched[0], data)
    _write(path, data, wanted["mode"])


def _beside(path: str) -> str:
    """Return the name under which a file is written before it is renamed."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.kloros-new")


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _write(path: str, data: bytes, mode: int) -> None:
    beside = _beside(path)
    with suppress(FileNotFoundError):
        os.unlink(beside)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    os.rename(beside, path)


def _absent_above(path: str) -> list[str]:
    found, folder = [], os.path.dirname(path)
    while not os.path.lexists(folder):
        found.append(folder)
        folder = os.path.dirname(folder)
    return found


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- for install.sh ---------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Do one of install.sh's errands."""
    parser = argparse.ArgumentParser(prog="installation.py")
    parser.add_argument("--base", required=True)
    errands = parser.add_subparsers(dest="errand", required=True)
    laying = errands.add_parser("apply")
    laying.add_argument("--stage", required=True)
    laying.add_argument("--unit-folder", required=True)
    for name in ("version", "kind", "state", "settings", "backup", "packages"):
        laying.add_argument(f"--{name}", default="")
    errands.add_parser("finish")
    errands.add_parser("running")
    errands.add_parser("tidy")
    removing = errands.add_parser("remove")
    removing.add_argument("--kind", required=True)
    removing.add_argument("paths", nargs="*")
    given = parser.parse_args(arguments)
    try:
        return _run(given, Place(given.base))
    except Refused as error:
        print(f"{error}\n  {error.hint}", file=sys.stderr)
        return 1


def _run(given: argparse.Namespace, place: Place) -> int:
    match given.errand:
        case "apply":
            about = {
                name: getattr(given, name) for name in ("version", "kind", "state", "settings", "backup", "unit_folder")
            }
            rollout = apply(place, given.stage, {**about, "packages": given.packages.split()})
            print("\n".join([] if rollout is None else created(rollout, given.unit_folder)))
        case "finish":
            for rollout in place.records():
                if not rollout.content["complete"]:
                    finish(rollout)
        case "running":
            print(place.running())
        case "tidy":
            for step in remove_old_versions(place):
                print(f"{step.name} stays {step.why}")
        case _:
            undoing = Undoing.of_everything(place, given.paths, user=given.kind == "user")
            undoing.undo(lambda step: print(f"stays: {step.name}: {step.why}") if step.action == "leave" else None)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
