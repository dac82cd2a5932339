"""The console in a browser: a reviewer with a keyboard, another user who sees a dispute at once, a reader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect

from fixtures.sample_run import sample_run
from service.ports import RunId
from service.ports.reviews import Outcome, Review, Rule, Support
from service.review.items import items_of
from tests.browser.bedside import artefacts
from tests.browser.conftest import AXE, running
from tests.unit.api.review.console import Console, seeded

pytestmark = pytest.mark.browser

REVIEW = "/review/runs/filed"
WIDTHS = (360, 768, 1280)
TOTAL = len(items_of(sample_run().summary))
REFUSED = len(sample_run().summary.refused)


@pytest.fixture(scope="module")
def console() -> Console:
    """A console with summaries in whose reviews errors are planted, one of them finished by two."""
    names = ("filed", "other", "waits", "double")
    runs = tuple(sample_run(run_id=name, patient=f"Patient/{n}") for n, name in enumerate(names, 1))
    one = Console(runs, seeded())
    for who, support in (("a", Support.SUPPORTED), ("b", Support.NOT_SUPPORTED)):
        review = Review(RunId("double"), f"user:{who}", Rule.RANDOM, one.now, "Patient/4")
        one.reviews.begin(review)
        one.score_all(who, support, "double")
        one.reviews.finish(review.run_id, review.reviewer, Outcome.ACCEPTED, "", one.now)
    one.dispute(5, run_id="waits")
    return one


@pytest.fixture(scope="module")
def address(console: Console) -> Iterator[str]:
    with running(console.app) as where:
        yield where


def enter(browser: Browser, address: str, user: str, width: int = 1280, **more: object) -> BrowserContext:
    return browser.new_context(
        base_url=address, extra_http_headers={"x-test-user": user},
        viewport=ViewportSize(width=width, height=800), **more,  # type: ignore[arg-type]
    )  # fmt: skip


def opened(context: BrowserContext, path: str, complaints: list[str]) -> Page:
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path)
    return page


def test_a_reviewer_reads_scores_and_disputes_by_keyboard_and_another_user_sees_it_at_once(
    browser: Browser, address: str, console: Console
) -> None:
    complaints: list[str] = []
    reviewer, clinician = enter(browser, address, "one"), enter(browser, address, "clinician")
    page, other = opened(reviewer, "/review", complaints), opened(clinician, "/runs/filed", complaints)
    expect(other.locator(".disputed")).to_have_count(0)

    page.get_by_role("link", name="Review summary filed").click()
    page.get_by_role("button", name="Begin").click()
    expect(page.locator("#item-1")).to_be_focused()
    expect(page.locator("#item-1")).to_contain_text("Not supported, not published")
    expect(page.locator("#item-1 .left")).to_contain_text("Observation/71")
    source, statement = (page.locator(f"#item-1 .{side}").bounding_box() for side in ("left", "right"))
    assert source is not None
    assert statement is not None
    assert source["x"] + source["width"] <= statement["x"]

    page.keyboard.press("r")
    expect(page.locator("#progress")).to_have_text(f"1 of {TOTAL} scored")
    expect(page.locator("#item-2")).to_be_focused()
    page.keyboard.press("e")
    page.keyboard.type("the note says otherwise")
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    expect(page.locator("#progress")).to_have_text(f"2 of {TOTAL} scored")
    expect(page.locator("#item-2 textarea").first).to_have_value("the note says otherwise")
    page.keyboard.press("k")
    page.keyboard.press("k")
    expect(page.locator("#item-1")).to_be_focused()
    for _ in range(REFUSED):
        page.keyboard.press("j")
    planted = console.review().seeded
    assert planted is not None
    assert planted.ordinal != 0  # the first published statement is a real one
    published = page.locator(f"#item-{REFUSED + 1}")
    expect(published).to_be_focused()
    page.keyboard.press("d")
    page.keyboard.type("never had it")
    published.get_by_role("button", name="Wrong").click()
    expect(published).to_contain_text("disputed, marked for every viewer")

    other.reload()
    expect(other.locator("#statement-1")).to_contain_text("disputed by a colleague, check the chart")
    expect(other.locator(".disputed")).to_have_count(1)

    scored = console.review().scores
    assert [(one.support, one.words) for one in scored] == [
        (Support.NOT_SUPPORTED, ""), (Support.NOT_ADDRESSED, "the note says otherwise"),
    ]  # fmt: skip
    page.locator("#item-1").focus()
    page.keyboard.press("u")
    expect(page.get_by_text("Taken back: your last dispute.")).to_be_visible()
    other.reload()
    expect(other.locator(".disputed")).to_have_count(0)

    finish_by_keyboard(page, console)
    assert complaints == []
    for context in (reviewer, clinician):
        context.close()


def finish_by_keyboard(page: Page, console: Console) -> None:
    """Score what is left, and finish: then the planted error is told."""
    planted = console.review().seeded
    assert planted is not None
    number = next(i.number for i in items_of(sample_run().summary, planted) if i.is_seeded)
    page.goto(f"{REVIEW}#item-3")
    for at in range(3, TOTAL + 1):
        expect(page.locator(f"#item-{at}")).to_be_focused()
        page.keyboard.press("r" if at == number else "a")
        expect(page.locator("#progress")).to_have_text(f"{at} of {TOTAL} scored")
    page.get_by_role("group", name="Accurate").get_by_role("radio", name="5").check()
    page.get_by_role("button", name="Keep the form").click()
    page.get_by_role("button", name="Finish: accepted").click()
    expect(page.locator(".planted")).to_contain_text(f"Statement {number} was a planted error")
    expect(page.locator(".planted")).to_contain_text("You found it.")
    review = console.review()
    assert review.outcome is Outcome.ACCEPTED
    assert review.form is not None
    assert review.form.answers == {"accurate": 5}


def test_without_a_script_every_act_is_a_plain_form(browser: Browser, address: str, console: Console) -> None:
    context = enter(browser, address, "plain", java_script_enabled=False)
    page = opened(context, "/review/runs/other", [])
    page.get_by_role("button", name="Begin").click()
    page.locator("#item-2").get_by_role("button", name="Not supported").click()
    expect(page.locator("#progress")).to_have_text(f"1 of {TOTAL} scored")
    expect(page).to_have_url(f"{address}/review/runs/other#item-2")
    page.get_by_label("What should stand in the summary").fill("lives alone")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".omitted")).to_contain_text("lives alone")
    page.get_by_role("button", name="Undo the last act").click()
    expect(page.get_by_text("You have named nothing.")).to_be_visible()
    page.get_by_label("Reason").fill("two drugs are wrong")
    page.get_by_role("button", name="Finish: rejected").click()
    expect(page.get_by_text("two drugs are wrong")).to_be_visible()
    assert console.review("plain", "other").outcome is Outcome.REJECTED
    context.close()


def test_a_reader_is_refused(browser: Browser, address: str) -> None:
    context = enter(browser, address, "reader")
    page = context.new_page()
    for path in ("/review", REVIEW, "/review/agreement"):
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == 403
    page.goto("/runs/filed")
    expect(page.get_by_role("link", name="Review")).to_have_count(0)
    context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_pages_fit_every_width_and_axe_finds_nothing(browser: Browser, address: str, width: int) -> None:
    complaints: list[str] = []
    folder = Path(artefacts()).parent / "review"
    folder.mkdir(exist_ok=True)
    scheme = "dark" if width == 768 else "light"
    context = enter(browser, address, f"looks{width}", width, color_scheme=scheme)
    waits = "/review/runs/waits"
    page = opened(context, waits, complaints)
    pages = {
        "begin": waits, "queue": "/review", "agreement": "/review/agreement",
        "dispute": f"/review/disputes/{5:032x}",
    }  # fmt: skip
    for name, path in pages.items():
        page.goto(path)
        look(page, folder / f"{name}-{width}.png", width)
    page.goto(waits)
    page.get_by_role("button", name="Begin").click()
    page.locator("#item-1").get_by_role("button", name="Not supported").click()
    expect(page.locator("#progress")).to_have_text(f"1 of {TOTAL} scored")
    page.locator(f"#item-{REFUSED + 1} .dispute summary").click()
    look(page, folder / f"run-{width}.png", width)
    page.locator("#item-5").focus()
    page.screenshot(path=folder / f"reading-{width}.png")
    dock, banner = page.locator(".dock").bounding_box(), page.locator(".banner").bounding_box()
    assert dock is not None
    assert dock["y"] + dock["height"] == pytest.approx(800, abs=1)
    assert banner is not None
    assert banner["y"] == 0
    assert complaints == []
    context.close()


def look(page: Page, picture: Path, width: int) -> None:
    """Keep a picture of the page; nothing runs out of its width, nothing is cut off, axe is content."""
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=picture, full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    small = page.locator("main button:visible, main summary:visible, .places a").evaluate_all(
        "all => all.filter(one => one.getBoundingClientRect().height < 44).map(one => one.textContent)"
    )
    assert small == []
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
