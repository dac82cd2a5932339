"""Pictures by words in a browser: found with a keyboard, at every width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from service.imaging.labels import NO_FINDING
from tests.browser.bedside import artefacts
from tests.browser.conftest import running
from tests.browser.test_review import enter, look, opened
from tests.unit.api.review.console import Console
from tests.unit.api.review.test_pictures import PATH, Finder, with_room

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    console = with_room(Console(), Finder(count=3))
    with running(console.app) as where:
        yield where


def test_words_find_pictures_and_the_page_fits_every_width(browser: Browser, address: str) -> None:
    folder = Path(artefacts()).parent / "review"
    folder.mkdir(exist_ok=True)
    complaints: list[str] = []
    for width, scheme in ((360, "light"), (768, "dark"), (1280, "light")):
        context = enter(browser, address, "one", width, color_scheme=scheme)
        page = opened(context, PATH, complaints)
        expect(page.get_by_text(NO_FINDING)).to_be_visible()
        expect(page.locator(".found .entry")).to_have_count(3)
        page.get_by_label("What to look for").focus()
        page.keyboard.type("left lower lobe opacity")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Most like")).to_contain_text("left lower lobe opacity")
        expect(page).to_have_url(f"{address}{PATH}")
        expect(page.locator(".suggestions").first).to_contain_text("pneumothorax")
        look(page, folder / f"pictures-{width}.png", width)
        context.close()
    assert complaints == []
