"""`klorosctl bundle`: a cycle's folder as one file with its checksum, made, verified and unpacked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from orchestration.cycles.bar import bar
from orchestration.errors import Usage
from orchestration.operator.console import Console, json_option
from orchestration.operator.cycles import find, folder_of, number_argument
from orchestration.operator.screen import size

if TYPE_CHECKING:
    from orchestration.cycles.archive import Limits


@click.group()
def bundle() -> None:
    """Make, verify and unpack the bundles of cycles."""


def _bundle_argument(command: Any) -> Any:
    return click.argument("given", metavar="N|FILE")(command)


def _limit_option(command: Any) -> Any:
    from orchestration.cycles.archive import USUAL

    return click.option(
        "--max-bytes",
        type=click.IntRange(min=1),
        default=USUAL.size,
        help=f"Refuse what unpacks to more than this many bytes (default {USUAL.size}, 16 GiB).",
    )(command)


@bundle.command()
@number_argument
@json_option
@click.pass_obj
def make(console: Console, *, number: str) -> int:
    """Write the bundle of cycle N, with its checksum, into the folder of bundles; again to replace it."""
    from orchestration.cycles import bundle as bundles
    from orchestration.cycles.cycle import FINISHED

    with console.looking() as kernel:
        cycle = find(kernel, number)
    if cycle.state not in FINISHED:
        raise Usage(f"cycle {cycle.cycle} is {cycle.state}: its folder still changes", hint=f"klorosctl show {cycle.cycle}")
    folder = folder_of(console, cycle)
    if not os.path.isdir(folder):
        raise Usage(f"cycle {cycle.cycle} has no folder any more: {folder}", hint=f"klorosctl show {cycle.cycle}")
    with bar(f"cycle {cycle.cycle}", bundles.size_of(folder)) as progress:
        made = bundles.make(folder, console.settings.bundles_dir, progress=progress)
    console.note("bundle make", f"makes {made.path}", cycle=cycle.cycle)
    document = {**made._asdict(), "cycle": cycle.cycle, "left_out": [list(one) for one in made.left_out]}
    console.answer(
        document,
        lambda: (
            f"{made.path}  {size(made.size)}, {made.entries} entries",
            f"  sha256 {made.sha256}",
            *(line for path, why in made.left_out for line in console.screen.wrap(f"left out: {path}: {why}", rest="  ")),
        ),
    )
    return 0


@bundle.command()
@_bundle_argument
@_limit_option
@json_option
@click.pass_obj
def verify(console: Console, *, given: str, max_bytes: int) -> int:
    """Read a bundle to its end: checksum, names, links, limits, and every file that its manifest lists."""
    from orchestration.cycles import unbundling

    path = _path(console, given)
    with bar(os.path.basename(path), _size(path)) as progress:
        found = unbundling.verify(path, limits=_limits(max_bytes), progress=progress)
    listed = "it has no manifest" if found.listed is None else f"{found.listed} files are as its manifest lists them"
    console.answer(
        {"path": path, **found._asdict()},
        lambda: (
            f"{path} is in order: {found.entries} entries, {size(found.size)}; {listed}",
            f"  sha256 {found.sha256}",
        ),
    )
    return 0


@bundle.command()
@_bundle_argument
@click.option("--to", default=".", metavar="DIR", help="Where to make the cycle's folder (default: here).")
@_limit_option
@json_option
@click.pass_obj
def extract(console: Console, *, given: str, to: str, max_bytes: int) -> int:
    """Unpack a bundle, once all of it is verified; never over anything."""
    from orchestration.cycles import unbundling

    path = _path(console, given)
    with bar(os.path.basename(path), _size(path)) as progress:
        folder = unbundling.extract(path, os.path.abspath(to), limits=_limits(max_bytes), progress=progress)
    console.answer({"path": path, "folder": folder}, lambda: [folder])
    return 0


@bundle.command()
@json_option
@click.pass_obj
def status(console: Console) -> int:
    """Say which bundles are still to be made, and why those that failed did."""
    from orchestration.cycles import packing

    with console.looking() as kernel:
        waiting = packing.pending(kernel.db)
    document = {"automatic": console.settings.cycles.bundle, "out": console.settings.bundles_dir, "pending": waiting}
    console.answer(document, lambda: _status_lines(console, waiting))
    return 0


def _status_lines(console: Console, waiting: list[dict[str, Any]]) -> list[str]:
    lines = [] if console.settings.cycles.bundle else ["Bundles are made on demand only: cycles.bundle is false."]
    if not waiting:
        return [*lines, f"No bundle is to be made; those there are lie in {console.settings.bundles_dir}"]
    rows = [
        (str(one["cycle"]), str(one["failures"]), console.times.both(one["due_at"]), one["error"] or "not tried yet")
        for one in waiting
    ]
    return [*lines, *console.screen.table(("PENDING", "FAILURES", "NEXT TRY", "LAST ERROR"), rows)]


def _limits(max_bytes: int) -> Limits:
    from orchestration.cycles.archive import USUAL

    return USUAL._replace(size=max_bytes)


def _path(console: Console, given: str) -> str:
    """Return the bundle that is meant: a file by its path, else that of a cycle by its number."""
    from orchestration.cycles import bundle as bundles
    from orchestration.cycles.cycle import folder_name

    if "/" in given or given.endswith((bundles.ZSTD, bundles.GZIP)):
        return os.path.abspath(given)
    with console.looking() as kernel:
        cycle = find(kernel, given)
    out = console.settings.bundles_dir
    path = bundles.path_of(folder_name(cycle.cycle), out)
    if path is None:
        raise Usage(f"cycle {cycle.cycle} has no bundle in {out}", hint=f"klorosctl bundle make {cycle.cycle}")
    return path


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0  # reading it says why
