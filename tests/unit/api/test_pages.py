from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fixtures.sample_run import CREATED, sample_facts, sample_run, sample_summary
from service.api.pages import FOLD_AFTER, SummaryPage, build_page, list_runs, split_at
from service.api.render import keep_together, show_hidden
from service.grounding.summary import Claim, Origin, Summary, SummarySection, Verdict
from service.ports import RunState
from service.record.facts import Absence, Code, Fact, FactId, Status
from tests.unit.api.in_memory import InMemoryStore

NOW = CREATED + timedelta(hours=1)
FACTS = sample_facts()


def _page(summary: Summary) -> SummaryPage:
    return build_page(replace(sample_run(), summary=summary), NOW)


def _with(*sections: SummarySection) -> SummaryPage:
    return _page(replace(sample_summary(), sections=sections))


def _claim(*cited: Fact, text: str = "A statement.", verdict: Verdict = Verdict.SUPPORTED) -> Claim:
    return Claim("s", text, tuple(fact.id for fact in cited), Origin.MODEL, verdict)


def test_citations_are_numbered_in_reading_order_and_a_source_keeps_its_number() -> None:
    first, second = FACTS["pneumonia"], FACTS["chest"]
    page = _with(
        SummarySection("a", "A", (_claim(second), _claim(first, second))),
        SummarySection("b", "B", (_claim(first),)),
    )
    chips = [[chip.number for chip in claim.chips] for section in page.sections for claim in section.claims]
    assert chips == [[1], [2, 1], [2]]
    assert [source.reference for source in page.cited] == [
        second.source.versioned_reference,
        first.source.versioned_reference,
    ]
    assert page.cited[1].cited_at == (("statement-2", 2), ("statement-3", 3))


def test_what_was_read_and_not_cited_is_listed_apart() -> None:
    page = _with(SummarySection("a", "A", (_claim(FACTS["chest"]),)))
    assert len(page.cited) == 1
    assert len(page.uncited) == len(FACTS) - 1
    assert [source.number for source in page.sources] == list(range(1, len(FACTS) + 1))


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.SUPPORTED])
def test_a_claim_that_is_not_supported_is_withheld_and_counted(verdict: Verdict) -> None:
    page = _with(SummarySection("a", "A", (_claim(FACTS["chest"], verdict=verdict), _claim(FACTS["ckd"]))))
    assert [claim.anchor for claim in page.sections[0].claims] == ["statement-1"]
    assert (page.notes.published, page.notes.withheld) == (1, 1)


@pytest.mark.parametrize("citations", [(), (FactId("Observation/none"),)])
def test_a_claim_without_a_stored_source_is_withheld_and_counted(citations: tuple[FactId, ...]) -> None:
    orphan = replace(_claim(FACTS["chest"]), citations=citations)
    page = _with(SummarySection("a", "A", (orphan,)))
    assert page.sections[0].claims == ()
    assert page.sections[0].absence == "No statement is shown here. Read the chart."
    assert page.notes.withheld == 1


def test_the_three_states_of_absence_are_said_apart() -> None:
    page = _with(
        SummarySection("p", "Problems", (), Absence.NONE_RECORDED),
        SummarySection("o", "Orders", (), Absence.NOT_RETRIEVED, reason="timed out"),
        SummarySection("r", "Results", (_claim(FACTS["potassium"]),), Absence.LISTED),
    )
    assert [section.absence for section in page.sections] == [
        "None recorded, search complete.",
        "NOT RETRIEVED (timed out). The chart may hold entries that are missing here.",
        "",
    ]
    assert page.missing == ("Orders",)


REFUTED = replace(FACTS["penicillin"], status=Status.REFUTED)
NONE_KNOWN = replace(FACTS["latex"], codes=(Code("http://snomed.info/sct", "716186003", "No known allergy"),))


@pytest.mark.parametrize(
    ("facts", "state", "title"),
    [
        ((FACTS["penicillin"],), Absence.LISTED, "Known allergies"),
        ((NONE_KNOWN,), Absence.LISTED, "No known allergies"),
        ((NONE_KNOWN, REFUTED), Absence.LISTED, "No known allergies"),
        (
            (replace(FACTS["latex"], name="No known allergies", category="none known"),),
            Absence.LISTED,
            "No known allergies",
        ),
        (
            (replace(FACTS["latex"], name="NKDA", category="none known"),),
            Absence.LISTED,
            "Allergies and intolerances",
        ),
        ((REFUTED,), Absence.LISTED, "Allergies and intolerances"),
        ((), Absence.NONE_RECORDED, "Allergies not recorded"),
        ((), Absence.NOT_RETRIEVED, "Allergies unavailable"),
    ],
)
def test_allergies_are_exactly_one_of_the_things_that_may_be_said(
    facts: tuple[Fact, ...], state: Absence, title: str
) -> None:
    claims = tuple(_claim(fact) for fact in facts)
    section = SummarySection("allergies", "Allergies and intolerances", claims, state)
    summary = replace(sample_summary(), sections=(section,), facts=facts)
    assert _page(summary).sections[0].title == title


def test_an_allergy_beside_a_statement_of_none_is_known() -> None:
    facts = (NONE_KNOWN, FACTS["penicillin"])
    section = SummarySection("allergies", "Allergies", tuple(map(_claim, facts)), Absence.LISTED)
    summary = replace(sample_summary(), sections=(section,), facts=facts)
    assert _page(summary).sections[0].title == "Known allergies"


def test_a_long_list_folds_after_five_and_says_so() -> None:
    names = ("potassium", "creatinine", "troponin", "a1c", "sodium", "culture", "platelets")
    page = _with(SummarySection("results", "Results", tuple(_claim(FACTS[n]) for n in names), hidden=0))
    section = page.sections[0]
    assert (len(section.claims), len(section.folded)) == (FOLD_AFTER, 2)
    assert section.tally == "5 of 7 shown"


def test_required_kinds_are_never_folded() -> None:
    names = ("apixaban", "ceftriaxone", "azithromycin", "insulin", "metoprolol", "metformin")
    claims = tuple(_claim(FACTS[name]) for name in names)
    section = _with(SummarySection("medications", "Medications", claims, Absence.LISTED)).sections[0]
    assert (len(section.claims), section.folded) == (6, ())


def test_what_a_cap_hid_is_counted() -> None:
    section = _with(SummarySection("r", "Results", (_claim(FACTS["sodium"]),), hidden=212)).sections[0]
    assert section.tally == "1 of 213 shown; 212 more in the record and not on this page"


def test_flags_are_as_recorded_with_the_recorded_range() -> None:
    page = _with(SummarySection("r", "R", (_claim(FACTS["crp"]), _claim(FACTS["crp"], FACTS["potassium"]))))
    alone, together = page.sections[0].claims
    assert [(flag.name, flag.words, flag.reference_range) for flag in alone.flags] == [
        ("", "Critical high", "<5 mg/L")
    ]
    assert [flag.name for flag in together.flags] == ["C-reactive protein", "Potassium"]


def test_a_result_s_value_and_a_drug_s_name_carry_the_weight() -> None:
    page = _with(
        SummarySection(
            "r",
            "R",
            (
                _claim(FACTS["sodium"], text="Sodium was 138 mmol/L."),
                _claim(FACTS["apixaban"], text="Apixaban 5 mg oral tablet twice daily."),
                _claim(FACTS["sodium"], FACTS["apixaban"], text="Sodium was 138 mmol/L."),
            ),
        )
    )
    assert [claim.strong for claim in page.sections[0].claims] == [
        "138 mmol/L",
        "Apixaban 5 mg oral tablet",
        "",
    ]


@pytest.mark.parametrize(
    ("text", "part", "cut"),
    [
        ("rosuvastatin 5 mg", "statin", ("rosuvastatin 5 mg", "", "")),
        ("15 mg", "5 mg", ("15 mg", "", "")),
        ("any text", "", ("any text", "", "")),
        ("any text", "  ", ("any text", "", "")),
        ("Aspirin given", "aspirin", ("", "Aspirin", " given")),
        ("(a) b", "(a)", ("", "(a)", " b")),
    ],
)
def test_weight_falls_on_whole_words_alone(text: str, part: str, cut: tuple[str, str, str]) -> None:
    assert split_at(text, part) == cut


def test_the_period_spans_what_was_read_and_what_was_left_out() -> None:
    page = _page(sample_summary())
    assert page.notes.period == "1974 to 23-Nov-2026"
    bare = replace(sample_summary(), facts=(), sections=(), left_out=(), as_of=None)
    assert _page(bare).notes.period == ""


def test_a_draft_lapses_after_72_hours() -> None:
    notes = build_page(sample_run(), CREATED + timedelta(hours=72)).notes
    assert (notes.expires, notes.expired) == ("27-Nov-2026 14:06 UTC", False)
    assert build_page(sample_run(), CREATED + timedelta(hours=72, seconds=1)).notes.expired


def test_the_list_says_states_in_words_and_marks_incomplete_once() -> None:
    runs = [
        sample_run(run_id="a", state=RunState.DRY, incomplete=True),
        sample_run(run_id="b", state=RunState.INCOMPLETE, incomplete=True),
    ]
    listed = {run.run_id: run for run in list_runs(InMemoryStore(*runs).rows()[0])}
    assert (listed["a"].state, listed["a"].incomplete) == ("Dry run, not filed", True)
    assert (listed["b"].state, listed["b"].incomplete) == ("Incomplete, not filed", False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("take \u202egm 5\u202c", "take [U+202E]gm 5[U+202C]"),
        ("a\u2066b\u2069", "a[U+2066]b[U+2069]"),
        ("a\x00\x1b[2J", "a[U+0000][U+001B][2J"),
        ("5\u200b00 mg", "5[U+200B]00 mg"),
        ("line\r\nline\tend", "line\nline\tend"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_characters_that_nobody_sees_are_shown(text: str, shown: str) -> None:
    assert show_hidden(text) == shown


@pytest.mark.parametrize(
    "amount", ["500 mg", "<0.01 ng/mL", "5,000 units", "04-May-2026 14:05", "May-2026", "7.40 %"]
)
def test_no_line_breaks_between_a_number_and_its_unit_or_in_a_date(amount: str) -> None:
    from markupsafe import escape

    assert (
        keep_together(f"it is {amount}, then") == f'it is <span class="amount">{escape(amount)}</span>, then'
    )
