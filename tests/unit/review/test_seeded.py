"""Planted errors: wrong for their sources, of four kinds, and the same for the same seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from fixtures.facts import fact
from fixtures.sample_run import sample_summary
from service.grounding.check import Judge
from service.grounding.summary import Claim, Origin, Summary, Verdict
from service.record.facts import Kind
from service.review.seeded import plant

SUMMARY = sample_summary()
SEEDS = [str(n) for n in range(200)]


def one_claim(text: str, source: str, kind: Kind = Kind.PROBLEM) -> Summary:
    """The sample with a single statement."""
    cited = fact(source, kind, "Condition/1")
    claim = Claim("problems", text, (cited.id,), Origin.MODEL, Verdict.SUPPORTED)
    section = replace(SUMMARY.sections[0], key="problems", claims=(claim,))
    return replace(SUMMARY, sections=(section,), refused=(), facts=(cited,))


def test_what_is_planted_is_refused_by_the_rules_for_the_sources_that_stand_beside_it() -> None:
    facts = {one.id: one for one in SUMMARY.facts}
    for seed in SEEDS:
        planted = plant(SUMMARY, seed)
        assert planted is not None
        claim = SUMMARY.published[planted.ordinal]
        verdict, _ = Judge(SUMMARY.identity.gender).verdict(planted.text, [facts[i] for i in claim.citations])
        assert verdict is not Verdict.SUPPORTED, planted


def test_every_kind_of_error_is_planted_and_in_many_places() -> None:
    planted = [one for seed in SEEDS if (one := plant(SUMMARY, seed)) is not None]
    kinds = Counter(one.kind for one in planted)
    assert set(kinds) == {"value", "date", "negation", "side"}
    assert min(kinds.values()) >= 20
    assert len({one.ordinal for one in planted}) >= 8


def test_the_same_seed_plants_the_same_error() -> None:
    assert [plant(SUMMARY, seed) for seed in SEEDS] == [plant(SUMMARY, seed) for seed in SEEDS]


def test_an_error_is_planted_into_a_published_statement_and_reads_otherwise() -> None:
    for seed in SEEDS:
        planted = plant(SUMMARY, seed)
        assert planted is not None
        texts = [claim.text for claim in SUMMARY.published]
        assert planted.text not in texts
        assert planted.text != texts[planted.ordinal]


def test_where_nothing_takes_an_error_none_is_planted() -> None:
    assert plant(one_claim("Gout.", "Gout: recorded"), "1") is None
    assert plant(replace(SUMMARY, sections=()), "1") is None


def test_what_the_source_says_too_is_not_planted() -> None:
    told = one_claim("Pain in the left knee.", "Pain: in the left knee, once in the right knee")
    assert plant(told, "1") is None
    assert plant(one_claim("Pain in the left knee.", "Pain: in the left knee"), "1") is not None


def test_a_statement_whose_source_is_not_stored_is_left_alone() -> None:
    assert plant(replace(one_claim("Pain in the left knee.", "Pain"), facts=()), "1") is None


def test_units_years_and_names_are_no_values() -> None:
    for text in ("Platelets in 10*3/uL, since 2008.", "Vitamin B12 is low"):
        planted = plant(one_claim(text, text), "3")
        assert planted is None or planted.kind != "value"
