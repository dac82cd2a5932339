"""A clinician goes through a summary, edits a statement, attests; the FHIR server then holds both texts."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from starlette.requests import Request

from fixtures.servers import SekmetServer
from service.filing.publish import publish
from service.identity.visitor import Role, Visitor
from service.ports import RunId
from service.settings import Settings, load_settings
from service.wiring import build_app, open_desk, pages
from tests.browser.conftest import AXE, running
from tests.conftest import ROOT
from tests.unit.api.entering import OpenDoor
from tests.unit.writeback.charts import make_run

pytestmark = pytest.mark.browser

ROE = "Practitioner/roe"
OWN = "Diabetes mellitus type 2 since 2011, hemoglobin A1c 6.10 % on 25-Nov-2020, well controlled."
MACHINE = "Diabetes mellitus type 2, hemoglobin A1c 6.10 % on 25-Nov-2020."
WIDTHS = (360, 768, 1280)


class NamedDoor(OpenDoor):
    """Everybody comes in as who their browser says; `fhirUser` is of the door, never of a form."""

    async def visitor_of(self, request: Request) -> Visitor | None:
        name = request.headers.get("x-test-user", "nobody")
        role = Role.CLINICIAN if name in ("roe", "unnamed") else Role(name)
        return Visitor(f"user:{name}", frozenset({role}), ROE if name == "roe" else "")


@dataclass
class Hospital:
    """One FHIR server, one application, one draft that was filed."""

    here: str
    fhir: str
    settings: Settings
    run_id: str
    draft: str

    @property
    def page(self) -> str:
        """The address of the page."""
        return f"{self.here}/review/attest/{self.run_id}"

    def get(self, path: str) -> Any:
        """A plain GET at the FHIR server."""
        return httpx.get(f"{self.fhir}/{path}", trust_env=False).raise_for_status().json()

    def found(self, query: str) -> list[dict[str, Any]]:
        """The resources of a plain search."""
        return [entry["resource"] for entry in self.get(query).get("entry", [])]


def file_draft(settings: Settings, run_id: str) -> str:
    """Store a run and file it as the sweep does; return the draft's reference."""
    run = make_run(run_id=RunId(run_id), key=run_id.encode().hex().rjust(64, "0"))
    run = replace(run, inputs=replace(run.inputs, server=settings.fhir_url))

    async def file() -> str:
        async with open_desk(settings) as desk:
            desk.runs.save(run)
            done = await publish(desk, run, "system:test")
            desk.runs.finish(run.run_id, done.state, done.document)
            return done.document.partition("/_history")[0]

    with ThreadPoolExecutor(1) as other:  # Playwright has a loop of its own in this thread
        return other.submit(lambda: asyncio.run(file())).result()


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("attest")
    with SekmetServer(folder / "sekmet") as sekmet, pytest.MonkeyPatch.context() as patch:
        for one in (
            {"resourceType": "Patient", "id": "77"},
            {"resourceType": "Practitioner", "id": "roe"},
        ):
            url = f"{sekmet.base_url}/{one['resourceType']}/{one['id']}"
            httpx.put(url, json=one, trust_env=False).raise_for_status()
        settings = load_settings(home=folder / "home", fhir_url=sekmet.base_url)
        draft = file_draft(settings, "first")
        patch.setattr(pages, "_access", lambda *given: NamedDoor())
        with running(build_app(settings)) as here:
            yield Hospital(here, sekmet.base_url, settings, "first", draft)


def artefacts() -> Path:
    named = os.environ.get("EPICRISIS_TEST_ARTEFACTS")  # noqa: TID251 - where a test leaves what it saw
    folder = Path(named) if named else ROOT / ".epicrisis" / "artefacts" / "attest"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def enter(browser: Browser, user: str, **more: Any) -> BrowserContext:
    return browser.new_context(extra_http_headers={"x-test-user": user}, **more)


def look(page: Page, name: str) -> None:
    """Keep a picture at each width, and let axe find nothing and nothing be wider than the page."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        page.screenshot(path=artefacts() / f"{name}-{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [one["id"] for one in found] == []


def forms_of(document: dict[str, Any]) -> dict[str, str]:
    attached = (content["attachment"] for content in document["content"])
    return {one["contentType"].partition(";")[0]: base64.b64decode(one["data"]).decode() for one in attached}


def test_who_is_no_clinician_of_the_record_system_is_refused(browser: Browser, hospital: Hospital) -> None:
    for user in ("reader", "reviewer", "auditor", "admin"):
        context = enter(browser, user)
        page = context.new_page()
        for answer in (page.goto(hospital.page), page.request.post(f"{hospital.page}/attest", form={})):
            assert answer is not None
            assert answer.status == 403
        context.close()
    unnamed = enter(browser, "unnamed")
    page = unnamed.new_page()
    page.goto(hospital.page)
    expect(page.get_by_text("does not name you as a clinician of the record system")).to_be_visible()
    expect(page.get_by_role("button", name="Attest as final")).to_have_count(0)
    headers = {"origin": hospital.here, "sec-fetch-site": "same-origin"}
    forged: dict[str, str | float | bool] = {"by": ROE, "fhir_user": ROE, "authenticator": ROE}
    for act in ("decide", "attest", "withdraw"):
        answer = page.request.post(f"{hospital.page}/{act}", form=forged, headers=headers)
        assert answer.status == 403
    unnamed.close()
    assert hospital.get(hospital.draft)["docStatus"] == "preliminary"


def test_a_clinician_edits_one_statement_and_attests_and_the_server_holds_both_texts(
    browser: Browser, hospital: Hospital
) -> None:
    context = enter(browser, "roe")
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(hospital.page)
    expect(page.get_by_text("3 still to decide")).to_be_visible()
    expect(page.locator("body")).not_to_contain_text("8.2 %")  # refused claims are for reviewers alone
    look(page, "before")

    page.keyboard.press("j")
    expect(page.locator("#conflict-allergy")).to_be_focused()
    page.keyboard.press("a")  # seen; the next one to decide on is in focus then
    expect(page.locator("#claim-0")).to_be_focused()
    page.keyboard.press("a")
    expect(page.locator("#claim-2")).to_be_focused()
    expect(page.get_by_role("button", name="Attest as final")).to_have_count(0)
    page.keyboard.press("r")
    page.keyboard.type("not in the note that I read")
    page.keyboard.press("Enter")
    expect(page.locator("#claim-2")).to_contain_text("Rejected: not in the note that I read")
    page.wait_for_load_state()  # keys are heard once the page has come whole
    page.keyboard.press("u")
    expect(page.locator("#claim-2")).not_to_contain_text("Rejected")
    page.wait_for_load_state()
    page.locator("#claim-2").focus()
    page.keyboard.press("r")
    page.keyboard.press("Enter")
    expect(page.locator("#claim-2")).to_contain_text("Rejected")
    page.wait_for_load_state()
    page.locator("#claim-1").focus()
    page.keyboard.press("e")
    page.locator("#claim-1 textarea").fill(OWN)
    page.locator("#claim-1").get_by_role("button", name="Keep my words").click()
    expect(page.locator("#claim-1 .machine")).to_have_text(MACHINE)
    assert "".join(page.locator("#claim-1 .diff ins").all_text_contents()).replace("added: ", "") == (
        " since 2011, well controlled"
    )
    look(page, "decided")
    page.get_by_role("button", name="Attest as final").click()
    expect(page.get_by_text(f"Attested by {ROE}")).to_be_visible()
    look(page, "attested")
    again = page.request.post(
        f"{hospital.page}/decide", form={"item": "claim-0", "act": "rejected"},
        headers={"origin": hospital.here, "sec-fetch-site": "same-origin"},
    )  # fmt: skip
    assert again.status == 409
    context.close()
    assert complaints == []
    check_the_server(hospital)


def check_the_server(hospital: Hospital) -> None:
    """Look by plain GETs at what the server holds after the attestation."""
    draft = hospital.get(hospital.draft)
    assert (draft["status"], draft["docStatus"]) == ("superseded", "preliminary")
    assert MACHINE in forms_of(draft)["text/plain"]
    (final,) = [
        one
        for one in hospital.found("DocumentReference?patient=Patient/77")
        if (one["status"], one.get("docStatus")) == ("current", "final")
    ]
    assert final["authenticator"] == {"reference": ROE}
    assert final["relatesTo"] == [{"code": "replaces", "target": {"reference": hospital.draft}}]
    forms = forms_of(final)
    marked = f"- {OWN}\nWritten by {ROE} on "
    assert marked in forms["text/plain"]
    for name in ("text/plain", "application/xhtml+xml"):
        assert "in place of a statement of the AI." in forms[name]
        assert "A statement of the AI was left out here by" in forms[name]
        assert "calls it well controlled" not in forms[name]
    told = json.loads(forms["application/json"])
    assert [(one["text"], one["in_place_of"], one["by"]) for one in told["written"]] == [(OWN, MACHINE, ROE)]
    assert [(one["place"], one["by"]) for one in told["rejected"]] == [(3, ROE)]
    said = [one["text"] for section in told["sections"] for one in section["statements"]]
    assert said == ["Allergy to Penicillin (active)"]
    proofs = hospital.found(f"Provenance?target=DocumentReference/{final['id']}")
    who = [
        (agent["type"]["coding"][0]["code"], agent["who"].get("reference")) for agent in proofs[0]["agent"]
    ]
    assert ("verifier", ROE) in who


def test_without_scripts_a_summary_is_hidden_from_everybody_until_a_clinician_shows_it_again(
    browser: Browser, hospital: Hospital
) -> None:
    other = replace(hospital, run_id="second", draft=file_draft(hospital.settings, "second"))
    context = enter(browser, "roe", java_script_enabled=False, viewport={"width": 360, "height": 640})
    page = context.new_page()
    page.goto(other.page)
    page.locator("#hide-reason").fill("Another person's result.")
    page.get_by_role("button", name="Hide it now").click()
    expect(page.get_by_role("heading", name="This summary is hidden from everybody")).to_be_visible()
    expect(page.get_by_text("Another person's result.")).to_be_visible()
    reader = enter(browser, "reader", java_script_enabled=False)
    elsewhere = reader.new_page()
    assert (answer := elsewhere.goto(f"{other.here}/runs/second")) is not None
    assert answer.status == 423
    elsewhere.goto(other.here)
    expect(elsewhere.locator('a[href="/runs/second"]')).to_have_count(0)
    assert other.get(other.draft)["status"] == "current"  # withdrawn only where that is asked for
    page.get_by_role("button", name="Show it again").click()
    expect(page.get_by_role("heading", name="Review and attest: History")).to_be_visible()
    assert (answer := elsewhere.goto(f"{other.here}/runs/second")) is not None
    assert answer.status == 200
    page.locator("#hide-reason").fill("Another person's result.")
    page.get_by_label("Withdraw it from the record system too").check()
    page.get_by_role("button", name="Hide it now").click()
    expect(page.get_by_role("heading", name="This summary is hidden from everybody")).to_be_visible()
    withdrawn = other.get(other.draft)
    assert (withdrawn["status"], withdrawn["docStatus"]) == ("entered-in-error", "entered-in-error")
    for one in (context, reader):
        one.close()
