"""Whether a stored summary still says what the chart says, over doubles: no engine is asked to tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from connectors.errors import ServerFailed
from connectors.fhir.packed import Packed
from connectors.fhir.pull import Gap, GapReason, Pull
from fixtures.charts import canary_resources
from fixtures.facts import NOW
from service.errors import StoreError
from service.ports import Action, StoredRun
from service.staleness import Freshness, Lookout, Staleness, What, shape_of
from service.writeback.transaction import build_transaction
from tests.conftest import CANARY
from tests.unit.in_memory_vault import InMemoryVault
from tests.unit.test_summarize import Bench, EhrDouble


class Chart(EhrDouble):
    """An EHR whose chart can be given whole, or fails."""

    resources: list[dict[str, Any]] | None = None
    failure: Exception | None = None

    async def pull(self, patient_id: str, on_progress: Any = None, known: Pull | None = None) -> Pull:
        pull = await super().pull(patient_id, on_progress, known)
        if self.failure is not None:
            raise self.failure
        if self.resources is None:
            return pull
        return replace(pull, resources=Packed(self.resources))


def observation(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation", "id": name, "subject": {"reference": "Patient/1"}, "status": "final",
        "code": {"text": "Sodium"}, "valueQuantity": {"value": 140, "unit": "mmol/L"},
        "effectiveDateTime": "2019-03-02", **fields,
    }  # fmt: skip


def allergy(name: str) -> dict[str, Any]:
    return {
        "resourceType": "AllergyIntolerance", "id": name, "patient": {"reference": "Patient/1"},
        "code": {"text": "Latex"},
    }  # fmt: skip


async def filed() -> tuple[Bench, Chart, StoredRun]:
    chart = Chart()
    bench = Bench(chart)
    await bench.run(dry_run=True)
    return bench, chart, bench.store.runs[0]


async def ask(bench: Bench, run: StoredRun, **more: Any) -> Staleness:
    return await Lookout(bench.ehr, bench.audit, lambda: NOW, **more).ask(run)


def told(found: Staleness) -> list[tuple[str, What, bool, bool]]:
    return [(c.reference, c.what, c.is_required, c.is_cited) for c in found.changes]


async def test_an_unchanged_chart_is_fresh_and_the_read_is_on_record() -> None:
    bench, _, run = await filed()
    found = await ask(bench, run)
    assert (found.freshness, found.changes, found.statements_gone) == (Freshness.FRESH, (), 0)
    assert (found.touches_required, found.touches_cited) == (False, False)
    assert [(e.action, e.run_id) for e in bench.audit.entries[-1:]] == [(Action.READ, run.run_id)]


async def test_a_new_result_that_nothing_requires_touches_nothing() -> None:
    bench, chart, run = await filed()
    chart.more = [observation("new")]
    found = await ask(bench, run)
    assert found.freshness is Freshness.STALE
    assert told(found) == [("Observation/new", What.NEW, False, False)]
    assert (found.touches_required, found.touches_cited) == (False, False)


async def test_a_new_allergy_touches_what_is_required() -> None:
    bench, chart, run = await filed()
    chart.more = [allergy("new")]
    found = await ask(bench, run)
    assert told(found) == [("AllergyIntolerance/new", What.NEW, True, False)]
    assert (found.touches_required, found.touches_cited) == (True, False)


async def test_a_cited_resource_that_changed_or_went_is_named() -> None:
    bench, chart, run = await filed()
    whole = canary_resources("1")
    gout = next(r for r in whole if r["id"] == "1-gout")
    chart.resources = [r for r in whole if r is not gout]
    found = await ask(bench, run)
    assert told(found) == [("Condition/1-gout", What.GONE, True, True)]
    assert found.statements_gone == 1
    chart.resources = [*chart.resources, {**gout, "onsetDateTime": "2012-03-04"}]
    found = await ask(bench, run)
    assert told(found) == [("Condition/1-gout", What.CHANGED, True, True)]
    assert found.by_kind == {"Condition": {What.CHANGED: ("Condition/1-gout",)}}


async def test_another_version_with_the_same_content_is_fresh() -> None:
    bench, chart, run = await filed()
    meta = {"versionId": "9", "lastUpdated": "2026-11-25T00:00:00Z"}
    chart.resources = [{**r, "meta": {**r.get("meta", {}), **meta}} for r in canary_resources("1")]
    assert (await ask(bench, run)).freshness is Freshness.FRESH


async def test_what_we_or_another_ai_wrote_makes_no_chart_stale() -> None:
    bench, chart, run = await filed()
    written = [e["resource"] for e in build_transaction(run, software_version="0")["entry"]]
    chart.more = [{**r, "id": f"w{n}"} for n, r in enumerate(written)]
    ai = {"security": [{"code": "AIAST"}]}
    chart.more.append(observation("ai", meta=ai))
    assert len(chart.more) >= 4
    found = await ask(bench, run)
    assert (found.freshness, found.changes) == (Freshness.FRESH, ())


async def test_a_chart_that_cannot_be_read_is_unknown_with_the_reason_and_no_name() -> None:
    bench, chart, run = await filed()
    chart.failure = ServerFailed(f"503 for {CANARY}")
    found = await ask(bench, run)
    assert found.freshness is Freshness.UNKNOWN
    assert found.reason.startswith("the chart could not be read (")
    assert CANARY not in found.reason
    assert bench.audit.entries[-1].outcome == ServerFailed.code


async def test_a_kind_that_could_not_be_read_is_unknown_and_nothing_of_it_is_gone() -> None:
    bench, chart, run = await filed()
    chart.gaps = (Gap("Condition", GapReason.REFUSED),)
    chart.resources = [r for r in canary_resources("1") if r["resourceType"] != "Condition"]
    found = await ask(bench, run)
    assert (found.freshness, found.changes) == (Freshness.UNKNOWN, ())
    assert "Condition (refused" in found.reason
    chart.resources = [*chart.resources, allergy("new")]
    found = await ask(bench, run)
    assert (found.freshness, found.touches_required) == (Freshness.STALE, True)
    assert "Condition" in found.reason


@pytest.mark.parametrize("what", ["person", "inactive", "old run", "rights"])
async def test_what_cannot_be_compared_is_unknown(what: str) -> None:
    bench, chart, run = await filed()
    if what == "person":
        chart.resources = [
            {**r, "birthDate": "1960-01-01"} if r["id"] == "1" else r for r in canary_resources("1")
        ]
    elif what == "inactive":
        chart.inactive = True
    elif what == "old run":
        run = replace(run, summary=replace(run.summary, known=()))
    else:
        chart.access_profile = "user:someone"
    found = await ask(bench, run)
    assert (found.freshness, found.changes) == (Freshness.UNKNOWN, ())
    assert found.reason


async def test_the_chart_is_asked_for_what_changed_since_it_was_last_read() -> None:
    bench, chart, run = await filed()
    vault = InMemoryVault()
    await ask(bench, run, vault=vault)
    await ask(bench, run, vault=vault)
    assert [known is not None for known in chart.known[-2:]] == [False, True]


async def test_without_an_audit_log_nothing_is_told() -> None:
    bench, _, run = await filed()
    bench.audit.break_down(StoreError("full"))
    with pytest.raises(StoreError):
        await ask(bench, run)


async def test_the_document_for_programs_holds_references_and_no_patient() -> None:
    bench, chart, run = await filed()
    chart.more = [observation("new")]
    shape = shape_of(await ask(bench, run))
    assert shape["freshness"] == "stale"
    assert shape["changes"] == {"Observation": {"new": ("Observation/new",)}}
    assert CANARY not in str(shape)


async def test_a_cited_resource_whose_content_changed_is_named_though_its_line_is_the_same() -> None:
    bench, chart, run = await filed()
    chart.resources = [
        {**r, "meta": {"tag": [{"code": "seen"}]}} if r["id"] == "1-gout" else r
        for r in canary_resources("1")
    ]
    found = await ask(bench, run)
    assert told(found) == [("Condition/1-gout", What.CHANGED, True, True)]
