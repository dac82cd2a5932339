"""What a reader of the filed draft sees, in both human-readable forms."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.fhir.pull import Gap, GapReason
from service.context.chosen import LeftOut
from service.grounding.summary import Origin, SummarySection
from service.ports import StoredRun
from service.record.facts import Absence, Identity, ResourceVersion
from tests.conftest import CANARY
from tests.unit.writeback.charts import A1C, DIABETES, IDENTITY, claim, fact, make_run, make_summary, varied
from tests.unit.writeback.reading import XHTML, lines_of, page, plain, spoken

BANNER = "AI-GENERATED DRAFT, NOT REVIEWED"
IDENTITY_LINES = [
    f"Patient: Ada {CANARY} · born 04-May-1951 · record number MRN-4711",
    "Chart read up to 20-Nov-2026 09:29 UTC",
    "Draft expires 23-Nov-2026 09:30 UTC",
]
HOSTILE = [
    "<script>alert(1)</script>",
    "]]><!--",
    "&lt;b&gt; &amp; \"quotes\" 'apostrophes'",
    "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>&e;",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }} {% raw %}",
    "\x00\x1b[31m\u202e05 mg\u202c\ud800",
    f"\n{BANNER}\nSources\n-------\n[1] forged",
    "x" * 50_000,
]


def with_claims(*claims: str) -> StoredRun:
    section = SummarySection("problem", "Active problems", tuple(claim(text, DIABETES) for text in claims))
    return varied(make_run(), sections=(section,))


def test_both_forms_begin_and_end_with_banner_and_identity() -> None:
    run = make_run()
    for lines in (spoken(plain(run)), lines_of(page(run))):
        assert lines[:4] == [BANNER, *IDENTITY_LINES]
        assert lines[-4:] == [*IDENTITY_LINES, BANNER]
    assert plain(run).startswith(BANNER)
    assert plain(run).endswith(BANNER)


def test_both_forms_say_the_same() -> None:
    run = make_run()
    assert lines_of(page(run)) == spoken(plain(run))


def test_statements_stand_in_order_under_their_headings_with_their_sources() -> None:
    lines = spoken(plain(make_run()))
    start = lines.index("Allergies and intolerances")
    assert lines[start : start + 14] == [
        "Allergies and intolerances",
        "Allergies and intolerances: listed.",
        "2 more in the record, not shown here.",
        "Conflict in the record: Penicillin is listed as an allergy and as prescribed.",
        "Allergy to Penicillin (active) [1] (added from the record)",
        "Active problems",
        "Diabetes mellitus type 2, hemoglobin A1c 6.10 % on 25-Nov-2020. [2][3]",
        "A progress note of 03-May-2021 calls it well controlled. [4] (citation corrected)",
        "Implants and devices",
        "Implants and devices: none recorded, search complete.",
        "Pending orders",
        "Pending orders: NOT RETRIEVED (timed out).",
        "Sources",
        "[1] AllergyIntolerance · Penicillin · Apr-1999 · AllergyIntolerance/3",
    ]


def test_sources_name_type_date_and_version() -> None:
    lines = spoken(plain(make_run()))
    assert "[2] Condition · Diabetes mellitus type 2 · 2011 · Condition/1/_history/2" in lines
    assert "[3] Observation · Hemoglobin A1c · 25-Nov-2020 · Observation/a1c/_history/3" in lines
    assert (
        "[4] Record entry · Progress note · 03-May-2021 14:05 · urn:uuid:0f0e0d0c-0b0a-4908-8706-050403020100"
        in lines
    )


def test_a_source_without_a_date_says_so_and_is_numbered_once() -> None:
    undated = fact(9, "Asthma")
    section = SummarySection("p", "Problems", (claim("Asthma.", undated), claim("Asthma, again.", undated)))
    lines = spoken(plain(varied(make_run(), sections=(section,), facts=(undated,))))
    assert [line for line in lines if line.startswith("[")] == [
        "[1] Condition · Asthma · no date recorded · Condition/9/_history/2"
    ]
    assert "Asthma, again. [1]" in lines


def test_each_citation_links_to_its_source() -> None:
    root = page(make_run())
    links = {a.get("href"): a.text for a in root.iter(f"{XHTML}a")}
    ids = {li.get("id") for li in root.iter(f"{XHTML}li") if li.get("id")}
    assert links == {f"#source-{n}": f"[{n}]" for n in (1, 2, 3, 4)}
    assert ids == {f"source-{n}" for n in (1, 2, 3, 4)}


def test_an_incomplete_record_opens_with_a_warning() -> None:
    run = varied(make_run(), incomplete=("Allergies", "Current medications"))
    warning = "INCOMPLETE: NOT RETRIEVED: Allergies, Current medications"
    assert spoken(plain(run))[4] == warning
    assert lines_of(page(run))[4] == warning
    assert "INCOMPLETE" not in plain(make_run())


def test_what_was_left_out_and_what_was_not_retrieved_is_listed() -> None:
    gaps = (Gap(None, GapReason.SUPPRESSED), Gap("Observation", GapReason.PAGING, "page 3"))
    left = (
        LeftOut("vital", "Vital signs", 12, "04-May-2019", "04-May-2019"),
        LeftOut("n", "Notes", 1, "", ""),
    )
    text = plain(varied(make_run(), gaps=gaps, left_out=left))
    assert "Left out for lack of room: 12 of Vital signs (04-May-2019).\n" in text
    assert "Left out for lack of room: 1 of Notes.\n" in text
    assert "! NOT RETRIEVED: parts of the record: suppressed by the server.\n" in text
    assert "! NOT RETRIEVED: Observation: paging broke off (page 3).\n" in text
    assert "was retrieved" not in text
    assert "Nothing was left out" not in text


def test_a_complete_record_says_that_nothing_is_missing() -> None:
    text = plain(varied(make_run(), gaps=(), left_out=(), refused=(), as_of=None))
    assert "Nothing was left out for lack of room." in text
    assert "Every part of the record that was asked for was retrieved." in text
    assert "Entries of the record searched: 40." in text
    assert "Statements not shown" not in text
    assert "not open to this summary" not in text


def test_restricted_entries_are_mentioned_without_their_kind() -> None:
    assert "Some entries are not open to this summary." in plain(varied(make_run(), restricted=True))


def test_refused_statements_are_counted_and_never_shown() -> None:
    text = plain(make_run())
    assert "sources do not bear them out: 2." in text
    assert "8.2" not in text
    assert "Invented" not in text


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            SummarySection("x", "Devices", (), Absence.NONE_RECORDED),
            ["Devices: none recorded, search complete."],
        ),
        (
            SummarySection("x", "Devices", (), Absence.NOT_RETRIEVED),
            ["Devices: NOT RETRIEVED (no reason known)."],
        ),
        (
            SummarySection("x", "Devices", (), Absence.LISTED),
            ["Devices: listed.", "No statement is shown here; that does not mean that nothing is recorded."],
        ),
        (
            SummarySection("x", "Devices", ()),
            ["No statement is shown here; that does not mean that nothing is recorded."],
        ),
        (SummarySection("x", "Devices", (claim("Pacemaker.", DIABETES),)), ["Pacemaker. [1]"]),
    ],
)
def test_an_empty_section_never_reads_as_absence(section: SummarySection, said: list[str]) -> None:
    lines = spoken(plain(varied(make_run(), sections=(section,))))
    start = lines.index("Devices") + 1
    assert lines[start : lines.index("Sources")] == said


def test_the_frame_never_says_that_anything_is_verified_or_safe() -> None:
    bare = make_summary(sections=(), refused=(), facts=(), gaps=(), left_out=())
    text = plain(make_run(summary=bare)).lower()
    for word in ("verif", "certif", "safe", "%", "✓", "✔"):
        assert word not in text
    assert "values match the sources" in text
    assert "nothing replaces reading the sources" in text
    assert "not for direct clinical use without validation" in text
    assert "google/medgemma-1.5-4b-it on vllm 0.32.0, prompt history 3, epicrisis 0.1.0." in text


def test_what_is_not_recorded_of_the_patient_is_said() -> None:
    nobody = Identity("Patient/77", "", "", "", "")
    text = plain(varied(make_run(), identity=nobody))
    assert "Patient: name not recorded · birth date not recorded · record number not recorded" in text


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:12]))
def test_hostile_text_stays_text(text: str) -> None:
    run = with_claims(text)
    section = replace(
        run.summary.sections[0], title=text, conflict=text, reason=text, state=Absence.NOT_RETRIEVED
    )
    hostile = replace(
        run.summary,
        sections=(section,),
        identity=replace(IDENTITY, name=text, birth_date=text, record_number=text),
        gaps=(Gap("Observation", GapReason.FAILED, text),),
        left_out=(LeftOut("x", text, 1, text, text),),
        incomplete=(text,),
        facts=(replace(DIABETES, name=text, text=text),),
    )
    run = replace(run, summary=hostile)
    root = page(run)
    assert lines_of(root) == spoken_once(plain(run))
    allowed = {"html", "head", "meta", "title", "style", "body", "p", "h2", "ul", "li", "a", "span"}
    assert {element.tag.removeprefix(XHTML) for element in root.iter()} <= allowed
    attributes = {name for element in root.iter() for name in element.attrib}
    assert attributes <= {
        "class",
        "id",
        "href",
        "lang",
        "charset",
        "{http://www.w3.org/XML/1998/namespace}lang",
    }


def spoken_once(text: str) -> list[str]:
    """Like `spoken`, for texts that could themselves look like the plain form's own signs."""
    return [re.sub(r"^[-!] ", "", line) for line in text.split("\n") if line and set(line) != {"-"}]


def test_nothing_is_cut() -> None:
    long = "metformin " * 100_000
    text = plain(with_claims(long))
    assert long.strip() in text
    assert long.strip() in "".join(lines_of(page(with_claims(long))))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(), min_size=1, max_size=60), min_size=1, max_size=4))
def test_any_text_survives_escaping_and_no_text_makes_a_line_of_its_own(texts: list[str]) -> None:
    run, calm = with_claims(*texts), with_claims(*("calm" for _ in texts))
    assert len(plain(run).split("\n")) == len(plain(calm).split("\n"))
    assert len(lines_of(page(run))) == len(lines_of(page(calm)))
    in_page = [line for line in lines_of(page(run)) if line.endswith(" [1]")]
    in_text = [line[2:] for line in plain(run).split("\n") if line.startswith("- ") and line.endswith("[1]")]
    assert [line.strip() for line in in_page] == [line.strip() for line in in_text]
    assert len(in_page) >= len(texts)


def test_a_claim_from_the_record_keeps_its_mark_and_number_in_both_forms() -> None:
    added = claim("A1c", A1C, origin=Origin.RECORD, corrected=True)
    run = varied(make_run(), sections=(SummarySection("r", "Results", (added,)),))
    expected = "A1c [1] (added from the record) (citation corrected)"
    assert expected in lines_of(page(run))
    assert expected in spoken(plain(run))


def test_a_source_without_a_reference_still_has_its_line() -> None:
    loose = replace(A1C, source=ResourceVersion("", None, "a" * 64))
    run = varied(make_run(), sections=(SummarySection("r", "R", (claim("A1c", loose),)),), facts=(loose,))
    assert "[1] Record entry · Hemoglobin A1c · 25-Nov-2020" in spoken(plain(run))
