"""`klorosctl pulse build`: two files, each whole at any moment, of a running system, a stopped one, and bare folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from orchestration.exits import Exit
from tests.acceptance.host import Host, script

BIG_STORE = Path(__file__).parents[1] / "benchmarks" / "big_store.py"
FOLDERS = ("index.html", "data/dashboard.json")


def built(host: Host, *more: str) -> tuple[str, dict[str, object]]:
    out = host.home / "page"
    done = host.run("pulse.builder", "--out", str(out), *more)
    assert done.returncode == 0, done.stderr
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == sorted(FOLDERS)
    return (out / "index.html").read_text(), json.loads((out / "data" / "dashboard.json").read_text())


def test_a_host_at_work(host: Host) -> None:
    host.decided()
    page, data = built(host)
    assert data["verdict"] in ("ok", "degraded")
    assert f'data-verdict="{str(data["verdict"]).title() if data["verdict"] != "ok" else "OK"}"' in page
    assert "NOOP" in page


def test_before_the_first_tick_it_says_what_to_do(host: Host) -> None:
    page, data = built(host)
    assert data["verdict"] == "unknown"
    assert "klorosctl doctor" in page
    assert not (host.state / "kloros.db").exists()


def test_a_stopped_host(host: Host) -> None:
    host.decided()
    host.set(KLR_ORCHESTRATION_MODE="disabled")
    page, data = built(host)
    assert data["verdict"] == "stopped"
    assert "klorosctl enable" in page


def test_it_changes_nothing_but_its_files(host: Host) -> None:
    host.decided()
    built(host)
    before = host.file_contents()
    built(host)
    after = host.file_contents()
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed <= {f"page/{name}" for name in FOLDERS}
    assert after.keys() == before.keys()


def test_bare_folders_without_settings_or_store(host: Host) -> None:
    cycles = host.home / "found"
    (cycles / "cycle_00007").mkdir(parents=True)
    (cycles / "cycle_00007" / "manifest.json").write_text("{ this is <b>no</b> JSON")
    host.config.write_text("this is no TOML")
    page, data = built(host, "--cycles", str(cycles))
    assert data["mode"] is None
    assert "cycle_00007" in page or ">7<" in page
    assert not host.state.exists()


def test_a_folder_that_is_not_there_is_a_wrong_argument(host: Host) -> None:
    done = host.run("klorosctl", "pulse", "build", "--out", str(host.home / "page"), "--cycles", "/no/such")
    assert done.returncode == Exit.USAGE
    assert "/no/such" in done.stderr


def test_a_folder_that_cannot_be_written_is_named(host: Host) -> None:
    host.decided()
    (host.home / "file").write_text("")
    done = host.run("klorosctl", "pulse", "build", "--out", str(host.home / "file"))
    assert done.returncode == Exit.UNWRITABLE
    assert str(host.home / "file") in done.stderr


def test_new_files_are_private_and_permissions_that_were_given_stay(host: Host) -> None:
    host.decided()
    built(host)
    index = host.home / "page" / "index.html"
    assert index.stat().st_mode & 0o777 == 0o600
    index.chmod(0o644)
    before = index.stat().st_ino
    built(host)
    assert index.stat().st_mode & 0o777 == 0o644
    assert index.stat().st_ino != before, "written in place, where a reader sees half of it"


def test_a_missing_package_says_what_to_install(host: Host) -> None:
    """An interpreter that finds no jinja2, as after an installation without the extra."""
    host.decided()
    blocked = host.home / "blocked"
    blocked.mkdir()
    for name in ("jinja2", "markupsafe"):
        (blocked / f"{name}.py").write_text(f"raise ImportError('No module named {name}')\n")
    host.set(PYTHONPATH=os.pathsep.join((str(blocked), *sys.path)))
    done = host.run("klorosctl", "pulse", "build", "--out", str(host.home / "page"))
    assert done.returncode == Exit.FAILED
    assert "kloros-orchestration[pulse]" in done.stderr
    assert not (host.home / "page").exists()


HOSTILE_OUTPUT = r"""
import sys
out = sys.stdout.buffer
out.write(b"\xff\xfe\x1b[31m<script>harm()</script>\xe2\x80\xae" + b"x" * 10_000_000)
out.write(b"</pre><script>harm()</script>\n\x1b]0;title\x07the end")
sys.exit(1)
"""


def test_what_a_hostile_command_wrote_is_shown_and_bounded(host: Host) -> None:
    host.stepwise()
    path = host.home / "hostile.py"
    path.write_text(HOSTILE_OUTPUT)
    host.set(KLR_DREAM_COMMAND=script(host.home, "dream.sh", [f"exec {sys.executable} {path}"]))
    host.promote("<img src=x onerror=harm()>")
    assert host.decided()["decision"] == "dream_cycle"
    host.run_queued()
    page, data = built(host)
    assert "the end" in page
    assert "&lt;script&gt;harm()" in page
    assert "<script>harm" not in page
    assert "<img" not in page
    assert not set(page) & set("\x1b\x07\u202e")
    assert len(page.encode()) < 60_000
    assert data["verdict"] != "unknown"


def test_a_hundred_thousand_cycles_fit_in_150_kb(host: Host) -> None:
    cycles = 100_000
    host.decided()
    store = host.state / "kloros.db"
    subprocess.run([sys.executable, BIG_STORE, store, "10000", str(cycles)], check=True)
    page, data = built(host)
    assert len(page.encode()) <= 150_000
    listed = data["cycles"]
    assert isinstance(listed, list)
    assert listed[0]["cycle"] == cycles
