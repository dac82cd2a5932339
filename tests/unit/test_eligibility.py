"""Whom a scheduled run may summarise: the hazard charts, tables, and what holds for every stay."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.admissions.consents import PreferenceRules, parse_codes, read_consent, read_flag
from connectors.admissions.places import Places, Surroundings
from connectors.admissions.preferences import Choice, Preferences
from connectors.admissions.resolve import Unresolved
from connectors.admissions.sitelist import SiteList
from service.eligibility import (
    Candidate,
    Eligibility,
    EligibilityRules,
    Reason,
    Subgroup,
    decide,
    load_marks,
    reasons_against,
    sentence_of,
)
from service.errors import SettingsError
from tests.conftest import CANARY, ROOT

FOLDER = ROOT / "fixtures/hazards/schedule"
STAYS: list[Mapping[str, Any]] = tomllib.loads((FOLDER / "expected.toml").read_text())["stay"]
NOW = datetime(2026, 11, 28, 5, tzinfo=UTC)
DAY = date(2026, 11, 28)
CODES = PreferenceRules(
    flags=parse_codes(["urn:example:flags|no-ai"]),
    about_us=parse_codes(["urn:example:consents|machine-summary"]),
)
RULES = EligibilityRules()
NOBODY = SiteList()


def resources_of(chart: str) -> dict[str, dict[str, Any]]:
    bundle = json.loads((FOLDER / f"{chart}.json").read_text())
    resources = [entry["resource"] for entry in bundle["entry"]]
    return {f"{resource['resourceType']}/{resource['id']}": resource for resource in resources}


def candidate_of(chart: str) -> Candidate:
    """What a sweep knows of the one stay of a chart."""
    resources = resources_of(chart)
    patient, encounter = resources["Patient/1"], resources["Encounter/e"]
    around = Places({k: r for k, r in resources.items() if k.startswith(("Location", "Organization"))})
    surroundings = around.around(encounter)
    opt_outs = [o for r in resources.values() if r["resourceType"] == "Flag" for o in read_flag(r, CODES)]
    opt_outs += [
        o for r in resources.values() if r["resourceType"] == "Consent" for o in read_consent(r, CODES)
    ]
    choice = Preferences(opt_outs).of(patient, now=NOW, encounter=encounter, places=surroundings.references)
    return Candidate(patient=patient, encounter=encounter, choice=choice, surroundings=surroundings)


PLAIN = candidate_of("nothing-against")


@pytest.mark.parametrize("stay", STAYS, ids=lambda stay: stay["chart"])
def test_a_hazard_chart_is_left_out_for_its_reason_or_not_at_all(stay: Mapping[str, Any]) -> None:
    expected = stay.get("reason")
    assert decide(candidate_of(stay["chart"]), RULES, NOBODY, DAY) == Eligibility(
        expected is None, expected and Reason(expected)
    )


def test_every_chart_is_expected() -> None:
    assert {path.stem for path in FOLDER.glob("*.json")} == {stay["chart"] for stay in STAYS}
    assert all(set(stay) <= {"chart", "safety", "reason"} and stay["safety"] for stay in STAYS)
    assert all(CANARY in path.read_text() for path in FOLDER.glob("*.json"))


@pytest.mark.parametrize(
    ("listed", "location", "expected"),
    [
        (None, "", Reason.LIST_UNREADABLE),
        (SiteList(is_everyone=True), "", Reason.SWITCHED_OFF),
        (SiteList(patients=frozenset({"Patient/1"})), "", Reason.OPTED_OUT_BY_LIST),
        (SiteList(patients=frozenset({"Patient/2"})), "", None),
        (SiteList(identifiers=frozenset({("", "700100")})), "", Reason.OPTED_OUT_BY_LIST),
        (SiteList(wards=frozenset({"location/bed"})), "", Reason.WARD_OPTED_OUT),
        (SiteList(wards=frozenset({"location/ward"})), "", Reason.WARD_OPTED_OUT),
        (SiteList(wards=frozenset({"organization/house"})), "", Reason.WARD_OPTED_OUT),
        (SiteList(wards=frozenset({"location/other"})), "", None),
        (SiteList(wards=frozenset({"3w"})), "3W^301^A", Reason.WARD_OPTED_OUT),
        (SiteList(wards=frozenset({"3w^301"})), "3W^301^A", Reason.WARD_OPTED_OUT),
        (SiteList(wards=frozenset({"3w^302"})), "3W^301^A", None),
        (SiteList(wards=frozenset({"location/9"})), "Location/9", Reason.WARD_OPTED_OUT),
    ],
)
def test_the_sites_list_leaves_out_patients_and_wards(
    listed: SiteList | None, location: str, expected: Reason | None
) -> None:
    assert decide(replace(PLAIN, location=location), RULES, listed, DAY).reason is expected


@pytest.mark.parametrize(
    ("choice", "around", "expected"),
    [
        (Choice(flagged=True), Surroundings(), Reason.OPTED_OUT_BY_FLAG),
        (Choice(refused=True), Surroundings(), Reason.OPTED_OUT_BY_CONSENT),
        (Choice(ward_flagged=True), Surroundings(), Reason.WARD_OPTED_OUT),
        (Choice(is_known=False), Surroundings(), Reason.PREFERENCES_UNKNOWN),
        (Choice(flagged=True, is_known=False), Surroundings(), Reason.OPTED_OUT_BY_FLAG),
        (Choice(), Surroundings(is_known=False), Reason.PLACE_UNKNOWN),
        (Choice(), Surroundings(), None),
    ],
)
def test_what_is_not_known_counts_as_no(
    choice: Choice, around: Surroundings, expected: Reason | None
) -> None:
    assert decide(replace(PLAIN, choice=choice, surroundings=around), RULES, NOBODY, DAY).reason is expected


def switched_on(*subgroups: str) -> EligibilityRules:
    return EligibilityRules(frozenset(map(Subgroup, subgroups)))


@pytest.mark.parametrize(
    ("chart", "subgroup"),
    [
        ("under-18", "minors"),
        ("no-birth-date", "minors"),
        ("obstetrics-by-service", "obstetrics"),
        ("psychiatry-by-ward", "psychiatry"),
    ],
)
def test_a_subgroup_is_summarised_once_the_site_switched_this_one_on(chart: str, subgroup: str) -> None:
    others = {one.value for one in Subgroup} - {subgroup}
    assert not decide(candidate_of(chart), switched_on(*others), NOBODY, DAY).is_eligible
    assert decide(candidate_of(chart), switched_on(subgroup), NOBODY, DAY).is_eligible


@pytest.mark.parametrize(
    ("birth_date", "expected"),
    [
        ("2008-11-28", None),
        ("2008-11-29", Reason.MINOR),
        ("2008-11", Reason.MINOR),
        ("2008-10", None),
        ("2008", Reason.MINOR),
        ("2007", None),
        ("2030-01-01", Reason.MINOR),
        ("unknown", Reason.AGE_UNKNOWN),
        ("", Reason.AGE_UNKNOWN),
        (["2001"], None),
        ({}, Reason.AGE_UNKNOWN),
    ],
)
def test_who_may_be_under_18_counts_as_under_18(birth_date: Any, expected: Reason | None) -> None:
    patient = {**PLAIN.patient, "birthDate": birth_date}
    assert decide(replace(PLAIN, patient=patient), RULES, NOBODY, DAY).reason is expected


V2 = {"system": "http://terminology.hl7.org/CodeSystem/v2-0004", "code": "B"}
SNOMED = "http://snomed.info/sct"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"class": V2}, Reason.OBSTETRICS),
        ({"class": {"code": "B"}}, None),
        ({"type": [{"coding": [{"system": SNOMED, "code": "310116007"}]}]}, Reason.PSYCHIATRY),
        ({"serviceType": {"text": "Acute Psychiatry"}}, Reason.PSYCHIATRY),
        ({"serviceType": {"text": "Maternity"}}, Reason.OBSTETRICS),
        (
            {"serviceType": {"text": "x", "coding": [{"code": "7", "display": "Labour ward"}]}},
            Reason.OBSTETRICS,
        ),
        ({"serviceType": {"text": "Neurology"}}, None),
        ({"location": [{"location": {"display": "Psychiatry 2"}}]}, Reason.PSYCHIATRY),
        ({"location": [{"location": {"display": "Psychiatry 2"}, "status": "completed"}]}, None),
        ({"serviceProvider": {"display": "Dept. of Obstetrics"}}, Reason.OBSTETRICS),
    ],
)
def test_a_service_is_known_by_code_and_by_name_where_the_patient_is_now(
    more: dict[str, Any], expected: Reason | None
) -> None:
    encounter = {**PLAIN.encounter, **more}
    assert decide(replace(PLAIN, encounter=encounter), RULES, NOBODY, DAY).reason is expected


def test_the_name_of_a_whole_hospital_makes_no_stay_psychiatric() -> None:
    house = {"resourceType": "Organization", "id": "house", "name": "St. Dymphna Psychiatry and General"}
    department = {"resourceType": "Organization", "id": "d", "name": "Surgery"}
    here = replace(PLAIN, surroundings=Surroundings(resources=(house, department)))
    encounter = {**PLAIN.encounter, "serviceProvider": {"reference": "Organization/d"}}
    assert decide(replace(here, encounter=encounter), RULES, NOBODY, DAY).is_eligible
    assert decide(here, RULES, NOBODY, DAY).reason is Reason.PSYCHIATRY


@pytest.mark.parametrize(
    ("patient", "encounter", "expected"),
    [
        ({"deceasedBoolean": True}, {}, Reason.DECEASED),
        ({"deceasedBoolean": False}, {}, None),
        ({"deceasedDateTime": {}}, {}, Reason.DECEASED),
        ({}, {"hospitalization": {"dischargeDisposition": {"coding": [{"code": "exp"}]}}}, Reason.DECEASED),
        ({"active": "false"}, {}, Reason.INACTIVE),
        ({"active": None}, {}, None),
        ({"link": [{"type": "replaces", "other": {"reference": "Patient/0"}}]}, {}, None),
        ({}, {"status": "cancelled"}, Reason.ENDED),
        ({}, {"status": "planned"}, Reason.NOT_BEGUN),
        ({}, {"status": "onleave"}, None),
        ({}, {"status": None}, Reason.ENDED),
        ({}, {"subject": {}}, Reason.WRONG_PATIENT),
        ({}, {"subject": {"reference": "Group/1"}}, Reason.WRONG_PATIENT),
        ({}, {"subject": {"reference": "https://ehr.example/fhir/Patient/1"}}, None),
        ({"meta": {"security": [{"code": "X9"}]}}, {}, Reason.RESTRICTED),
        ({}, {"meta": {"security": [{"system": "urn:site", "code": "vip"}]}}, Reason.RESTRICTED),
    ],
)
def test_a_patient_and_a_stay_have_to_be_as_they_should(
    patient: dict[str, Any], encounter: dict[str, Any], expected: Reason | None
) -> None:
    changed = replace(PLAIN, patient={**PLAIN.patient, **patient}, encounter={**PLAIN.encounter, **encounter})
    assert decide(changed, RULES, NOBODY, DAY).reason is expected


def test_a_label_that_the_site_declared_harmless_restricts_nothing() -> None:
    encounter = {**PLAIN.encounter, "meta": {"security": [{"system": "urn:site", "code": "vip"}]}}
    rules = EligibilityRules(allowed_labels=frozenset({("urn:site", "vip")}))
    assert decide(replace(PLAIN, encounter=encounter), rules, NOBODY, DAY).is_eligible


def test_a_stay_on_the_record_that_was_replaced_is_the_patients() -> None:
    encounter = {**PLAIN.encounter, "subject": {"reference": "Patient/0"}}
    assert decide(replace(PLAIN, encounter=encounter, retired=("Patient/0",)), RULES, NOBODY, DAY).is_eligible


def test_every_reason_has_a_sentence_that_names_no_code() -> None:
    sentences = {sentence_of(reason) for reason in (*Reason, *Unresolved)}
    assert len(sentences) == len(Reason) + len(Unresolved)
    assert all(one.endswith(".") and "_" not in one and "FHIR" not in one for one in sentences)
    assert "psych" not in sentence_of(Reason.RESTRICTED).lower()


def test_a_sites_own_file_adds_codes_and_words(tmp_path: Path) -> None:
    own = tmp_path / "subgroups.toml"
    own.write_text("[psychiatry]\ncodes = ['urn:site|PSY1']\nwords = 'haus 5'\n")
    rules = EligibilityRules(marks=load_marks(own))
    for service in (
        {"coding": [{"system": "urn:site", "code": "PSY1"}]},
        {"text": "Haus 5b"},
        {"text": "Psychiatrie"},
    ):
        encounter = {**PLAIN.encounter, "serviceType": service}
        assert decide(replace(PLAIN, encounter=encounter), rules, NOBODY, DAY).reason is Reason.PSYCHIATRY


@pytest.mark.parametrize(
    "text",
    [
        "[minors]",
        "[psychiatry]\nword = 'x'",
        "[psychiatry]\ncodes = ['PSY']",
        "[psychiatry]\nwords = '('",
        "x",
    ],
)
def test_a_sites_file_that_is_wrong_is_refused(text: str, tmp_path: Path) -> None:
    own = tmp_path / "subgroups.toml"
    own.write_text(text)
    with pytest.raises(SettingsError):
        load_marks(own)
    with pytest.raises(SettingsError):
        load_marks(tmp_path / "missing.toml")


def test_neither_a_candidate_nor_its_parts_show_who_it_is() -> None:
    shown = repr(candidate_of("flag-on-the-record-that-was-merged"))
    assert CANARY not in shown
    assert "700100" not in shown
    assert "Patient/" not in shown


LISTS = st.sampled_from(
    [None, NOBODY, SiteList(is_everyone=True), SiteList(patients=frozenset({"Patient/1"})),
     SiteList(wards=frozenset({"location/ward"})), SiteList(identifiers=frozenset({("", "700100")}))]
)  # fmt: skip
CHARTS = st.sampled_from([candidate_of(stay["chart"]) for stay in STAYS])
CHOICES = st.builds(Choice, st.booleans(), st.booleans(), st.booleans(), st.booleans())
SITES = st.builds(EligibilityRules, st.frozensets(st.sampled_from(Subgroup)))


@given(CHARTS, CHOICES, SITES, LISTS)
def test_nobody_who_may_have_said_no_is_ever_eligible(
    chart: Candidate, choice: Choice, rules: EligibilityRules, listed: SiteList | None
) -> None:
    decision = decide(replace(chart, choice=choice), rules, listed, DAY)
    said_no = choice != Choice() or listed != NOBODY
    assert decision.is_eligible is (decision.reason is None)
    if said_no:
        assert not decision.is_eligible


@given(CHARTS, CHOICES, SITES, LISTS)
def test_reasons_come_in_their_order_each_once(
    chart: Candidate, choice: Choice, rules: EligibilityRules, listed: SiteList | None
) -> None:
    found = list(reasons_against(replace(chart, choice=choice), rules, listed, DAY))
    order = list(Reason)
    assert found == sorted(set(found), key=order.index)


@given(CHARTS, SITES, st.sampled_from(Subgroup))
def test_switching_a_subgroup_on_never_takes_anybody_out(
    chart: Candidate, rules: EligibilityRules, more: Subgroup
) -> None:
    wider = replace(rules, subgroups=rules.subgroups | {more})
    if decide(chart, rules, NOBODY, DAY).is_eligible:
        assert decide(chart, wider, NOBODY, DAY).is_eligible


VALUES = (
    st.none()
    | st.booleans()
    | st.text(max_size=5)
    | st.integers()
    | st.lists(st.none() | st.text(max_size=3))
)
ODD = st.dictionaries(
    st.sampled_from(
        ["active", "birthDate", "deceasedDateTime", "link", "identifier", "meta", "status", "class", "type",
         "serviceType", "location", "serviceProvider", "subject", "hospitalization", "id"]
    ),
    VALUES | st.dictionaries(st.sampled_from(["reference", "coding", "security", "type", "other"]), VALUES),
)  # fmt: skip


@given(ODD, ODD)
def test_odd_records_never_raise(patient: dict[str, Any], encounter: dict[str, Any]) -> None:
    patient, encounter = {**PLAIN.patient, **patient}, {**PLAIN.encounter, **encounter}
    surroundings = Places().around(encounter)
    choice = Preferences().of(patient, now=NOW, encounter=encounter, places=surroundings.references)
    odd = Candidate(patient=patient, encounter=encounter, choice=choice, surroundings=surroundings)
    listed = SiteList(identifiers=frozenset({("", "nobody")}))
    assert isinstance(decide(odd, RULES, listed, DAY), Eligibility)
