"""The auditor's pages in a real browser: a document is followed to every input, and a source to documents."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from fixtures.sample_run import CREATED, sample_run
from service.api.app import create_app
from service.api.review.trail import TrailRoom
from service.audit.anchor import AnchorFile
from service.ports import Action, AuditEntry, DocumentState, FiledDocument, RunId, Wanted
from service.ports.attesting import Attested, Glass, Proposal, ProposalId
from service.ports.trail import Checked
from service.store.cipher import Cipher
from service.store.ledger import SqlLedger
from service.store.sql import SqlStore
from service.store.trail import SqlAuditLog
from tests.browser.conftest import AXE, NARROW, WIDE, running
from tests.conftest import ROOT, missing
from tests.unit.api.entering import OpenDoor
from tests.unit.in_memory_attesting import InMemoryAttesting
from tests.unit.in_memory_reviews import InMemoryReviews

PICTURES = ROOT / ".epicrisis" / "artefacts" / "trail"
RUN_ID = RunId("4f6a0c77d1c94b6e8f0a2b3c4d5e6f70")
ROE = "Practitioner/3d1a5b7c-9e8f-4a6b-b1c2-d3e4f5a6b7c8"
USER = "user:9b1c44d0a7e84f5fb6f3a0d2c7e1b845"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A trail with two pages of entries, and everything that must be looked at."""
    url, cipher = f"sqlite:///{tmp_path}/e.db", Cipher.from_file(tmp_path / "key")
    store, now = SqlStore(url, cipher), CREATED + timedelta(hours=3)
    audit = SqlAuditLog(url, cipher, lambda key: AnchorFile(tmp_path / "anchors", lambda: now, key))
    run = sample_run(run_id=RUN_ID)
    store.save(run)
    patient, server = run.inputs.patient, run.inputs.server
    store.put_document(
        FiledDocument("DocumentReference/7", server, "1", RUN_ID, patient, DocumentState.DRAFT, CREATED)
    )
    acts = (Action.READ, Action.GENERATE, Action.WRITE, Action.VIEW)
    for number in range(60):
        audit.append(
            AuditEntry(
                acts[number % 4], USER if number % 4 == 3 else "system:cli", patient,
                CREATED + timedelta(minutes=number), "timeout" if number == 58 else "ok", RUN_ID,
                f"DocumentReference/7/_history/{number}", {"claims": 31, "resources": 412}, server,
                ROE if number % 4 == 3 else "",
            )
        )  # fmt: skip
    kept = InMemoryAttesting()
    kept.break_glass(Glass(USER, patient, "Unconscious in the resuscitation room.", now, now, RUN_ID))
    kept.keep_attested(Attested(RUN_ID, patient, "DocumentReference/9", ROE, USER, now, now, 1, 14, 901))
    wanted = Wanted(source="Observation/7")
    kept.propose(Proposal(ProposalId("0" * 32), wanted, USER, now, "The laboratory took the value back."))
    ledger = SqlLedger(audit.database)
    ledger.keep_check(Checked(now, 60, 0, now))
    room = TrailRoom(
        ledger, audit.last_anchor, store, kept, InMemoryReviews([run]).reviews_of, audit, lambda: now
    )
    app = create_app(
        store=store, audit=audit, access=OpenDoor(), clock=lambda: now, allowed_hosts=("127.0.0.1",),
        version="0.1.0", rooms=[room],
    )  # fmt: skip
    with running(app) as address:
        yield address
    audit.close()
    store.close()


def check(page: Page, name: str) -> None:
    """Keep a picture; nothing is wider than the page, and axe finds nothing."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(PICTURES / f"{name}.png"), full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == [], name


@pytest.mark.parametrize("size", ["wide", "narrow"])
def test_an_auditor_follows_a_document_to_every_input_and_a_source_to_every_document(
    browser: Browser, site: str, size: str
) -> None:
    if not AXE.exists():
        missing("axe-core in tests/node/node_modules")
    complaints: list[str] = []
    context = browser.new_context(
        viewport=NARROW if size == "narrow" else WIDE, base_url=site,
        color_scheme="dark" if size == "narrow" else "light",
    )  # fmt: skip
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto("/review/trail")
    assert page.get_by_text("all 60 entries were intact.").count() == 1
    assert page.get_by_text("The laboratory took the value back.").count() == 1
    assert page.locator("tbody tr").count() == 50
    check(page, f"trail-{size}")

    page.get_by_role("button", name="Older entries").click()
    assert page.locator("tbody tr").count() == 10
    assert page.url == f"{site}/review/trail"
    page.get_by_label("Patient, as Patient/17").fill("Patient/nobody")
    page.keyboard.press("Enter")
    page.get_by_text("No entry is so.").wait_for()
    page.get_by_label("Patient, as Patient/17").fill("not one!")
    page.get_by_role("button", name="Show").click()
    assert page.get_by_role("alert").inner_text() == "The patient is no id, for example Patient/17."
    check(page, f"problem-{size}")

    page.goto("/review/trail")
    page.locator("tbody a").nth(3).click()
    page.get_by_text(f"epicrisis replay {RUN_ID}").wait_for()
    sources = page.get_by_role("region", name="Resource versions").locator("tbody tr")
    assert sources.count() > 3
    source = sources.first.locator("td").first.inner_text()
    check(page, f"run-{size}")

    page.get_by_role("link", name="All entries").click()
    page.get_by_role("link", name="From a source to every document").click()
    check(page, f"ask-{size}")
    page.get_by_label("Source, as Observation/7").fill(source)
    page.keyboard.press("Enter")
    page.get_by_text("1 summary rests on it, with 1 document").wait_for()
    check(page, f"source-{size}")
    page.get_by_role("link", name=RUN_ID).click()
    assert page.url == f"{site}/review/trail/runs/{RUN_ID}"
    assert [one for one in complaints if "400" not in one] == []
    context.close()
