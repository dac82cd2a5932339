"""The pages of quality in a real browser: charts with their numbers, alarms in words, and an evaluation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from fixtures.answers import change_numbers, copy_lines
from fixtures.facts import NOW as RUN_AT
from service.api.app import create_app
from service.api.review.quality import Quality
from service.engine.scripted import ScriptedEngine
from service.ports.attesting import Attested
from service.ports.quality import Counts, Evaluation, EvaluationId, Group, Identity, Measure
from service.ports.reviews import Omission, Review, Rule, Score, Support
from service.ports.runs import RunId
from service.quality.evaluate import run_arm
from service.quality.report import build_report
from service.quality.thresholds import DriftLimits, GateLimits
from tests.browser.conftest import AXE, NARROW, WIDE, running
from tests.conftest import missing
from tests.unit.api.entering import OpenDoor
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.quality.in_memory import InMemoryQuality
from tests.unit.test_summarize import Bench

NOW = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
MONDAYS = [
    (datetime(2026, 11, 23, tzinfo=UTC) - timedelta(weeks=back)).date().isoformat() for back in range(12)
]
SMALL = Identity("SmolLM2-135M-Instruct", "3f" * 32, "history@1.2.0", "aa" * 32, "6", "smollm2-135m/1f3a")
LARGE = Identity("medgemma-27b-text-it", "9c" * 32, "history@1.3.0", "bb" * 32, "6", "medgemma-27b/77c1")


def fill(store: InMemoryQuality) -> tuple[list[Review], list[Attested]]:
    """Twelve weeks of two models on two wards; the last two weeks of the small one are worse."""
    reviews, attested = [], []
    for back, week in enumerate(MONDAYS):
        for number in range(12):
            who = SMALL if number % 2 else LARGE
            worse = who is SMALL and back < 2
            counts = Counts(
                claims=40, supported=30 if worse else 38 - number % 3, told=9, added=3 + number % 2,
                headings=6, not_retrieved=number % 3 == 0, characters=900, seconds=7.0 + number + back % 3,
            )  # fmt: skip
            ward = "Intensive care unit 2, west wing" if number % 3 else "Ward 7"
            group = Group(week, who.model, who.model_digest, who.prompt, ward)
            run_id = RunId(f"{week}-{number}")
            store.keep(Measure(run_id, NOW, group, who.template_digest, "6", counts))
            if number % 4 == 0:
                last = Support.NOT_SUPPORTED if back % 2 else Support.SUPPORTED
                supports = [*[Support.SUPPORTED] * 9, last]
                scores = tuple(Score(run_id, n, "user:r", NOW, one) for n, one in enumerate(supports))
                omitted = (Omission(run_id, "user:r", NOW, "x"),) if back % 3 == 0 else ()
                reviews.append(
                    Review(run_id, "user:r", Rule.RANDOM, NOW, "Patient/1", scores=scores, omissions=omitted)
                )
                attested.append(
                    Attested(
                        run_id, "Patient/1", "DocumentReference/1", "Practitioner/7", "user:c", NOW, NOW,
                        1, 20 + 5 * back, 900,
                    )
                )  # fmt: skip
            if number == 5:
                store.marks[run_id] = 1
    return reviews, attested


async def evaluate(store: InMemoryQuality) -> None:
    evaluation = EvaluationId("e0")
    begun = Evaluation(evaluation, RUN_AT, SMALL, LARGE, "cohort", 3)
    arms = [
        await run_arm(
            store, Bench(engine=ScriptedEngine(answer)).summarizer, evaluation, number,
            ("Patient/1", "Patient/2", "Patient/3"), "history", lambda done, stage: None,
        )
        for number, answer in enumerate((copy_lines, change_numbers))
    ]  # fmt: skip
    store.begin(begun)
    store.end(evaluation, NOW, build_report(begun, "history", arms, GateLimits(), NOW))


@pytest.fixture
def filled() -> Quality:
    store = InMemoryQuality()
    reviews, attested = fill(store)
    with ThreadPoolExecutor(1) as apart:  # the browser's own loop runs in this thread
        apart.submit(asyncio.run, evaluate(store)).result()
    return room(store, reviews, attested)


def room(store: InMemoryQuality, reviews: list[Review], attested: list[Attested]) -> Quality:
    return Quality(
        InMemoryStore(), store, lambda since, until: reviews, lambda since, until: attested,
        DriftLimits, lambda: NOW, UTC,
    )  # fmt: skip


@contextmanager
def site_of(quality: Quality) -> Iterator[str]:
    app = create_app(
        store=InMemoryStore(), audit=InMemoryAudit(), access=OpenDoor(), clock=lambda: NOW,
        allowed_hosts=("127.0.0.1",), version="0.1.0", rooms=[quality],
    )  # fmt: skip
    with running(app) as address:
        yield address


def look(
    browser: Browser, address: str, path: str, picture: Path, *, narrow: bool, dark: bool = False
) -> Page:
    """Open a page, keep a picture of it, and let axe find nothing and nothing be wider than the page."""
    if not AXE.exists():
        missing("axe-core in tests/node/node_modules")
    complaints: list[str] = []
    context = browser.new_context(
        viewport=NARROW if narrow else WIDE, color_scheme="dark" if dark else "light", base_url=address
    )
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path)
    page.screenshot(path=str(picture), full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert complaints == []  # the browser tells of every style and script that the policy refuses
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
    return page


def small_words(page: Page) -> list[str]:
    """Return the words of charts that are drawn smaller than 12 pixels."""
    script = """() => [...document.querySelectorAll('svg.chart text')].filter(one =>
        parseFloat(getComputedStyle(one).fontSize) * one.ownerSVGElement.clientWidth
        / one.ownerSVGElement.viewBox.baseVal.width < 12).map(one => one.textContent)"""
    found: list[str] = page.evaluate(script)
    return found


def test_charts_alarms_and_an_evaluation_are_read_with_and_without_eyes(
    browser: Browser, filled: Quality, tmp_path: Path
) -> None:
    with site_of(filled) as address:
        read_all(browser, address, tmp_path)


def read_all(browser: Browser, address: str, tmp_path: Path) -> None:
    page = look(browser, address, "/review/quality", tmp_path / "quality.png", narrow=False)
    alarm = page.locator(".alarm").first.inner_text()
    assert alarm.startswith("Worse than before. Support: 75.0% of 480 in the last weeks, ")
    assert SMALL.model in alarm
    charts = page.locator("svg.chart")
    assert charts.count() == 8
    assert page.get_by_role("img", name="Support", exact=True).count() == 1
    support = page.locator("section.measure").first
    assert support.locator("circle.mark").count() == support.locator("rect.mark").count() == 12
    support.get_by_text("The numbers").click()
    first = support.locator("tbody tr").first
    assert first.locator("td").all_inner_texts()[0::2] == ["23-Nov-2026", "75 %", "240"]
    assert support.locator("tbody tr").count() == 24

    page.get_by_label("Ward").select_option("Ward 7")
    page.get_by_label("Weeks").select_option("4")
    page.get_by_role("button", name="Show").click()
    assert page.locator("section.measure").first.locator("tbody tr").count() == 8
    page.context.close()

    narrow = look(browser, address, "/review/quality", tmp_path / "narrow.png", narrow=True, dark=True)
    assert small_words(narrow) == []
    narrow.get_by_role("link", name=SMALL.model).click()
    path = narrow.url.removeprefix(address)
    narrow.context.close()
    told = look(browser, address, path, tmp_path / "evaluation.png", narrow=False)
    assert told.get_by_role("cell", name="100.0 % (84.5 to 100.0 %)").count() >= 1
    assert told.get_by_text("McNemar").count() == 1
    told.context.close()
    small = look(browser, address, path, tmp_path / "evaluation-narrow.png", narrow=True, dark=True)
    assert small_words(small) == []
    small.context.close()


def test_an_empty_page_says_what_to_do(browser: Browser, tmp_path: Path) -> None:
    with site_of(room(InMemoryQuality(), [], [])) as address:
        page = look(browser, address, "/review/quality", tmp_path / "empty.png", narrow=True)
        assert page.get_by_text("No summary was made in these weeks.").count() == 1
        assert page.get_by_text("epicrisis evaluate --cohort FILE").count() == 1
        page.goto("/review/quality?ward=elsewhere")
        assert page.get_by_text("No summary of these weeks is of that model, prompt and ward.").count() == 1
        page.goto("/review/quality/evaluations/none")
        assert page.get_by_text("There is no such page or summary here.").count() == 1
        page.context.close()
