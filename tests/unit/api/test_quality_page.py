"""Who may read the pages of quality, what they say without a script, and that a report needs no other."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from typing import Any

import pytest
from starlette.testclient import TestClient

from fixtures.facts import NOW
from fixtures.sample_run import CREATED, sample_run
from service.api.app import create_app
from service.api.review.quality import Quality, render_report
from service.identity.visitor import LOCAL, Role
from service.ports.quality import Evaluation, EvaluationId, Identity
from service.quality.report import build_report
from service.quality.thresholds import DriftLimits, GateLimits
from tests.conftest import CANARY
from tests.unit.api.entering import OpenDoor
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.quality.in_memory import InMemoryQuality
from tests.unit.quality.test_evaluate import arm
from tests.unit.test_summarize import Bench

NAME = '<b onmouseover="x">model</b>'


def client_of(quality: InMemoryQuality, *roles: Role) -> TestClient:
    store = InMemoryStore(sample_run())
    quality.stored = [one.run_id for one in store.runs]
    room = Quality(
        store, quality, lambda since, until: [], lambda since, until: [], DriftLimits, lambda: CREATED, UTC
    )
    app = create_app(
        store=store, audit=InMemoryAudit(), clock=lambda: CREATED, allowed_hosts=("testserver",),
        access=OpenDoor(replace(LOCAL, roles=frozenset(roles))), version="0", rooms=[room],
    )  # fmt: skip
    return TestClient(app)


async def report() -> dict[str, Any]:
    made, _ = await arm(InMemoryQuality(), Bench())
    who = Identity(NAME, "d1", "history@1", "t1", "6", "scripted/1")
    begun = Evaluation(EvaluationId("e1"), NOW, who, None, "cohort", 3)
    return build_report(begun, "history", [made], GateLimits(), NOW)


@pytest.mark.parametrize(
    ("role", "status"),
    [(Role.READER, 403), (Role.CLINICIAN, 403), (Role.REVIEWER, 200), (Role.AUDITOR, 200), (Role.ADMIN, 200)],
)
def test_quality_is_for_reviewers_auditors_and_administrators(role: Role, status: int) -> None:
    client = client_of(InMemoryQuality(), role)
    assert client.get("/review/quality").status_code == status
    assert client.get("/review/quality/evaluations/e1").status_code in (404, 403)


def test_what_was_stored_before_is_counted_as_somebody_looks_and_no_patient_is_on_the_page() -> None:
    page = client_of(InMemoryQuality(), Role.REVIEWER).get("/review/quality").text
    assert "87.5 %" in page  # 21 of 24
    assert CANARY.casefold() not in page.casefold()
    assert "Patient/" not in page
    assert "style=" not in page


@pytest.mark.parametrize("query", ["weeks=0", "weeks=105", "weeks=x", f"ward={'w' * 300}"])
def test_a_question_beyond_its_bounds_is_not_understood(query: str) -> None:
    assert client_of(InMemoryQuality(), Role.REVIEWER).get(f"/review/quality?{query}").status_code == 400


async def test_a_report_is_one_file_and_says_a_models_name_as_text() -> None:
    html = render_report(await report(), "0")
    assert "<style>" in html
    assert not any(found in html for found in ("<script", "href=", "src=", "url(", "@import"))
    assert NAME not in html
    assert "&lt;b onmouseover=" in html
    assert "Not reached: support, lower bound" in html
