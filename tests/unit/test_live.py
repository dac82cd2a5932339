from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connectors.errors import ConnectorError, Unauthorized
from connectors.fhir.partial import pull_part
from connectors.fhir.patient import Search
from connectors.fhir.pull import Pull
from fixtures.charts import concept, status
from fixtures.sample_run import sample_run
from service.api.sidebar.strip import ShownPart, build_strip, failed_strip
from service.grounding.since import known_by
from service.grounding.summary import Summary
from service.live import Live, LivePart, Part, Standing, read_live
from service.record.assemble import assemble_record
from tests.unit.api.sidebar.chart import Chart, sample_patient

NOW = datetime(2026, 11, 24, 14, 5, tzinfo=UTC)
READ_UP_TO = NOW - timedelta(hours=6)
OLD, FRESH = "2026-11-20T08:00:00Z", "2026-11-24T13:00:00Z"
SUBJECT = {"reference": "Patient/1"}
SCT, LOINC = "http://snomed.info/sct", "http://loinc.org"


def _meta(updated: str, **more: Any) -> dict[str, Any]:
    return {"versionId": "1", "lastUpdated": updated, **more}


def allergy(name: str = "Penicillin", updated: str = OLD, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "AllergyIntolerance", "id": name.lower().replace(" ", "-"), "patient": SUBJECT,
        "meta": _meta(updated), "clinicalStatus": status("allergyintolerance-clinical", "active"),
        "code": {"text": name}, **more,
    }  # fmt: skip


def potassium(value: float = 7.1, updated: str = FRESH, resource_id: str = "k") -> dict[str, Any]:
    return {
        "resourceType": "Observation", "id": resource_id, "subject": SUBJECT, "meta": _meta(updated),
        "status": "final", "code": concept(LOINC, "2823-3", "Potassium"), "effectiveDateTime": updated,
        "valueQuantity": {"value": value, "unit": "mmol/L", "system": "http://unitsofmeasure.org",
                          "code": "mmol/L"},
    }  # fmt: skip


def order(drug: str = "warfarin 5 mg", updated: str = FRESH, state: str = "stopped") -> dict[str, Any]:
    return {
        "resourceType": "MedicationRequest", "id": drug.replace(" ", "-"), "subject": SUBJECT,
        "meta": _meta(updated), "status": state, "intent": "order",
        "medicationCodeableConcept": {"text": drug}, "authoredOn": updated,
    }  # fmt: skip


def dnr(updated: str = FRESH, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "ServiceRequest", "id": "dnr", "subject": SUBJECT, "meta": _meta(updated),
        "status": "active", "intent": "order", "code": concept(SCT, "304253006", "Not for resuscitation"),
        "authoredOn": updated, **more,
    }  # fmt: skip


@dataclass
class _Reads:
    chart: Chart
    limit_s: float = 2.0

    async def pull(self, searches: Sequence[Search]) -> Pull:
        async with self.chart.client() as client:
            return await pull_part(client, "Patient/1", searches, now=lambda: NOW, limit_s=self.limit_s)


def _live(chart: Chart, summary: Summary | None = None, limit_s: float = 2.0, **more: Any) -> Live:
    read_up_to = READ_UP_TO if summary is not None else None
    return asyncio.run(
        read_live(
            _Reads(chart, limit_s), "Patient/1", now=NOW, summary=summary, read_up_to=read_up_to, **more
        )
    )


def _chart(*resources: dict[str, Any], **more: Any) -> Chart:
    return Chart(**more).put(sample_patient(), *resources)


def _part(live: Live, part: Part) -> LivePart:
    return next(one for one in live.parts if one.part is part)


def _shown(live: Live, part: Part) -> ShownPart:
    return next(one for one in build_strip(live).parts if one.key == part.value)


def _summary(*resources: dict[str, Any]) -> Summary:
    """A summary that knew of these resources."""
    from dataclasses import replace

    record = assemble_record([sample_patient(), *resources], "1")
    return replace(sample_run().summary, known=known_by(record))


def test_the_four_parts_are_read_and_shown() -> None:
    live = _live(_chart(allergy(), potassium(), order(), dnr()), _summary())
    assert [part.part for part in live.parts] == list(Part)
    assert all(part.standing is Standing.READ for part in live.parts)
    assert _shown(live, Part.ALLERGIES).title == "Known allergies"
    assert [line.strong for line in _shown(live, Part.RESULTS).lines] == ["7.1 mmol/L"]
    assert "warfarin 5 mg" in _shown(live, Part.MEDICATIONS).lines[0].strong
    assert "Not for resuscitation" in _part(live, Part.CODE_STATUS).lines[0].text


def test_without_anything_each_part_says_that_it_was_read() -> None:
    live = _live(_chart(), _summary())
    assert _shown(live, Part.ALLERGIES).title == "Allergies not recorded"
    assert _shown(live, Part.ALLERGIES).none == "None recorded, search complete."
    assert "Notes were not read" in _shown(live, Part.CODE_STATUS).none
    assert _shown(live, Part.RESULTS).none == "None since 24-Nov-2026 08:05 UTC."
    assert _shown(live, Part.MEDICATIONS).none == "None since 24-Nov-2026 08:05 UTC."
    assert not any(part.troubles for part in build_strip(live).parts)


def test_no_known_allergy_needs_somebody_who_said_so() -> None:
    said = allergy("nka", code=concept(SCT, "716186003", "No known allergy"))
    assert _shown(_live(_chart(said)), Part.ALLERGIES).title == "No known allergies"


@pytest.mark.parametrize("how", ["failing", "hanging", "outcomes"])
@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("AllergyIntolerance", Part.ALLERGIES),
        ("Consent", Part.CODE_STATUS),
        ("ServiceRequest", Part.CODE_STATUS),
        ("Observation", Part.RESULTS),
        ("MedicationRequest", Part.MEDICATIONS),
    ],
)
def test_what_could_not_be_read_says_failed_and_never_none(how: str, kind: str, part: Part) -> None:
    chart = _chart()
    setattr(chart, how, {kind: "incomplete"} if how == "outcomes" else {kind})
    live = _live(chart, _summary(), limit_s=0.3)
    shown = _shown(live, part)
    assert _part(live, part).standing is Standing.FAILED
    assert shown.none == ""
    assert shown.troubles[0].startswith("FAILED: ")
    if part is Part.ALLERGIES:
        assert shown.title == "Allergies unavailable"


@pytest.mark.parametrize(
    ("kind", "part"), [("AllergyIntolerance", Part.ALLERGIES), ("MedicationStatement", Part.MEDICATIONS)]
)
def test_what_may_not_be_read_says_not_permitted(kind: str, part: Part) -> None:
    live = _live(_chart(refused={kind}), _summary())
    shown = _shown(live, part)
    assert _part(live, part).standing is Standing.REFUSED
    assert shown.none == ""
    assert shown.troubles[0].startswith("Not permitted: your account may not read ")


def test_lines_beside_a_failure_are_said_to_be_a_part() -> None:
    live = _live(_chart(dnr(), failing={"Consent"}), _summary())
    shown = _shown(live, Part.CODE_STATUS)
    assert len(shown.lines) == 1
    assert shown.troubles == (
        "FAILED in part: consents and directives could not be read now. Check the chart.",
    )


def test_one_slow_type_does_not_hold_up_the_others() -> None:
    live = _live(_chart(allergy(), hanging={"MedicationRequest"}), _summary(), limit_s=0.3)
    assert _part(live, Part.ALLERGIES).standing is Standing.READ
    assert len(_part(live, Part.ALLERGIES).lines) == 1
    assert _part(live, Part.MEDICATIONS).standing is Standing.FAILED


def test_only_what_changed_since_is_told_of_results_and_medications() -> None:
    chart = _chart(potassium(updated=OLD, resource_id="old"), order("aspirin 100 mg", OLD), potassium())
    live = _live(chart, _summary())
    assert [line.fact.source.reference for line in _part(live, Part.RESULTS).lines] == ["Observation/k"]
    assert _part(live, Part.MEDICATIONS).lines == ()


def test_a_server_that_ignores_since_does_not_make_old_things_new(monkeypatch: pytest.MonkeyPatch) -> None:
    chart = _chart(potassium(updated=OLD, resource_id="old"))
    search = chart._search

    def ignoring(kind: str, query: Any) -> Any:
        return search(kind, {key: value for key, value in dict(query).items() if key != "_lastUpdated"})

    monkeypatch.setattr(chart, "_search", ignoring)
    assert _part(_live(chart, _summary()), Part.RESULTS).lines == ()


def test_what_the_summary_knew_is_not_told_again_although_it_is_recent() -> None:
    known = potassium(updated="2026-11-24T08:04:00Z")
    live = _live(_chart(known, allergy()), _summary(known))
    assert _part(live, Part.RESULTS).lines == ()
    assert [line.is_new for line in _part(live, Part.ALLERGIES).lines] == [True]
    live = _live(_chart(known, allergy()), _summary(known, allergy()))
    assert [line.is_new for line in _part(live, Part.ALLERGIES).lines] == [False]


def test_without_a_summary_the_last_week_counts_and_nothing_is_new() -> None:
    live = _live(_chart(potassium(updated=OLD), potassium(7.2, "2026-11-01T00:00:00Z", "older"), allergy()))
    assert [line.fact.source.reference for line in _part(live, Part.RESULTS).lines] == ["Observation/k"]
    assert not any(line.is_new for part in live.parts for line in part.lines)
    assert not live.is_since_summary


def test_a_code_status_of_a_former_stay_says_so() -> None:
    stay = {
        "resourceType": "Encounter", "id": "9", "subject": SUBJECT, "status": "in-progress",
        "class": {"code": "IMP"}, "period": {"start": "2026-11-22T10:00:00Z"}, "meta": _meta(OLD),
    }  # fmt: skip
    former = dnr("2025-01-01T00:00:00Z", encounter={"reference": "Encounter/3"})
    live = _live(_chart(stay, former), _summary(), encounter="Encounter/9")
    assert _part(live, Part.CODE_STATUS).lines[0].text.startswith("Previous, not of this encounter")


def test_a_code_status_told_by_an_observation_is_found_without_reading_all_observations() -> None:
    told = {
        "resourceType": "Observation", "id": "code-status", "subject": SUBJECT, "status": "final",
        "meta": _meta(OLD), "code": concept(LOINC, "100822-6", "Cardiopulmonary resuscitation orders"),
        "valueCodeableConcept": {"text": "DNR"}, "effectiveDateTime": OLD,
    }  # fmt: skip
    chart = _chart(told, potassium(updated=OLD, resource_id="old"))
    live = _live(chart, _summary())
    assert len(_part(live, Part.CODE_STATUS).lines) == 1
    assert all("code=" in one or "_lastUpdated=" in one for one in chart.asked if one.startswith("Observ"))


def test_restricted_entries_are_shown_to_a_user_whose_token_reads_them() -> None:
    label = {"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}
    chart = _chart(allergy(meta=_meta(OLD, security=[label])))
    assert len(_part(_live(chart), Part.ALLERGIES).lines) == 1


def test_a_record_that_was_merged_away_stops_the_strip() -> None:
    merged = sample_patient(link=[{"other": {"reference": "Patient/2"}, "type": "replaced-by"}], active=False)
    live = _live(Chart().put(merged, allergy()))
    assert live.stop
    assert live.parts == ()


def test_without_a_patient_the_reading_raises() -> None:
    with pytest.raises(ConnectorError):
        _live(_chart(refused={"Patient"}))
    with pytest.raises(Unauthorized):
        _live(_chart(is_over=True))


def test_a_chart_that_does_not_answer_is_four_failures() -> None:
    strip = failed_strip(NOW)
    assert len(strip.parts) == 4
    assert all(part.troubles and not part.none for part in strip.parts)
