"""What a Flag or a Consent says about being summarised, and from when to when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.admissions.consents import (
    Kind,
    PreferenceRules,
    parse_codes,
    read_consent,
    read_flag,
    read_period,
)

ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
SCOPE = "http://terminology.hl7.org/CodeSystem/consentscope"
ACTION = "http://terminology.hl7.org/CodeSystem/consentaction"
PURPOSE = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
NOW = datetime(2026, 11, 28, 9, tzinfo=UTC)
RULES = PreferenceRules(flags=parse_codes(["urn:s|no-ai", "plain"]), about_us=parse_codes(["urn:s|summary"]))


def concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


def flag(**more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Flag",
        "status": "active",
        "code": concept("urn:s", "no-ai"),
        "subject": {"reference": "Patient/1"},
        **more,
    }


def consent(**more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Consent",
        "status": "active",
        "scope": concept(SCOPE, "patient-privacy"),
        "category": [concept("http://loinc.org", "59284-0")],
        "patient": {"reference": "Patient/1"},
        **more,
    }


def says_no(resource: dict[str, Any], now: datetime = NOW, rules: PreferenceRules = RULES) -> bool:
    read = read_flag if resource["resourceType"] == "Flag" else read_consent
    return any(one.holds(now) for one in read(resource, rules))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, True),
        ({"status": None}, True),
        ({"status": "inactive"}, False),
        ({"status": "entered-in-error"}, False),
        ({"code": concept("urn:other", "no-ai")}, False),
        ({"code": {"coding": [{"code": "no-ai"}]}}, True),
        ({"code": concept("urn:any", "plain")}, True),
        ({"code": concept("urn:s", "fall-risk")}, False),
        ({"code": concept("urn:s", "x"), "category": [concept("urn:s", "no-ai")]}, True),
        ({"code": "no-ai"}, False),
        ({"period": {"start": "2026-11-29T00:00:00Z"}}, False),
        ({"period": {"end": "2026-11-28T08:00:00Z"}}, False),
        ({"period": {"end": "2026-11-28"}}, True),
        ({"period": {"end": "unreadable"}}, True),
        ({"period": "unreadable"}, True),
    ],
)
def test_a_flag_says_no_with_a_listed_code_while_it_is_in_force(more: dict[str, Any], expected: bool) -> None:
    assert says_no(flag(**more)) is expected


@pytest.mark.parametrize(
    ("subject", "patients", "identifiers", "places"),
    [
        ({"reference": "Patient/1"}, ["Patient/1"], [], []),
        ({"reference": "https://e.example/fhir/Patient/1/_history/3"}, ["Patient/1"], [], []),
        ({"identifier": {"system": "urn:mrn", "value": "7"}}, [], [("urn:mrn", "7")], []),
        ({"reference": "Location/3/_history/2"}, [], [], ["Location/3"]),
        ({"reference": "Organization/3"}, [], [], ["Organization/3"]),
        ({"display": "somebody"}, [], [], []),
    ],
)
def test_a_flag_names_a_patient_a_number_or_a_ward(
    subject: dict[str, Any], patients: list[str], identifiers: list[tuple[str, str]], places: list[str]
) -> None:
    (one,) = read_flag(flag(subject=subject), RULES)
    assert one.kind is Kind.FLAG
    assert sorted(one.patients) == patients
    assert sorted(one.identifiers) == identifiers
    assert sorted(one.places) == places
    assert bool(one) is bool(patients or identifiers or places)


def test_a_flag_names_the_one_stay_that_it_is_about() -> None:
    (one,) = read_flag(flag(encounter={"reference": "https://e.example/fhir/Encounter/9"}), RULES)
    assert one.encounter == "Encounter/9"


DENY = {"type": "deny"}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, False),
        ({"provision": DENY}, True),
        ({"provision": {"type": "permit"}}, False),
        ({"provision": {"type": "permit", "provision": [DENY]}}, True),
        ({"provision": {"provision": [{"type": "permit", "provision": [DENY]}]}}, True),
        ({"provision": DENY, "status": None}, True),
        ({"provision": DENY, "status": "draft"}, False),
        ({"provision": DENY, "status": "proposed"}, False),
        ({"provision": DENY, "status": "inactive"}, False),
        ({"provision": DENY, "status": "entered-in-error"}, False),
        ({"provision": DENY, "scope": concept(SCOPE, "research")}, False),
        ({"provision": DENY, "scope": concept(SCOPE, "adr")}, False),
        ({"provision": DENY, "scope": concept(SCOPE, "treatment")}, False),
        ({"provision": DENY, "scope": concept("", "research")}, True),
        ({"provision": DENY, "scope": None}, True),
        ({"policyRule": concept(ACT, "OPTOUT")}, True),
        ({"policyRule": concept(ACT, "OPTOUTE")}, True),
        ({"policyRule": {"coding": [{"code": "OPTOUT"}]}}, True),
        ({"policyRule": concept(ACT, "OPTIN")}, False),
        ({"policyRule": concept(ACT, "OPTOUT"), "scope": concept(SCOPE, "research")}, False),
        ({"policyRule": concept(ACT, "OPTOUT"), "provision": {"period": {"end": "2025-01-01"}}}, False),
        ({"category": [concept(ACT, "OPTOUT")]}, True),
        ({"provision": {**DENY, "action": [concept(ACTION, "disclose")]}}, False),
        ({"provision": {**DENY, "action": [concept(ACTION, "disclose"), concept(ACTION, "use")]}}, True),
        ({"provision": {**DENY, "action": [concept(ACTION, "access")]}}, True),
        ({"provision": {**DENY, "purpose": [{"system": PURPOSE, "code": "HRESCH"}]}}, False),
        ({"provision": {**DENY, "purpose": [{"system": PURPOSE, "code": "TREAT"}]}}, True),
        ({"provision": {**DENY, "class": [{"system": "urn:ietf:bcp:13", "code": "text/plain"}]}}, True),
        ({"provision": {**DENY, "actor": [{"reference": {"reference": "Practitioner/4"}}]}}, False),
        ({"provision": {**DENY, "actor": [{"reference": {"reference": "Organization/4"}}]}}, True),
        ({"provision": {**DENY, "period": {"start": "2026-12-24"}}}, False),
        ({"provision": {**DENY, "period": {"end": "2026-10"}}}, False),
        ({"provision": {"period": {"end": "2026-10"}, "provision": [DENY]}}, False),
        ({"provision": {"period": {"end": "2027"}, "provision": [DENY]}}, True),
    ],
)
def test_a_consent_says_no_where_what_it_denies_may_be_a_summary(
    more: dict[str, Any], expected: bool
) -> None:
    assert says_no(consent(**more)) is expected


SUMMARY = [concept("urn:s", "summary")]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"provision": {**DENY, "code": SUMMARY}}, True),
        ({"provision": {"type": "permit", "code": SUMMARY}}, False),
        ({"provision": {**DENY, "code": SUMMARY}, "scope": concept(SCOPE, "research")}, True),
        ({"provision": {**DENY, "purpose": [{"system": "urn:s", "code": "summary"}]}}, True),
        ({"provision": DENY, "scope": concept(SCOPE, "research"), "category": SUMMARY}, True),
        ({"status": "rejected", "category": SUMMARY}, True),
        ({"status": "rejected", "provision": {"type": "permit"}}, False),
    ],
)
def test_a_consent_that_names_summaries_is_about_them_whatever_its_scope(
    more: dict[str, Any], expected: bool
) -> None:
    assert says_no(consent(**more)) is expected


def test_a_denial_stands_in_as_many_spans_as_there_are_provisions() -> None:
    first = {**DENY, "period": {"end": "2024-01-01T00:00:00Z"}}
    second = {**DENY, "period": {"start": "2026-11-01T00:00:00Z"}}
    found = read_consent(consent(provision={"provision": [first, second]}), RULES)
    assert [one.holds(NOW) for one in found].count(True) == 1
    assert len(found) == 2


def test_a_denial_that_is_nested_very_deeply_is_found() -> None:
    provision = DENY
    for _ in range(500):
        provision = {"type": "permit", "provision": [provision]}  # type: ignore[dict-item]
    assert says_no(consent(provision=provision))


@pytest.mark.parametrize(
    ("end", "last"),
    [
        ("2026", "2027-01-01T12:00:00+00:00"),
        ("2026-02", "2026-03-01T12:00:00+00:00"),
        ("2026-02-28", "2026-03-01T12:00:00+00:00"),
        ("2026-02-28T10:00:00+01:00", "2026-02-28T10:00:00+01:00"),
        ("2026-02-28T10:00", "2026-02-28T22:01:00+00:00"),
    ],
)
def test_a_period_ends_when_it_has_ended_everywhere(end: str, last: str) -> None:
    assert read_period({"end": end}) == (None, datetime.fromisoformat(last))


@pytest.mark.parametrize("odd", ["2021-02-30", "0000", "9999-12-31", "tomorrow", 7, None, [], {"x": 1}])
def test_a_time_that_cannot_be_read_bounds_nothing_before_the_end_of_time(odd: Any) -> None:
    starts, ends = read_period({"start": None, "end": odd})
    assert starts is None
    assert ends is None or ends.year == 9999


def test_no_code_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match=r"system\|code"):
        parse_codes(["urn:s|"])
    assert parse_codes(["urn:s|x", "y"]) == {("urn:s", "x"), ("", "y")}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=6)
    | st.sampled_from(["deny", "active", "OPTOUT"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["coding", "code", "system", "type", "provision", "period", "start", "end", "reference"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
KEYS = st.sampled_from(
    [
        "status",
        "scope",
        "category",
        "policyRule",
        "patient",
        "provision",
        "subject",
        "code",
        "period",
        "encounter",
    ]
)


@given(st.dictionaries(KEYS, JSON, max_size=6), st.sampled_from(["Flag", "Consent"]))
def test_odd_resources_never_raise(more: dict[str, Any], kind: str) -> None:
    says_no({**(flag() if kind == "Flag" else consent()), **more})


@given(
    st.sampled_from([ACT, "", "http://hl7.org/fhir/v3/ActCode"]),
    st.lists(st.sampled_from([DENY, {"type": "permit"}, {}]), max_size=3),
    st.integers(-400, 400),
)
def test_whatever_stands_beside_it_an_opt_out_by_policy_is_a_no(
    system: str, beside: list[dict[str, Any]], days: int
) -> None:
    resource = consent(policyRule=concept(system, "OPTOUT"), provision={"provision": beside})
    assert says_no(resource, NOW + timedelta(days=days))
