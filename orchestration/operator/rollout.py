"""`klorosctl rollback-rollout`: take back what the newest run of install.sh put on this host, after listing it.

What goes and what stays is in the record that install.sh wrote (`installation`); here it is shown, asked about, and the
store is set back where the older program could not read it. State, settings and runs are never removed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import click

from orchestration import wiring
from orchestration.cycles import orphan
from orchestration.errors import KlorosError, LockHeld, SettingsInvalid, Unwritable, Usage
from orchestration.host.lock import FileLock
from orchestration.installation.record import Place, Refused, Rollout
from orchestration.installation.rollback import Undoing
from orchestration.installation.step import Step
from orchestration.installation.versions import known_schema
from orchestration.operator import backup
from orchestration.operator.check import Check, Level
from orchestration.operator.console import Console, json_option

_A_TICK = 3.0  # seconds
_LOCKS = ("orchestrator.lock", "runner.lock", "loop.lock")


class Store(NamedTuple):
    """A store that the older program can't read, and the copy from before that it can."""

    path: str
    copy: str


@click.command("rollback-rollout")
@click.option("--yes", is_flag=True, help="Do it. Without it: ask on a terminal, else only list.")
@click.option("--force", is_flag=True, help="Also go over files that were changed since they were installed.")
@click.option("--base", metavar="DIR", help="Folder of the installation (default: that of this klorosctl).")
@json_option
@click.pass_obj
def rollback_rollout(console: Console, *, yes: bool, force: bool, base: str | None) -> int:
    """Take back what the newest run of install.sh created, and nothing else, after listing it.

    After an upgrade the version before runs again; after a first installation none does. State, settings and what
    cycles left stay. What is interrupted is finished by giving it again.
    """
    place = Place(os.path.abspath(base) if base else _base_of_this())
    rollout = _newest(place)
    undoing = Undoing(place, [rollout], force=force)
    try:
        undoing.check()
    except Refused as error:
        raise KlorosError(str(error), hint=error.hint) from error
    state_dir, config = _state(console, rollout)
    store = _store(place, rollout, state_dir, undoing.target)
    steps = [*undoing.steps(), *_of_store(store), *_of_settings(place, undoing.target, config)]
    document: dict[str, Any] = {
        "rollout": rollout.number,
        "at": rollout.content["at"],
        "version": rollout.version,
        "back_to": undoing.target or None,
        "steps": [step._asdict() for step in steps],
        "stopped": undoing.active(),
        "done": False,
    }
    if not console.as_json:
        console.screen.print(_lines(console, document, steps))
    if not (yes or _agreed(console)):
        console.answer(document, lambda: ["Nothing has been changed. To do it: klorosctl rollback-rollout --yes"])
        return 0
    if not os.access(place.rollouts, os.W_OK):
        raise Unwritable(f"{place.rollouts} can't be written", hint="sudo klorosctl rollback-rollout …")
    _free(state_dir, store)
    console.note("rollback-rollout", f"takes back rollout {rollout.number}, {rollout.version}")
    done: list[Step] = []
    undoing.undo(done.append, at_rest=_setting_back(state_dir, store))
    left = [step for step in done if step.action == "leave"]
    document |= {"done": True, "left": [step._asdict() for step in left]}
    now = f"{undoing.target} runs again." if undoing.target else "No version is installed any more."
    if console.as_json:
        click.echo(json.dumps(document))
    else:
        click.echo("\n".join([f"Done. {now}", *(f"  left: {step.name} — {step.why}" for step in left)]))
    return 0


def interrupted() -> Iterator[Check]:
    """Check that the newest rollout, or its rollback, came to its end."""
    versions, _ = os.path.split(sys.prefix)
    if os.path.basename(versions) != "versions":
        return
    place = Place(os.path.dirname(versions))
    try:
        place.refuse_half_removed()
        records = place.records()
    except Refused as error:
        yield Check("rollout", Level.WARNING, str(error), error.hint)
        return
    if records and records[-1].content["undoing"]:
        evidence = f"the rollback of {records[-1].version} was interrupted"
        yield Check("rollout", Level.WARNING, evidence, "sudo klorosctl rollback-rollout --yes")
    elif records and not records[-1].content["complete"]:
        evidence = f"the installation of {records[-1].version} was interrupted"
        yield Check("rollout", Level.WARNING, evidence, "run its install.sh again, or: sudo klorosctl rollback-rollout")


def _base_of_this() -> str:
    """Return the installation whose environment runs this: `<base>/versions/<version>`."""
    versions, _ = os.path.split(sys.prefix)
    if os.path.basename(versions) != "versions":
        raise Usage(
            f"this klorosctl, of {sys.prefix}, was not put there by install.sh",
            hint="use the installation's own, or say which one: --base /opt/kloros",
        )
    return os.path.dirname(versions)


def _records(place: Place) -> list[Rollout]:
    try:
        return place.records()
    except Refused as error:
        raise KlorosError(str(error), hint=error.hint) from error


def _newest(place: Place) -> Rollout:
    records = _records(place)
    if not records:
        raise Usage(
            f"no rollout is on record in {place.rollouts}", hint="what is there can be removed by install.sh --uninstall"
        )
    return records[-1]


def _state(console: Console, rollout: Rollout) -> tuple[str, str]:
    """Return the state folder and the settings file; settings that are wrong are no reason not to go back."""
    try:
        state_dir = console.settings.state_dir if console.units.fragment() else rollout.content["state"]
    except SettingsInvalid:
        state_dir = rollout.content["state"]
    return str(state_dir), str(rollout.content["settings"])


def _lines(console: Console, document: dict[str, Any], steps: list[Step]) -> Iterator[str]:
    screen = console.screen
    before = f"Before it: {document['back_to'] or 'nothing'}."
    yield from screen.wrap(f"Rollout {document['rollout']} of {document['at']} installed {document['version']}. {before}")
    yield ""
    rows = [(step.action, step.kind, f"{step.name}{f' — {step.why}' if step.why else ''}") for step in steps]
    yield from screen.table(("ACTION", "KIND", "WHAT"), rows)
    yield ""
    if document["stopped"]:
        yield from screen.alarm(f"at work now, and stopped by it: {', '.join(document['stopped'])}")
        yield ""


def _agreed(console: Console) -> bool:
    if console.as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    return click.confirm("Do it?", default=False)


# --- the store ---------------------------------------------------------------------------------------------------


def _store(place: Place, rollout: Rollout, state_dir: str, target: str) -> Store | None:
    """Return the store if the version before can't read it.

    Raises:
        KlorosError: there is no copy that it could.
    """
    path = os.path.join(state_dir, wiring.STORE)
    known = known_schema(place, target) if target else None
    if known is None or not _as_owner(state_dir, lambda: os.path.exists(path)):
        return None
    schema = _as_owner(state_dir, lambda: backup.schema_of(path))
    if schema <= known:
        return None
    copy = str(rollout.content["backup"])
    if not copy or not _as_owner(state_dir, lambda: os.path.exists(copy) and backup.schema_of(copy) <= known):
        raise KlorosError(
            f"{path} has schema {schema}, {target} knows {known}, and there is no copy from before the upgrade",
            hint="stay with this version, or install a newer one",
        )
    return Store(path, copy)


def _of_store(store: Store | None) -> Iterator[Step]:
    if store is not None:
        why = "the version before can't read it; what it has now is kept beside the copy"
        yield Step("store", store.path, "set back", f"to {store.copy}: {why}")


def _of_settings(place: Place, target: str, config: str) -> Iterator[Step]:
    """Say whether the version before accepts the settings as they are now."""
    if not target or not os.path.exists(config):
        return
    command = [os.path.join(place.version(target), "bin", "klorosctl"), "config", "check"]
    environ = {**os.environ, "KLR_CONFIG": config}
    try:
        done = subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
        )
        why = "" if done.returncode == 0 else f"the version before refuses it: {(done.stderr or done.stdout).strip()}"
    except (OSError, subprocess.TimeoutExpired) as error:
        why = f"whether the version before takes it could not be found out: {error}"
    yield Step("settings", config, "keep", why)


def _free(state_dir: str, store: Store | None) -> None:
    """Raise LockHeld when something works on a store that is to be set back."""
    if store is not None:
        _as_owner(state_dir, lambda: _locked(state_dir, lambda: None))


def _setting_back(state_dir: str, store: Store | None) -> Callable[[], object] | None:
    if store is None:
        return None

    def set_back() -> None:
        try:
            _as_owner(state_dir, lambda: _locked(state_dir, lambda: backup.set_back(*store)))
        except KlorosError as error:
            raise type(error)(
                f"the program is back, the store is not, and ticks are stopped until it is: {error.message}",
                hint=f"{error.hint}; then go on with: {sys.argv[0]} rollback-rollout --yes",
            ) from error

    return set_back


def _locked(state_dir: str, act: Callable[[], Any]) -> Any:
    """Do something while neither tick nor cycle nor loop nor turn works; a tick that has begun is waited for.

    Raises:
        LockHeld: one of them goes on.
    """
    deadline = time.monotonic() + _A_TICK
    with ExitStack() as stack:
        for name in _LOCKS:
            lock, left = FileLock(os.path.join(state_dir, "locks", name)), max(0.0, deadline - time.monotonic())
            stack.enter_context(lock.held("klorosctl rollback-rollout", patience=left))
        for lock in orphan.turn_locks(state_dir):
            stack.enter_context(lock.held("klorosctl rollback-rollout"))
        return act()


def _as_owner(state_dir: str, act: Callable[[], Any]) -> Any:
    """Do something in a child that is the state's owner: root follows no path in a folder that others write."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer: dict[str, Any] = {"error": "it ended without a word"}
        try:
            wiring.become_owner(state_dir)
            os.umask(0o077)
            answer = {"value": act()}
        except LockHeld as error:
            answer = {"error": error.message, "hint": error.hint, "held": True}
        except KlorosError as error:
            answer = {"error": error.message, "hint": error.hint}
        except BaseException as error:
            answer = {"error": str(error)}
        finally:
            os.write(writing, json.dumps(answer).encode())
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    answer = json.loads(text or b'{"error": "it was killed"}')
    if "error" in answer:
        kind = LockHeld if answer.get("held") else KlorosError
        raise kind(answer["error"], hint=answer.get("hint", ""))
    return answer["value"]
