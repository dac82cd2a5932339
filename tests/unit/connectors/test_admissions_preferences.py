"""Whose an opt-out is, once all of them were read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.admissions.consents import Kind, OptOut
from connectors.admissions.preferences import Choice, Preferences, references_of

NOW = datetime(2026, 11, 28, 5, tzinfo=UTC)
IDS = st.sampled_from(["Patient/1", "Patient/2", "Patient/3", "Patient/4"])
TIMES = st.none() | st.sampled_from([NOW - timedelta(days=1), NOW + timedelta(days=1)])
OPT_OUTS = st.lists(st.builds(OptOut, st.sampled_from(Kind), st.frozensets(IDS), starts=TIMES, ends=TIMES))


def patient(*linked: str, **more: Any) -> dict[str, Any]:
    links = [{"type": "replaces", "other": {"reference": one}} for one in linked]
    return {"resourceType": "Patient", "id": "1", "link": links, **more}


@given(OPT_OUTS, st.lists(IDS, max_size=2), st.lists(IDS, max_size=2))
def test_a_no_in_force_on_any_record_of_a_person_is_theirs_and_no_other_is(
    opt_outs: list[OptOut], linked: list[str], retired: list[str]
) -> None:
    person = {"Patient/1", *linked, *retired}
    theirs = {one.kind for one in opt_outs if one.holds(NOW) and one.patients & person}
    choice = Preferences(opt_outs).of(patient(*linked), now=NOW, retired=retired)
    assert choice == Choice(flagged=Kind.FLAG in theirs, refused=Kind.CONSENT in theirs)


@given(
    st.frozensets(st.sampled_from(Kind)),
    st.dictionaries(st.sampled_from(Kind), st.frozensets(IDS)),
    st.lists(IDS, max_size=2),
)
def test_wishes_are_known_only_where_every_kind_was_read_of_every_record_of_a_person(
    unknown: frozenset[Kind], known_of: dict[Kind, frozenset[str]], linked: list[str]
) -> None:
    choice = Preferences((), unknown, known_of).of(patient(*linked), now=NOW)
    missing = [
        (kind, one) for kind in unknown for one in ("Patient/1", *linked) if one not in known_of.get(kind, ())
    ]
    assert choice.is_known is not bool(missing)


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        ({"system": "urn:mrn", "value": "7"}, True),
        ({"system": "urn:other", "value": "7"}, False),
        ({"value": "7"}, False),
        ({"system": "urn:any", "value": "8"}, True),
        ({"system": ["urn:mrn"], "value": ["7"]}, False),
    ],
)
def test_a_no_by_number_is_of_who_has_the_number(identifier: dict[str, Any], expected: bool) -> None:
    opt_out = OptOut(Kind.FLAG, identifiers=frozenset({("urn:mrn", "7"), ("", "8")}))
    assert Preferences([opt_out]).of(patient(identifier=[identifier]), now=NOW).flagged is expected


def test_links_to_what_is_no_patient_are_nobody() -> None:
    links = [{"other": {"reference": "RelatedPerson/2"}}, {"other": None}, {"other": {"reference": 7}}, "x"]
    assert references_of({"id": "1", "link": links}) == ("Patient/1",)
