"""The sidebar in a frame of the EHR's page, which is on another site, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Frame, Page, expect

from fixtures.charts import status
from fixtures.engines import demonstration_model
from fixtures.hostile import HOSTILE
from fixtures.smart import missing_parts
from tests.browser.bedside import Bedside, artefacts, at_bedside, potassium
from tests.browser.conftest import AXE
from tests.browser.test_pages import CONTRASTS, OVERFLOWING
from tests.conftest import CANARY, missing

pytestmark = [pytest.mark.browser, pytest.mark.node]

SIZES = (360, 768, 1280)
TARGETS = """(least) => [
  ...document.querySelectorAll("a, button, summary, input:not([type=hidden]), textarea"),
]
  .filter((e) => e.checkVisibility() && !e.closest(".hear, .skip"))
  .map((e) => [e.className || e.tagName, e.textContent.trim().slice(0, 20), e.getBoundingClientRect()])
  .filter(([, , box]) => box.width < least || box.height < least)
  .map(([name, text, box]) => `${name} ${text} ${box.width}x${box.height}`)"""


@pytest.fixture(scope="module")
def bedside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bedside]:
    if missing_parts():
        missing(missing_parts())
    with at_bedside(tmp_path_factory.mktemp("bedside")) as place:
        place.store_summary("1")
        yield place


@dataclass
class Seat:
    """One browser at the EHR's page."""

    page: Page
    context: BrowserContext
    here: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def app(self) -> Frame:
        frame = self.page.frame(name="app")
        assert frame is not None
        return frame


Sit = Callable[..., Seat]


@contextmanager
def seated(browser: Browser, here: str, **more: Any) -> Iterator[Seat]:
    context = browser.new_context(**more)
    seat = Seat(context.new_page(), context, here)

    def heard(request: Any) -> None:
        is_ours = request.frame.name == "app" and "/sidebar" in request.frame.url
        if is_ours and not request.is_navigation_request():
            seat.requests.append(request.url)

    def complained(message: Any) -> None:
        is_ours = not message.location["url"].startswith("http://ehr.localhost")
        if is_ours and "Blocked autofocusing" not in message.text:  # htmx gives the focus itself
            seat.complaints.append(message.text)

    seat.page.on("request", heard)
    seat.page.on("console", complained)
    seat.page.on("pageerror", lambda error: seat.complaints.append(str(error)))
    seat.page.on("dialog", lambda dialog: seat.complaints.append("a dialog"))
    yield seat
    context.close()


@pytest.fixture
def sit(browser: Browser, bedside: Bedside) -> Iterator[Sit]:
    """Open the EHR's page; the test fails where the browser complained, or asked another site."""
    seats = []

    def sit(
        patient: str = "1", *, user: str = "roe", width: int = 360, wait: bool = True, **more: Any
    ) -> Seat:
        touch = more.pop("touch", width < 500)
        scheme, clocked = more.pop("scheme", "light"), more.pop("clocked", False)
        entered = seated(
            browser, bedside.here, viewport={"width": max(width, 400), "height": 900}, has_touch=touch,
            color_scheme=scheme, **more,
        )  # fmt: skip
        seat = entered.__enter__()
        seats.append((entered, seat))
        if clocked:
            seat.page.clock.install()
        seat.page.goto(bedside.ehr.host_page(patient, user=user, width=width))
        if wait:
            settled(seat)
        return seat

    yield sit
    complaints = [complaint for _, seat in seats for complaint in seat.complaints]
    foreign = [url for _, seat in seats for url in seat.requests if not url.startswith(bedside.here)]
    for entered, _ in seats:
        entered.__exit__(None, None, None)
    assert complaints == []
    assert foreign == []


def settled(seat: Seat) -> None:
    """Wait until the page stands and its fragments have come."""
    seat.page.wait_for_timeout(100)
    app = seat.page.frame_locator("iframe[name=app]")
    app.locator("#live:not([aria-busy])").wait_for(timeout=20_000)
    expect(app.locator("#freshness .waiting", has_text="Comparing")).to_have_count(0, timeout=20_000)


def words_of(seat: Seat, where: str = "body") -> str:
    return " ".join(seat.app.locator(where).inner_text().split())


def test_the_stored_summary_is_there_with_the_live_strip_before_it(sit: Sit) -> None:
    seat = sit()
    words = words_of(seat)
    order = [
        words.index(one)
        for one in ("Born 04-May-1951", "AI-generated, not reviewed", "Read live", "Read up to", "Gout")
    ]
    assert order == sorted(order)
    assert CANARY in words
    live = words_of(seat, "#live")
    assert "Known allergies" in live
    assert "Penicillin" in live
    assert "Not for resuscitation" in live
    assert "FAILED" not in words


def test_a_citation_is_opened_by_mouse_and_shows_what_the_chart_says_now(sit: Sit) -> None:
    seat = sit(width=768)
    seat.app.locator("#summary .chip").first.click()
    evidence = seat.app.locator("#evidence")
    expect(evidence.locator(".now")).to_contain_text("Unchanged in the chart")
    expect(evidence.locator(".reference")).to_contain_text("/_history/")
    assert evidence.evaluate("(e) => e === document.activeElement")
    evidence.locator(".close").click()
    expect(evidence).to_be_hidden()
    assert seat.app.locator("#summary .chip").first.evaluate("(e) => e === document.activeElement")


def test_a_citation_is_opened_by_keyboard_alone_and_escape_gives_the_focus_back(sit: Sit) -> None:
    seat = sit(width=360, touch=False)
    seat.app.locator("#content").focus()
    for _ in range(60):
        seat.page.keyboard.press("Tab")
        if seat.app.evaluate("document.activeElement.matches('.chip')"):
            break
    chip = seat.app.evaluate_handle("document.activeElement")
    seat.page.keyboard.press("Enter")
    expect(seat.app.locator("#evidence .now")).to_be_visible()
    assert chip.evaluate("(e) => e.getAttribute('aria-expanded')") == "true"
    seat.page.keyboard.press("Escape")
    expect(seat.app.locator("#evidence")).to_be_hidden()
    assert chip.evaluate("(e) => e === document.activeElement && e.getAttribute('aria-expanded') === 'false'")


def test_the_ehr_is_asked_to_open_the_cited_record(sit: Sit) -> None:
    seat = sit()
    seat.app.locator("#summary .statement", has_text="Gout").first.locator(".chip").first.click()
    seat.app.locator(".open-in-chart").click()
    expect(seat.app.locator(".opened")).to_have_text("Opened in the chart.")
    (told,) = seat.page.evaluate("window.told")
    assert told["origin"] == seat.here
    assert told["data"]["messageType"] == "ui.launchActivity"
    assert told["data"]["messagingHandle"] == "handle-1"
    assert told["data"]["payload"] == {
        "activityType": "problem-review",
        "activityParameters": {"problemLocation": "Condition/1-gout"},
    }


def test_who_may_not_read_allergies_sees_none_and_is_told_so(sit: Sit) -> None:
    seat = sit(user="doe")
    words = words_of(seat)
    assert "Penicillin" not in words
    assert "Allergies unavailable" in words
    assert "Not permitted: your account may not read allergies." in words_of(seat, "#live")
    assert "not shown: your account may not read allergies" in words
    assert "INCOMPLETE" in words
    assert "Withheld from you" in words
    seat.page.screenshot(path=artefacts() / "withheld-360-light.png")


def test_one_tap_disputes_a_statement_for_every_viewer(sit: Sit, bedside: Bedside) -> None:
    first = sit()
    statement = first.app.locator("#summary section:not(.ask) .statement", has_text="allopurinol").first
    statement.get_by_role("button", name="Wrong").click()
    expect(statement).to_contain_text("You said: wrong")
    second = sit(user="doe")
    shown = second.app.locator("#summary .statement", has_text="allopurinol").first
    expect(shown).to_contain_text("disputed by a colleague")
    statement.get_by_role("button", name="Undo").click()
    expect(statement.get_by_role("button", name="Wrong")).to_be_visible()


def test_a_question_is_answered_with_its_sources(sit: Sit) -> None:
    seat = sit()
    seat.app.locator("#ask-question").fill("Which allergies are recorded?")
    seat.app.locator("#ask-form button").click()
    answer = seat.app.locator("#answers .answer").first
    expect(answer.locator(".headline")).to_be_visible(timeout=30_000)
    expect(answer).to_contain_text("Penicillin")


def test_a_summary_is_written_before_the_reader_s_eyes_and_put_in_place_once(sit: Sit) -> None:
    seat = sit("2")
    assert "No summary is stored" in words_of(seat)
    seat.app.get_by_role("button", name="Summarise this chart").click()
    making = seat.app.locator("#generation")
    expect(making.locator(".provisional li").first).to_contain_text("being checked", timeout=30_000)
    before = list(seat.complaints)
    seat.page.screenshot(path=artefacts() / "generating-360-light.png")
    seat.complaints[:] = before  # Playwright's own style is refused where the page changes under its hands
    expect(seat.app.locator("#summary .before h1")).to_be_visible(timeout=60_000)
    settled(seat)
    words = words_of(seat)
    assert "being checked" not in words
    assert "Known allergies" in words
    assert "AI-generated, not reviewed" in words
    assert "Nothing changed in the chart since" in words


def test_what_changed_since_is_named_and_a_new_critical_result_is_read_live(
    sit: Sit, bedside: Bedside
) -> None:
    bedside.put(potassium("2", "7.3", "2-later"))
    seat = sit("2")
    if "No summary is stored" in words_of(seat):
        seat.app.get_by_role("button", name="Summarise this chart").click()
        expect(seat.app.locator("#summary .before h1")).to_be_visible(timeout=60_000)
        bedside.put(potassium("2", "7.4", "2-later"))
        seat = sit("2")
    assert re.search(r"STALE .*results and vital signs: \d (new|changed)", words_of(seat))
    assert re.search(r"7\.[34] mmol/L", words_of(seat, "#live"))
    assert "new since the summary" in words_of(seat, "#live")


def to_view(seat: Seat, title: str) -> None:
    """Open a view, and wait until it is the one that is shown."""
    seat.app.locator(".views a", has_text=title).click()
    expect(seat.app.locator(".views [aria-current]")).to_have_text(title)


def test_a_summary_that_is_being_written_can_be_stopped(sit: Sit) -> None:
    seat = sit("2")
    to_view(seat, "Admission")
    seat.app.get_by_role("button", name="Summarise this chart").click()
    making = seat.app.locator("#generation")
    expect(making).to_be_visible()
    making.get_by_role("button", name="Stop").click()
    expect(making.locator(".stage")).to_have_text("Stopped. Nothing was kept.", timeout=20_000)
    assert making.locator("li").count() == 0


def test_thirty_seconds_of_silence_are_a_visible_failure_and_can_be_tried_again(sit: Sit) -> None:
    seat = sit("2", clocked=True)
    seat.page.route("**/sidebar/stream*", lambda route: None)  # neither answered nor refused
    to_view(seat, "Problems")
    seat.app.get_by_role("button", name="Summarise this chart").click()
    stage = seat.app.locator("#generation .stage")
    expect(stage).to_have_text("Waiting for its turn …")
    seat.page.clock.fast_forward(29_000)
    expect(stage).to_have_text("Waiting for its turn …")
    seat.page.clock.fast_forward(2_000)
    expect(stage).to_contain_text("FAILED: Nothing was heard for 30 seconds.")
    expect(seat.app.locator("#live")).to_contain_text("Not for resuscitation")  # the chart stays usable
    seat.page.unroute("**/sidebar/stream*")
    seat.app.get_by_role("button", name="Try again").click()
    expect(seat.app.locator("#summary .before h1")).to_be_visible(timeout=60_000)


def test_what_a_reviewer_disputes_in_the_console_is_disputed_in_another_users_sidebar_at_once(
    sit: Sit, bedside: Bedside, browser: Browser
) -> None:
    run = bedside.store_summary("2", "handover")
    seat = sit("2")
    to_view(seat, "Handover")
    expect(seat.app.locator("#summary .statement").first).to_be_visible()
    expect(seat.app.locator("#summary .disputed")).to_have_count(0)
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    console = context.new_page()
    console.goto(f"{bedside.here}/login?token={bedside.one_time.value}")
    console.goto(f"{bedside.here}/review/runs/{run.run_id}")
    console.get_by_role("button", name="Begin").click()
    item = console.locator("article.item:not(.unpublished)").first
    words = item.locator(".claim").inner_text()
    item.locator("summary", has_text="Dispute").click()
    item.get_by_role("button", name="Wrong").click()
    expect(console.get_by_text("disputed, marked for every viewer")).to_have_count(1)
    context.close()
    to_view(seat, "Problems")
    to_view(seat, "Handover")
    expect(seat.app.locator("#summary .disputed")).to_have_count(1)
    expect(seat.app.locator("#summary .statement.is-disputed .words").first).to_have_text(words)


def test_markup_in_a_chart_is_words_to_the_browser(sit: Sit, bedside: Bedside) -> None:
    text = HOSTILE["markup"]
    bedside.put(
        {
            "resourceType": "AllergyIntolerance", "id": "2-hostile", "patient": {"reference": "Patient/2"},
            "clinicalStatus": status("allergyintolerance-clinical", "active"), "code": {"text": text},
        }
    )  # fmt: skip
    seat = sit("2")
    expect(seat.app.locator("#live")).to_contain_text("<script>alert(1)</script>")
    assert seat.app.locator("#live img, #live script, #live b script").count() == 0


def test_another_patient_is_another_page_and_nothing_of_the_first_stays(sit: Sit) -> None:
    seat = sit("1")
    before = seat.app.url
    seat.page.get_by_role("button", name="Patient 2").click()
    seat.page.wait_for_timeout(500)
    settled(seat)
    assert seat.app.url != before
    assert "/sidebar" in seat.app.url
    references = seat.app.evaluate(
        "[...document.querySelectorAll('[data-reference]')].map((e) => e.dataset.reference)"
    )
    assert references
    assert all("/2-" in one for one in references)


def test_a_token_that_ran_out_is_renewed_without_a_word(sit: Sit, bedside: Bedside) -> None:
    seat = sit()
    bedside.ehr.refuse_tokens()
    seat.app.locator("#summary .chip").first.click()
    expect(seat.app.locator("#evidence .now")).to_contain_text("Unchanged in the chart")


def test_who_signs_out_leaves_nothing_behind(sit: Sit) -> None:
    seat = sit()
    address = seat.app.url
    seat.app.get_by_role("button", name="Sign out").click()
    expect(seat.app.locator("h1")).to_have_text("You are signed out")
    seat.app.goto(address)
    assert CANARY not in seat.app.content()
    assert [one for one in seat.context.cookies() if "epicrisis" in one["name"]] == []
    seat.complaints.clear()  # the browser says that the page is answered with 401


def test_a_launch_that_ended_elsewhere_clears_the_page(sit: Sit) -> None:
    seat = sit()
    seat.context.clear_cookies()
    seat.app.locator("#summary .chip").first.click()
    expect(seat.app.locator("h1")).to_have_text("Session over")
    assert CANARY not in seat.app.content()
    assert "Penicillin" not in seat.app.content()
    seat.complaints.clear()


def test_a_fragment_that_cannot_be_reached_says_failed(sit: Sit) -> None:
    seat = sit(wait=False)
    seat.page.route("**/sidebar/live*", lambda route: route.abort())
    seat.page.reload()
    expect(seat.page.frame_locator("iframe[name=app]").locator("#live .trouble")).to_contain_text(
        "FAILED: Epicrisis could not be reached."
    )
    seat.complaints.clear()


@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_looks_right_at_every_width_in_light_and_in_dark(sit: Sit, width: int, scheme: str) -> None:
    seat = sit(width=width, scheme=scheme)
    assert seat.app.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert seat.app.evaluate(OVERFLOWING) == []
    assert seat.app.evaluate(TARGETS, 24) == []
    found = seat.app.evaluate(CONTRASTS)
    assert found
    assert [one for one in found if one["ratio"] < 4.5 or one["size"] < 12] == []
    kept = artefacts()
    seat.page.screenshot(path=kept / f"sidebar-{width}-{scheme}.png")
    whole(seat, kept / f"sidebar-{width}-{scheme}-whole.png")
    seat.app.locator("#summary .statement", has_text="Gout").first.locator(".chip").first.click()
    expect(seat.app.locator("#evidence .now")).to_be_visible()
    assert covered(seat) == []
    seat.page.screenshot(path=kept / f"evidence-{width}-{scheme}.png")
    found = seat.app.evaluate(CONTRASTS)
    assert [one for one in found if one["ratio"] < 4.5 or one["size"] < 12] == []


def covered(seat: Seat) -> list[str]:
    """Return what something else lies over: of the banner, of the evidence, of the statement it is about."""
    parts = (".banner .name", "#evidence-title", "#evidence .close", ".chip[aria-expanded=true]")
    under = """(e) => {
      const box = e.getBoundingClientRect();
      const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
      return !top || !(e.contains(top) || top.contains(e)); }"""
    return [part for part in parts if seat.app.locator(part).first.evaluate(under)]


def whole(seat: Seat, path: Path) -> None:
    """Keep a picture of the whole page, however long."""
    height = seat.app.evaluate("document.documentElement.scrollHeight")
    size = seat.page.viewport_size
    assert size is not None
    seat.page.set_viewport_size({"width": size["width"], "height": min(height + 60, 8000)})
    seat.page.wait_for_timeout(300)
    seat.page.screenshot(path=path)
    seat.page.set_viewport_size(size)


def test_no_width_of_a_frame_scrolls_sideways(sit: Sit) -> None:
    seat = sit()
    for width in (320, 360, 480, 559, 768, 900, 1280):
        seat.page.evaluate("(w) => { document.querySelector('iframe').style.width = `${w}px`; }", width)
        assert seat.app.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, width
        assert seat.app.evaluate(OVERFLOWING) == [], width


def test_on_a_touch_screen_what_is_tapped_is_large_enough(sit: Sit) -> None:
    seat = sit(width=360, is_mobile=True)
    small = seat.app.evaluate(TARGETS, 44)
    assert [one for one in small if one.startswith(("chip", "button", "tap"))] == []


@pytest.mark.parametrize("user", ["roe", "doe"])
def test_axe_finds_nothing(sit: Sit, user: str) -> None:
    if not AXE.exists():
        missing("axe-core in tests/node/node_modules")
    seat = sit(user=user, bypass_csp=True)
    seat.app.add_script_tag(path=str(AXE))
    for step in ("page", "evidence"):
        if step == "evidence":
            seat.app.locator("#summary .chip").first.click()
            expect(seat.app.locator("#evidence .now")).to_be_visible()
        result = seat.app.evaluate("axe.run()")
        found = [(one["id"], [node["html"] for node in one["nodes"]]) for one in result["violations"]]
        assert found == [], step


def test_print_shows_every_statement_and_no_control(sit: Sit) -> None:
    seat = sit(width=768)
    seat.page.emulate_media(media="print", color_scheme="dark")
    assert seat.app.locator("#summary .statement").last.is_visible()
    assert seat.app.locator(".views").is_hidden()
    assert seat.app.locator(".tapped button").first.is_hidden()
    assert seat.app.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert urlsplit(seat.app.url).path == "/sidebar"


@pytest.mark.engine
def test_the_real_model_writes_a_summary_before_the_reader_s_eyes(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if missing_parts():
        missing(missing_parts())
    with (
        at_bedside(tmp_path_factory.mktemp("real"), demonstration_model()) as place,
        seated(browser, place.here, viewport={"width": 400, "height": 900}) as seat,
    ):
        seat.page.goto(place.ehr.host_page("1"))
        settled(seat)
        seat.app.get_by_role("button", name="Summarise this chart").click()
        expect(seat.app.locator("#summary .before h1")).to_be_visible(timeout=420_000)
        settled(seat)
        assert seat.app.locator("#summary .statement .chip").count() > 5
        assert "being checked" not in words_of(seat)
        assert seat.complaints == []
