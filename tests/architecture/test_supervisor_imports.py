"""The supervisor stays small: it imports no server, no client of one, and nothing of MCP."""

from __future__ import annotations

import json
import subprocess
import sys

FOREIGN = {
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "mcp",
    "httpx",
    "prometheus_client",
    "jinja2",
    "click",
    "jwt",
    "psycopg",
}


def test_a_supervisor_imports_only_what_it_needs() -> None:
    program = (
        "import json, sys\n"
        "import orchestration.supervise, orchestration.wake_wiring, orchestration.bridge.store.sqlite_wakes\n"
        "print(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert not FOREIGN & set(json.loads(done.stdout))
