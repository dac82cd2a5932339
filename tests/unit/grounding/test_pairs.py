"""What a sentence derives from several values of one series is computed again, whatever its words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from connectors.fhir.pull import Gap, GapReason
from fixtures.facts import fact, record
from service.grounding.check import Judge
from service.grounding.summary import Verdict
from service.record.facts import Code, Fact, Kind, Person, Status
from tests.unit.grounding.test_derive import sodium

OLD, NEW = sodium("60", "2020-01-05"), sodium("151", "2022-07-08")


def judged(
    text: str, *cited: Fact, others: tuple[Fact, ...] = (), gaps: tuple[Gap, ...] = ()
) -> tuple[Verdict, set[str]]:
    cited = cited or (OLD, NEW)
    verdict, reasons = Judge("female", record([*cited, *others], gaps)).verdict(text, cited)
    return verdict, set(reasons)


TRUE = [
    "Sodium rose from 60 mmol/L to 151 mmol/L.",
    "Sodium rose from 60 to 151 mmol/L.",
    "Sodium rose to 151 mmol/L on 08-Jul-2022 from 60 mmol/L on 05-Jan-2020.",
    "From 05-Jan-2020 to 08-Jul-2022, sodium increased from 60 mmol/L to 151 mmol/L.",
    "Sodium was 60 mmol/L on 05-Jan-2020 and rose to 151 mmol/L on 08-Jul-2022.",
    "Sodium went from 60 mmol/L (05-Jan-2020) to 151 mmol/L (08-Jul-2022).",
    "Between January 2020 and July 2022, sodium rose by 91 mmol/L.",
    "Sodium rose 91 mmol/L from 2020-01-05 to 2022-07-08.",
    "The difference in sodium between 05-Jan-2020 and 08-Jul-2022 was 91 mmol/L.",
    "Sodium was 91 mmol/L higher on 08-Jul-2022 than on 05-Jan-2020.",
    "Sodium was lower on 05-Jan-2020 (60 mmol/L) than on 08-Jul-2022 (151 mmol/L).",
    "Sodium has risen by 91 mmol/L since 05-Jan-2020 (to 151 mmol/L on 08-Jul-2022).",
    "Sodium more than doubled from 60 mmol/L to 151 mmol/L.",
    "Sodium on 08-Jul-2022 was more than twice the value of 05-Jan-2020.",
    "Sodium has more than doubled since 05-Jan-2020 (60 mmol/L to 151 mmol/L on 08-Jul-2022).",
    "Sodium was measured 2 times.",
    "Two sodium values are recorded.",
    "A total of 2 sodium results are available.",
    "Sodium was measured twice.",
]


@pytest.mark.parametrize("text", TRUE)
def test_what_the_two_values_bear_out_is_supported(text: str) -> None:
    assert judged(text) == (Verdict.SUPPORTED, set())


FALSE = [
    ("Sodium fell from 60 mmol/L to 151 mmol/L.", "change_is_another"),
    ("Sodium fell from 151 mmol/L to 60 mmol/L.", "change_is_another"),
    ("Sodium rose from 151 mmol/L to 60 mmol/L.", "change_is_another"),
    ("Sodium rose from 60 mmol/L on 08-Jul-2022 to 151 mmol/L on 05-Jan-2020.", None),
    ("Sodium went from 151 mmol/L to 60 mmol/L.", "change_is_another"),
    ("Between 05-Jan-2020 and 08-Jul-2022, sodium rose by 90 mmol/L.", None),
    ("Between 05-Jan-2020 and 08-Jul-2022, sodium fell by 91 mmol/L.", "change_is_another"),
    ("The difference in sodium between 05-Jan-2020 and 08-Jul-2022 was 60 mmol/L.", None),
    ("The difference in sodium between 05-Jan-2020 and 08-Jul-2022 was 91 mg/dL.", None),
    ("Sodium was 91 mmol/L lower on 08-Jul-2022 than on 05-Jan-2020.", "change_is_another"),
    ("Sodium was higher on 05-Jan-2020 (60 mmol/L) than on 08-Jul-2022 (151 mmol/L).", "change_is_another"),
    ("Sodium was higher on 08-Jul-2022 (60 mmol/L) than on 05-Jan-2020 (151 mmol/L).", None),
    ("Sodium more than tripled from 60 mmol/L to 151 mmol/L.", "change_is_another"),
    ("Sodium doubled from 60 mmol/L to 151 mmol/L.", "change_is_another"),
    ("Sodium more than doubled from 151 mmol/L to 60 mmol/L.", None),
    ("Sodium rose.", None),
    ("Sodium rose steadily from 60 mmol/L to 151 mmol/L.", "word_not_in_source"),
    ("Sodium rose from 60 mmol/L to 151 mmol/L because of furosemide.", "word_not_in_source"),
    ("Sodium did not rise from 60 mmol/L to 151 mmol/L.", "negation_not_in_source"),
    ("Potassium rose from 60 mmol/L to 151 mmol/L.", None),
    ("The mother's sodium rose from 60 mmol/L to 151 mmol/L.", "word_not_in_source"),
    ("Sodium rose from 6 mmol/L to 151 mmol/L.", None),
    ("Sodium rose and fell from 60 mmol/L to 151 mmol/L.", None),
    ("Sodium was measured 3 times.", "count_is_another"),
    ("Three sodium values are recorded.", "count_is_another"),
    ("Sodium was measured once.", None),
]


@pytest.mark.parametrize(("text", "reason"), FALSE)
def test_what_they_do_not_is_refused(text: str, reason: str | None) -> None:
    verdict, reasons = judged(text)
    assert verdict is not Verdict.SUPPORTED
    assert reason is None or reason in reasons


def test_a_count_speaks_of_the_whole_record() -> None:
    third = sodium("140", "2021-03-06")
    assert judged("Sodium was measured 2 times.", others=(third,))[1] == {"count_is_another"}
    gap = Gap("Observation", GapReason.FAILED)
    assert judged("Sodium was measured 2 times.", gaps=(gap,))[1] == {"record_not_read_whole"}
    other_gap = Gap("Condition", GapReason.FAILED)
    assert judged("Sodium was measured 2 times.", gaps=(other_gap,))[0] is Verdict.SUPPORTED


def test_two_values_that_do_not_compare_have_no_difference() -> None:
    text = "Sodium rose from 60 to 151 mmol/L."
    same_day = sodium("151", "2020-01-05", "other")
    assert judged(text, OLD, same_day)[0] is not Verdict.SUPPORTED
    another = sodium("151", "2022-07-08", "their", person=Person("relative", "mother"))
    assert judged(text, OLD, another)[0] is not Verdict.SUPPORTED
    potassium = sodium("151", "2022-07-08", "potassium", name="Potassium")
    assert judged(text, OLD, potassium)[0] is not Verdict.SUPPORTED
    assert NEW.quantity is not None
    rose = "Sodium rose between 05-Jan-2020 and 08-Jul-2022."
    assert judged(rose) == (Verdict.SUPPORTED, set())
    other_unit = replace(NEW, quantity=replace(NEW.quantity, unit="mg/dL"))
    assert judged(rose, OLD, other_unit)[0] is not Verdict.SUPPORTED


def test_a_difference_may_be_as_large_as_one_of_the_values() -> None:
    twice = sodium("120", "2022-07-08")
    for text in (
        "Between January 2020 and July 2022, sodium rose by 60 mmol/L.",
        "Sodium rose from 60 mmol/L to 120 mmol/L.",
    ):
        assert judged(text, OLD, twice) == (Verdict.SUPPORTED, set())


def test_a_number_in_a_name_is_no_value() -> None:
    name = "Pain severity - 0-10 verbal rating"
    old, new = (
        fact(
            f"{name}: {value} cm on {day}", Kind.RESULT, f"Observation/{value}", on=on, value=value, unit="cm"
        )
        for value, on, day in (("1", "2020-01-05", "05-Jan-2020"), ("4", "2022-07-08", "08-Jul-2022"))
    )
    text = f"{name} rose from 1 cm to 4 cm."
    assert judged(text, old, new)[0] is Verdict.SUPPORTED
    assert judged(text.replace("from 1", "from 10"), old, new)[0] is not Verdict.SUPPORTED
    assert judged(f"{name} was measured twice.", old, new)[0] is Verdict.SUPPORTED


@pytest.mark.parametrize(
    ("text", "is_so"),
    [
        ("Sodium was 151 mmol/L on 08-Jul-2022, up from 60 mmol/L on 05-Jan-2020.", True),
        ("Sodium was 60 mmol/L on 05-Jan-2020, up from 151 mmol/L on 08-Jul-2022.", False),
        ("Sodium at least doubled from 60 mmol/L to 151 mmol/L.", True),
        ("Sodium at least tripled from 60 mmol/L to 151 mmol/L.", False),
        ("Sodium changed to 151 mmol/L, 60 mmol/L.", False),
        ("Sodium changed by <91 mmol/L between 05-Jan-2020 and 08-Jul-2022.", False),
        ("Sodium changed between 05-Jan-2020 and 08-Jul-2022 by more than 60 mmol/L.", False),
        ("Sodium was higher than 60 mmol/L.", False),
        ("Higher than 60 mmol/L was sodium.", False),
        ("Rose sodium 60 mmol/L to 151 mmol/L.", False),
        ("Sodium rose from 60 mmol/L (08-Jul-2022) to 151 mmol/L (05-Jan-2020).", False),
        ("Sodium rose in 2020 to 2022.", False),
        ("Sodium rose from 60 mmol/L on 05-Jan-2020 and 151 mmol/L on 08-Jul-2022.", False),
        ("Sodium rose from 60 mmol/L to 60 mmol/L.", False),
        ("Sodium was higher than 60 mmol/L at 60 mmol/L.", False),
    ],
)
def test_what_is_not_understood_is_not_taken_out(text: str, is_so: bool) -> None:
    assert (judged(text)[0] is Verdict.SUPPORTED) is is_so


def test_two_values_of_one_year_are_told_apart_by_more_than_the_year() -> None:
    old, new = (
        fact(
            f"Lactate: {value} mmol/L on {day}",
            Kind.RESULT,
            f"Observation/{on}",
            on=on,
            value=value,
            unit="mmol/L",
        )
        for value, on, day in (("2", "2020-01-05", "05-Jan-2020"), ("5", "2020-07-08", "08-Jul-2020"))
    )
    assert judged("Lactate rose from 2020 to 2020.", old, new)[0] is not Verdict.SUPPORTED
    assert judged("Lactate rose from 2 to 5 mmol/L in 2020.", old, new)[0] is Verdict.SUPPORTED
    assert (
        judged("Lactate rose by 3 mmol/L between January and July 2020.", old, new)[0]
        is not Verdict.SUPPORTED
    )


def test_what_was_nothing_has_no_multiple() -> None:
    old, new = (
        fact(
            f"Pain score: {value} cm on {day}",
            Kind.RESULT,
            f"Observation/{on}",
            on=on,
            value=value,
            unit="cm",
        )
        for value, on, day in (("0", "2020-01-05", "05-Jan-2020"), ("5", "2020-07-08", "08-Jul-2020"))
    )
    assert judged("Pain score more than doubled from 0 cm to 5 cm.", old, new)[0] is not Verdict.SUPPORTED
    assert judged("Pain score rose from 0 cm to 5 cm.", old, new)[0] is Verdict.SUPPORTED


RISING = [
    *"rose risen rise rises rising increase increased increases increasing climbed climbs climbing "
    "grew grown".split(),
    *"growing higher greater".split(),
    *("went up", "gone up", "going up", "moved up", "up from"),
]  # fmt: skip
FALLING = [
    *"fell fallen fall falls falling decrease decreased decreases decreasing droped dropped drop "
    "drops".split(),
    *"dropping decline declined declines declining lower less smaller".split(),
    *("went down", "gone down", "going down", "moved down", "down from", "came down"),
]
MOVING = "went gone change changed changes moved differ differs differed".split()
RISE = (OLD, NEW)
FALL = (sodium("151", "2020-01-05"), sodium("60", "2022-07-08"))


@pytest.mark.parametrize("told", [*RISING, *FALLING, *MOVING])
def test_every_word_for_a_change_says_in_which_direction_it_went(told: str) -> None:
    start = "" if told.endswith("from") else "from "
    up, down = (
        f"Sodium {told} {start}60 mmol/L to 151 mmol/L.",
        f"Sodium {told} {start}151 mmol/L to 60 mmol/L.",
    )
    assert judged(up, *RISE)[1] == ({"change_is_another"} if told in FALLING else set())
    assert judged(down, *FALL)[1] == ({"change_is_another"} if told in RISING else set())
    assert judged(down, *RISE)[1] == {"change_is_another"}


@pytest.mark.parametrize(
    "told",
    [
        "a rise of",
        "a fall of",
        "a change of",
        "an increase of",
        "a decrease of",
        "a drop of",
        "a decline of",
        "a difference of",
    ],
)
def test_a_change_is_told_as_a_difference(told: str) -> None:
    text = f"Sodium: {told} 91 mmol/L from 05-Jan-2020 to 08-Jul-2022."
    cited = FALL if told.split()[1] in ("fall", "decrease", "drop", "decline") else RISE
    assert judged(text, *cited) == (Verdict.SUPPORTED, set())
    assert judged(text.replace("91", "92"), *cited)[0] is not Verdict.SUPPORTED


@pytest.mark.parametrize(
    "told", ["rose", "increased", "climbed", "went up", "rose by", "grew by", "went up by", "moved up by"]
)
def test_a_rise_is_told_with_its_difference(told: str) -> None:
    text = f"Sodium {told} 91 mmol/L from 05-Jan-2020 to 08-Jul-2022."
    assert judged(text, *RISE) == (Verdict.SUPPORTED, set())
    assert judged(text, *FALL)[1] == {"change_is_another"}
    assert judged(text.replace("91", "90"), *RISE)[0] is not Verdict.SUPPORTED


@pytest.mark.parametrize(
    "told", ["fell", "decreased", "dropped", "declined", "went down", "fell by", "came down by"]
)
def test_a_fall_is_told_with_its_difference(told: str) -> None:
    text = f"Sodium {told} 91 mmol/L from 05-Jan-2020 to 08-Jul-2022."
    assert judged(text, *FALL) == (Verdict.SUPPORTED, set())
    assert judged(text, *RISE)[1] == {"change_is_another"}


@pytest.mark.parametrize("told", ["was", "is", "of"])
def test_a_difference_is_the_difference_and_no_value(told: str) -> None:
    text = f"The difference in sodium between 05-Jan-2020 and 08-Jul-2022 {told} 91 mmol/L."
    assert judged(text)[0] is Verdict.SUPPORTED
    assert judged(text.replace("91", "60"))[0] is not Verdict.SUPPORTED


@pytest.mark.parametrize("told", ["doubled", "double", "doubling", "twice", "twofold", "two-fold"])
def test_twice_is_twice(told: str) -> None:
    old, new, more = sodium("60", "2020-01-05"), sodium("120", "2022-07-08"), sodium("121", "2022-07-08")
    text = f"Sodium {told} from 60 mmol/L to 120 mmol/L."
    assert judged(text, old, new) == (Verdict.SUPPORTED, set())
    assert judged(text.replace("120", "121"), old, more)[1] == {"change_is_another"}
    for over in ("more than", "over", "to more than", "to over"):
        over_twice = f"Sodium {over} {told} from 60 mmol/L to 121 mmol/L."
        assert judged(over_twice, old, more) == (Verdict.SUPPORTED, set())
        assert judged(over_twice.replace("121", "120"), old, new)[1] == {"change_is_another"}
    least = f"Sodium at least {told} from 60 mmol/L to 120 mmol/L."
    assert judged(least, old, new) == (Verdict.SUPPORTED, set())
    less = sodium("119", "2022-07-08")
    assert judged(least.replace("120", "119"), old, less)[1] == {"change_is_another"}


@pytest.mark.parametrize("told", ["tripled", "triple", "tripling", "threefold", "three-fold"])
def test_thrice_is_thrice(told: str) -> None:
    old, new, more = sodium("40", "2020-01-05"), sodium("120", "2022-07-08"), sodium("121", "2022-07-08")
    text = f"Sodium {told} from 40 mmol/L to 120 mmol/L."
    assert judged(text, old, new) == (Verdict.SUPPORTED, set())
    assert judged(text.replace("120", "121"), old, more)[1] == {"change_is_another"}


@pytest.mark.parametrize("of", ["as high as", "as great as", "as large as", "as much as", "the "
"value of", "the level of", "the result of",
                                "that of", "what it was on", "the one of", "the value"])  # fmt: skip
def test_a_multiple_of_another_day_is_computed(of: str) -> None:
    old, new = sodium("60", "2020-01-05"), sodium("120", "2022-07-08")
    text = "Sodium on {} was twice " + of + " {}."
    assert judged(text.format("08-Jul-2022", "05-Jan-2020"), old, new) == (Verdict.SUPPORTED, set())
    assert judged(text.format("05-Jan-2020", "08-Jul-2022"), old, new)[0] is not Verdict.SUPPORTED


@pytest.mark.parametrize(
    "text",
    [
        "Sodium rose to 151 mmol/L since 05-Jan-2020 (60 mmol/L).",
        "Sodium rose after 60 mmol/L to 151 mmol/L.",
        "Sodium rose from 60 mmol/L reaching 151 mmol/L.",
        "Sodium rose from 60 mmol/L until 151 mmol/L.",
        "Sodium rose between 60 mmol/L and 151 mmol/L.",
        "Sodium was 60 mmol/L and increased to 151 mmol/L.",
        "Sodium was 60 mmol/L and rose to 151 mmol/L.",
        "Sodium was 151 mmol/L on 08-Jul-2022, increased from 60 mmol/L on 05-Jan-2020.",
        "Sodium rose from 60 - 151 mmol/L.".replace("-", "to"),
        "Between 60 and 151 mmol/L sodium rose.",
        "Between 05-Jan-2020 and 08-Jul-2022, sodium went from 60 to 151 mmol/L.",
        "In the interval from 05-Jan-2020 to 08-Jul-2022 sodium rose by 91 mmol/L.",
        "Sodium rose by 91 mmol/L to 151 mmol/L, from 60 mmol/L.",
        "Sodium was 91 mmol/L greater on 08-Jul-2022 than on 05-Jan-2020.",
    ],
)
def test_another_way_to_tell_the_change_is_supported(text: str) -> None:
    assert judged(text) == (Verdict.SUPPORTED, set())


@pytest.mark.parametrize(
    "what",
    "times occasions values results measurements readings records entries determinations "
    "observations tests".split(),
)
def test_what_is_counted_is_the_whole_series(what: str) -> None:
    for two in ("2", "two", "Two"):
        assert judged(f"{two} sodium {what}.") == (Verdict.SUPPORTED, set())
    assert judged(f"3 sodium {what}.")[1] == {"count_is_another"}
    assert judged(f"A total of 2 separate sodium {what}.") == (Verdict.SUPPORTED, set())
    assert judged(f"2 different sodium {what}.") == (Verdict.SUPPORTED, set())


@pytest.mark.parametrize("told", ["in total", "total", "available", "on record", "overall"])
def test_a_count_may_say_that_it_is_of_all(told: str) -> None:
    assert judged(f"2 sodium results {told}.") == (Verdict.SUPPORTED, set())


def test_a_count_of_three_is_told_in_words_too() -> None:
    third = sodium("140", "2021-03-06")
    for told in (
        "Sodium was measured thrice.",
        "Sodium was measured three times.",
        "3 sodium values are recorded.",
    ):
        assert judged(told, OLD, NEW, third) == (Verdict.SUPPORTED, set())
        assert judged(told)[1] == {"count_is_another"}
    assert judged("Sodium was measured once.", OLD, NEW)[1] == {"count_is_another"}
    assert judged("Sodium was measured twice.", OLD, NEW, third)[1] == {"count_is_another"}
    assert judged("Sodium was measured twice.", OLD, NEW, others=(third,))[1] == {"count_is_another"}
    assert judged("Sodium was measured twice on 05-Jan-2020.")[0] is not Verdict.SUPPORTED


@pytest.mark.parametrize(
    "word",
    "from since between to and by after reaching until as in of the value level result one that what "
    "it was an a or interval".split(),
)
def test_words_that_hold_a_change_together_are_taken_out_with_it(word: str) -> None:
    assert judged(f"Sodium rose from 60 mmol/L to 151 mmol/L {word}.") == (Verdict.SUPPORTED, set())


def test_a_value_that_stays_the_same_neither_rises_nor_falls() -> None:
    same = (sodium("60", "2020-01-05"), sodium("60", "2022-07-08"))
    for told in ("rose", "fell"):
        text = f"Sodium {told} between 05-Jan-2020 and 08-Jul-2022."
        assert judged(text, *same)[1] == {"change_is_another"}
    for told in ("higher", "lower"):
        text = f"Sodium was {told} on 08-Jul-2022 than on 05-Jan-2020."
        assert judged(text, *same)[1] == {"change_is_another"}


def test_a_year_that_fits_both_values_is_that_of_the_other_end() -> None:
    new = replace(sodium("151", "2020-07-08"), text="Sodium: 151 mmol/L on 08-Jul-2020")
    pair = (sodium("60", "2020-01-05"), new)
    assert judged("Sodium rose since 2020 to 151 mmol/L.", *pair) == (Verdict.SUPPORTED, set())
    assert judged("Sodium rose from 60 mmol/L until 2020.", *pair) == (Verdict.SUPPORTED, set())
    assert judged("Sodium fell since 2020 to 151 mmol/L.", *pair)[1] == {"change_is_another"}
    assert judged("Sodium rose from 60 mmol/L in 2020 to 60 mmol/L.", *pair)[0] is not Verdict.SUPPORTED


def test_a_difference_of_thousands_may_be_written_with_a_comma() -> None:
    pair = (sodium("100", "2020-01-05"), sodium("1300", "2022-07-08"))
    text = "Sodium rose by 1,200 mmol/L between 05-Jan-2020 and 08-Jul-2022."
    assert judged(text, *pair) == (Verdict.SUPPORTED, set())
    assert judged(text.replace("1,200", "1,201"), *pair)[0] is not Verdict.SUPPORTED


def test_one_has_a_multiple_and_less_than_one_too() -> None:
    for old, new in (("1", "2"), ("0.5", "1"), ("0.1", "0.2")):
        pair = (sodium(old, "2020-01-05"), sodium(new, "2022-07-08"))
        text = f"Sodium doubled from {old} mmol/L to {new} mmol/L."
        assert judged(text, *pair) == (Verdict.SUPPORTED, set())


def test_a_value_named_otherwise_is_one_of_the_series_whichever_is_cited_first() -> None:
    code = (Code("http://loinc.org", "2951-2", ""),)
    hub = replace(OLD, codes=code)
    by_code = replace(NEW, name="Na", codes=code, text="Na: 151 mmol/L on 08-Jul-2022")
    by_name = sodium("140", "2021-03-06")
    everything = (hub, by_code, by_name)
    for order in ((0, 1, 2), (1, 0, 2), (2, 1, 0)):
        cited = [everything[place] for place in order]
        told = "Sodium (Na) was measured 3 times."
        assert judged(told, *cited)[1] == set(), order
        assert judged(told.replace("3", "2"), *cited)[1] == {"count_is_another"}


def test_a_count_of_drugs_needs_every_list_that_they_stand_in() -> None:
    lists = [
        fact("Aspirin: active", Kind.MEDICATION, f"{type_name}/1", status=Status.ACTIVE, on=on)
        for type_name, on in (("MedicationRequest", "2020-01-05"), ("MedicationStatement", "2021-01-05"))
    ]
    text = "Aspirin: 2 records, active."
    assert judged(text, *lists)[1] == set()
    for missing in ("MedicationRequest", "MedicationStatement"):
        gap = Gap(missing, GapReason.FAILED)
        assert "record_not_read_whole" in judged(text, *lists, gaps=(gap,))[1]


def test_a_value_at_the_last_moment_of_another_is_no_later_one() -> None:
    moment = fact("x", on="2020-01-05T10:00:00Z").when
    at_once = replace(OLD, when=moment), replace(NEW, when=moment)
    assert judged("Sodium rose from 60 mmol/L to 151 mmol/L.", *at_once)[0] is not Verdict.SUPPORTED


@pytest.mark.parametrize("told", ["was", "is"])
def test_a_value_as_large_as_the_difference_is_a_value_of_its_day(told: str) -> None:
    twice = sodium("120", "2022-07-08")
    wrong = f"Sodium {told} 60 mmol/L on 08-Jul-2022, up from 05-Jan-2020."
    assert judged(wrong, OLD, twice)[1] == {"change_is_another"}
    assert judged(wrong.replace(" 60", " 120"), OLD, twice) == (Verdict.SUPPORTED, set())


def test_a_value_of_one_day_told_of_the_other_is_no_change() -> None:
    for text in (
        "Sodium rose from 60 mmol/L on 08-Jul-2022 to 151 mmol/L.",
        "Sodium rose from 60 mmol/L to 151 mmol/L on 05-Jan-2020.",
        "Sodium was 60 mmol/L on 08-Jul-2022 and rose to 151 mmol/L on 05-Jan-2020.",
    ):
        assert judged(text)[1] == {"change_is_another"}, text


def test_between_holds_for_what_stands_beside_its_days() -> None:
    for text in (
        "Between 05-Jan-2020 (60 mmol/L) and 08-Jul-2022 (151 mmol/L), sodium rose.",
        "Sodium rose between 05-Jan-2020, at 60 mmol/L, and 08-Jul-2022, at 151 mmol/L.".replace(
            ", at", " as"
        ),
    ):
        assert judged(text) == (Verdict.SUPPORTED, set()), text
        assert judged(text.replace("rose", "fell"))[1] == {"change_is_another"}, text


def test_only_what_was_measured_has_a_change() -> None:
    goals = [
        fact(f"Weight goal: {value} kg from {day}", Kind.GOAL, f"Goal/{value}", status=Status.ACTIVE, on=on,
             value=value, unit="kg")
        for value, on, day in (("80", "2020-01-05", "05-Jan-2020"), ("70", "2022-07-08", "08-Jul-2022"))
    ]  # fmt: skip
    told = judged("Weight goal fell from 80 kg to 70 kg.", *goals)
    assert told[0] is Verdict.NOT_CHECKED
    assert "word_not_in_source" in told[1]
