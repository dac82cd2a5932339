"""The manifest: every fact that is not shown is counted once, with its period and the reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.facts import A1C, APPENDECTOMY, GOUT, SODIUM, TROPONIN, context, fact, record
from service.context.chosen import LeftOut
from service.context.manifest import (
    CARRIED,
    LOST,
    NO_ROOM,
    OLDER,
    describe_left_out,
    left_out,
    manifest_of,
    shown_kinds,
)
from service.record.facts import Absence, Kind, RequiredKind
from tests.unit.context.charts import HISTORY

BANNER = fact("Patient: female", Kind.PATIENT)


def test_what_is_left_out_is_counted_by_kind_and_reason_with_its_period() -> None:
    chart = record([BANNER, GOUT, TROPONIN, A1C, SODIUM, APPENDECTOMY])
    found = left_out(chart, {GOUT.id}, {SODIUM.id}, {APPENDECTOMY.id}, {TROPONIN.id}, HISTORY)
    assert found == (
        LeftOut("procedure", "Procedures", 1, "12-Mar-2004", "12-Mar-2004", LOST),
        LeftOut("result", "Results", 1, "25-Nov-2020", "25-Nov-2020", NO_ROOM),
        LeftOut("result", "Results", 1, "20-Nov-2026", "20-Nov-2026", OLDER),
        LeftOut("result", "Results", 1, "25-Nov-2020", "25-Nov-2020", CARRIED),
    )


def test_a_kind_that_the_set_does_not_show_has_the_reason_that_the_set_gives() -> None:
    note = fact("Progress note", Kind.NOTE)
    hidden = replace(HISTORY, unshown={Kind.NOTE: "not read"})
    assert left_out(record([note]), (), (), (), (), hidden) == (
        LeftOut("note", "Notes", 1, "", "", "not read"),
    )
    assert left_out(record([note]), (), {note.id}, {note.id}, {note.id}, hidden)[0].reason == CARRIED


def test_every_kind_is_told_as_held_and_shown() -> None:
    chart = record([BANNER, GOUT, A1C, SODIUM])
    assert shown_kinds(chart, {A1C.id, BANNER.id}, HISTORY) == (("Problems", 1, 0), ("Results", 2, 1))


def test_the_manifest_says_what_was_read_what_is_empty_and_what_is_missing() -> None:
    kinds = [
        RequiredKind("allergies", "Allergies", Absence.NONE_RECORDED, ()),
        RequiredKind("problems", "Problems", Absence.LISTED, (GOUT.id,)),
        RequiredKind("orders", "Orders", Absence.NOT_RETRIEVED, (), "refused"),
    ]
    chart = replace(
        context([GOUT], kinds), as_of=GOUT.when, kinds=(("Problems", 1, 1), ("Results", 5, 3)),
        left_out=(LeftOut("result", "Results", 2, "", "", NO_ROOM),),
    )  # fmt: skip
    assert manifest_of(chart) == [
        "The record holds 1 statements, the newest of 04-Mar-2011.",
        "Orders: NOT RETRIEVED (refused)",
        "None recorded, search complete: Allergies.",
        "All are shown: Problems.",
        "Results: 2 of 5 (did not fit)",
    ]
    assert manifest_of(context([]))[0].endswith("the newest of an unknown date.")


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        (LeftOut("x", "X", 2, "2019", "2019"), "X: 2, 2019"),
        (LeftOut("x", "X", 1, "", ""), "X: 1"),
        (LeftOut("x", "X", 3, "2019", "2020", "did not fit"), "X: 3, 2019 to 2020 (did not fit)"),
    ],
)
def test_what_is_left_out_reads_as_one_sentence(item: LeftOut, sentence: str) -> None:
    assert describe_left_out(item) == sentence
