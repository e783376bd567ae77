"""install.sh's errands: bring a stage to the host, finish, tidy, remove."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from orchestration.installation import versions
from orchestration.installation.record import Place, Refused
from orchestration.installation.rollback import Undoing
from orchestration.installation.stage import apply, created, finish


def main(arguments: Sequence[str]) -> int:
    """Do one of install.sh's errands."""
    parser = argparse.ArgumentParser(prog="orchestration.installation")
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
            for step in versions.remove_old(place):
                print(f"{step.name} stays {step.why}")
        case _:
            undoing = Undoing.of_everything(place, given.paths, user=given.kind == "user")
            undoing.undo(lambda step: print(f"stays: {step.name}: {step.why}") if step.action == "leave" else None)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
