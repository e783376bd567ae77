"""The loop removes the logs of its old iterations itself, by [retention]; its records of them stay."""

from __future__ import annotations

from tests.acceptance.host import Host
from tests.acceptance.looping import Looping


def test_old_logs_go_while_it_iterates_and_rows_stay(host: Host) -> None:
    loop = Looping(host)
    loop.logs.mkdir(parents=True)
    for day in range(1, 29):
        (loop.logs / f"202501{day:02}T000000.log").touch()
    host.set(KLR_RETENTION_KEEP_LAST="10", KLR_RETENTION_KEEP_FOR="1h")
    command = loop.command("exit 0")
    flags = ("--command", command, "--archives", "", "--sleep", "0", "--iterations", "17")
    assert loop.loop(*flags).returncode == 0
    logs = sorted(path.name for path in loop.logs.glob("*.log"))
    assert len(logs) == 17
    assert not [name for name in logs if name.startswith("2025")]
    assert len(loop.history.read_text().splitlines()) == 17
