"""Reading answers that are whole, cut, or odd."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.context.chosen import Label
from service.grounding.parse import parse_claims
from service.grounding.summary import DraftClaim

WHOLE = '{"claims":[{"cites":["F1"],"text":"Gout is active."},{"cites":["F2","F2"],"text":"Two\\nlines."}]}'


def test_claims_keep_their_order_their_labels_once_and_one_line() -> None:
    assert parse_claims(WHOLE, "problems") == (
        DraftClaim("problems", "Gout is active.", (Label("F1"),)),
        DraftClaim("problems", "Two lines.", (Label("F2"),)),
    )


def test_a_free_answer_names_its_sections() -> None:
    text = '{"claims":[{"section":"results","cites":["F9"],"text":"x"}]}'
    assert parse_claims(text, None) == (DraftClaim("results", "x", (Label("F9"),)),)


def test_an_answer_cut_in_the_middle_keeps_its_whole_claims() -> None:
    assert parse_claims(WHOLE[:-25], "problems") == parse_claims(WHOLE, "problems")[:1]


def test_claims_without_text_or_with_odd_cites_are_read_leniently() -> None:
    text = (
        '{"claims":[{"cites":["F1"]},{"text":"a","cites":"F1"},{"text":"b","cites":[1,"F2"]},{"text":" "}]}'
    )
    assert parse_claims(text, "s") == (DraftClaim("s", "a", ()), DraftClaim("s", "b", (Label("F2"),)))


@given(st.text())
def test_no_answer_makes_the_parser_raise(text: str) -> None:
    parse_claims(text, None)


def test_half_a_character_is_no_text() -> None:
    answer = '{"claims":[{"cites":["P1"],"text":"Gout \\ud800 is active"},{"cites":["P1"],"text":"Gout"}]}'
    assert [claim.text for claim in parse_claims(answer, "problems")] == ["Gout"]


def test_an_answer_nested_without_end_yields_nothing() -> None:
    assert parse_claims('{"text":' * 5000, None) == ()
    assert parse_claims('{"cites":[' * 3000, None) == ()


@pytest.mark.parametrize("first", ["section", "cites", "text"])
@pytest.mark.parametrize("space", ["", " ", "\n  "])
def test_a_claim_begins_with_any_of_its_fields(first: str, space: str) -> None:
    fields = {"section": "results", "cites": ["F1"], "text": "Gout."}
    item = json.dumps({first: fields[first], **fields})
    found = parse_claims(f"Here: {{{space}{item[1:]} and so on", None)
    assert found == (DraftClaim("results", "Gout.", (Label("F1"),)),)


def test_what_begins_otherwise_is_no_claim() -> None:
    assert parse_claims('{"other":1,"text":"Gout."}', None) == ()
    assert parse_claims('["text","Gout."]', None) == ()


def test_a_broken_claim_does_not_hide_the_next() -> None:
    answer = '{"text":"a", oops} {"text":"b"} {"text":"c"'
    assert [claim.text for claim in parse_claims(answer, "s")] == ["b"]


def test_the_heading_asked_for_counts_and_else_the_one_named() -> None:
    named = '{"section":"results","text":"a"}'
    assert parse_claims(named, "problems")[0].section == "problems"
    assert parse_claims(named, "")[0].section == ""
    assert parse_claims(named, None)[0].section == "results"
    assert parse_claims('{"section":7,"text":"a"}', None)[0].section == ""
    assert parse_claims('{"text":"a"}', None)[0].section == ""


@pytest.mark.parametrize("code", ["\\ud800", "\\udfff", "\\ud900"])
def test_half_of_any_character_is_no_text(code: str) -> None:
    assert parse_claims(f'{{"text":"Gout {code}"}}', None) == ()
    assert parse_claims('{"text":"Gout \\ud7ff"}', None) != ()
