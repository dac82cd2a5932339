"""What is sent along: which shapes count as whole, what refuses a call, and what comparing it finds."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

import service.api.cds.prefetch as prefetch_module
from service.api.cds.call import Call, Grant
from service.api.cds.outcome import CallRefused
from service.api.cds.prefetch import (
    Change,
    Comparison,
    compare,
    fetch_missing,
    is_same_person,
    read_prefetch,
)
from tests.unit.api.cds.ehr import (
    CALLER,
    NOW,
    RUN,
    SERVER,
    TOKEN,
    bundle,
    patient,
    unchanged,
    whole_prefetch,
)
from tests.unit.api.cds.stage import Chart as Server

ALL = ("AllergyIntolerance", "Condition", "MedicationRequest")
ALLOWED = Grant(TOKEN, frozenset({"patient/*.rs"}))


def called(given: Grant | None = None, **prefetch: Any) -> Call:
    return Call("", "Patient/1", "", "Practitioner/7", given, prefetch)


def sent(**prefetch: Any) -> frozenset[str]:
    """The types that count as whole."""
    return frozenset(read_prefetch(called(**prefetch), SERVER).lists)


def condition(**more: Any) -> dict[str, Any]:
    (first, *_) = unchanged("Condition")
    return {**first, **more}


def test_a_whole_prefetch_is_used() -> None:
    chart = read_prefetch(called(**whole_prefetch()), SERVER)
    assert set(chart.lists) == set(ALL)
    assert chart.patient == patient()


def test_an_empty_list_and_no_data_are_whole() -> None:
    assert sent(conditions=bundle()) == {"Condition"}
    assert sent(conditions=None) == {"Condition"}


@pytest.mark.parametrize(
    "value",
    [
        bundle(condition(), link=[{"relation": "next", "url": f"{SERVER}/?page=2"}]),
        bundle(condition(), total=2),
        bundle(condition(), {"resourceType": "OperationOutcome", "issue": []}, total=1),
        {"resourceType": "OperationOutcome", "issue": [{"code": "security"}]},
        condition(),
        [],
        "x",
        7,
        {},
    ],
)
def test_what_may_lack_something_is_not_taken_as_whole(value: Any) -> None:
    assert sent(conditions=value) == frozenset()


def test_links_that_lead_nowhere_on_and_included_resources_take_nothing_away() -> None:
    self_link = [{"relation": "self", "url": f"{SERVER}/Condition"}]
    assert sent(conditions=bundle(condition(), link=self_link)) == {"Condition"}
    included = bundle(condition())
    included["entry"].append(
        {"resource": {"resourceType": "Practitioner", "id": "7"}, "search": {"mode": "include"}}
    )
    assert sent(conditions=included) == {"Condition"}


@pytest.mark.parametrize(
    "subject",
    [
        {"reference": "Patient/2"}, {"reference": "https://evil.example/Patient/1"}, {"reference": "Group/1"},
        {"display": "Jane"}, None, "Patient/1", {"reference": "urn:uuid:1"},
    ],
)  # fmt: skip
def test_a_resource_that_is_not_of_this_patient_refuses_the_call(subject: Any) -> None:
    with pytest.raises(CallRefused) as refused:
        read_prefetch(called(conditions=bundle(condition(), condition(subject=subject))), SERVER)
    assert refused.value.status == 400


def test_a_reference_may_be_absolute_or_name_a_version() -> None:
    for reference in (f"{SERVER}/Patient/1", "Patient/1/_history/4"):
        assert sent(conditions=bundle(condition(subject={"reference": reference}))) == {"Condition"}


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (patient(id="2"), 400),
        (patient(id=None), 400),
        (condition(), 400),
        (None, 412),
        ([], 412),
        ({"resourceType": "OperationOutcome", "issue": []}, 412),
    ],
)
def test_another_patient_or_none_refuses_the_call(value: Any, status: int) -> None:
    with pytest.raises(CallRefused) as refused:
        read_prefetch(called(patient=value), SERVER)
    assert refused.value.status == status


async def fetch(server: Server, call: Call) -> prefetch_module.Chart:
    return await fetch_missing(call, read_prefetch(call, SERVER), server.opener(CALLER))


async def test_only_what_is_missing_is_read() -> None:
    server = Server({"Patient/1": httpx.Response(200, json=patient())})
    chart = await fetch(server, called(ALLOWED, allergies=bundle(), conditions=bundle()))
    assert sorted(asked for asked, _ in server.asked) == ["MedicationRequest?patient=1", "Patient/1"]
    assert (chart.patient, set(chart.lists)) == (patient(), {"AllergyIntolerance", "Condition"})


async def test_what_the_ehr_says_it_cannot_give_is_not_asked_for_again() -> None:
    server = Server()
    said = {"resourceType": "OperationOutcome", "issue": []}
    await fetch(server, called(ALLOWED, patient=patient(), allergies=said, conditions=said, medications=said))
    assert server.asked == []


async def test_a_list_that_was_sent_in_part_is_read_whole_page_by_page() -> None:
    more = [{"relation": "next", "url": f"{SERVER}/Condition?page=2"}]
    first, *rest = unchanged("Condition")
    server = Server(
        {
            "Condition?patient=1": httpx.Response(200, json=bundle(first, link=more)),
            "Condition?page=2": httpx.Response(200, json=bundle(*rest)),
        }
    )
    partly = whole_prefetch(conditions=bundle(first, link=more))
    chart = await fetch(server, called(ALLOWED, **partly))
    assert chart.lists["Condition"] == [first, *rest]
    assert compare(RUN, chart) == Comparison(Change.NONE)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(403),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(302, headers={"location": "https://evil.example/"}),
        httpx.Response(200, json=bundle(link=[{"relation": "next", "url": "https://evil.example/x"}])),
        httpx.Response(200, json=bundle({"resourceType": "OperationOutcome", "issue": []})),
    ],
)
async def test_what_cannot_be_read_whole_is_not_compared(answer: httpx.Response) -> None:
    server = Server({"Condition?patient=1": answer})
    missing = whole_prefetch()
    del missing["conditions"]
    chart = await fetch(server, called(ALLOWED, **missing))
    assert compare(RUN, chart) == Comparison(Change.UNKNOWN, ("Condition",))
    assert {url for url, _ in server.asked} == {"Condition?patient=1"}


async def test_what_comes_too_late_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(prefetch_module, "FETCH_S", 0.01)
    server = Server()
    monkeypatch.setattr(server, "answer", never)
    chart = await fetch(server, called(ALLOWED))
    assert (chart.patient, chart.lists) == (None, {})


async def test_a_foreign_answer_of_the_server_refuses_the_call() -> None:
    foreign = bundle(*unchanged("Condition", of="Patient/2"))
    server = Server(
        {
            "Patient/1": httpx.Response(200, json=patient()),
            "Condition?patient=1": httpx.Response(200, json=foreign),
        }
    )
    with pytest.raises(CallRefused) as refused:
        await fetch(server, called(ALLOWED))
    assert refused.value.status == 400
    server.answers["Patient/1"] = httpx.Response(200, json=patient(id="2"))
    with pytest.raises(CallRefused) as refused:
        await fetch(server, called(ALLOWED))
    assert refused.value.status == 412


def compared(**prefetch: Any) -> Comparison:
    return compare(RUN, read_prefetch(called(**whole_prefetch(**prefetch)), SERVER))


def test_a_chart_that_is_as_it_was_is_told_so() -> None:
    assert compared() == Comparison(Change.NONE)


def test_a_new_a_changed_and_a_missing_resource_are_changes() -> None:
    first, *rest = unchanged("Condition")
    after = (RUN.read_at + timedelta(seconds=1)).isoformat()
    subject = first["subject"]
    new = {"resourceType": "Condition", "id": "new", "subject": subject, "meta": {"lastUpdated": after}}
    changed = {**first, "meta": {**first["meta"], "lastUpdated": after, "versionId": "99"}}
    for now in ([first, *rest, new], [changed, *rest], rest):
        assert compared(conditions=bundle(*now)).change is Change.SOME
    known = new | {"meta": {"lastUpdated": (RUN.read_at - timedelta(days=9)).isoformat()}}
    assert compared(conditions=bundle(first, *rest, known)).change is Change.NONE


@pytest.mark.parametrize(
    "meta", [None, {}, {"lastUpdated": "2026-11-20"}, {"lastUpdated": "soon"}, {"lastUpdated": 7}]
)
def test_what_does_not_say_when_it_changed_cannot_be_compared(meta: Any) -> None:
    listed = [*unchanged("Condition")]
    odd = {"resourceType": "Condition", "id": "odd", "subject": {"reference": "Patient/1"}, "meta": meta}
    assert compared(conditions=bundle(*listed, odd)) == Comparison(Change.UNKNOWN, ("Condition",))


def test_one_change_is_enough_whatever_else_is_not_known() -> None:
    chart = read_prefetch(called(conditions=bundle()), SERVER)
    assert compare(RUN, chart) == Comparison(Change.SOME, ("AllergyIntolerance", "MedicationRequest"))
    assert compare(RUN, prefetch_module.Chart()) == Comparison(Change.UNKNOWN, ALL)


def test_a_person_is_the_same_by_birth_date_as_far_as_both_are_known() -> None:
    assert is_same_person(RUN, None)
    assert is_same_person(RUN, patient())
    assert is_same_person(RUN, {"resourceType": "Patient", "id": "1"})
    assert not is_same_person(RUN, patient(birthDate="1951-05-05"))
    unknown = replace(
        RUN, summary=replace(RUN.summary, identity=replace(RUN.summary.identity, birth_date=""))
    )
    assert is_same_person(unknown, patient())
    assert is_same_person(RUN, patient(link=[{"type": "replaces"}, "x"]))
    assert RUN.read_at < NOW
