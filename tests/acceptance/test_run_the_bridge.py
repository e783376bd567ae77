"""`docs/how-to/run-the-bridge.md`, typed letter by letter."""

from __future__ import annotations

import re
from pathlib import Path

from tests.acceptance.host import Host
from tests.acceptance.runbook import Runbook
from tests.acceptance.serving import serving

THREAD = "thr_019c0a7d1d2f6b0e4f6a8f8f4c2d1a07"


def test_the_first_thread_by_hand(host: Host, tmp_path: Path) -> None:
    page = Runbook("../how-to/run-the-bridge")
    host.decided()
    with serving(host, "--bridge") as served:
        page.text = page.text.replace("127.0.0.1:9411", f"127.0.0.1:{served.port}")
        for command in page.commands("Install it"):
            page.run(host, command)
        for number in range(len(page.commands("Open the first thread"))):
            command = page.commands("Open the first thread")[number]
            if "create_thread" in command.line:
                page.run(host, command._replace(shown=()), cwd=tmp_path)
                (thread_id,) = re.findall(r"thr_\w+", host.run("klorosctl", "threads", "list").stdout)
                page.text = page.text.replace(THREAD, thread_id)
            else:
                page.run(host, command, cwd=tmp_path)
        page.follow(host, "Keep copies")
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.token")} == {0o600}
