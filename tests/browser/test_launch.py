"""A launch in a frame of the EHR's page, which is on another site, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlencode

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from fixtures.servers import SekmetServer, free_port
from fixtures.smart import SmartEhr, missing_parts
from service.settings import load_settings
from service.wiring import build_app
from tests.browser.conftest import running
from tests.conftest import CANARY, missing

pytestmark = [pytest.mark.browser, pytest.mark.node]


@dataclass
class Site:
    ehr: SmartEhr
    here: str


@pytest.fixture(scope="module")
def launching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if missing_parts():
        missing(missing_parts())
    folder, port = tmp_path_factory.mktemp("launch"), free_port()
    with ExitStack() as stack:
        sekmet = stack.enter_context(SekmetServer(folder / "sekmet"))
        for patient in ("1", "2"):
            resource = {"resourceType": "Patient", "id": patient, "name": [{"family": CANARY}]}
            url = f"{sekmet.base_url}/Patient/{patient}"
            httpx.put(url, json=resource, trust_env=False).raise_for_status()
        ehr = stack.enter_context(SmartEhr(folder / "smart", sekmet.base_url, f"http://127.0.0.1:{port}"))
        settings = load_settings(home=folder / "home", ehrs=ehr.write_config())
        here = stack.enter_context(running(build_app(settings), port))
        yield Site(ehr, here)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context()
    yield opened
    opened.close()


def launched(page: Page, address: str) -> str:
    with page.expect_response(lambda answer: "/launch/callback" in answer.url) as got:
        page.goto(address)
    assert got.value.status == 303
    path, _, visit = got.value.headers["location"].partition("?visit=")
    assert path == "/sidebar"
    return visit


def test_a_launch_comes_to_its_end_in_a_frame_on_another_site(
    context: BrowserContext, launching: Site
) -> None:
    page = context.new_page()
    visit = launched(page, launching.ehr.host_page("1"))
    (cookie,) = [one for one in context.cookies() if one["name"] == "__Host-epicrisis-launch"]
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "None")
    assert cookie["partitionKey"] == "http://ehr.localhost"
    assert visit not in cookie["value"]
    with page.expect_response(lambda answer: "/launch/callback" in answer.url) as got:
        page.get_by_role("button", name="Patient 2").click()
    assert got.value.status == 303
    assert got.value.headers["location"].partition("=")[2] != visit
    assert [one["value"] for one in context.cookies() if "epicrisis" in one["name"]] == [cookie["value"]]


def test_a_launch_in_a_window_of_its_own_has_a_cookie_of_its_own(
    context: BrowserContext, launching: Site
) -> None:
    page = context.new_page()
    launched(page, launching.ehr.host_page("1"))
    launched(page, launching.ehr.launch_url("2"))
    keys = [one.get("partitionKey") for one in context.cookies() if "epicrisis" in one["name"]]
    assert len(set(keys)) == 2


@pytest.mark.parametrize(("is_ours", "path"), [(True, "/launch"), (False, "/launch"), (True, "/login")])
def test_the_ehr_may_frame_a_launch_and_nobody_else_and_nothing_else(
    context: BrowserContext, launching: Site, is_ours: bool, path: str
) -> None:
    """Clickjacking: another page that frames us shows nothing, nor does the EHR's of what is no launch."""
    page, site = context.new_page(), "ehr" if is_ours else "evil"
    with page.expect_response(launching.here + path):
        page.goto(launching.ehr.frame_page(launching.here + path, site))
    page.wait_for_load_state("load")
    shown = page.frame_locator("iframe[name=app]").locator("main")
    if is_ours and path == "/launch":
        assert "an EHR opens" in shown.inner_text()
    else:
        assert shown.count() == 0


def test_another_site_that_opens_a_launch_in_a_frame_gets_no_further_than_our_door(
    context: BrowserContext, launching: Site
) -> None:
    evil = f"{launching.here}/launch?{urlencode({'iss': 'http://evil.localhost/fhir', 'launch': 'x'})}"
    page = context.new_page()
    answer = page.goto(evil)
    assert answer is not None
    assert answer.status == 403
    assert page.url.startswith(launching.here)
