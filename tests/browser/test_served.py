"""The real server in a real browser: pages keep their policy, a log goes on, a file is saved, a token is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Browser, Error, Page, expect

from tests.acceptance.host import Host
from tests.acceptance.serving import Served, Writing, serving
from tests.browser.conftest import AXE

HOSTILE = b"<img src=x onerror=document.title='owned'>\x1b[31mred\x07 \xff</pre><script>document.title='owned'</script>\n"
MOST_CHARACTERS = 1_000_000
"""That a page keeps of a log that it follows: CHARACTERS in pulse.js."""
WATCHED = """pre => {
    pre.longest = 0;
    const look = () => { pre.longest = Math.max(pre.longest, pre.textContent.length); };
    new MutationObserver(look).observe(pre, {childList: true, characterData: true, subtree: true});
}"""
TOKEN = "tXq7Zk0vB2mN4pR6s8uWy"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@contextmanager
def visiting(chromium: Browser, served: Served, **options: object) -> Iterator[tuple[Page, list[str]]]:
    """A page that starts at the server, and what the browser complained of: scripts, policies, answers of 4xx and 5xx."""
    context = chromium.new_context(base_url=f"http://127.0.0.1:{served.port}", **options)  # type: ignore[arg-type]  # passed on
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        yield page, complaints
    finally:
        context.close()


def test_every_page_that_is_linked_is_there_and_keeps_the_policy(chromium: Browser, host: Host) -> None:
    host.configure("[dream]\ncommand = ['sh', '-c', 'echo out; echo {} >artifacts/report.json']\n")
    host.stepwise()
    host.promote("one")
    host.intend("suggest_something")
    host.decided()
    host.run_queued()
    host.decided()
    with serving(host) as served, visiting(chromium, served) as (page, complaints):
        seen, waiting = set[str](), ["/"]
        while waiting:
            path = waiting.pop()
            seen.add(path)
            answer = page.goto(path)
            assert answer is not None
            assert answer.status == 200, path
            assert page.locator("h1").count() == 1, path
            found = page.locator("a[href]").evaluate_all("all => all.map(one => one.getAttribute('href'))")
            inner = {urljoin(path, one).partition("#")[0] for one in found}
            waiting += [one for one in inner - seen if one.startswith("/") and "/api/" not in one and one not in waiting]
        assert {"/", "/cycles", "/cycles/1", "/promotions", "/intents", "/calendar"} <= {
            one.partition("?")[0] for one in seen
        }
        assert any(re.fullmatch(r"/ticks/\d+", one) for one in seen)
        assert complaints == []


def test_a_running_log_is_followed_to_its_end(chromium: Browser, host: Host) -> None:
    running = Writing(host)
    with serving(host) as served, visiting(chromium, served) as (page, complaints):
        running.write(HOSTILE)
        page.goto("/cycles/1")
        page.get_by_role("button", name="Follow", exact=True).click()
        log = page.locator("pre[data-follow]")
        expect(log).to_contain_text("<img src=x onerror=document.title='owned'>")
        running.write(b"and more while it runs\n")
        expect(log).to_contain_text("and more while it runs")
        assert "owned" not in page.title()
        log.evaluate(WATCHED)
        running.write(b"x" * 10_000_000 + b"\n")
        running.write(b"and after the flood\n")
        expect(log).to_contain_text("and after the flood", timeout=30_000)
        assert 500_000 < log.evaluate("pre => pre.longest") <= MOST_CHARACTERS
        running.end()
        expect(page.get_by_role("status").filter(has_text="the cycle has ended: succeeded")).to_be_visible()
        assert complaints == []


def test_a_file_is_saved_not_shown(chromium: Browser, host: Host) -> None:
    host.configure("[dream]\ncommand = ['sh', '-c', 'echo \"<script>alert(1)</script>\" >artifacts/page.html']\n")
    host.stepwise()
    host.promote("one")
    host.decided()
    host.run_queued()
    with serving(host) as served, visiting(chromium, served) as (page, complaints):
        page.goto("/cycles/1")
        with page.expect_download() as saved:
            page.get_by_role("link", name="artifacts/page.html").click()
        assert saved.value.suggested_filename == "page.html"
        assert Path(saved.value.path()).read_text() == "<script>alert(1)</script>\n"
        assert complaints == []


def test_the_token_is_asked_for_as_a_password_and_serves_streams_too(chromium: Browser, host: Host, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    running = Writing(host)
    with serving(host, "--host", "0.0.0.0", "--token-file", str(token)) as served:
        credentials = {"username": "anybody", "password": TOKEN}
        with visiting(chromium, served, http_credentials=credentials) as (page, complaints):
            page.goto("/cycles/1")
            page.get_by_role("button", name="Follow", exact=True).click()
            running.write(b"seen with the token\n")
            expect(page.locator("pre[data-follow]")).to_contain_text("seen with the token")
            running.end()
            expect(page.get_by_role("status").filter(has_text="the cycle has ended")).to_be_visible()
            assert complaints == []
        with visiting(chromium, served) as (page, _), pytest.raises(Error, match="INVALID_AUTH_CREDENTIALS"):
            page.goto("/")  # where a person would be asked


def test_axe_finds_nothing_wrong_with_what_is_served(chromium: Browser, host: Host) -> None:
    host.decided()
    with serving(host) as served, visiting(chromium, served, bypass_csp=True) as (page, _):
        for path in ("/", "/cycles", "/nowhere"):
            page.goto(path)
            page.add_script_tag(content=AXE.read_text())
            found = page.evaluate("axe.run().then(result => result.violations.map(one => one.id + ': ' + one.help))")
            assert found == [], path
