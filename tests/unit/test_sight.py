from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from connectors.fhir.pull import Gap, GapReason
from connectors.fhir.sight import FhirSight, Reach, Seen
from fixtures.sample_run import sample_run
from service.context.chosen import LeftOut
from service.context.pictures import UNSEEN
from service.grounding.summary import Claim, Origin, Summary, SummarySection, Verdict
from service.record.facts import Absence, FactId, ResourceVersion
from service.sight import Sight, Why, Withheld, look, seen_by
from tests.unit.api.sidebar.chart import Chart, bare, sample_chart

RUN = sample_run()
SUMMARY = RUN.summary


async def _look(chart: Chart, summary: Summary = SUMMARY, scope: str = "", limit_s: float = 2.0) -> Sight:
    async with chart.client() as client:
        return await look(FhirSight(client, "Patient/1", scope, limit_s), summary)


def _seen(chart: Chart, summary: Summary = SUMMARY, scope: str = "") -> tuple[Summary, Withheld]:
    return seen_by(summary, asyncio.run(_look(chart, summary, scope)))


def _section(summary: Summary, key: str) -> SummarySection:
    return next(section for section in summary.sections if section.key == key)


def _said(summary: Summary) -> str:
    parts = [claim.text for claim in (*summary.published, *summary.refused)]
    parts += [fact.text + fact.body for fact in summary.facts]
    for section in summary.sections:
        parts += [section.title, section.conflict, section.reason]
    return " ".join([*parts, *(f"{one.title} {one.count}" for one in summary.left_out)]).lower()


def test_who_may_read_everything_sees_everything() -> None:
    seen, withheld = _seen(sample_chart())
    assert not withheld
    assert seen.sections == SUMMARY.sections
    assert (seen.left_out, seen.searched, seen.as_of) == (SUMMARY.left_out, SUMMARY.searched, SUMMARY.as_of)


def test_pictures_that_were_not_seen_are_not_told_to_who_may_not_read_the_documents_that_keep_them() -> None:
    missed = LeftOut(UNSEEN, "Pictures of Rash", 1, "", "", "not seen: its content is broken")
    summary = replace(SUMMARY, left_out=(missed,))
    chart = sample_chart()
    assert _seen(chart, summary)[0].left_out == (missed,)
    chart.refused.add("DocumentReference")
    assert _seen(chart, summary)[0].left_out == ()


def test_each_type_is_asked_once_for_ids_and_versions_alone() -> None:
    chart = sample_chart()
    asyncio.run(_look(chart))
    observations = [one for one in chart.asked if one.startswith("Observation?")]
    assert len(observations) == 1
    assert "_elements=id%2Cmeta" in observations[0]
    assert "_id=" in observations[0]


def test_many_ids_are_asked_in_several_addresses_and_pages() -> None:
    fact = SUMMARY.fact(FactId("Observation/71"))
    copies = tuple(ResourceVersion(f"Observation/c{n}", "2", "x") for n in range(120))
    summary = replace(
        SUMMARY, facts=tuple(replace(one, copies=copies) if one is fact else one for one in SUMMARY.facts)
    )
    chart = sample_chart(page_size=20).put(*(bare(copy.reference) for copy in copies))
    seen, withheld = _seen(chart, summary)
    assert not withheld
    assert seen.fact(FactId("Observation/71")).copies == copies


def test_a_type_that_may_not_be_read_leaves_no_trace_but_its_name() -> None:
    seen, withheld = _seen(sample_chart(refused={"AllergyIntolerance"}))
    said = _said(seen)
    for word in ("penicillin", "latex", "rash", "hives"):
        assert word not in said
    allergies = _section(seen, "allergies")
    assert allergies.claims == ()
    assert allergies.state is Absence.NOT_RETRIEVED
    assert allergies.reason == "not shown: your account may not read allergies"
    assert "Allergies and intolerances" in seen.incomplete
    assert [(one.resource_type, one.why, one.claims) for one in withheld.types] == [
        ("AllergyIntolerance", Why.REFUSED, 2)
    ]
    assert withheld.claims == 2
    assert (seen.searched, seen.as_of, seen.known) == (0, None, ())


def test_none_recorded_is_not_said_of_a_type_that_may_not_be_read() -> None:
    assert _section(SUMMARY, "directives").state is Absence.NONE_RECORDED
    seen, withheld = _seen(sample_chart(refused={"Consent"}))
    directives = _section(seen, "directives")
    assert directives.state is Absence.NOT_RETRIEVED
    assert "your account may not read consents" in directives.reason
    assert ("Consent", Why.REFUSED, 0) in [(o.resource_type, o.why, o.claims) for o in withheld.types]


@pytest.mark.parametrize("how", ["failing", "hanging", "outcome"])
def test_a_type_that_cannot_be_looked_at_is_told_apart_from_one_that_is_refused(how: str) -> None:
    chart = sample_chart()
    if how == "outcome":
        chart.outcomes["Consent"] = "incomplete"
    else:
        setattr(chart, how, {"Consent"})
    seen, withheld = seen_by(SUMMARY, asyncio.run(_look(chart, limit_s=0.2)))
    assert withheld.types[0].why is Why.FAILED
    assert "could not be checked now" in _section(seen, "directives").reason


def test_results_that_the_server_left_out_because_of_who_asks_are_refused() -> None:
    chart = sample_chart()
    chart.outcomes["Consent"] = "suppressed"
    assert _seen(chart)[1].types[0].why is Why.REFUSED


def test_a_single_entry_that_is_kept_from_a_user_is_withheld_and_counted() -> None:
    chart = sample_chart()
    del chart.resources["Observation/71"]
    seen, withheld = _seen(chart)
    assert "potassium" not in _said(seen)
    assert "creatinine" in _said(seen)
    assert [(one.resource_type, one.why, one.claims) for one in withheld.types] == [
        ("Observation", Why.GONE, 1)
    ]
    assert _section(seen, "results").hidden == 0
    assert not any(one.title == "Results" for one in seen.left_out)
    assert any(one.title == "Encounters" for one in seen.left_out)


def test_a_statement_of_two_sources_needs_both() -> None:
    chart = sample_chart(refused={"DiagnosticReport"})
    seen, _ = _seen(chart)
    assert "consolidation" not in _said(seen)
    assert "pneumonia" in _said(seen)


def test_a_conflict_is_told_only_where_both_sides_may_be_read() -> None:
    summary = replace(
        SUMMARY,
        sections=tuple(
            replace(one, conflict="Penicillin, and ceftriaxone.") if one.key == "medications" else one
            for one in SUMMARY.sections
        ),
    )
    seen, _ = _seen(sample_chart(), summary)
    assert _section(seen, "medications").conflict
    seen, _ = _seen(sample_chart(refused={"AllergyIntolerance"}), summary)
    assert "penicillin" not in _said(seen)


def test_what_is_new_is_told_without_a_count_of_what_may_not_be_known() -> None:
    claims = tuple(
        Claim("since", SUMMARY.fact(FactId(ref)).text, (FactId(ref),), Origin.RECORD, Verdict.SUPPORTED)
        for ref in ("AllergyIntolerance/12", "Observation/72")
    )
    since = SummarySection(
        "since", "New since the summary read up to x (3 earlier statements changed or gone)", claims, hidden=4
    )
    summary = replace(SUMMARY, sections=(since, *SUMMARY.sections))
    assert _seen(sample_chart(), summary)[0].sections[0] == since
    seen, _ = _seen(sample_chart(refused={"AllergyIntolerance"}), summary)
    assert seen.sections[0].title == "New since the summary read up to x"
    assert seen.sections[0].hidden == 0
    assert [claim.citations for claim in seen.sections[0].claims] == [("Observation/72",)]


def test_a_version_that_moved_since_is_marked() -> None:
    chart = sample_chart().put(bare("Observation/72", "3"))
    _, withheld = _seen(chart)
    assert withheld.changed == {"Observation/72"}
    assert not withheld


def test_refused_statements_are_a_number_and_no_text() -> None:
    seen, _ = _seen(sample_chart(refused={"Observation"}))
    assert len(seen.refused) == len(SUMMARY.refused)
    assert not any(claim.text or claim.citations or claim.reasons for claim in seen.refused)


def test_a_copy_that_may_not_be_read_is_not_named() -> None:
    fact = SUMMARY.fact(FactId("Observation/71"))
    copied = replace(fact, copies=(ResourceVersion("DocumentReference/99", "1", "x"),))
    summary = replace(SUMMARY, facts=tuple(copied if one is fact else one for one in SUMMARY.facts))
    seen, withheld = _seen(sample_chart(refused={"DocumentReference"}), summary)
    assert seen.fact(fact.id).copies == ()
    assert not any(one.claims for one in withheld.types)


def test_a_source_that_no_server_has_at_type_and_id_is_withheld() -> None:
    fact = SUMMARY.fact(FactId("Observation/71"))
    odd = replace(fact, source=ResourceVersion("urn:uuid:7", None, "x"))
    summary = replace(SUMMARY, facts=tuple(odd if one is fact else one for one in SUMMARY.facts))
    assert _seen(sample_chart(), summary)[1].claims == 1


def test_a_token_that_is_over_sees_nothing_and_says_so() -> None:
    sight = asyncio.run(_look(sample_chart(is_over=True)))
    assert sight.has_ended
    seen, _ = seen_by(SUMMARY, sight)
    assert seen.published == ()
    assert seen.facts == ()


def test_a_chart_that_does_not_answer_has_failed() -> None:
    sight = asyncio.run(_look(sample_chart(is_down=True)))
    assert sight.has_failed
    assert not sight.has_ended
    assert seen_by(SUMMARY, sight)[0].published == ()


def test_a_server_that_does_not_search_by_id_is_read_one_by_one() -> None:
    chart = sample_chart(unsearchable={"Observation"})
    seen, withheld = _seen(chart)
    assert not withheld
    assert "Observation/71" in chart.asked
    del chart.resources["Observation/71"]
    assert _seen(chart)[1].claims == 1
    assert seen.sections == SUMMARY.sections


def test_a_scope_that_grants_no_search_of_a_type_refuses_it_without_asking() -> None:
    scope = "patient/Patient.rs patient/Observation.rs patient/Condition.read openid"
    chart = sample_chart()
    _, withheld = _seen(chart, scope=scope)
    assert not any(one.startswith("AllergyIntolerance") for one in chart.asked)
    assert Why.REFUSED in {one.why for one in withheld.types if one.resource_type == "AllergyIntolerance"}


def test_a_filtered_scope_bears_no_absence_but_shows_what_it_finds() -> None:
    scope = "patient/*.rs?x=y"
    seen, withheld = _seen(sample_chart(), scope=scope)
    assert withheld.claims == 0
    assert _section(seen, "directives").state is Absence.NOT_RETRIEVED


def test_nothing_is_readable_of_which_nobody_looked() -> None:
    sight = Sight({"Observation": Seen(Reach.READ, {})})
    seen, withheld = seen_by(SUMMARY, sight)
    assert seen.published == ()
    assert {one.why for one in withheld.types if one.resource_type == "Condition"} == {Why.FAILED}


def test_a_type_that_the_server_has_for_nobody_is_not_said_to_be_kept_from_this_user() -> None:
    gap = Gap("Consent", GapReason.NOT_SUPPORTED)
    summary = replace(SUMMARY, gaps=(*SUMMARY.gaps, gap))
    chart = sample_chart(refused={"Consent"})
    seen, withheld = _seen(chart, summary)
    assert not withheld
    assert _section(seen, "directives").state is Absence.NONE_RECORDED
    assert not any(one.startswith("Consent") for one in chart.asked)


@pytest.mark.parametrize(("code", "why"), [("incomplete", Why.FAILED), ("suppressed", Why.REFUSED)])
def test_a_search_that_admits_to_be_cut_short_bears_no_count(code: str, why: Why) -> None:
    chart = sample_chart()
    chart.outcomes["Observation"] = code
    seen, withheld = _seen(chart)
    assert withheld.claims == 0
    assert [(one.resource_type, one.why) for one in withheld.types] == [("Observation", why)]
    assert _section(seen, "critical_results").state is Absence.NOT_RETRIEVED
    assert not any(one.title == "Results" for one in seen.left_out)
