"""An API asked for anything by Schemathesis: whatever is asked, no answer may be other than the API describes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "negative_data_rejection",
    "missing_required_header",
    "ignored_auth",
)


def ask_anything(description: str, *flags: str, cases: int, folder: Path, within: float = 120) -> str:
    """Ask for all that a description names, each with so many cases; returns what Schemathesis prints.

    `folder` is where it runs; a `schemathesis.toml` there is its settings.
    """
    asked = [sys.executable, "-m", "schemathesis.cli", "run", description, *flags]
    limits = ["--max-examples", str(cases), "--seed", "1", "--request-timeout", "10", "--no-color"]
    phases = ["--phases", "examples,coverage,fuzzing", "--generation-database", "none", "--checks", ",".join(_CHECKS)]
    ran = subprocess.run([*asked, *limits, *phases], cwd=folder, capture_output=True, text=True, check=False, timeout=within)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    return ran.stdout
