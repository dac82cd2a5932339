"""What is new since an earlier summary: the record's own lines, newest first, and how many are not told."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from fixtures.facts import A1C, BRONCHITIS, COLONOSCOPY, GOUT, LISINOPRIL, SODIUM, fact, record
from service.grounding.since import MOST_NEW, Earlier, known_by, since_section
from service.grounding.summary import Origin, SummarySection, Verdict
from service.record.facts import Absence, Fact, FactId, Kind, RequiredKind, ResourceVersion, Status

READ_UP_TO = "01-Jan-2020 10:00 UTC"


def since(now: Sequence[Fact], before: Sequence[Fact], *required: Fact) -> SummarySection | None:
    kinds = [RequiredKind("k", "K", Absence.LISTED, tuple(f.id for f in required))]
    earlier = Earlier(READ_UP_TO, frozenset(known_by(record(before))))
    return next(iter(since_section(record(now), kinds, earlier)), None)


def test_what_is_new_is_told_in_the_records_own_words() -> None:
    section = since([GOUT, A1C], [GOUT])
    assert section is not None
    (told,) = section.claims
    assert (told.text, told.citations, told.origin, told.verdict) == (
        A1C.text,
        (A1C.id,),
        Origin.RECORD,
        Verdict.SUPPORTED,
    )
    assert section.title == f"New since the summary read up to {READ_UP_TO}"
    assert (section.key, section.hidden, section.state) == ("since", 0, None)


def test_nothing_new_is_no_section_also_where_a_statement_came_again() -> None:
    again = replace(
        GOUT, id=FactId("Condition/again"), source=ResourceVersion("Condition/again", "1", "0" * 64)
    )
    assert since([GOUT], [GOUT]) is None
    assert since([GOUT, again], [GOUT]) is None
    assert since([], []) is None


def test_what_is_only_gone_is_said() -> None:
    section = since([GOUT], [GOUT, A1C])
    assert section is not None
    assert section.title.endswith("(1 earlier statement changed or gone)")
    assert section.claims == ()


@pytest.mark.parametrize(
    ("gone", "said"), [((A1C,), "1 earlier statement "), ((A1C, SODIUM), "2 earlier statements ")]
)
def test_what_changed_or_is_gone_is_counted(gone: tuple[Fact, ...], said: str) -> None:
    section = since([GOUT, LISINOPRIL], [GOUT, *gone])
    assert section is not None
    assert section.title.endswith(f"({said}changed or gone)")


def test_a_statement_that_changed_is_new_and_the_old_one_counts_as_changed() -> None:
    resolved = replace(GOUT, text="Gout: resolved, since 04-Mar-2011", status=Status.RESOLVED)
    section = since([resolved], [GOUT])
    assert section is not None
    assert [c.text for c in section.claims] == [resolved.text]
    assert "1 earlier statement changed or gone" in section.title


def test_the_same_words_of_another_kind_are_another_statement_and_the_banner_is_none() -> None:
    flag = replace(GOUT, id=FactId("Flag/g"), kind=Kind.FLAG)
    patient = fact("Patient: female", Kind.PATIENT)
    section = since([GOUT, flag, patient], [GOUT])
    assert section is not None
    assert [c.citations for c in section.claims] == [("Flag/g",)]
    assert since([GOUT, patient], [GOUT]) is None


def test_required_ones_stand_first_then_the_undated_and_the_newest_and_sentences_of_notes_last() -> None:
    undated = fact("Asthma: active")
    sentence = fact("Note of 01-May-2026: “Well.”", Kind.NOTE, span=(0, 5), on="2026-05-01")
    section = since([BRONCHITIS, sentence, A1C, undated, COLONOSCOPY, GOUT], [], BRONCHITIS, GOUT)
    assert section is not None
    assert [c.citations[0] for c in section.claims] == [
        f.id for f in (BRONCHITIS, GOUT, undated, A1C, COLONOSCOPY, sentence)
    ]


def test_a_cap_counts_what_it_hides_and_keeps_the_required_and_the_newest() -> None:
    many = [
        fact(f"Test {n}: done on 2020", Kind.RESULT, f"Observation/{n:02d}", on=f"20{n:02d}-01-01")
        for n in range(20)
    ]
    section = since(many, [], many[0])
    assert section is not None
    assert (len(section.claims), section.hidden, MOST_NEW) == (12, 8, 12)
    told = [c.citations[0] for c in section.claims]
    assert told == ["Observation/00", *(f"Observation/{n:02d}" for n in range(19, 8, -1))]
    exact = since(many[:MOST_NEW], [])
    assert exact is not None
    assert exact.hidden == 0


def test_the_order_of_facts_changes_nothing() -> None:
    facts = [GOUT, A1C, SODIUM, BRONCHITIS, COLONOSCOPY, LISINOPRIL, fact("Asthma: active")]
    expected, known = since(facts, [GOUT], LISINOPRIL), known_by(record(facts))
    for seed in range(5):
        random.Random(seed).shuffle(facts)
        assert since(facts, [GOUT], LISINOPRIL) == expected
        assert known_by(record(facts)) == known


def test_a_new_directive_that_is_previous_is_told_as_previous() -> None:
    will = fact("Full code: active", Kind.DIRECTIVE)
    kinds = [RequiredKind("k", "K", Absence.LISTED, (will.id,), previous=(will.id,))]
    (section,) = since_section(record([will, GOUT]), kinds, Earlier(READ_UP_TO, frozenset()))
    assert [c.text for c in section.claims] == [f"Previous, not of this encounter: {will.text}", GOUT.text]


def test_digests_are_short_and_hold_no_text() -> None:
    known = known_by(record([GOUT, GOUT, A1C]))
    assert len(known) == 2
    assert known == tuple(sorted(known))
    assert all(len(mark) == 10 and int(mark, 16) >= 0 for mark in known)
    assert known_by(record([replace(GOUT, text="Gout \ud800")])) != known_by(
        record([replace(GOUT, text="Gout")])
    )
