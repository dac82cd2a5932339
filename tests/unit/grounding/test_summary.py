"""What of a summary is stored under its own words: they are read again by later versions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.facts import A1C, GOUT, identity
from service.grounding.summary import RULES_VERSION, Claim, Origin, Summary, SummarySection, Verdict
from service.record.facts import Code, FactId


def test_verdicts_and_origins_are_stored_under_these_words() -> None:
    assert [verdict.value for verdict in Verdict] == [
        "supported", "unsupported", "contradicted", "superseded", "not_checked", "not_verifiable",
    ]  # fmt: skip
    assert [origin.value for origin in Origin] == ["model", "record"]


def test_a_sentence_says_nothing_of_itself_that_nobody_found() -> None:
    claim = Claim("problems", "Gout.", (), Origin.MODEL, Verdict.SUPPORTED)
    assert (claim.reasons, claim.corrected, claim.repaired, claim.entailed) == ((), False, False, "")
    assert not claim.is_lowered
    assert replace(claim, reasons=("too_long", "second_pass_no")).is_lowered
    assert not replace(claim, reasons=("said_before",)).is_lowered


def test_a_heading_of_no_required_kind_has_no_state_and_hides_nothing() -> None:
    section = SummarySection("problems", "Problems", ())
    assert (section.state, section.reason, section.conflict, section.hidden) == (None, "", "", 0)


EMPTY = Summary("history", identity(), (), (), (), (), (), (), None, 0)


def test_a_summary_of_nothing_is_open_to_all_and_knows_nothing() -> None:
    assert EMPTY.labels == ()
    assert EMPTY.published == ()
    assert (EMPTY.known, EMPTY.restricted, EMPTY.security, EMPTY.second_pass) == ((), False, (), "")


def test_the_labels_of_a_summary_are_those_of_all_that_it_rests_on() -> None:
    system = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
    restricted = Code(system, "R", "restricted")
    gout = replace(GOUT, source=replace(GOUT.source, security=(restricted,)))
    assert replace(EMPTY, security=(restricted,)).labels == (restricted,)
    assert replace(EMPTY, facts=(A1C, gout)).labels == (restricted,)
    assert replace(EMPTY, identity=replace(identity(), security=(restricted,))).labels == (restricted,)


def test_a_fact_is_found_by_its_id_alone() -> None:
    summary = replace(EMPTY, facts=(GOUT, A1C))
    assert (summary.fact(GOUT.id), summary.fact(A1C.id)) == (GOUT, A1C)
    with pytest.raises(KeyError, match="nothing"):
        summary.fact(FactId("nothing"))


def test_what_is_published_stands_in_reading_order() -> None:
    claims = [Claim("s", text, (), Origin.MODEL, Verdict.SUPPORTED) for text in ("One.", "Two.", "Three.")]
    sections = (SummarySection("a", "A", tuple(claims[:2])), SummarySection("b", "B", tuple(claims[2:])))
    assert replace(EMPTY, sections=sections).published == tuple(claims)


def test_the_version_of_the_rules_is_a_number() -> None:
    assert RULES_VERSION.isdecimal()
