"""Two browsers on one summary: what one clinician calls wrong, the other sees as disputed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.requests import Request

from fixtures.sample_run import CREATED, sample_run
from service.api.app import create_app
from service.api.feedback import Feedbacks
from service.identity.visitor import Role, Visitor
from tests.browser.conftest import AXE, NARROW, running
from tests.unit.api.entering import OpenDoor
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.ask.in_memory import InMemoryFeedback, InMemoryQuestions

pytestmark = pytest.mark.browser

RUN = sample_run(run_id="filed")


class NamedDoor(OpenDoor):
    """Everybody comes in as who their browser says."""

    async def visitor_of(self, request: Request) -> Visitor | None:
        name = request.headers.get("x-test-user", "nobody")
        roles = {Role.READER} if name == "reader" else {Role.READER, Role.CLINICIAN}
        return Visitor(f"user:{name}", frozenset(roles))


@dataclass
class Site:
    address: str = ""
    said: InMemoryFeedback = field(default_factory=InMemoryFeedback)


@pytest.fixture
def site() -> Iterator[Site]:
    one, store, audit = Site(), InMemoryStore(RUN), InMemoryAudit()

    def clock() -> object:
        return CREATED + timedelta(minutes=5)

    feedbacks = Feedbacks(store, InMemoryQuestions(), one.said, audit, clock)  # type: ignore[arg-type]
    app = create_app(
        store=store, audit=audit, clock=clock, access=NamedDoor(), allowed_hosts=("127.0.0.1",), version="0",  # type: ignore[arg-type]
        feedback=one.said, feedbacks=feedbacks,
    )  # fmt: skip
    with running(app) as address:
        one.address = f"{address}/runs/filed"
        yield one


def opened(browser: Browser, site: Site, user: str, *, scripts: bool = True) -> Page:
    context = browser.new_context(
        viewport=NARROW, extra_http_headers={"x-test-user": user}, java_script_enabled=scripts
    )
    page = context.new_page()
    page.goto(site.address)
    return page


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_a_statement_that_one_calls_wrong_is_marked_for_the_other_on_the_next_load(
    browser: Browser, site: Site, scripts: bool
) -> None:
    one, two = opened(browser, site, "one", scripts=scripts), opened(browser, site, "two", scripts=scripts)
    disputed = "disputed by a colleague, check the chart"
    first = one.locator("#statement-1")
    expect(first).not_to_contain_text(disputed)
    first.get_by_role("button", name="Wrong").click()
    expect(one.locator("#statement-1")).to_contain_text(
        "You said: wrong. Marked as disputed for every viewer."
    )
    two.reload()
    expect(two.locator("#statement-1")).to_contain_text(disputed)
    expect(two.locator(".disputed")).to_have_count(1)
    one.locator("#statement-1").get_by_role("button", name="Undo").click()
    expect(one.locator("#statement-1").get_by_role("button", name="Wrong")).to_be_visible()
    two.reload()
    expect(two.locator(".disputed")).to_have_count(0)
    for page in (one, two):
        page.context.close()


def test_words_are_added_in_a_second_step_and_who_may_only_read_has_no_buttons(
    browser: Browser, site: Site
) -> None:
    one, reader = opened(browser, site, "one"), opened(browser, site, "reader")
    statement = one.locator("#statement-2")
    statement.get_by_text("More").click()
    statement.get_by_label("In your words, if you like").fill("stopped last year")
    statement.get_by_role("button", name="Outdated").click()
    expect(one.locator("#statement-2")).to_contain_text("You said: outdated.")
    assert [(said.words, said.mark.value) for said in site.said.kept] == [("stopped last year", "outdated")]
    reader.reload()
    expect(reader.locator("#statement-2")).to_contain_text("disputed by a colleague")
    expect(reader.get_by_role("button", name="Wrong")).to_have_count(0)
    for page in (one, reader):
        page.context.close()


def test_the_taps_fit_a_narrow_frame_and_axe_finds_nothing_serious(browser: Browser, site: Site) -> None:
    page = opened(browser, site, "one")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    heights = page.locator(".tap:visible").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().height)"
    )
    assert heights
    assert min(heights) >= 24
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    page.context.close()
