"""The pages drawn from the program are those that it draws now; and all pages are one site, without a dead link."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[2]


def test_generated_pages_are_current() -> None:
    command = [sys.executable, "docs/generate.py", "--check"]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pages_are_a_site_that_lacks_none_has_no_dead_link_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(tmp_path / "cache"), "docs", str(site)]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(TOP / "docs").with_suffix(".html") for path in TOP.glob("docs/*/*.md")}
    assert pages <= {path.relative_to(site) for path in site.glob("*/*.html")}
    of_elsewhere = re.compile(r'(?:src|<link[^>]*href)="(https?:[^"]*)')
    assert [found for page in site.rglob("*.html") for found in of_elsewhere.findall(page.read_text())] == []
