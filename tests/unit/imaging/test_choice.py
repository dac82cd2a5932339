"""Which pictures are shown: within the budget, for a reason, and the same from the same record."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.imaging.choice import (
    ALIKE,
    BETWEEN,
    BY_RULES,
    BY_SIGHT,
    LESS,
    NO_ROOM,
    SCOUT,
    UNSEEN,
    Choice,
    Sight,
    Vector,
    choose,
    prompts_of,
    shortlist,
)
from service.imaging.offer import Problem, Series, Study
from service.imaging.picture import Spot
from service.imaging.volume import MOST_SLICES

NOBODY = Problem()


def series_of(study: str, modality: str, count: int, uid: str = "1", **more: Any) -> Series:
    spots = tuple(Spot(study, f"{study}.{uid}", f"{study}.{uid}.{n:04}") for n in range(1, count + 1))
    return Series(f"{study}.{uid}", modality, spots, **more)


def study_of(uid: str, modality: str, count: int, taken: str = "20240101", **more: Any) -> Study:
    return Study(uid, f"ImagingStudy/{uid}", (series_of(uid, modality, count),), taken, **more)


def unit(*values: float) -> Vector:
    vector = np.asarray(values, np.float32)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def sight_of(study: Study, likeness: dict[Spot, Vector], problem: Problem = NOBODY) -> Sight:
    """An encoder that likes the first dimension, whatever the prompt."""
    return Sight(likeness, {text: unit(1, 0, 0) for text in prompts_of(study, problem)}, scale=10, bias=-5)


def places(choice: Choice, series: Series) -> list[int]:
    return [series.frames.index(one.spot) for one in choice.chosen if one.spot in series.frames]


def test_without_an_encoder_it_says_so_and_gives_no_scores() -> None:
    choice = choose([study_of("1", "DX", 2)], NOBODY, 4)
    assert choice.how == BY_RULES
    assert "without an image encoder" in choice.how
    assert [one.score for one in choice.chosen] == [None, None]


def test_a_volume_is_shown_by_the_middle_of_each_of_equal_stretches() -> None:
    ct = study_of("1", "CT", 40)
    choice = choose([ct], NOBODY, 4)
    assert places(choice, ct.series[0]) == [4, 14, 24, 34]
    assert choice.left_out[0].why == BETWEEN
    assert choice.left_out[0].count == 36


def test_no_more_of_a_volume_is_shown_than_the_model_was_trained_on() -> None:
    ct = study_of("1", "CT", 2000)
    choice = choose([ct], NOBODY, 500)
    shown = places(choice, ct.series[0])
    assert len(shown) == MOST_SLICES == 85
    assert max(b - a for a, b in pairwise(shown)) <= 2000 // MOST_SLICES + 1


def test_a_volume_is_thinned_by_its_millimetres_and_not_by_its_count() -> None:
    """A hundred thin slices through the inner ear, then twenty thick ones through the rest of the head."""
    ct = study_of("1", "CT", 120)
    at = (*(n * 0.1 for n in range(100)), *(10.0 + n * 5 for n in range(20)))
    ct = replace(ct, series=(replace(ct.series[0], places=at),))
    shown = [at[n] for n in places(choose([ct], NOBODY, 10), ct.series[0])]
    gaps = [after - before for before, after in pairwise(shown)]
    assert len(shown) == 10
    assert sum(place < 10 for place in shown) == 1
    assert max(gaps) - min(gaps) <= 5


def test_with_an_encoder_the_best_slice_of_each_stretch_is_shown() -> None:
    ct = study_of("1", "CT", 20)
    frames = ct.series[0].frames
    likeness = {spot: unit(0.2, 1, 0) for spot in frames} | {frames[n]: unit(1, 0.1, 0) for n in (1, 13)}
    choice = choose([ct], NOBODY, 2, sight_of(ct, likeness))
    assert places(choice, ct.series[0]) == [1, 13]
    assert choice.how == BY_SIGHT
    assert all(one.score is not None and 0 < one.score < 1 for one in choice.chosen)


def test_the_scores_are_the_encoders_own_sigmoid() -> None:
    dx = study_of("1", "DX", 1)
    (spot,) = dx.series[0].frames
    choice = choose([dx], NOBODY, 1, sight_of(dx, {spot: unit(1, 0, 0)}))
    assert choice.chosen[0].score == pytest.approx(1 / (1 + np.exp(-5)))


def test_of_two_that_are_alike_one_is_shown_and_something_else_beside_it() -> None:
    us = study_of("1", "US", 4)
    first, twin, other, last = us.series[0].frames
    likeness = {first: unit(1, 0.1, 0), twin: unit(1, 0.11, 0), other: unit(0.9, 0, 1), last: unit(0, 1, 0)}
    choice = choose([us], NOBODY, 2, sight_of(us, likeness))
    assert [one.spot for one in choice.chosen] == [first, other]
    assert {(one.why, one.count) for one in choice.left_out} == {(ALIKE, 1), (LESS, 1)}


def test_what_fits_the_words_least_is_left_out_as_such() -> None:
    us = study_of("1", "US", 3)
    first, second, third = us.series[0].frames
    likeness = {first: unit(1, 0, 0), second: unit(1, 1, 0), third: unit(0, 0, 1)}
    choice = choose([us], NOBODY, 2, sight_of(us, likeness))
    assert [one.spot for one in choice.chosen] == [first, second]
    assert [(one.why, one.count) for one in choice.left_out] == [(LESS, 1)]


def test_what_the_encoder_did_not_see_is_not_shown_and_counted() -> None:
    dx = study_of("1", "DX", 2)
    seen, unseen = dx.series[0].frames
    choice = choose([dx], NOBODY, 2, sight_of(dx, {seen: unit(1, 0, 0)}))
    assert [one.spot for one in choice.chosen] == [seen]
    assert [(one.why, one.count) for one in choice.left_out] == [(UNSEEN, 1)]
    assert unseen not in {one.spot for one in choice.chosen}


def test_key_images_come_first_and_take_half_where_there_is_more() -> None:
    old = study_of("1", "CT", 100, "20100101")
    old = replace(old, key=frozenset(old.series[0].frames[10:30]))
    new = study_of("2", "CT", 100, "20240101")
    choice = choose([new, old], NOBODY, 10)
    marked = [one for one in choice.chosen if "radiologist" in one.why]
    assert [one.spot for one in marked] == list(old.series[0].frames[10:15])
    assert len(choice.chosen) == 10


def test_key_images_take_all_where_there_is_nothing_else() -> None:
    us = study_of("1", "US", 4)
    us = replace(us, key=frozenset(us.series[0].frames))
    assert len(choose([us], NOBODY, 4).chosen) == 4


def test_the_problem_at_hand_comes_before_what_is_newer() -> None:
    chest = study_of("1", "DX", 1, "20230101", body_site="Chest")
    knee = study_of("2", "DX", 1, "20240101", body_site="Knee")
    chosen = choose([knee, chest], Problem(("Community acquired pneumonia",)), 1).chosen
    assert [one.spot.study for one in chosen] == ["1"]
    assert "problem at hand" in chosen[0].why
    assert [one.spot.study for one in choose([knee, chest], NOBODY, 1).chosen] == ["2"]


def test_the_prior_study_of_the_same_kind_is_shown_for_comparison() -> None:
    new = study_of("1", "DX", 2, "20240101", body_site="Chest")
    prior = study_of("2", "CR", 2, "20200101", body_site="Thorax")
    older = study_of("3", "CR", 2, "20150101", body_site="Thorax")
    knee = study_of("4", "DX", 2, "20231231", body_site="Knee")
    chosen = choose([older, knee, prior, new], NOBODY, 4).chosen
    assert [one.spot.study for one in chosen] == ["1", "1", "2", "2"]
    assert "to compare" in chosen[2].why


def photograph(number: int, taken: str = "20200101") -> Study:
    name = f"Media/{number}"
    return Study(name, name, (Series("", "", (Spot(name, "", ""),)),), taken, is_kept=True)


def test_each_kind_at_hand_has_a_place_before_a_study_has_a_second() -> None:
    ct, mr = study_of("1", "CT", 300, "20240101"), study_of("2", "MR", 100, "20200101")
    xray = study_of("3", "CR", 2, "20100101")
    chosen = choose([photograph(7), photograph(8), xray, mr, ct], NOBODY, 8).chosen
    sources = Counter(one.source for one in chosen)
    assert sources == {"ImagingStudy/1": 5, "ImagingStudy/2": 1, "ImagingStudy/3": 1, "Media/7": 1}


@pytest.mark.parametrize(
    ("most", "shown"),
    [
        (0, []), (1, ["ImagingStudy/1"]), (2, ["ImagingStudy/1", "Media/7"]),
        (3, ["ImagingStudy/1", "ImagingStudy/2", "Media/7"]),
    ],
)  # fmt: skip
def test_photographs_of_the_record_have_the_second_place_where_not_every_kind_has_one(
    most: int, shown: list[str]
) -> None:
    studies = [
        study_of(str(n), modality, 9, f"202{4 - n}0101") for n, modality in enumerate(["CT", "MR", "US"], 1)
    ]
    chosen = choose([photograph(7), *studies], NOBODY, most).chosen
    assert [one.source for one in chosen] == shown


def test_views_of_one_x_ray_after_the_other_are_one_kind() -> None:
    new, old = study_of("1", "DX", 2, "20240101"), study_of("2", "CR", 2, "20100101")
    chosen = choose([new, old, photograph(7)], NOBODY, 3).chosen
    assert [one.source for one in chosen] == ["ImagingStudy/1", "ImagingStudy/1", "Media/7"]


def test_the_place_of_a_kind_is_part_of_its_first_turn_and_takes_nothing_from_the_prior() -> None:
    new, old = study_of("1", "DX", 4, "20240101"), study_of("2", "CR", 4, "20100101")
    chosen = choose([new, old], NOBODY, 4).chosen
    assert Counter(one.source for one in chosen) == {"ImagingStudy/1": 2, "ImagingStudy/2": 2}


def test_a_key_image_is_the_picture_of_its_kind() -> None:
    ct, mr = study_of("1", "CT", 50, "20240101"), study_of("2", "MR", 50, "20100101")
    mr = replace(mr, key=frozenset(mr.series[0].frames[:1]))
    chosen = choose([ct, mr], NOBODY, 6).chosen
    assert Counter(one.source for one in chosen) == {"ImagingStudy/1": 5, "ImagingStudy/2": 1}


def test_a_study_without_room_is_counted_as_such() -> None:
    new, old = study_of("1", "DX", 2, "20240101"), study_of("2", "CR", 3, "20100101")
    choice = choose([new, old], NOBODY, 2)
    assert [(one.source, one.why, one.count) for one in choice.left_out] == [("ImagingStudy/2", NO_ROOM, 3)]


def test_scouts_are_not_shown() -> None:
    planned = series_of("1", "CT", 2, "1")
    scout = Series(planned.uid, "CT", (), scouts=planned.frames)
    ct = Study("1", "ImagingStudy/1", (scout, series_of("1", "CT", 4, "2")), "20240101")
    choice = choose([ct], NOBODY, 6)
    assert {one.spot.series for one in choice.chosen} == {"1.2"}
    assert (SCOUT, 2) in [(one.why, one.count) for one in choice.left_out]


def test_one_reconstruction_of_a_ct_is_shown_and_each_sequence_of_an_mr() -> None:
    for modality, shown in (("CT", {"1.2"}), ("MR", {"1.1", "1.2"})):
        several = (series_of("1", modality, 30, "1"), series_of("1", modality, 60, "2"))
        choice = choose([Study("1", "ImagingStudy/1", several, "20240101")], NOBODY, 10)
        assert {one.spot.series for one in choice.chosen} == shown


def test_prompts_name_modality_site_reason_and_problem_within_bounds() -> None:
    dx = study_of("1", "DX", 1, reason="Cough", body_site="Chest")
    assert prompts_of(dx, Problem(("Pneumonia", " "))) == (
        "X-ray of the chest showing Cough",
        "X-ray of the chest showing Pneumonia",
        "X-ray of the chest",
    )
    many = prompts_of(dx, Problem(tuple(f"{n}{'x' * 500}" for n in range(50))))
    assert len(many) == 8
    assert max(map(len, many)) == 160


def test_what_is_worth_embedding_is_wider_than_what_is_shown() -> None:
    us, ct = study_of("1", "US", 60), study_of("2", "CT", 3000)
    assert len([spot for spot in shortlist([us], NOBODY, 6) if spot.study == "1"]) == 24
    assert len(shortlist([ct, us], NOBODY, 10_000)) <= 512


def test_nothing_gives_nothing() -> None:
    assert choose([], NOBODY, 5) == Choice((), (), BY_RULES)
    assert choose([study_of("1", "DX", 2)], NOBODY, 0).chosen == ()


@st.composite
def _offers(draw: st.DrawFn) -> list[Study]:
    found = []
    for n in range(draw(st.integers(0, 5))):
        series = tuple(
            series_of(
                str(n),
                draw(st.sampled_from(["CT", "MR", "DX", "US", "XC"])),
                draw(st.integers(0, 120)),
                str(m),
            )
            for m in range(draw(st.integers(0, 3)))
        )
        spots = [spot for one in series for spot in one.frames]
        key = frozenset(draw(st.lists(st.sampled_from(spots), max_size=30))) if spots else frozenset()
        taken = draw(st.sampled_from(["", "2024", "20240131", "19991231", "nonsense"]))
        site = draw(st.sampled_from(["", "Chest", "Knee"]))
        found.append(Study(str(n), f"ImagingStudy/{n}", series, taken, body_site=site, key=key))
    return found


@given(studies=_offers(), most=st.integers(0, 200), seed=st.integers(0, 99), sighted=st.booleans())
@settings(max_examples=150)
def test_a_choice_keeps_its_budget_counts_everything_and_knows_no_order(
    studies: list[Study], most: int, seed: int, sighted: bool
) -> None:
    spots = [spot for study in studies for series in study.series for spot in series.frames]
    sight = _random_sight(studies, spots, seed) if sighted else None
    choice = choose(studies, NOBODY, most, sight)
    chosen = [one.spot for one in choice.chosen]
    assert len(chosen) == len(set(chosen)) <= most
    assert set(chosen) <= set(spots)
    assert len(chosen) + sum(one.count for one in choice.left_out) == len(spots)
    assert all(one.why for one in choice.chosen)
    shuffled = list(studies)
    random.Random(seed).shuffle(shuffled)
    assert choose(shuffled, NOBODY, most, sight) == choice


def _random_sight(studies: list[Study], spots: list[Spot], seed: int) -> Sight:
    rng = np.random.default_rng(seed)
    seen = [spot for spot in spots if rng.random() < 0.8]
    images = {spot: unit(*rng.normal(size=4)) for spot in seen}
    prompts = {text: unit(*rng.normal(size=4)) for study in studies for text in prompts_of(study, NOBODY)}
    return Sight(images, prompts, 10.0, -1.0)
