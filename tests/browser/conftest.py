"""A real browser: Debian's Chromium, driven by playwright, that sees pages from disk or as a server gives them.

`opened` gives a page and asserts at its end that it did nothing it must not: no request left it, no script failed, and the
Content-Security-Policy was not offended. Other tiers may use `chromium` for a real server.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

from orchestration.pulse.dashboard.place import ASSETS, SERVED, asset, csp

CHROMIUM = "/usr/bin/chromium"
QUIET = (
    "--no-sandbox",  # tests run as root
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-dev-shm-usage",  # /dev/shm is small in containers
)
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
ORIGIN = "http://pulse.test"
Scheme = Literal["light", "dark"]


class Opened(NamedTuple):
    """A page, and what it has asked for and said so far."""

    page: Page
    requests: list[str]
    complaints: list[str]


Open = Callable[..., AbstractContextManager[Opened]]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all tests of a module: while it is open, its event loop runs, and nobody else may run one."""
    if not os.access(CHROMIUM, os.X_OK):
        pytest.skip(f"{CHROMIUM} is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Browser, tmp_path: Path) -> Open:
    """Open HTML from disk (`served` False), or as a server would give it."""

    @contextmanager
    def opens(
        html: str,
        *,
        served: bool = False,
        width: int = 1280,
        scheme: Scheme = "light",
        scripts: bool = True,
        more: Callable[[Route], None] | None = None,
    ) -> Iterator[Opened]:
        viewport: Any = {"width": width, "height": 900}
        context = chromium.new_context(viewport=viewport, color_scheme=scheme, java_script_enabled=scripts)
        page = context.new_page()
        seen = Opened(page, [], [])
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("console", lambda said: seen.complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        if served:
            page.route("**/*", lambda route: _serve(route, html, more))
            page.goto(f"{ORIGIN}/")
        else:
            path = tmp_path / "index.html"
            path.write_bytes(html.encode())
            page.goto(path.as_uri())
        try:
            yield seen
            strange = [url for url in seen.requests if not url.startswith(("data:", "file:///", f"{ORIGIN}/"))]
            assert strange == [], "the page asked others for something"
            assert seen.complaints == []
        finally:
            context.close()

    return opens


def _serve(route: Route, html: str, more: Callable[[Route], None] | None) -> None:
    path = route.request.url.removeprefix(ORIGIN)
    name = path.removeprefix("/static/").partition("?")[0]
    if name in ASSETS:
        route.fulfill(body=asset(name), headers={"content-type": ASSETS[name]})
    elif path == "/" and more is None:
        headers = {"content-type": "text/html; charset=utf-8", "content-security-policy": csp(SERVED)}
        route.fulfill(body=html, headers=headers)
    elif more is not None:
        more(route)
    else:
        route.fulfill(status=404, body="")


def violations(page: Page) -> list[str]:
    """Return what axe finds wrong with a page, by rule and place."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']} ({one['impact']}): {node['target']} {json.dumps(node.get('failureSummary', ''))[:300]}"
        for one in found["violations"]
        for node in one["nodes"]
    ]
