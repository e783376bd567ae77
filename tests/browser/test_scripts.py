"""What scripts add: news without a reload that disturbs nobody, and a log that goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from playwright.sync_api import Route, expect

from orchestration.pulse.dashboard import pages
from orchestration.pulse.dashboard.place import FILE, SERVED, Place, csp
from tests.browser import documents
from tests.browser.conftest import Open

QUICK = Place(served=True, host="alpha", time_zone=documents.ZONE, refresh_seconds=1)
Answer = Callable[[Route], None]


def answering(*html: str) -> tuple[Answer, list[str]]:
    """Return a server that gives these pages one after the other, the last for ever, and what it was asked."""
    left, asked = list(html), []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        text = left.pop(0) if len(left) > 1 else left[0]
        headers = {"content-type": "text/html; charset=utf-8", "content-security-policy": csp(SERVED)}
        route.fulfill(body=text, headers=headers)

    return answer, asked


def test_news_come_by_themselves_and_are_told(opened: Open) -> None:
    answer, _ = answering(
        pages.overview(documents.ordinary(), QUICK),
        pages.overview(documents.trouble(), QUICK),
    )
    with opened("", served=True, more=answer) as seen:
        expect(seen.page.get_by_role("heading", level=1)).to_have_text("Failing")
        expect(seen.page.get_by_role("status")).to_have_text("The verdict is now Failing, it was OK.")
        assert seen.page.title() == "Failing · alpha · KLoROS Pulse"


def test_news_leave_focus_place_and_what_was_opened(opened: Open) -> None:
    first = documents.trouble()
    answer, asked = answering(*(pages.overview(replace(first, version=str(one)), QUICK) for one in range(5)))
    with opened("", served=True, more=answer) as seen:
        page = seen.page
        summary = page.locator("#failure-1279 summary")
        summary.focus()
        page.keyboard.press("Enter")
        page.evaluate("scrollTo(0, 700)")
        at = page.evaluate("scrollY")
        marked = page.locator("main").evaluate("main => { main.firstElementChild.dataset.old = ''; return true }")
        assert marked
        expect(page.locator("[data-old]")).to_have_count(0)  # it has been swapped
        expect(summary).to_be_focused()
        expect(page.locator("#failure-1279")).to_have_attribute("open", "")
        assert page.evaluate("scrollY") == at
        assert len(asked) >= 2


def test_who_is_selecting_text_is_left_alone(opened: Open) -> None:
    answer, asked = answering(pages.overview(documents.trouble(), QUICK))
    with opened("", served=True, more=answer) as seen:
        seen.page.evaluate("getSelection().selectAllChildren(document.querySelector('.evidence'))")
        before = len(asked)
        seen.page.wait_for_function("start => performance.now() - start > 2500", arg=seen.page.evaluate("performance.now()"))
        assert len(asked) == before


def test_who_is_asking_for_something_is_left_alone(opened: Open) -> None:
    answer, asked = answering(pages.cycles(documents.cycle_page(), QUICK, now=documents.NOW))
    with opened("", served=True, more=answer) as seen:
        page = seen.page
        page.get_by_label("State").select_option("failed")
        page.get_by_role("button", name="Show").focus()
        before = len(asked)
        page.wait_for_function("start => performance.now() - start > 2500", arg=page.evaluate("performance.now()"))
        assert len(asked) == before
        page.keyboard.press("Enter")
        page.wait_for_url("**/cycles?job=&state=failed&text=&order=newest&limit=20")


def test_a_server_that_is_gone_is_told(opened: Open) -> None:
    html = pages.overview(documents.ordinary(), QUICK)
    gone: list[int] = []

    def answer(route: Route) -> None:
        if gone:
            route.fulfill(status=503, body="")
        else:
            gone.append(1)
            route.fulfill(body=html, headers={"content-type": "text/html", "content-security-policy": csp(SERVED)})

    with opened("", served=True, more=answer) as seen:
        expect(seen.page.get_by_role("status")).to_contain_text("The server does not answer: status 503", timeout=10_000)
        seen.complaints.clear()  # the browser itself notes each 503


def test_a_running_log_is_followed_to_its_end(opened: Open) -> None:
    html = pages.cycle(documents.cycle_detail(), SERVED, now=documents.NOW)
    hostile = json.dumps("third \x1b[31mred\x1b[0m <script>window.harmed = 1</script> \u202e\n")
    events = (
        'id: 10\nevent: log\ndata: "first\\nsec"\n\n'
        'id: 20\nevent: log\ndata: "ond\\n"\n\n'
        f"id: 30\nevent: log\ndata: {hostile}\n\n"
        'id: 30\nevent: end\ndata: {"state": "timed_out"}\n\n'
    )

    def answer(route: Route) -> None:
        if "/log" in route.request.url:
            assert route.request.url.endswith("/api/v1/cycles/1289/log?follow=1&from=-65536")
            route.fulfill(body=events, headers={"content-type": "text/event-stream"})
        else:
            route.fulfill(body=html, headers={"content-type": "text/html", "content-security-policy": csp(SERVED)})

    with opened("", served=True, more=answer) as seen:
        page = seen.page
        page.get_by_role("button", name="Follow").click()
        expect(page.get_by_text("the cycle has ended: timed out")).to_be_visible()
        expect(page.get_by_role("log")).to_have_text(
            "first\nsecond\nthird red <script>window.harmed = 1</script> ⟨U+202E⟩\n", use_inner_text=True
        )
        assert page.evaluate("window.harmed") is None


def test_a_command_is_copied(opened: Open) -> None:
    with opened(pages.overview(documents.trouble(), FILE)) as seen:
        button = seen.page.get_by_role("button", name="Copy klorosctl history --dates")
        expect(button).to_have_text("copy")


@pytest.mark.parametrize("width", [360, 1280, 2560])
def test_pointing_at_a_minute_tells_it(opened: Open, width: int) -> None:
    """The host went down 1100 minutes ago: minute 340 of 1440, in the first of four parts."""
    with opened(pages.overview(documents.trouble(), FILE), width=width) as seen:
        part = seen.page.locator(".segments.beat > svg").first
        box = part.bounding_box()
        assert box is not None
        note = seen.page.locator("#heartbeat .note").first
        usual = note.inner_text()
        part.hover(position={"x": box["width"] * 345.5 / 360, "y": 10})
        expect(note).to_have_text("05:32 EST = 10:32 UTC: host down")
        part.hover(position={"x": box["width"] * 300.5 / 360, "y": 10})
        expect(note).to_have_text("04:47 EST = 09:47 UTC: nothing to start (NOOP)")
        third = seen.page.locator(".segments.beat > svg").nth(2)
        third.hover(position={"x": box["width"] * 26.5 / 360, "y": 10})
        expect(note).to_contain_text("UTC: lock held")
        seen.page.get_by_role("heading", level=1).hover()
        expect(note).to_have_text(usual)


def test_pointing_at_a_cycle_tells_it_and_leads_there(opened: Open) -> None:
    """Cycle 1285 failed; it began 176 minutes ago, in the last part."""
    answer, asked = answering(pages.overview(documents.trouble(), SERVED))
    with opened("", served=True, more=answer) as seen:
        part = seen.page.locator(".segments.cy > svg").last
        box = part.bounding_box()
        assert box is not None
        place = {"x": box["width"] * (1440 - 172 - 1080) / 360, "y": 60.0}
        part.hover(position={"x": place["x"], "y": place["y"]})
        note = seen.page.locator("#timeline .note").first
        expect(note).to_have_text("D-REAM cycle 1285 failed, 20:51 EST = 01:51 UTC, 6\u00a0min 51\u00a0s")
        part.click(position={"x": place["x"], "y": place["y"]})
        seen.page.wait_for_url("**/cycles/1285")
        assert asked[-1].endswith("/cycles/1285")
