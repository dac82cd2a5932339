"""What a Summary holds: published sentences, required facts added, and the three states of absence."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from connectors.fhir.pull import Gap, GapReason
from fixtures.facts import A1C, BRONCHITIS, GOUT, LISINOPRIL, context, fact, record
from service.context.chosen import LeftOut
from service.context.stay import Stay
from service.context.templates import load
from service.grounding.complete import complete_summary, covers
from service.grounding.since import Earlier, known_by
from service.grounding.summary import Claim, Origin, SummarySection, Verdict
from service.record.facts import Absence, Fact, FactId, Kind, RequiredKind, Status

TEMPLATES = load("history")


def claim(text: str, of: Fact, verdict: Verdict = Verdict.SUPPORTED) -> Claim:
    return Claim("any", text, (of.id,), Origin.MODEL, verdict, () if verdict is Verdict.SUPPORTED else ("x",))


def required(key: str, *facts: Fact, state: Absence = Absence.LISTED, essential: bool = True) -> RequiredKind:
    return RequiredKind(key, key.title(), state, tuple(f.id for f in facts), essential=essential)


def test_a_required_fact_that_no_sentence_covers_is_added_and_marked() -> None:
    chart = record([GOUT, A1C])
    summary = complete_summary(
        "history", chart, context([GOUT, A1C], [required("problems", GOUT)]), TEMPLATES, []
    )
    (section,) = summary.sections
    assert [(c.text, c.origin, c.citations) for c in section.claims] == [
        (GOUT.text, Origin.RECORD, (GOUT.id,))
    ]


def test_a_required_fact_that_a_sentence_covers_is_not_said_twice() -> None:
    said = claim("Gout is active since 04-Mar-2011.", GOUT)
    shown = context([GOUT], [required("problems", GOUT)])
    summary = complete_summary("history", record([GOUT]), shown, TEMPLATES, [said])
    assert summary.sections[0].claims == (said,)


def test_a_sentence_that_leaves_out_a_part_of_the_fact_does_not_cover_it() -> None:
    assert covers("Gout is active since 04-Mar-2011.", GOUT)
    assert not covers("Gout is active.", GOUT)
    assert not covers("Gout is active since Mar 2011.", GOUT)
    assert not covers("Hemoglobin A1c was 5.8 % on 25-Nov-2020.", A1C)
    assert not covers("Hemoglobin A1c was 5.8 (H; reference 4.0–5.6) on 25-Nov-2020.", A1C)


def test_a_sentence_that_says_less_than_the_line_added_for_its_fact_is_left_out_and_counted() -> None:
    said = claim("Gout is active.", GOUT)
    shown = context([GOUT], [required("problems", GOUT)])
    summary = complete_summary("history", record([GOUT]), shown, TEMPLATES, [said])
    assert [c.origin for c in summary.published] == [Origin.RECORD]
    assert [(c.text, c.reasons) for c in summary.refused] == [(said.text, ("the_record_says_more",))]


def test_a_fact_that_two_headings_require_stands_under_both_in_the_same_words() -> None:
    said = claim("Gout is active since 04-Mar-2011.", GOUT)
    shown = context([GOUT], [required("identity", GOUT), required("problems", GOUT)])
    summary = complete_summary("history", record([GOUT]), shown, TEMPLATES, [said])
    assert [(section.key, section.claims) for section in summary.sections] == [
        ("identity", (said,)),
        ("problems", (said,)),
    ]


def test_a_sentence_told_under_a_required_heading_is_not_told_again_under_its_kind() -> None:
    said = claim("Hemoglobin A1c was 5.8 % (H; reference 4.0–5.6) on 25-Nov-2020.", A1C)
    shown = context([A1C], [required("results", A1C)])
    summary = complete_summary("history", record([A1C]), shown, TEMPLATES, [said])
    assert [(section.key, section.claims) for section in summary.sections] == [("critical_results", (said,))]


def test_a_refused_claim_is_kept_for_reviewers_and_covers_nothing() -> None:
    refused = claim("Gout is active since 04-Mar-2011.", GOUT, Verdict.UNSUPPORTED)
    shown = context([GOUT], [required("problems", GOUT)])
    summary = complete_summary("history", record([GOUT]), shown, TEMPLATES, [refused])
    assert summary.refused == (refused,)
    assert [c.origin for c in summary.published] == [Origin.RECORD]


def test_a_claim_stands_under_the_heading_of_what_it_cites_whatever_the_model_called_it() -> None:
    said = replace(claim("Lisinopril.", LISINOPRIL), section="allergies")
    summary = complete_summary("history", record([LISINOPRIL]), context([LISINOPRIL]), TEMPLATES, [said])
    assert [section.key for section in summary.sections] == ["medications"]


def test_an_essential_kind_that_was_not_retrieved_makes_the_summary_incomplete() -> None:
    gap = Gap("AllergyIntolerance", GapReason.REFUSED)
    kinds = [
        required("allergies", state=Absence.NOT_RETRIEVED),
        required("devices", state=Absence.NOT_RETRIEVED, essential=False),
    ]
    shown = replace(context([], kinds), gaps=(gap,))
    summary = complete_summary("history", record([], [gap]), shown, TEMPLATES, [])
    assert summary.incomplete == ("Allergies",)
    assert [section.state for section in summary.sections] == [Absence.NOT_RETRIEVED] * 2


def test_a_required_kind_that_no_template_knows_still_stands_in_the_summary() -> None:
    shown = context([GOUT], [required("site_kind", GOUT, essential=False)])
    summary = complete_summary("history", record([GOUT]), shown, TEMPLATES, [])
    assert [section.key for section in summary.sections] == ["site_kind"]


def test_the_summary_holds_every_fact_given_to_the_model_or_cited() -> None:
    unseen = fact("Asthma: active, since 01-Jan-2001", status=Status.ACTIVE)
    chart = record([GOUT, BRONCHITIS, unseen, fact("x", Kind.NOTE)])
    summary = complete_summary(
        "history", chart, context([GOUT, BRONCHITIS], [required("problems", unseen)]), TEMPLATES, []
    )
    assert {f.id for f in summary.facts} == {GOUT.id, BRONCHITIS.id, unseen.id}
    assert summary.fact(GOUT.id) is GOUT


def test_a_fact_that_is_not_in_the_summary_is_a_key_error() -> None:
    summary = complete_summary("history", record([]), context([]), TEMPLATES, [])
    try:
        summary.fact(FactId("Observation/none"))
    except KeyError:
        return
    raise AssertionError("expected a KeyError")


def test_what_a_security_label_left_out_is_said_without_its_kind() -> None:
    summary = complete_summary("history", record([], skipped={"restricted": 2}), context([]), TEMPLATES, [])
    assert summary.restricted


def test_a_sentence_that_this_set_has_no_heading_for_is_not_published_under_another() -> None:
    handover = load("handover")
    flu = fact("Influenza vaccine: completed on 01-Oct-2020", Kind.IMMUNIZATION, status=Status.COMPLETED)
    past = fact("aspirin: stopped order from 04-May-2018", Kind.MEDICATION, status=Status.STOPPED)
    said = [claim(flu.text, flu), claim(past.text, past), claim(LISINOPRIL.text, LISINOPRIL)]
    chart = [flu, past, LISINOPRIL]
    summary = complete_summary("handover", record(chart), context(chart), handover, said)
    assert [(s.key, [c.text for c in s.claims]) for s in summary.sections] == [
        ("medications", [LISINOPRIL.text])
    ]
    assert [(c.text, c.reasons) for c in summary.refused] == [
        (flu.text, ("no_heading_for_it",)),
        (past.text, ("no_heading_for_it",)),
    ]


def test_an_admission_keeps_what_is_of_this_stay_apart_from_what_was_before() -> None:
    stay = Stay("Encounter/9", datetime(2026, 11, 20, tzinfo=UTC), None)
    here = fact("Sodium: 130 mmol/L", Kind.RESULT, encounter="Encounter/9", status=Status.FINAL)
    dated = fact("Sodium: 131 mmol/L on 21-Nov-2026", Kind.RESULT, on="2026-11-21", status=Status.FINAL)
    before = fact("Sodium: 140 mmol/L on 01-Jan-2026", Kind.RESULT, on="2026-01-01", status=Status.FINAL)
    other = fact("Sodium: 139 mmol/L", Kind.RESULT, encounter="Encounter/8", status=Status.FINAL)
    chart = [here, dated, before, other]
    said = [claim(f.text, f) for f in chart]
    shown = replace(context(chart), stay=stay)
    summary = complete_summary("admission", record(chart), shown, load("admission"), said)
    assert {s.key: [c.text for c in s.claims] for s in summary.sections} == {
        "stay_results": [here.text, dated.text],
        "before_results": [before.text, other.text],
    }
    unknown = complete_summary("admission", record(chart), context(chart), load("admission"), said)
    assert [s.key for s in unknown.sections] == ["before_results"]


def test_a_summary_of_which_there_was_an_earlier_one_opens_with_what_is_new() -> None:
    known = known_by(record([GOUT]))
    chart = [GOUT, A1C]
    summary = complete_summary(
        "history",
        record(chart),
        context(chart, [required("problems", GOUT)]),
        TEMPLATES,
        [],
        Earlier("01-Jan-2020", frozenset(known)),
    )
    assert [s.key for s in summary.sections] == ["since", "problems"]
    assert [c.citations for c in summary.sections[0].claims] == [(A1C.id,)]
    assert A1C in summary.facts
    assert set(known) < set(summary.known)
    again = complete_summary(
        "history", record(chart), context(chart), TEMPLATES, [], Earlier("x", frozenset(summary.known))
    )
    assert again.sections == ()


def test_conflicts_hidden_facts_and_reasons_of_the_kinds_of_a_heading_are_shown_together() -> None:
    kinds = [
        replace(required("medications", LISINOPRIL), conflict="One does not fit.", hidden=2),
        replace(required("allergies", state=Absence.NOT_RETRIEVED), reason="refused"),
    ]
    summary = complete_summary("history", record([LISINOPRIL]), context([LISINOPRIL], kinds), TEMPLATES, [])
    told = {s.key: (s.conflict, s.hidden, s.reason) for s in summary.sections}
    assert told == {"medications": ("One does not fit.", 2, ""), "allergies": ("", 0, "refused")}


IDENTITY = replace(TEMPLATES.sections[0], key="both", title="Both", required=("allergies", "problems"))
BOTH = replace(TEMPLATES, sections=(IDENTITY,))


def section_of(*kinds: RequiredKind) -> SummarySection:
    (section,) = complete_summary("history", record([GOUT, A1C]), context([], kinds), BOTH, []).sections
    return section


@pytest.mark.parametrize(
    ("states", "worst"),
    [
        (("LISTED", "NONE_RECORDED"), "LISTED"),
        (("NONE_RECORDED", "LISTED"), "LISTED"),
        (("LISTED", "NOT_RETRIEVED"), "NOT_RETRIEVED"),
        (("NONE_RECORDED", "NOT_RETRIEVED"), "NOT_RETRIEVED"),
        (("NONE_RECORDED", "NONE_RECORDED"), "NONE_RECORDED"),
    ],
)
def test_a_heading_of_two_kinds_tells_the_worse_state(states: tuple[str, str], worst: str) -> None:
    kinds = [
        required(key, state=Absence[state])
        for key, state in zip(("allergies", "problems"), states, strict=True)
    ]
    assert section_of(*kinds).state is Absence[worst]


def test_a_heading_of_two_kinds_tells_what_both_tell() -> None:
    section = section_of(
        replace(required("allergies", GOUT), reason="refused", conflict="One.", hidden=2),
        replace(required("problems", A1C), reason="timed out", conflict="Two.", hidden=3),
    )
    assert (section.reason, section.conflict, section.hidden) == ("refused; timed out", "One. Two.", 5)
    assert (section.key, section.title) == ("both", "Both")
    assert [claim.text for claim in section.claims] == [GOUT.text, A1C.text]
    alone = section_of(replace(required("problems", A1C), reason="timed out"))
    assert (alone.reason, alone.conflict, alone.hidden) == ("timed out", "", 0)


def test_a_kind_of_a_site_stands_last_under_its_own_title() -> None:
    shown = context([GOUT], [required("site_kind", A1C), required("problems", GOUT)])
    summary = complete_summary("history", record([GOUT, A1C]), shown, TEMPLATES, [])
    assert [(s.key, s.title) for s in summary.sections][1:] == [("site_kind", "Site_Kind")]
    assert summary.sections[1].claims[0].section == "site_kind"
    assert summary.sections[0].claims[0].section == summary.sections[0].key


def test_what_is_of_a_former_encounter_is_told_by_its_own_line_alone_that_says_so() -> None:
    said = claim("Gout is active since 04-Mar-2011.", GOUT)
    kinds = [replace(required("problems", GOUT), previous=(GOUT.id,))]
    summary = complete_summary("history", record([GOUT]), context([GOUT], kinds), TEMPLATES, [said])
    assert [(c.text, c.origin, c.verdict) for c in summary.published] == [
        (f"Previous, not of this encounter: {GOUT.text}", Origin.RECORD, Verdict.SUPPORTED)
    ]
    assert [(c.text, c.verdict, c.reasons) for c in summary.refused] == [
        (said.text, Verdict.NOT_CHECKED, ("the_record_says_more",))
    ]
    others = [replace(required("problems", GOUT), previous=(A1C.id,))]
    current = complete_summary("history", record([GOUT]), context([GOUT], others), TEMPLATES, [said])
    assert [c.text for c in current.published] == [said.text]


def test_a_summary_passes_on_what_the_context_says_of_itself() -> None:
    gap = Gap("Goal", GapReason.REFUSED)
    out = LeftOut("goal", "Goals", 3, "", "")
    shown = replace(context([GOUT]), gaps=(gap,), left_out=(out,), as_of=GOUT.when, searched=17)
    summary = complete_summary("handover", record([GOUT]), shown, TEMPLATES, [])
    assert (summary.kind, summary.gaps, summary.left_out) == ("handover", (gap,), (out,))
    assert (summary.as_of, summary.searched) == (GOUT.when, 17)
    assert summary.identity == record([]).identity
    assert (summary.restricted, summary.incomplete) == (False, ())
    assert summary.known == known_by(record([GOUT]))


def test_only_an_essential_kind_that_was_not_retrieved_makes_it_incomplete() -> None:
    kinds = [required("allergies", state=Absence.NONE_RECORDED), required("problems", state=Absence.LISTED)]
    assert complete_summary("history", record([]), context([], kinds), TEMPLATES, []).incomplete == ()


def test_a_sentence_that_adds_to_a_line_that_stands_is_kept_and_told_once() -> None:
    both = replace(claim("Gout is active; A1c.", GOUT), citations=(GOUT.id, A1C.id))
    shown = context([GOUT, A1C], [required("problems", GOUT)])
    summary = complete_summary("history", record([GOUT, A1C]), shown, TEMPLATES, [both, both])
    assert [c.text for c in summary.published] == [GOUT.text, both.text]
    assert summary.refused == ()


def test_a_claim_that_says_it_is_lowered_was_lowered_by_the_second_pass() -> None:
    plain = claim("Gout.", GOUT)
    assert not plain.is_lowered
    assert replace(plain, reasons=("word_not_in_source", "second_pass_no")).is_lowered
    assert replace(plain, reasons=("second_pass_not_stated",)).is_lowered
    assert not replace(plain, reasons=("word_not_in_source",)).is_lowered
    assert (plain.corrected, plain.repaired, plain.entailed, plain.reasons) == (False, False, "", ())
