"""The API against its own description, by Schemathesis: whatever is asked, nothing that it does not say."""

from __future__ import annotations

from pathlib import Path

from starlette.routing import Route

from orchestration.errors import StoreEmpty
from orchestration.host import clock
from orchestration.pulse.server.app import routes
from orchestration.pulse.server.following import Following
from orchestration.pulse.server.looking import Looking
from orchestration.pulse.server.openapi import _IN_PATH
from orchestration.pulse.server.traffic import Traffic
from tests.acceptance.anything import ask_anything
from tests.acceptance.host import Host
from tests.acceptance.serving import serving


def _no_store(*_: object) -> object:
    raise StoreEmpty("none")


def _no_settings() -> object:
    raise StoreEmpty("none")


def test_every_route_is_described(host: Host) -> None:
    looking = Looking(settings=_no_settings, look=_no_store, now=clock.now, boot_id="")  # type: ignore[arg-type]  # never asked
    traffic = Traffic()
    listed = {one.path for one in routes(looking, Following(traffic), traffic) if isinstance(one, Route)}
    with serving(host) as served:
        described = served.get("/openapi.json").json
    assert {_IN_PATH.sub(r"{\1}", path) for path in listed} == described["paths"].keys()
    assert described["openapi"] == "3.1.0"


def test_nothing_that_is_asked_is_answered_otherwise_than_described(host: Host, tmp_path: Path) -> None:
    host.configure("[dream]\ncommand = ['sh', '-c', 'echo one; echo {} >artifacts/report.json']\n")
    host.stepwise()
    host.promote("one")
    host.decided()
    host.run_queued()
    with serving(host) as served:
        ask_anything(f"http://127.0.0.1:{served.port}/openapi.json", cases=10, folder=tmp_path)
        assert not served.log("pulse.failed")
