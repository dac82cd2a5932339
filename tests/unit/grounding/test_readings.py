"""What the model reads from pictures: never supported, always apart, and refused where it says more."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fixtures.charts import canary_resources
from service.context.chosen import Label, LeftOut
from service.context.pictures import SECTION, picture_facts, spot_of
from service.grounding.disagree import disagreement, reports_among
from service.grounding.readings import (
    DISAGREEMENTS,
    NOT_CHECKED,
    TITLE,
    Read,
    judge_readings,
    parse_readings,
    with_readings,
    without_readings,
)
from service.grounding.reasons import reason_of
from service.grounding.summary import Origin, Verdict
from service.imaging.picture import Picture, Spot
from service.record.assemble import assemble_record
from service.record.facts import Fact, PatientRecord
from tests.unit.writeback.charts import make_summary

DAY = "2019-05-04"
STUDY = {
    "resourceType": "ImagingStudy", "id": "img1", "status": "available",
    "subject": {"reference": "Patient/1"}, "started": DAY, "description": "Chest radiograph",
    "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}],
}  # fmt: skip


def report(text: str, day: str = DAY) -> dict[str, object]:
    return {
        "resourceType": "DiagnosticReport", "id": "rep1", "status": "final",
        "subject": {"reference": "Patient/1"},
        "code": {"text": "Chest X-ray report"}, "effectiveDateTime": day, "conclusion": text,
    }  # fmt: skip


def record_with(*more: dict[str, object]) -> PatientRecord:
    return assemble_record([*canary_resources("1"), STUDY, *more], "1")


def picture(number: int = 1, **more: object) -> Picture:
    spot = Spot("1.2.3", "1.2.3.4", f"1.2.3.4.{number}")
    made = Picture(
        spot, "ImagingStudy/img1", "1", "DX", "04-May-2019", "Chest radiograph, PA", "VOI LUT", b"png",
        "ab" * 32, why="newest study",
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


def facts_of(record: PatientRecord, count: int = 2) -> dict[Label, Fact]:
    return picture_facts([picture(n) for n in range(1, count + 1)], record.facts)


def read(text: str, *more: dict[str, object], sees: str = "shows", cites: tuple[str, ...] = ("F1",)) -> Read:
    record = record_with(*more)
    answer = json.dumps({"claims": [{"cites": list(cites), "sees": sees, "text": text}]})
    return judge_readings(parse_readings(answer), facts_of(record), record)


def test_a_picture_is_a_fact_that_says_where_it_is_and_rests_on_the_study_s_version() -> None:
    record = record_with()
    (label, fact), *_ = facts_of(record).items()
    assert label == "F1"
    assert spot_of(fact) == ("1.2.3", "1.2.3.4", "1.2.3.4.1", 1)
    assert fact.source == next(f.source for f in record.facts if f.source.reference == "ImagingStudy/img1")
    assert dict(fact.details)["pixels sha256"] == "ab" * 32
    assert (fact.when is not None and fact.when.day.isoformat()) == DAY
    assert all(spot_of(other) is None for other in record.facts)


def test_a_picture_of_a_study_that_the_record_does_not_hold_is_no_fact() -> None:
    assert picture_facts([picture(source="ImagingStudy/other")], record_with().facts) == {}


@pytest.mark.parametrize(
    ("sees", "cites", "begins"),
    [
        ("shows", ("F1",), "The picture shows "),
        ("may show", ("F1",), "The picture may show "),
        ("does not show", ("F1", "F2"), "The pictures do not show "),
    ],
)
def test_every_reading_begins_as_an_observation_and_is_never_more_than_not_verifiable(
    sees: str, cites: tuple[str, ...], begins: str
) -> None:
    (claim,) = read("an opacity in the left lower zone", sees=sees, cites=cites).claims
    assert claim.text == f"{begins}an opacity in the left lower zone."
    assert (claim.verdict, claim.section, claim.origin) == (Verdict.NOT_VERIFIABLE, SECTION, Origin.MODEL)
    assert len(claim.citations) == len(cites)
    assert reason_of(claim.reasons[0]).code == "read_from_a_picture"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("an opacity of 12 mm", "number_not_in_source"),
        ("an opacity that was there on 03-Jan-2018", "date_not_in_source"),
        ("an opacity since last week", "relative_date"),
        ("effects of allopurinol", "names_a_drug"),
        ("what the report describes", "speaks_of_a_report"),
        ("an unchanged opacity", "compares_one_picture"),
        ("an opacity that should be biopsied", "gives_advice"),
        ("an opacity ✗", "sign_not_in_source"),
    ],
)
def test_what_no_picture_can_show_is_refused_with_its_reason(text: str, reason: str) -> None:
    (claim,) = read(text).claims
    assert claim.verdict is Verdict.UNSUPPORTED
    assert reason in claim.reasons
    assert reason_of(reason).detail


def test_a_day_of_the_caption_may_be_told_and_a_change_over_two_pictures() -> None:
    assert read("a fracture on 04-May-2019").claims[0].verdict is Verdict.NOT_VERIFIABLE
    assert read("a larger opacity", cites=("F1", "F2")).claims[0].verdict is Verdict.NOT_VERIFIABLE


def test_a_label_that_was_not_given_and_none_at_all_are_refused_and_a_repetition_is() -> None:
    assert read("an opacity", cites=("F9",)).claims[0].reasons == ("cites_unknown_label",)
    assert read("an opacity", cites=()).claims[0].reasons == ("cites_nothing",)
    record = record_with()
    one = {"cites": ["F1"], "sees": "shows", "text": "an opacity"}
    found = judge_readings(
        parse_readings(json.dumps({"claims": [one, one]})), facts_of(record), record
    ).claims
    assert [claim.reasons for claim in found] == [("read_from_a_picture",), ("said_before",)]


@pytest.mark.parametrize("answer", ["", "{}", '{"claims":[{"cites":["F1"],"text":"x"}]}', "[1,2", "x" * 50])
def test_what_is_no_reading_is_passed_over(answer: str) -> None:
    assert parse_readings(answer) == ()


@pytest.mark.parametrize(
    ("reading", "sees", "told", "what"),
    [
        ("a left pleural effusion", "shows", "Small right pleural effusion.", "side"),
        ("a pleural effusion", "may show", "No pleural effusion, consolidation or pneumothorax.", "presence"),
        ("a pneumothorax", "shows", "No pleural effusion, consolidation or pneumothorax.", "presence"),
        ("a pneumothorax", "does not show", "Left apical pneumothorax.", "presence"),
        ("a fracture of the left rib", "shows", "No effusion, but a fracture of the right rib.", "side"),
    ],
)
def test_a_report_of_the_day_that_tells_it_otherwise_is_a_disagreement(
    reading: str, sees: str, told: str, what: str
) -> None:
    (found,) = read(reading, report(told), sees=sees).against.values()
    assert (found.what, found.report.source.reference) == (what, "DiagnosticReport/rep1")


@pytest.mark.parametrize(
    ("reading", "sees", "told"),
    [
        ("a right pleural effusion", "shows", "Small right pleural effusion."),
        ("a left pleural effusion", "shows", "Bilateral pleural effusions."),
        ("a left pleural effusion", "shows", "Effusion."),
        ("a nodule", "shows", "No pleural effusion."),
        ("a pleural effusion", "does not show", "No pleural effusion."),
        ("a pneumothorax", "shows", "No effusion, but there is a pneumothorax."),
        ("a left effusion", "shows", "No right effusion. Small left effusion."),
        ("a left effusion", "does not show", "Small right effusion."),
        ("an effusion", "shows", "No left effusion. Small right effusion."),
    ],
)
def test_what_a_report_says_too_or_says_nothing_of_is_no_disagreement(
    reading: str, sees: str, told: str
) -> None:
    assert read(reading, report(told), sees=sees).against == {}


def test_a_report_of_another_day_is_about_other_pictures() -> None:
    assert read("an effusion", report("No effusion.", "2018-01-01")).against == {}
    assert read("an effusion", report("No effusion.")).against != {}


def test_a_picture_without_a_day_disagrees_with_nothing() -> None:
    record = record_with(report("No effusion."))
    (fact,) = picture_facts([picture(taken="")], record.facts).values()
    assert disagreement("The picture shows an effusion.", [fact], reports_among(record.facts)) is None


def test_readings_stand_apart_and_a_disagreement_beside_the_report_s_own_line() -> None:
    record = record_with(report("No pleural effusion."))
    pictures = facts_of(record)
    answer = {
        "claims": [
            {"cites": ["F1"], "sees": "shows", "text": "a pleural effusion"},
            {"cites": ["F2"], "sees": "may show", "text": "a nodule"},
            {"cites": ["F2"], "sees": "shows", "text": "7 nodules"},
        ]
    }
    found = judge_readings(parse_readings(json.dumps(answer)), pictures, record)
    unseen = LeftOut("picture", "Pictures of MR", 1, "", "", "not seen: the archive is down")
    before = make_summary()
    summary = with_readings(before, found, pictures.values(), [unseen], record)
    assert summary.sections[: len(before.sections)] == before.sections
    apart, own = summary.sections[-2:]
    assert (apart.key, own.key, own.title, own.reason) == (DISAGREEMENTS, SECTION, TITLE, NOT_CHECKED)
    assert "effusion" in apart.conflict
    assert [claim.origin for claim in apart.claims] == [Origin.MODEL, Origin.RECORD]
    assert apart.claims[1].citations == ("DiagnosticReport/rep1",)
    assert [claim.text for claim in own.claims] == ["The picture may show a nodule."]
    assert [claim.text for claim in summary.refused[len(before.refused) :]] == [
        "The picture shows 7 nodules."
    ]
    assert summary.left_out[-1] == unseen
    cited = {fact_id for claim in summary.published for fact_id in claim.citations}
    assert cited <= {fact.id for fact in summary.facts}
    gone = without_readings(summary)
    assert gone.sections == before.sections
    assert gone.refused == before.refused
    assert not any(spot_of(fact) for fact in gone.facts)
    assert gone.left_out == summary.left_out
