"""Every page in a real browser: for everybody, at every width, in both themes, with and without scripts."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from orchestration.pulse.dashboard import pages
from orchestration.pulse.dashboard.place import FILE, SERVED, Place
from tests.browser.conftest import Open, Scheme, violations
from tests.browser.documents import ENDLESS, HOSTILE, PAGES, busiest, every_page


@pytest.fixture(scope="module")
def from_disk() -> dict[str, str]:
    return every_page(FILE)


@pytest.fixture(scope="module")
def as_served() -> dict[str, str]:
    return every_page(Place(served=True, host="alpha", time_zone="America/New_York"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_wrong(opened: Open, as_served: dict[str, str], name: str, scheme: Scheme) -> None:
    with opened(as_served[name], served=True, scheme=scheme) as seen:
        assert violations(seen.page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 2560])
def test_axe_finds_nothing_wrong_with_the_file(opened: Open, from_disk: dict[str, str], width: int, scheme: Scheme) -> None:
    with opened(from_disk["overview"], width=width, scheme=scheme) as seen:
        seen.page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        assert violations(seen.page) == []


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_scrolls_sideways_on_a_phone(opened: Open, from_disk: dict[str, str], name: str, scripts: bool) -> None:
    with opened(from_disk[name], width=360, scripts=scripts) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("name", PAGES)
def test_a_file_asks_for_nothing(opened: Open, from_disk: dict[str, str], name: str) -> None:
    with opened(from_disk[name]) as seen:
        seen.page.wait_for_load_state("networkidle")
        assert [url for url in seen.requests if not url.startswith("data:")] == [seen.page.url]


def test_without_scripts_everything_is_there(opened: Open, from_disk: dict[str, str]) -> None:
    with opened(from_disk["overview"], scripts=False) as seen:
        page = seen.page
        expect(page.get_by_role("heading", level=1)).to_have_text("Failing")
        order = page.locator("h2:visible").all_inner_texts()
        wanted = ["Heartbeat", "Running now", "PHASE window", "Cycles of the last day", "Queues", "Last failures"]
        assert [name for name in order if name in wanted] == wanted
        expect(page.get_by_text("klorosctl history --dates")).to_be_visible()
        expect(page.locator(".gaps li")).to_have_count(5)
        expect(page.get_by_text("the host was started at 10:41:08 UTC")).to_be_visible()
        expect(page.get_by_label("End of the output of cycle 1285")).to_contain_text("closed the connection after 61.3 s")
        assert page.locator("button").count() == 0, "a button that does nothing"


def test_what_waits_for_a_person_stands_with_the_command_to_decide(opened: Open, from_disk: dict[str, str]) -> None:
    with opened(from_disk["overview"], scripts=False) as seen:
        escrow = seen.page.get_by_role("region", name="Escrow")
        expect(escrow).to_contain_text("12 changes wait for a person, the oldest was held 2\u00a0d ago")
        expect(escrow.locator(".held > li")).to_have_count(3)
        expect(escrow).to_contain_text("and 9 more")
        first, second = escrow.locator(".held > li").nth(0), escrow.locator(".held > li").nth(1)
        for text in ("candidate-0400", "learning_rate 0.01 → 0.05 (+400.0\u00a0%)", "parameter_1 new → 1", "never expires"):
            expect(first).to_contain_text(text)
        expect(first.get_by_text("unknown")).to_be_visible()
        for text in ("ada", "{change_over = 0.5}", "expires in 4\u00a0d", "klorosctl escrow approve 000000000001"):
            expect(second).to_contain_text(text)


def test_the_baseline_tells_who_when_why_and_the_last_verdict(opened: Open, from_disk: dict[str, str]) -> None:
    with opened(from_disk["overview"], scripts=False) as seen:
        section = seen.page.get_by_role("region", name="Baseline")
        for text in (
            "version 43",
            "to version 41",
            "undecided: 2 of 3 PHASE results",
            "version 42 rolled back",
            "PHASE results -8.1\u00a0%",
            "0.71, 0.74, 0.75 before, 0.6, 0.68, 0.7 after",
            "Cycle 1287 was advised DEEP: DEEP scores 1.204: the best so far.",
        ):
            expect(section).to_contain_text(text)
        section.get_by_text("12 parameters").click()
        expect(section.get_by_role("row", name="parameter_003 1.0")).to_be_visible()


def test_a_file_says_how_old_it_is(opened: Open, from_disk: dict[str, str]) -> None:
    with opened(from_disk["well"]) as seen:
        expect(seen.page.locator("#asof")).to_contain_text("what came after is not here")


def test_what_starts_and_ends_when_in_both_zones(opened: Open, from_disk: dict[str, str]) -> None:
    with opened(from_disk["well"], scripts=False) as seen:
        window = seen.page.get_by_role("region", name="PHASE window")
        expect(window.locator("time").nth(1)).to_have_attribute("datetime", "2026-11-21T08:00:00Z")
        expect(window.locator("time").nth(1)).to_have_text("21\u00a0Nov 03:00\u00a0EST 08:00\u00a0UTC")
        expect(seen.page.get_by_role("region", name="Running now")).to_contain_text("12\u00a0min 24\u00a0s of 30\u00a0min")


def test_the_keyboard_reaches_everything_and_shows_where_it_is(opened: Open, from_disk: dict[str, str]) -> None:
    with opened(from_disk["overview"]) as seen:
        page = seen.page
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        reached: list[str] = []
        for _ in range(60):
            page.keyboard.press("Tab")
            tag = page.evaluate("document.activeElement.tagName")
            if tag == "BODY":
                break
            reached.append(tag)
            outline = page.evaluate("getComputedStyle(document.activeElement).outline")
            assert "2px" in outline, f"no focus to be seen on {tag}"
            assert "none" not in outline
        assert {"BUTTON", "SUMMARY", "PRE", "INPUT"} <= set(reached)


def test_a_details_opens_by_keyboard(opened: Open, from_disk: dict[str, str]) -> None:
    with opened(from_disk["overview"]) as seen:
        summary = seen.page.locator("#last-findings summary")
        summary.focus()
        seen.page.keyboard.press("Enter")
        expect(seen.page.get_by_text("cycle 1289 (dream) is running")).to_be_visible()


def test_a_list_is_sorted_and_filtered_in_place(opened: Open, from_disk: dict[str, str]) -> None:
    with opened(from_disk["overview"]) as seen:
        page = seen.page
        rows = page.locator("#cycles tbody tr:visible")
        before = rows.count()
        page.get_by_role("button", name="Took").click()
        expect(page.get_by_role("columnheader", name="Took")).to_have_attribute("aria-sort", "descending")
        expect(rows.first).to_contain_text("PHASE")
        page.get_by_label("Show only rows that contain").fill("timed out")
        expect(rows).to_have_count(1)
        page.get_by_label("Show only rows that contain").fill("")
        expect(rows).to_have_count(before)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("served", [True, False])
def test_hostile_text_is_shown_and_does_nothing(opened: Open, name: str, served: bool) -> None:
    html = every_page(SERVED if served else FILE, HOSTILE)[name]
    width = 1280 if served else 360
    with opened(html, served=served, width=width) as seen:
        page = seen.page
        page.wait_for_load_state("networkidle")
        for box in page.locator("main *:visible").all()[:40]:
            box.dispatch_event("mouseover")
        assert page.evaluate("window.harmed") is None
        assert page.locator("img, main style, main script").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        height = page.evaluate("document.documentElement.scrollHeight")
        assert height < (6_000 if served else 12_000), "a text was squeezed into a narrow column"
        shown = page.locator("main").inner_text() + page.title()
        assert not set(shown) & set("\x00\x1b\x9b\u202e\u2066"), "a character that acts"
        if name not in ("well", "empty", "calendar"):
            assert "<script>" in shown
            assert (not served and name == "cycles") or "{{ 7 * 7 }}" in shown


def test_endless_text_stays_within_bounds() -> None:
    html = every_page(FILE, HOSTILE)["overview"]
    assert len(html.encode()) < 150_000
    assert ENDLESS[:5000] not in html


@pytest.mark.parametrize("place", [FILE, SERVED], ids=["file", "served"])
def test_the_busiest_day_fits(place: Place) -> None:
    assert len(pages.overview(busiest(), place).encode()) <= 150_000
