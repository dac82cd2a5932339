"""A chart made into its published summary by the whole use case, without a FHIR server between."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from connectors.errors import NotFoundError
from connectors.fhir.packed import Packed
from connectors.fhir.pull import Gap, Pull
from service.context.stay import find_stay
from service.engine.prompt import Completion, Engine
from service.grounding.summary import Summary
from service.record.assemble import assemble_record
from service.record.facts import Fact, FactId, PatientRecord
from service.record.required import required_facts
from service.summarize import Summarizer
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore

SIGN = re.compile(r"\d+(?:[.,/-]\d+)*|[^\W\d_]{4,}")
"""A number or a word of four letters and more: what a sentence about a fact cannot do without."""


@dataclass(frozen=True)
class Filed:
    """What a server says of a document."""

    document: str = "DocumentReference/1/_history/1"
    created: bool = True
    references: tuple[str, ...] = ()


@dataclass
class OneChart:
    """An EHR that holds one chart in memory, and takes whatever is written."""

    resources: Sequence[Any]
    base_url: str = "http://127.0.0.1:1/fhir"
    access_profile: str = "system:none"
    gaps: tuple[Gap, ...] = field(default=())

    @property
    def patient_id(self) -> str:
        return next(str(r["id"]) for r in self.resources if r.get("resourceType") == "Patient")

    async def pull(self, patient_id: str, on_progress: Any = None, known: Pull | None = None) -> Pull:
        return Pull(patient_id, Packed(list(self.resources)), self.gaps, datetime.now(UTC))

    async def find_document(self, system: str, value: str) -> str | None:
        return None

    async def read(self, reference: str) -> dict[str, Any]:
        raise NotFoundError("The server has no such resource.")

    async def search(self, resource_type: str, params: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        return []

    async def file(self, bundle: dict[str, Any]) -> Filed:
        return Filed()


@dataclass(frozen=True)
class Published:
    """A summary as stored, the record that it is of, and the seconds of each stage."""

    record: PatientRecord
    summary: Summary
    completions: tuple[Completion, ...]
    seconds: Mapping[str, float]

    @property
    def required(self) -> list[Fact]:
        """Every required fact once, in the order in which they are shown."""
        return required_of(self.record)


def required_of(record: PatientRecord) -> list[Fact]:
    """Return every required fact of a record once, in the order in which they are shown."""
    at_hand = find_stay(record, None)
    kinds = required_facts(record, encounter=at_hand.reference if at_hand else None)
    ids = dict.fromkeys(fact_id for kind in kinds for fact_id in kind.facts)
    return [record.fact(fact_id) for fact_id in ids]


async def publish(resources: Sequence[Any], engine: Engine, kind: str = "history") -> Published:
    """Summarise one chart and return what is kept of the run."""
    ehr, store = OneChart(resources), InMemoryStore()
    summarizer = Summarizer(
        ehr=ehr, engine=engine, store=store, audit=InMemoryAudit(), clock=lambda: datetime.now(UTC),
        software_version="0",
    )  # fmt: skip
    outcome = await summarizer.summarize(ehr.patient_id, kind=kind)
    (run,) = store.runs
    record = assemble_record(list(resources), ehr.patient_id, base_url=ehr.base_url)
    return Published(record, run.summary, run.completions, outcome.seconds)


def tells(text: str, fact: Fact) -> bool:
    """Say whether a sentence holds each number and each longer word of a fact's own line.

    Another rule than the one that decides what is added.
    """
    return _signs(fact.text) <= _signs(text)


def told_in(summary: Summary, fact: Fact) -> bool:
    """Say whether a published claim cites a fact and tells it."""
    return any(fact.id in claim.citations and tells(claim.text, fact) for claim in summary.published)


def cited(summary: Summary) -> Iterator[FactId]:
    """Yield what published claims cite."""
    for claim in summary.published:
        yield from claim.citations


def _signs(text: str) -> set[str]:
    return set(SIGN.findall(text.lower()))
