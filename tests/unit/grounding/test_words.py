"""A sentence taken apart: every way to write a date, a number and its unit, and the words between them."""

from __future__ import annotations

import pytest

from fixtures.facts import GOUT
from service.grounding.check import Judge
from service.grounding.summary import Verdict
from service.grounding.words import (
    RELATIVE_DATE,
    DateToken,
    NumberToken,
    fold,
    take_apart,
    units_of,
    words_of,
)

MG = frozenset({"mg", "%", "mmol/l", "10*6/ul", "{score}", "ph", "[ph]"})

DATES = [
    ("2020-11-25", DateToken(2020, 11, 25)),
    ("2020-11", DateToken(2020, 11)),
    ("2020", DateToken(2020)),
    ("1899-01-31", DateToken(1899, 1, 31)),
    ("2100-12-01", DateToken(2100, 12, 1)),
    ("25 Nov 2020", DateToken(2020, 11, 25)),
    ("25-Nov-2020", DateToken(2020, 11, 25)),
    ("5th November 2020", DateToken(2020, 11, 5)),
    ("1st of May", None),
    ("1st May, 2020", DateToken(2020, 5, 1)),
    ("2nd MAY 1820", DateToken(1820, 5, 2)),
    ("3rd Dec. 2120", DateToken(2120, 12, 3)),
    ("November 25, 2020", DateToken(2020, 11, 25)),
    ("Nov. 5th 1920", DateToken(1920, 11, 5)),
    ("nov 1st, 1820", DateToken(1820, 11, 1)),
    ("Nov 2nd 2120", DateToken(2120, 11, 2)),
    ("Nov 3rd 2020", DateToken(2020, 11, 3)),
    ("November 2020", DateToken(2020, 11)),
    ("November, 1820", DateToken(1820, 11)),
    ("Nov-1920", DateToken(1920, 11)),
    ("Nov 2120", DateToken(2120, 11)),
    ("2020-12-31", DateToken(2020, 12, 31)),
    ("2020-01-01", DateToken(2020, 1, 1)),
]


@pytest.mark.parametrize(("text", "date"), [pair for pair in DATES if pair[1]])
@pytest.mark.parametrize("around", ["{}", "It was on {}.", "On {}, then", "({})"])
def test_a_date_is_read_to_its_precision_however_it_is_written(
    text: str, date: DateToken, around: str
) -> None:
    told = take_apart(around.format(text))
    assert (told.dates, told.numbers) == ((date,), ())
    (piece,) = told.pieces
    assert around.format(text)[piece.start : piece.end].rstrip(",") == text


@pytest.mark.parametrize("number", range(1, 13))
@pytest.mark.parametrize("form", ["{1}-{0}-2020", "{1} {0} 2020", "{0} {1}, 2020", "{0} 2020"])
def test_every_month_has_its_name(number: int, form: str) -> None:
    short = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()[number - 1]
    long = ("January February March April May June July August September October November December").split()
    for name in (short, short.upper(), long[number - 1]):
        (date,) = take_apart(form.format(name, 7)).dates
        assert (date.year, date.month) == (2020, number)


@pytest.mark.parametrize(
    "text",
    ["2011-13-45", "2011-00-10", "2011-12-32", "2011-12-00", "32-Nov-2020", "Nov 0, 2020", "1720-11-25"],
)
def test_what_no_calendar_holds_is_no_whole_date(text: str) -> None:
    assert all(date.day is None and date.month is None for date in take_apart(text).dates)


def test_a_telephone_number_is_no_month() -> None:
    assert DateToken(2020, 11) not in take_apart("2020-11-251").dates
    assert DateToken(2020, 11, 25) not in take_apart("2020-11-25-3").dates


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("5.8 %", [("5.8", "%")]),
        ("5.8%", [("5.8", "%")]),
        ("2.5mg", [("2.5", "mg")]),
        ("2.5MG", [("2.5", "mg")]),
        ("2.5 MG.", [("2.5", "mg")]),
        ("2.5 mg: x", [("2.5", "mg")]),
        ("2.5 mg, twice", [("2.5", "mg")]),
        ("2.5 kg", [("2.5", "")]),
        ("<0.01 mg", [("<0.01", "mg")]),
        ("< 0.01", [("<0.01", "")]),
        (">=7", [(">=7", "")]),
        ("<=7", [("<=7", "")]),
        ("≤7", [("≤7", "")]),
        ("≥7", [("≥7", "")]),
        (">7", [(">7", "")]),
        ("~7", [("~7", "")]),
        ("-7", [("-7", "")]),
        ("+7", [("+7", "")]),
        (".5 mg", [(".5", "mg")]),
        ("1,200 mg", [("1,200", "mg")]),
        ("7, 8", [("7", ""), ("8", "")]),
        ("4.1 10*6/uL", [("4.1", "10*6/ul")]),
        ("3 {score}", [("3", "")]),
        ("7.4 pH", [("7.4", "")]),
        ("7.4 [pH]", [("7.4", "")]),
        ("5 mg and 2020 mg", [("5", "mg"), ("2020", "mg")]),
        ("x7", []),
        ("x.7", []),
        ("COVID-19", []),
        ("B12", []),
        ("(7)", [("7", "")]),
    ],
)
def test_a_number_keeps_its_comparator_and_the_unit_after_it(
    text: str, numbers: list[tuple[str, str]]
) -> None:
    assert take_apart(text, MG).numbers == tuple(NumberToken(*pair) for pair in numbers)


def test_a_year_without_a_unit_is_a_date_and_with_one_a_number() -> None:
    for year in ("1820", "1920", "2020", "2120"):
        assert take_apart(f"In {year} it began", MG).dates == (DateToken(int(year)),)
        assert take_apart(f"{year} mg", MG).numbers == (NumberToken(year, "mg"),)
    assert take_apart("1720", MG).numbers == (NumberToken("1720", ""),)
    assert take_apart("20201", MG).numbers == (NumberToken("20201", ""),)


def test_each_piece_stands_in_its_place_with_the_words_before_it() -> None:
    text = "Sodium was 140 mg on 25-Nov-2020 and <5 % then"
    told = take_apart(text, MG)
    assert [text[piece.start : piece.end] for piece in told.pieces] == ["140 mg", "25-Nov-2020", "<5 %"]
    assert [set(piece.window) for piece in told.pieces] == [{"sodium", "was"}, {"on"}, {"and"}]
    assert told.tail == {"then"}
    assert told.words == ("sodium", "was", "on", "and", "then")
    assert take_apart("after 3 {score} points", MG).pieces[0].end == len("after 3 {score}")


@pytest.mark.parametrize(
    ("word", "folded"),
    [
        ("Tablets", "tablet"),
        ("tests.", "test"),
        ("patient's", "patient"),
        ("abscess", "abscess"),
        ("status", "status"),
        ("diagnosis", "diagnosis"),
        ("gas", "gas"),
        ("lens", "len"),
        ("his", "his"),
        ("IDs", "ids"),
        ("mg/", "mg"),
        ("'so'", "so"),
        ("*a*", "a"),
        ("a-", "a"),
        ("xax", "xax"),
    ],
)
def test_a_word_is_folded_without_case_plural_or_marks(word: str, folded: str) -> None:
    assert fold(word) == folded


def test_compound_words_count_whole_and_in_their_parts() -> None:
    assert words_of("Beta-blocker and/or Statins") == (
        "beta-blocker", "beta", "blocker", "and/or", "and", "or", "statin",
    )  # fmt: skip
    assert words_of("5mg 95% ‰ x^2 [a]") == ("5mg", "%", "‰", "x^2", "a]")
    assert words_of("- ' * 7") == ()


def test_units_are_what_stands_after_numbers_and_is_no_plain_word() -> None:
    text = "Sodium: 140 mmol/L on 25-Nov-2020; 1 tablet, 5 not 7 and 3 was 20 mg. 4: x 0.5 % 7(a) 3–5 8 ’"
    assert units_of(text) == {"mmol/l", "tablet", "mg", "%", "’"}


PLAIN = (
    "a an the of on in at to and as by is was are were be been has had have it its this that which these "
    "those there patient patients patient's record records recorded documented noted date dated value "
    "values level measured"
).split()


@pytest.mark.parametrize("word", PLAIN)
def test_a_plain_word_carries_nothing(word: str) -> None:
    assert Judge("").verdict(f"Gout {word} active.", [GOUT])[0] is Verdict.SUPPORTED


@pytest.mark.parametrize(
    "word", "no not never none without denies denied negative refused declined absent nor".split()
)
def test_every_negation_contradicts_what_is_not_denied(word: str) -> None:
    verdict, reasons = Judge("").verdict(f"Gout {word} active since 04-Mar-2011.", [GOUT])
    assert verdict is Verdict.CONTRADICTED
    assert "negation_not_in_source" in reasons


UNITS_OF_TIME = (
    "day night week month year monday tuesday wednesday thursday friday saturday sunday days weeks".split()
)
RELATIVE = [
    *"today yesterday tomorrow tonight recently Today AGO".split(),
    *("3 years ago", "day 3", "day  12", "last 2 weeks", "last few days", "past couple of months"),
    *(f"{first} {unit}" for first in ("last", "this", "next", "past", "previous") for unit in UNITS_OF_TIME),
    *(f"past {count} months" for count in "several two three four five six 12".split()),
]


@pytest.mark.parametrize("told", RELATIVE)
def test_time_told_from_today_is_refused(told: str) -> None:
    verdict, reasons = Judge("").verdict(f"Gout is active {told}.", [GOUT])
    assert verdict is not Verdict.SUPPORTED
    assert "relative_date" in reasons


@pytest.mark.parametrize(
    "told", ["most recently", "daybreak 3", "lasting days", "weekday", "last value", "agog"]
)
def test_time_told_from_nothing_is_not_relative(told: str) -> None:
    assert RELATIVE_DATE.search(told) is None


@pytest.mark.parametrize(
    ("said", "recorded", "is_within"),
    [
        ((2020,), (2020, 11, 25), True),
        ((2020, 11), (2020, 11, 25), True),
        ((2020, 11, 25), (2020, 11, 25), True),
        ((2020, 11, 25), (2020, 11), False),
        ((2020, 11), (2020,), False),
        ((2021,), (2020, 11, 25), False),
        ((2020, 10), (2020, 11, 25), False),
        ((2020, 11, 24), (2020, 11, 25), False),
        ((2020, 10, 25), (2020, 11, 25), False),
        ((2021, 11, 25), (2020, 11, 25), False),
    ],
)
def test_a_date_may_say_less_than_the_recorded_one_and_never_more(
    said: tuple[int, ...], recorded: tuple[int, ...], is_within: bool
) -> None:
    assert DateToken(*said).within(DateToken(*recorded)) is is_within


def test_a_number_within_a_unit_is_none_and_those_after_it_are() -> None:
    assert take_apart("4.1 10*6/uL, then 7 mg and 8 %", MG).numbers == (
        NumberToken("4.1", "10*6/ul"), NumberToken("7", "mg"), NumberToken("8", "%"),
    )  # fmt: skip


@pytest.mark.parametrize("sign", [*"%[]{}/^.'*-µ7_"])
def test_a_unit_is_one_word_with_its_signs(sign: str) -> None:
    assert words_of(f"Given a{sign}b then")[:2] == ("given", f"a{sign}b".casefold())
    assert words_of(f"Given a{sign}b then")[-1] == "then"


@pytest.mark.parametrize("word", [*PLAIN, *"no not never none without denie denied negative nor".split()])
def test_a_word_that_carries_nothing_or_denies_is_no_unit(word: str) -> None:
    for told in (word, word.title()):
        assert units_of(f"Seen 3 {told} then") == frozenset()
        assert units_of(f"Seen 3 x{told} then") == {f"x{word}"}


@pytest.mark.parametrize("text", ["2011-13-05", "2011-13", "2011-00", "2011-00-05"])
def test_there_is_no_thirteenth_month_and_none_before_the_first(text: str) -> None:
    assert all(date.month is None for date in take_apart(text).dates)
