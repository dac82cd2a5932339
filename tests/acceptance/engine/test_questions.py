"""Questions to a demonstration chart, answered by the real small model: what it may and may not come to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from connectors.fhir.codec import decode
from connectors.fhir.packed import Packed
from connectors.fhir.pull import Pull
from fixtures.cohort import make_cohort
from fixtures.facts import NOW
from service.ask.asking import Asking
from service.engine.local import LocalEngine
from service.grounding.check import Judge
from service.grounding.summary import Origin, Verdict
from service.ports.questions import Answer, Question, QuestionId, QuestionState
from service.record.assemble import assemble_record
from service.record.facts import PatientRecord
from service.summarize import Progress, Summarizer
from tests.conftest import ROOT
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.ask.in_memory import InMemoryQuestions
from tests.unit.in_memory_vault import InMemoryVault
from tests.unit.test_summarize import EhrDouble

pytestmark = pytest.mark.engine

RECORDED = {
    "What was the last HbA1c?": ("Hemoglobin A1c",),
    "What was the last sodium?": ("Sodium", "sodium fluoride"),
    "What was the last creatinine?": ("Creatinine",),
    "What is the latest body weight?": ("Body Weight",),
    "What is the latest smoking status?": ("Tobacco smoking status",),
    "Which allergies are recorded?": ("Aspirin", "Bee venom", "Mold", "Sulfamethoxazole"),
    "Is the patient allergic to aspirin?": ("Aspirin",),
    "What were the last cholesterol and potassium?": (
        "Cholesterol",
        "Potassium",
        "Low Density",
        "Triglycerides",
    ),
}
"""Question → how the names begin of what answers it."""
ABSENT = (
    "Is the patient allergic to kiwi?",
    "Is there a history of narcolepsy?",
    "What was the last ferritin?",
    "Should we start digoxin?",
)


class Chart(EhrDouble):
    """One demonstration chart in memory."""

    def __init__(self, path: Path, patient_id: str) -> None:
        super().__init__()
        self.patient_id = patient_id
        bundle = decode(path.read_bytes())
        self.resources = [entry["resource"] for entry in bundle["entry"]]

    async def pull(self, patient_id: str, on_progress: object = None, known: Pull | None = None) -> Pull:
        return Pull(self.patient_id, Packed(self.resources), (), NOW)

    def record(self) -> PatientRecord:
        return assemble_record(self.resources, self.patient_id, base_url=self.base_url, read_at=NOW)


class Desk:
    """Asking the real engine about one chart."""

    def __init__(self, engine: LocalEngine, chart: Chart) -> None:
        self.chart, self.store, self.audit = chart, InMemoryQuestions(), InMemoryAudit()
        self.engine, self.vault = engine, InMemoryVault()
        self.asking = Asking(store=self.store, audit=self.audit, clock=lambda: NOW, engine_s=300, whole_s=600)

    @asynccontextmanager
    async def open(self, tell: Progress) -> AsyncIterator[Summarizer]:
        yield Summarizer(
            ehr=self.chart, engine=self.engine, store=InMemoryStore(), audit=self.audit, clock=lambda: NOW,
            software_version="0", vault=self.vault,
        )  # fmt: skip

    async def ask(self, text: str) -> Answer:
        number = len(self.store.kept) + 1
        question = Question(
            QuestionId(f"{number:032x}"), self.chart.base_url, f"Patient/{self.chart.patient_id}", "user:ab",
            "system:none", text, NOW,
        )  # fmt: skip
        self.store.ask(question)
        done = await self.asking.ask(question, self.open)
        assert done.state is QuestionState.ANSWERED, done.error
        assert done.answer is not None
        return done.answer


async def test_twelve_questions_to_a_demonstration_chart(engine: LocalEngine) -> None:
    told = max(make_cohort(ROOT / ".epicrisis" / "demo" / "cohort"), key=lambda chart: chart.resources)
    desk = Desk(engine, Chart(told.path, told.patient_id))
    record = desk.chart.record()
    judge = Judge(record.identity.gender, record)
    by_model = 0
    for question, names in RECORDED.items():
        answer = await desk.ask(question)
        assert answer.found, question
        assert not answer.nowhere, question
        cited = [record.fact(cite) for claim in answer.claims for cite in claim.citations]
        assert all(fact.name.startswith(names) for fact in cited), question
        by_model += sum(claim.origin is Origin.MODEL for claim in answer.claims)
        for claim in answer.claims:
            verdict, reasons = judge.verdict(claim.text, [record.fact(cite) for cite in claim.citations])
            assert claim.origin is Origin.RECORD or verdict is Verdict.SUPPORTED, reasons
        print(
            question, [(claim.origin.value, claim.text) for claim in answer.claims][:3], len(answer.refused)
        )
    assert by_model >= len(RECORDED) / 2, "it writes another text at each run: not every sentence passes"
    for question in ABSENT:
        answer = await desk.ask(question)
        assert not answer.found, question
        assert answer.nowhere, question
        assert answer.searched == len(record.facts)
        assert all(claim.origin is Origin.RECORD for claim in answer.beside), question
    assert answer.advice
