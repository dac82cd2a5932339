"""The page of an image in a real browser: a real PACS, a real CT, no script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from playwright.sync_api import Browser, Page, ViewportSize

from fixtures.pacs import PacsServer, linked_chart, rewritten
from service.api.cookies import LAUNCH
from tests.browser.bedside import artefacts
from tests.browser.conftest import AXE, Open, running
from tests.browser.test_pages import CONTRASTS, OVERFLOWING, TARGETS
from tests.conftest import missing
from tests.integration.dicomweb.looking import BORN, NUMBER, Looking, Study
from tests.unit.api.sidebar.desk import VISIT

pytestmark = [pytest.mark.browser, pytest.mark.shared]


@pytest.fixture(scope="module")
def study(pacs: PacsServer, shared_data: Path) -> Study:
    """A chest CT of three slices, the same pixels at three places, with a second series of one image."""
    real = linked_chart(pacs.dicomweb_url, shared_data, "d614dcb6").studies[0]
    uid = pydicom.uid.generate_uid(entropy_srcs=["viewer"])
    for number in (1, 2, 3, 4):
        is_last = number == 4
        pacs.store(
            rewritten(
                real.file, PatientID=NUMBER, PatientBirthDate=BORN, PatientName="SECRET^Name",
                StudyInstanceUID=uid, SeriesInstanceUID=f"{uid[:50]}.{1 + is_last}",
                SOPInstanceUID=f"{uid[:50]}.9.{number}", InstanceNumber=str(number),
                ImagePositionPatient=[0, 0, number * 5], ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                SeriesDescription="Thorax, single slice" if is_last else "Thorax 5 mm",
                BodyPartExamined="CHEST",
            )
        )  # fmt: skip
    return Study(uid=str(uid))


@pytest.fixture(scope="module")
def look(pacs: PacsServer, study: Study) -> Looking:
    opened = Looking(pacs.dicomweb_url, ohif_url="https://ohif.example")
    opened.chart.put(study.resource())
    return opened


@pytest.fixture(scope="module")
def site(look: Looking) -> Iterator[str]:
    with running(look.app) as address:
        yield address


def path_of(look: Looking, **query: str) -> str:
    rest = "&".join(f"{name}={value}" for name, value in query.items())
    return f"/runs/{look.run.run_id}/viewer/{look.number}?{rest}"


def is_drawn(page: Page) -> bool:
    return bool(page.locator("#picture img").evaluate("(i) => i.complete && i.naturalWidth === 896"))


def is_clean(page: Page, part: str = "") -> None:
    page.add_script_tag(content=AXE.read_text())
    found = page.evaluate(f"axe.run({part})")
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found["violations"]] == []


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark"), (1280, "light")])
def test_an_image_can_be_looked_at_at_every_width(
    open_page: Open, look: Looking, width: int, scheme: str
) -> None:
    if not AXE.exists():
        missing("axe-core in tests/node/node_modules")
    narrow = width == 360
    page = open_page(path_of(look), narrow=narrow, scheme=scheme, bypass_csp=True).page
    page.screenshot(path=artefacts() / f"viewer-{width}-{scheme}.png", full_page=True)
    assert is_drawn(page)
    is_clean(page)
    assert page.evaluate(OVERFLOWING) == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.evaluate(TARGETS, 24) == []
    found = page.evaluate(CONTRASTS)
    assert found
    assert [one for one in found if one["ratio"] < 4.5 or one["size"] < 12] == []


def test_images_windows_and_series_are_reached_by_links_and_keys_alone(
    open_page: Open, look: Looking
) -> None:
    page = open_page(path_of(look), java_script_enabled=True).page
    assert page.locator("figcaption").inner_text() == "Image 2 of 4"
    page.get_by_role("link", name="Next").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**place=3**")
    page.get_by_role("link", name="Lung").click()
    page.wait_for_url("**window=lung**")
    assert "window -600 ± 750" in page.locator(".rows").inner_text()
    assert is_drawn(page)
    page.screenshot(path=artefacts() / "viewer-lung.png")
    page.get_by_label("Image", exact=True).fill("1")
    page.get_by_role("button", name="Go").click()
    page.wait_for_url("**place=1**")
    assert "window=lung" in page.url
    page.get_by_role("link", name="single slice").click()
    page.wait_for_url("**place=4**")
    assert page.get_by_role("link", name="Next").count() == 0
    assert "SECRET" not in page.content()
    assert look.run.summary.identity.record_number in page.locator(".banner").inner_text()


def test_a_state_is_a_page_of_its_own(browser: Browser, look: Looking, site: str, study: Study) -> None:
    context = browser.new_context(
        base_url=site, viewport=ViewportSize(width=360, height=640), bypass_csp=True
    )
    page = context.new_page()
    look.chart.put({**study.resource(), "subject": {"reference": "Patient/2"}})
    try:
        page.goto(path_of(look))
        page.screenshot(path=artefacts() / "viewer-another.png", full_page=True)
        assert "not surely this patient's" in page.get_by_role("heading", level=1).inner_text()
        assert page.locator("img").count() == 0
        is_clean(page)
    finally:
        look.chart.put(study.resource())
        context.close()


def test_the_evidence_of_a_study_shows_a_small_picture(browser: Browser, look: Looking, site: str) -> None:
    cookie = {"cookie": f"{LAUNCH}={'s' * 43}"}
    context = browser.new_context(
        base_url=site,
        viewport=ViewportSize(width=360, height=640),
        extra_http_headers=cookie,
        bypass_csp=True,
    )
    page = context.new_page()
    page.goto(f"/sidebar/sources/{look.number}?visit={VISIT}&run={look.run.run_id}")
    assert page.locator(".thumb").evaluate("(i) => i.complete && i.naturalWidth === 192")
    page.screenshot(path=artefacts() / "viewer-evidence.png", full_page=True)
    is_clean(page, "'.thumbs'")
    page.get_by_role("link", name="Look at the images").click()
    page.wait_for_url("**/sidebar/viewer/**")
    assert is_drawn(page)
    assert (
        page.get_by_role("link", name="Back to the summary").get_attribute("href")
        == f"/sidebar?visit={VISIT}"
    )
    context.close()
