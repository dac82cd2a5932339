"""Claims of anyone, judged by what they cite; and every reason has its sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fixtures.facts import A1C, COLONOSCOPY, GOUT, LISINOPRIL, SODIUM, record
from service.grounding import check as rules
from service.grounding import derive as derived
from service.grounding.claims import CitedClaim, Judgement, judge_claims
from service.grounding.reasons import CODES, reason_of
from service.record.facts import Fact


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


def test_every_reason_that_a_rule_gives_has_a_sentence() -> None:
    source = Path(rules.__file__).read_text() + Path(derived.__file__).read_text()
    given = set(re.findall(r'Verdict\.[A-Z_]+, \(?f?"([a-z_]+)', source))
    given |= set(re.findall(r'return "([a-z_]+)"', source)) | set(
        re.findall(r'else "([a-z_]+)"$', source, re.M)
    )
    assert len(given) > 20
    assert given <= CODES
    assert reason_of("status_lost:not_done").detail.endswith("(not done)")
