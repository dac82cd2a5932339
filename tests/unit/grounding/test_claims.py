"""Claims of anyone, judged by what they cite."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.facts import A1C, COLONOSCOPY, GOUT, LISINOPRIL, SODIUM, fact, record
from service.grounding.claims import CitedClaim, Judgement, judge_claims
from service.grounding.reasons import Reason, reason_of
from service.record.facts import Fact, FactId, Kind, ResourceVersion


def judged(text: str, *cited: Fact | str) -> Judgement:
    cites = tuple(c if isinstance(c, str) else c.source.reference for c in cited)
    (found,) = judge_claims(record([GOUT, A1C, SODIUM, LISINOPRIL, COLONOSCOPY]), [CitedClaim(text, cites)])
    return found


def codes(found: Judgement) -> set[str]:
    return {reason.code for reason in found.reasons}


def test_a_claim_is_judged_by_what_it_cites_and_no_citation_is_corrected() -> None:
    assert judged("Sodium was 140 mmol/L on 25-Nov-2020.", SODIUM) == Judgement("supported", ())
    wrong = judged("Sodium was 140 mmol/L on 25-Nov-2020.", A1C)
    assert wrong.verdict == "unsupported"
    assert "does_not_name" in codes(wrong)
    assert judged("Gout is active, since 04-Mar-2011.", f"{GOUT.source.reference}/_history/9").verdict == (
        "supported"
    )


def test_a_lost_refusal_is_a_contradiction() -> None:
    assert judged("Colonoscopy was completed on 12-Mar-2019.", COLONOSCOPY).verdict == "contradicted"


@pytest.mark.parametrize("text", ["", "   ", "…", "“”", '"..."', "-"])
def test_what_says_nothing_is_never_supported(text: str) -> None:
    assert codes(judged(text, GOUT)) == {"not_a_claim"}


def test_a_claim_without_a_citation_or_with_an_unknown_one_is_never_supported() -> None:
    assert codes(judged("Gout is active, since 04-Mar-2011.")) == {"cites_nothing"}
    assert codes(judged("Gout is active, since 04-Mar-2011.", GOUT, "Condition/none")) == {"cites_unknown"}


@pytest.mark.parametrize("item", [None, 7, "Gout", [], {}, {"text": 3, "cites": "Condition/1"}])
def test_what_is_no_claim_stays_in_its_place(item: object) -> None:
    (found,) = judge_claims(record([GOUT]), [CitedClaim.of(item)])
    assert found.verdict == "unsupported"


def test_what_a_claim_cites_is_read_leniently() -> None:
    read = CitedClaim.of({"text": "x", "cites": ["Condition/1", 7, None]})
    assert read == CitedClaim("x", ("Condition/1",))


def test_what_is_said_of_a_verdict_is_one_of_three_words() -> None:
    assert judged("Gout is active, since 04-Mar-2011.", GOUT).verdict == "supported"
    assert judged("No gout since 04-Mar-2011.", GOUT).verdict == "contradicted"
    assert judged("Gout since 05-Mar-2011.", GOUT).verdict == "unsupported"
    assert judged("Painful gout is active.", GOUT) == Judgement(
        "unsupported", (Reason("word_not_in_source", reason_of("word_not_in_source").detail),)
    )
    assert judged("", GOUT).verdict == "unsupported"


def test_claims_are_judged_in_order_and_each_by_itself() -> None:
    text, cites = "Gout is active, since 04-Mar-2011.", (GOUT.source.reference,)
    claims = [CitedClaim("x", cites), CitedClaim(text, cites), CitedClaim(text, cites)]
    found = [one.verdict for one in judge_claims(record([GOUT]), claims)]
    assert found == ["unsupported", "supported", "supported"]


@pytest.mark.parametrize(
    ("item", "read"),
    [
        ({"text": "x"}, CitedClaim("x", ())),
        ({"cites": ["a"]}, CitedClaim("", ("a",))),
        ({"text": 7, "cites": ["a", "b"]}, CitedClaim("", ("a", "b"))),
        ({"text": "x", "cites": {"a": 1}}, CitedClaim("x", ())),
        (["text", "cites"], CitedClaim("", ())),
        (None, CitedClaim("", ())),
    ],
)
def test_a_claim_is_read_out_of_any_json(item: object, read: CitedClaim) -> None:
    assert CitedClaim.of(item) == read


def test_a_fact_of_several_resources_is_cited_by_each_of_them() -> None:
    again = ResourceVersion("Condition/again", "1", "0" * 64)
    told_twice = replace(GOUT, copies=(again,))
    text = "Gout is active, since 04-Mar-2011."
    for reference in (GOUT.source.reference, "Condition/again", "Condition/again/_history/2/_history/3"):
        (found,) = judge_claims(record([told_twice]), [CitedClaim(text, (reference,))])
        assert found.verdict == "supported"


def test_a_note_is_cited_by_its_own_line_or_by_a_sentence_that_is_quoted() -> None:
    line = fact(
        "Progress note of 01-May-2024",
        Kind.NOTE,
        "DocumentReference/n",
        on="2024-05-01",
        name="Progress note",
    )
    sentence = replace(
        fact("Progress note of 01-May-2024: “It was cold.”", Kind.NOTE, "DocumentReference/n#c0", span=(0, 3),
             on="2024-05-01", name="Progress note"), value="It was cold.",
    )  # fmt: skip
    for text, is_so in (
        ("Progress note of 01-May-2024: “It was cold.”", True),
        ("Progress note of 01-May-2024.", True),
        ("Progress note of 01-May-2024: “It was warm.”", False),
    ):
        for facts in ([line, sentence], [sentence, line]):
            (found,) = judge_claims(record(facts), [CitedClaim(text, ("DocumentReference/n",))])
            assert (found.verdict == "supported") is is_so
    (found,) = judge_claims(record([sentence]), [CitedClaim("It was cold today.", ("DocumentReference/n",))])
    assert found.verdict != "supported"


def test_what_is_no_claim_and_what_cites_nothing_known_is_unsupported() -> None:
    assert judged("…", GOUT) == Judgement("unsupported", (reason_of("not_a_claim"),))
    assert judged("Gout is active.", "Condition/none") == Judgement(
        "unsupported", (reason_of("cites_unknown"),)
    )


def test_a_pronoun_is_read_with_the_patients_recorded_gender() -> None:
    assert judged("She has gout, active.", GOUT) == Judgement("supported", ())
    assert judged("He has gout, active.", GOUT).verdict == "unsupported"


def test_of_a_resource_that_says_several_things_what_the_sentence_names_is_meant() -> None:
    panel = [
        replace(one, id=FactId(f"Observation/panel#{place}"),
                source=replace(one.source, reference="Observation/panel"))
        for place, one in enumerate((SODIUM, A1C))
    ]  # fmt: skip
    for text, verdict in (
        ("Sodium was 140 mmol/L on 25-Nov-2020.", "supported"),
        ("Hemoglobin A1c was 5.8 % on 25-Nov-2020.", "supported"),
        ("Sodium was 5.8 % on 25-Nov-2020.", "unsupported"),
    ):
        (found,) = judge_claims(record(panel), [CitedClaim(text, ("Observation/panel",))])
        assert found.verdict == verdict, text
