"""Reading answers that are whole, cut, or odd."""

from __future__ import annotations

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
