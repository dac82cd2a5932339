"""Which runs are reviewed: rule by rule, in their order, and the same each time."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

import pytest

from fixtures.sample_run import CREATED, sample_run
from service.errors import SettingsError
from service.ports import RunId
from service.ports.reviews import Rule
from service.review.figures import Share, coverage_of, support_of
from service.review.sampling import Sampling, choose, draw, entry_for, is_seeded, read_sampling
from tests.conftest import ROOT

RUN = sample_run(run_id="one")
NOTHING = Sampling(
    random_share=0, low_coverage=0, low_support=0, first_of_version=0, two_reviewers_share=0, seeded_share=0
)


def keyed(purpose: str, value: str) -> str:
    return hmac.new(b"key", f"{purpose}\0{value}".encode(), hashlib.sha256).hexdigest()


def rule_of(sampling: Sampling, place: int = 0, wards: tuple[str, ...] = ()) -> Rule | None:
    entry = choose(RUN, place, wards, sampling, keyed, CREATED)
    return entry.rule if entry is not None else None


def test_without_any_rule_nothing_is_reviewed() -> None:
    assert rule_of(NOTHING, 1, ("Ward 7",)) is None


@pytest.mark.parametrize(
    ("place", "rule"), [(1, Rule.FIRST_OF_VERSION), (3, Rule.FIRST_OF_VERSION), (4, None), (0, None)]
)
def test_the_first_runs_of_a_version_are_reviewed(place: int, rule: Rule | None) -> None:
    assert rule_of(replace(NOTHING, first_of_version=3), place) is rule


def test_low_support_and_low_coverage_are_reviewed_below_their_limits_alone() -> None:
    support, coverage = support_of(RUN.summary), coverage_of(RUN.summary)
    assert (support.part, support.whole - support.part) == (
        sum(claim.origin.value == "model" for claim in RUN.summary.published), len(RUN.summary.refused),
    )  # fmt: skip
    at = support.part / support.whole
    assert rule_of(replace(NOTHING, low_support=at + 0.01)) is Rule.LOW_SUPPORT
    assert rule_of(replace(NOTHING, low_support=at)) is None
    at = coverage.part / coverage.whole
    assert 0 < at < 1
    assert rule_of(replace(NOTHING, low_coverage=at + 0.01)) is Rule.LOW_COVERAGE
    assert rule_of(replace(NOTHING, low_coverage=at)) is None
    assert not Share(0, 0).is_under(1)


def test_a_ward_has_a_share_of_its_own_by_its_name_in_any_case() -> None:
    sampling = read_sampling(
        "random_share = 0\nlow_coverage = 0\nlow_support = 0\nfirst_of_version = 0\n[wards]\n'Ward 7' = 1.0"
    )
    assert rule_of(sampling, wards=("ward 7",)) is Rule.WARD
    assert rule_of(sampling, wards=("Ward 8",)) is None


def test_the_random_share_is_what_it_says_and_comes_out_the_same_each_time() -> None:
    sampling = replace(NOTHING, random_share=0.05)
    runs = [replace(RUN, run_id=RunId(f"run{n}")) for n in range(4000)]

    def drawn() -> list[str]:
        return [run.run_id for run in runs if choose(run, 0, (), sampling, keyed, CREATED) is not None]

    first = drawn()
    assert first == drawn()
    assert 150 <= len(first) <= 250  # 200, and four standard deviations either way
    assert {draw(keyed, "random", run) < 0.05 for run in first} == {True}


def test_draws_of_different_purposes_have_nothing_to_do_with_each_other() -> None:
    both = sum(draw(keyed, "random", str(n)) < 0.5 and draw(keyed, "ward", str(n)) < 0.5 for n in range(2000))
    assert 400 <= both <= 600


def test_a_share_of_one_takes_all_and_of_none_takes_nothing() -> None:
    runs = [RunId(f"run{n}") for n in range(50)]
    assert all(is_seeded(run, "user:one", replace(NOTHING, seeded_share=1), keyed) for run in runs)
    assert not any(is_seeded(run, "user:one", NOTHING, keyed) for run in runs)
    doubled = replace(NOTHING, two_reviewers_share=1)
    assert entry_for(RUN, Rule.HAND, "", doubled, keyed, CREATED).wanted == 2
    assert entry_for(RUN, Rule.HAND, "", NOTHING, keyed, CREATED).wanted == 1


def test_two_reviewers_of_one_run_do_not_have_the_same_planted_errors() -> None:
    half = replace(NOTHING, seeded_share=0.5)
    runs = [RunId(f"run{n}") for n in range(100)]
    drawn = [[is_seeded(run, who, half, keyed) for run in runs] for who in ("user:one", "user:two")]
    assert drawn[0] != drawn[1]


def test_the_file_that_comes_along_says_what_holds_without_one() -> None:
    assert read_sampling((ROOT / "ops" / "review.toml").read_text("utf-8")) == Sampling()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("random_share = 1.5", "random_share is no share"),
        ("random_share = true", "random_share is no share"),
        ("low_support = 'all'", "low_support is no share"),
        ("first_of_version = -1", "first_of_version is no count"),
        ("first_of_version = 0.5", "first_of_version is no count"),
        ("wards = 3", "wards is no table"),
        ("[wards]\nICU = 2", "ICU is no share"),
        ("random_shares = 0.1", "unknown: random_shares"),
        ("random_share = ", "not valid TOML"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        read_sampling(text)
