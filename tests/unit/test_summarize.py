"""The one use case, with doubles at its edges: what is filed, what is kept, what decides the run key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from connectors.errors import ServerFailed
from connectors.fhir.packed import Packed
from connectors.fhir.pull import Gap, GapReason, Pull
from fixtures.answers import change_numbers, copy_lines
from fixtures.charts import canary_resources
from fixtures.facts import NOW
from service.engine.scripted import ScriptedEngine
from service.errors import EngineError
from service.ports import Action, RunState
from service.record.assemble import Policy
from service.summarize import Summarizer, with_key
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore


@dataclass(frozen=True)
class Filed:
    document: str
    created: bool
    references: tuple[str, ...] = ()


@dataclass
class EhrDouble:
    """An EHR that holds one chart in memory, and can refuse a write."""

    gaps: tuple[Gap, ...] = ()
    base_url: str = "http://127.0.0.1:1/fhir"
    access_profile: str = "system:none"
    failures: list[Exception] = field(default_factory=list)
    written: list[bytes] = field(default_factory=list)
    documents: dict[str, str] = field(default_factory=dict)

    async def pull(self, patient_id: str, on_progress: Callable[[str, int], None] | None = None) -> Pull:
        return Pull(patient_id, Packed(canary_resources(patient_id)), self.gaps, NOW)

    async def find_document(self, system: str, value: str) -> str | None:
        return self.documents.get(value)

    async def file(self, bundle: dict[str, Any]) -> Filed:
        self.written.append(msgspec.json.encode(bundle))
        if self.failures:
            raise self.failures.pop()
        document = next(
            e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "DocumentReference"
        )
        self.documents[document["identifier"][0]["value"]] = "DocumentReference/1/_history/1"
        return Filed("DocumentReference/1/_history/1", True)


class Bench:
    """A Summarizer with its doubles in reach."""

    def __init__(
        self, ehr: EhrDouble | None = None, engine: ScriptedEngine | None = None, **more: Any
    ) -> None:
        self.ehr = ehr or EhrDouble()
        self.engine = engine or ScriptedEngine(copy_lines)
        self.store = InMemoryStore()
        self.audit = InMemoryAudit()
        self.summarizer = Summarizer(
            ehr=self.ehr,
            engine=self.engine,
            store=self.store,
            audit=self.audit,
            clock=lambda: NOW,
            software_version="0",
            **more,
        )


async def test_a_chart_is_read_written_filed_and_every_act_is_recorded() -> None:
    bench = Bench()
    outcome = await bench.summarizer.summarize("1")
    assert outcome.state is RunState.FILED
    assert outcome.claims_from_model >= 5
    assert [entry.action for entry in bench.audit.entries] == [Action.READ, Action.GENERATE, Action.WRITE]
    assert set(outcome.seconds) == {"fetch", "assemble", "choose", "generate", "verify", "publish"}
    assert bench.store.runs[0].document == outcome.document


async def test_wrong_values_are_all_refused_and_required_facts_stand_all_the_same() -> None:
    bench = Bench(engine=ScriptedEngine(change_numbers))
    outcome = await bench.summarizer.summarize("1")
    summary = bench.store.runs[0].summary
    assert outcome.claims_dropped > 0
    texts = {claim.text for claim in summary.published}
    assert "Gout: active, since 04-Mar-2011" in texts
    assert any(text.startswith("allopurinol 100 MG Oral Tablet: active order") for text in texts)
    assert not any("9.3" in text for text in texts)  # the urate is 8.2


async def test_a_write_that_failed_is_filed_as_it_was_stored_without_generating_again() -> None:
    bench = Bench(EhrDouble(failures=[ServerFailed("The server failed.")]))
    with pytest.raises(ServerFailed):
        await bench.summarizer.summarize("1")
    asked = len(bench.engine.prompts)
    outcome = await bench.summarizer.summarize("1")
    assert outcome.state is RunState.FILED
    assert len(bench.engine.prompts) == asked
    assert bench.ehr.written[0] == bench.ehr.written[1]
    assert len(bench.store.runs) == 1


async def test_an_engine_that_fails_leaves_nothing_stored_and_nothing_written() -> None:
    bench = Bench(engine=ScriptedEngine(copy_lines, failures=[EngineError("The engine died.")]))
    with pytest.raises(EngineError):
        await bench.summarizer.summarize("1")
    assert (bench.store.runs, bench.ehr.written) == ([], [])
    assert [entry.outcome for entry in bench.audit.entries] == ["ok", "engine"]


async def test_what_cannot_be_recorded_does_not_happen() -> None:
    bench = Bench()
    bench.audit.break_down()
    with pytest.raises(Exception, match="audit"):
        await bench.summarizer.summarize("1")
    assert bench.ehr.written == []


async def test_a_gap_that_closes_leads_to_a_new_run() -> None:
    bench = Bench(EhrDouble(gaps=(Gap("AllergyIntolerance", GapReason.TIMED_OUT),)))
    first = await bench.summarizer.summarize("1")
    bench.ehr.gaps = ()
    second = await bench.summarizer.summarize("1")
    assert (first.state, second.state) == (RunState.INCOMPLETE, RunState.FILED)
    assert first.run_id != second.run_id


async def test_how_the_site_reads_is_part_of_the_run_key() -> None:
    keys = set()
    for policy in (
        Policy(),
        Policy(time_zone="Europe/Berlin"),
        Policy(departments=frozenset({"Location/1"})),
    ):
        bench = Bench(policy=policy)
        await bench.summarizer.summarize("1")
        keys.add(bench.store.runs[0].inputs.key)
    assert len(keys) == 3


async def test_every_input_but_the_servers_address_decides_the_run_key() -> None:
    bench = Bench()
    await bench.summarizer.summarize("1")
    inputs = bench.store.runs[0].inputs
    assert with_key(replace(inputs, server="http://127.0.0.1:2/fhir")).key == inputs.key
    for name in ("patient", "kind", "prompt_version", "template_digest", "schema_digest", "model_digest",
                 "engine_version", "record_digest", "rules_version", "access_profile"):  # fmt: skip
        other: dict[str, Any] = {name: "other"}
        assert with_key(replace(inputs, **other)).key != inputs.key
    assert with_key(replace(inputs, attempt=2)).key != inputs.key
    assert with_key(replace(inputs, budget_tokens=1)).key != inputs.key


async def test_a_runs_id_can_stand_in_a_url_and_on_a_command_line() -> None:
    for _ in range(40):
        bench = Bench()
        outcome = await bench.summarizer.summarize("1", dry_run=True)
        assert outcome.run_id.isalnum()
