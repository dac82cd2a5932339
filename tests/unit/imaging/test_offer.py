"""Series in their order, and what a study must share with another one to be compared with it."""

from __future__ import annotations

import random

from service.imaging.offer import Problem, Study, rank, regions_of, series_of
from service.imaging.picture import Header, Spot


def header(series: str, number: int, position: float | None = None, frames: int = 1) -> Header:
    spot = Spot("1", series, f"{series}.{number}")
    return Header(spot, "1.2", "CT", frames=frames, number=number, position=position)


def test_slices_follow_their_place_in_the_body_not_their_number() -> None:
    headers = [header("1", n, position=-10.0 * n) for n in range(5)]
    random.Random(1).shuffle(headers)
    (series,) = series_of(headers)
    assert [spot.instance for spot in series.frames] == ["1.4", "1.3", "1.2", "1.1", "1.0"]


def test_without_a_position_the_instance_number_decides() -> None:
    (series,) = series_of([header("1", 10), header("1", 9), header("1", 1)])
    assert [spot.instance for spot in series.frames] == ["1.1", "1.9", "1.10"]


def test_every_frame_of_an_instance_is_one_that_can_be_shown() -> None:
    (series,) = series_of([header("1", 1, frames=3)])
    assert [spot.frame for spot in series.frames] == [1, 2, 3]


def test_series_are_kept_apart() -> None:
    found = series_of([header("2", 1), header("1", 1), header("2", 2)])
    assert [(one.uid, len(one.frames)) for one in found] == [("1", 1), ("2", 2)]


def test_problems_and_body_sites_meet_in_a_region() -> None:
    assert regions_of(["Pneumonia (disorder)"]) & regions_of(["CHEST"])
    assert not regions_of(["Pneumonia (disorder)"]) & regions_of(["Knee joint"])
    assert regions_of(["Sprain"]) == frozenset()


def test_a_study_without_a_day_is_no_prior_and_not_new() -> None:
    dated = Study("1", "ImagingStudy/1", (), "20240101")
    undated = Study("2", "ImagingStudy/2", (), "")
    placed = rank([undated, dated], Problem())
    assert [one.study.uid for one in placed] == ["1", "2"]
    assert placed[1].why == "study by its date"
