"""Who said no, read from a real FHIR server, and from servers that refuse, hide and fail."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.admissions.consents import Kind, PreferenceRules, parse_codes
from connectors.admissions.places import read_places
from connectors.admissions.preferences import Choice, Preferences, read_preferences, read_preferences_of
from connectors.fhir.client import FhirClient
from connectors.http import metered
from connectors.limits import Limits
from fixtures.servers import SekmetServer
from tests.conftest import CANARY
from tests.integration.connectors.fault_server import FaultServer, Reply, Request

ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
SCOPE = "http://terminology.hl7.org/CodeSystem/consentscope"
RULES = PreferenceRules(flags=parse_codes(["urn:s|no-ai"]), about_us=parse_codes(["urn:s|summary"]))
NOW = datetime(2026, 11, 28, 9, tzinfo=UTC)
_numbers = itertools.count(800_100)


@pytest.fixture(scope="module")
def sekmet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SekmetServer]:
    with SekmetServer(tmp_path_factory.mktemp("sekmet")) as server:
        yield server


@asynccontextmanager
async def at(server: SekmetServer, page_size: int = 500) -> AsyncIterator[FhirClient]:
    async with FhirClient(server.base_url, limits=Limits(page_size=page_size)) as client:
        yield client


async def created(client: FhirClient, resource: dict[str, Any]) -> dict[str, Any]:
    return {**resource, "id": (await client.create(resource)).reference.id}


async def patient(client: FhirClient, **more: Any) -> dict[str, Any]:
    return await created(client, {"resourceType": "Patient", "name": [{"family": CANARY}], **more})


def ref(resource: dict[str, Any]) -> dict[str, Any]:
    return {"reference": f"{resource['resourceType']}/{resource['id']}"}


def flag(subject: dict[str, Any], **more: Any) -> dict[str, Any]:
    code = {"coding": [{"system": "urn:s", "code": "no-ai"}]}
    return {"resourceType": "Flag", "status": "active", "code": code, "subject": subject, **more}


def consent(subject: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Consent",
        "status": "active",
        "scope": {"coding": [{"system": SCOPE, "code": "patient-privacy"}]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": subject,
        "policyRule": {"coding": [{"system": ACT, "code": "OPTOUT"}]},
        **more,
    }


def choice_of(preferences: Preferences, someone: dict[str, Any], **more: Any) -> Choice:
    return preferences.of(someone, now=NOW, **more)


PER_PATIENT = Preferences(unknown=tuple(Kind))
"""As if the server did not answer for all patients at once."""


async def both_ways(client: FhirClient, *people: dict[str, Any]) -> list[tuple[Choice, ...]]:
    """What is known of each, read for the whole site, and for these patients alone."""
    site = await read_preferences(client, RULES)
    some = await read_preferences_of(client, RULES, PER_PATIENT, people)
    return [(choice_of(site, one), choice_of(some, one)) for one in people]


async def test_flags_and_consents_say_no_for_their_patient_alone(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        flagged, refused, free = [await patient(client) for _ in range(3)]
        await created(client, flag(ref(flagged)))
        await created(client, consent(ref(refused)))
        research = {"scope": {"coding": [{"system": SCOPE, "code": "research"}]}}
        await created(client, consent(ref(free), **research))
        await created(client, flag(ref(free), status="inactive"))
        await created(client, consent(ref(free), status="inactive"))
        assert await both_ways(client, flagged, refused, free) == [
            (Choice(flagged=True),) * 2,
            (Choice(refused=True),) * 2,
            (Choice(),) * 2,
        ]


async def test_a_rejected_consent_that_names_summaries_is_a_no(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        someone = await patient(client)
        about_us = [{"coding": [{"system": "urn:s", "code": "summary"}]}]
        await created(client, consent(ref(someone), status="rejected", category=about_us, policyRule=None))
        assert await both_ways(client, someone) == [(Choice(refused=True),) * 2]


async def test_a_no_follows_its_patient_through_merges(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        last = await patient(client)
        middle = await patient(client, active=False, link=[{"type": "replaced-by", "other": ref(last)}])
        first = await patient(client, active=False, link=[{"type": "replaced-by", "other": ref(middle)}])
        await created(client, flag(ref(first)))
        await created(client, consent(ref(middle)))
        site = await read_preferences(client, RULES)
        assert choice_of(site, last) == Choice(flagged=True, refused=True)
        some = await read_preferences_of(client, RULES, PER_PATIENT, [last])
        assert choice_of(some, last).refused
        retired = [f"Patient/{one['id']}" for one in (first, middle)]
        assert not choice_of(some, last, retired=retired).is_known
        known = {**last, "link": [{"type": "replaces", "other": ref(one)} for one in (first, middle)]}
        some = await read_preferences_of(client, RULES, PER_PATIENT, [known])
        assert choice_of(some, known, retired=retired) == Choice(flagged=True, refused=True)


async def test_a_no_by_number_and_a_no_for_one_stay(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        number = str(next(_numbers))
        numbered = await patient(client, identifier=[{"system": "urn:mrn", "value": number}])
        await created(client, flag({"identifier": {"system": "urn:mrn", "value": number}}))
        someone = await patient(client)
        stay = {
            "resourceType": "Encounter",
            "status": "in-progress",
            "class": {"code": "IMP"},
            "subject": ref(someone),
        }
        here, there = await created(client, stay), await created(client, stay)
        await created(client, flag(ref(someone), encounter=ref(here)))
        site = await read_preferences(client, RULES)
        assert choice_of(site, numbered).flagged
        assert choice_of(site, someone, encounter=here).flagged
        assert not choice_of(site, someone, encounter=there).flagged
        assert choice_of(site, someone).flagged


async def test_a_ward_says_no_for_all_beds_in_it(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        house = await created(client, {"resourceType": "Organization", "name": "House"})
        department = await created(
            client, {"resourceType": "Organization", "name": "Dept", "partOf": ref(house)}
        )
        ward = await created(
            client, {"resourceType": "Location", "name": "W", "managingOrganization": ref(department)}
        )
        beds = [await created(client, {"resourceType": "Location", "partOf": ref(ward)}) for _ in range(30)]
        stays = [
            {
                "resourceType": "Encounter",
                "id": str(n),
                "location": [{"location": ref(bed), "status": "active"}],
            }
            for n, bed in enumerate(beds)
        ]
        with metered() as meter:
            places = await read_places(client, stays)
        around = places.around(stays[7])
        assert around.is_known
        assert around.references == {ref(one)["reference"] for one in (beds[7], ward, department, house)}
        assert len(around.resources) == 4
        assert meter.requests <= 5
        with metered() as meter:
            await read_places(client, stays, places)
        assert meter.requests == 0

        await created(client, flag(ref(ward)))
        site = await read_preferences(client, RULES)
        someone = await patient(client)
        assert choice_of(site, someone, places=around.references).ward_flagged
        assert not choice_of(site, someone, places=["Location/elsewhere"]).ward_flagged


async def test_a_site_is_read_to_its_end_whatever_the_page_size_with_a_request_a_page(
    sekmet: SekmetServer,
) -> None:
    async with at(sekmet, page_size=5) as small, at(sekmet) as large:
        people = [await patient(large) for _ in range(12)]
        for one in people:
            await created(large, flag(ref(one)))
        site = await read_preferences(small, RULES)
        assert not site.unknown
        assert all(choice_of(site, one) == Choice(flagged=True) for one in people)
        with metered() as meter:
            site = await read_preferences(large, RULES)
        assert meter.requests <= 1 + 3 + 2
        assert all(choice_of(site, one).flagged for one in people)


async def test_many_patients_cost_one_batch(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        people = [await patient(client) for _ in range(20)]
        await created(client, consent(ref(people[3])))
        await read_preferences_of(client, RULES, PER_PATIENT, people[:1])
        with metered() as meter:
            some = await read_preferences_of(client, RULES, PER_PATIENT, people)
        assert meter.requests == 1
        assert [choice_of(some, one).refused for one in people].count(True) == 1
        assert all(choice_of(some, one).is_known for one in people)
        with metered() as meter:
            await read_preferences_of(client, RULES, some, people)
        assert meter.requests == 0


def statement(*types: str) -> Reply:
    resources = [{"type": one, "interaction": [{"code": "search-type"}]} for one in types]
    return Reply(
        json={
            "resourceType": "CapabilityStatement",
            "fhirVersion": "4.0.1",
            "rest": [{"mode": "server", "resource": resources}],
        }
    )


def bundle(*resources: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Bundle",
        "type": "searchset",
        "entry": [{"resource": r} for r in resources],
        **more,
    }


def outcome(code: str) -> dict[str, Any]:
    return {"resourceType": "OperationOutcome", "issue": [{"severity": "warning", "code": code}]}


ANN, BEA = {"resourceType": "Patient", "id": "ann"}, {"resourceType": "Patient", "id": "bea"}
NOTHING = Reply(json=bundle(total=0))


async def test_what_a_server_does_not_offer_is_not_there(server: FaultServer, client: FhirClient) -> None:
    server.on("GET", "/fhir/metadata", statement("Patient"))
    site = await read_preferences(client, RULES)
    assert choice_of(site, ANN) == Choice()
    assert site.odd == {"not_offered:Flag": 1, "not_offered:Consent": 1}
    assert len(server.requests) == 1


async def test_flags_are_not_asked_for_where_the_site_has_no_codes(
    server: FaultServer, client: FhirClient
) -> None:
    server.on("GET", "/fhir/metadata", statement("Patient", "Flag", "Consent"))
    server.on("GET", "/fhir/Consent", NOTHING)
    assert choice_of(await read_preferences(client, PreferenceRules()), ANN) == Choice()
    assert not server.asked("GET", "/fhir/Flag")


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(
    "reply",
    [
        Reply(400, json=outcome("not-supported")),
        Reply(401),
        Reply(403),
        Reply(404, json=outcome("not-found")),
        Reply(500),
        Reply(503),
        Reply(body=b"<html>"),
        Reply(body=b'{"resourceType": "Bundle", "ent'),
        Reply(json=bundle(outcome("suppressed"))),
        Reply(json=bundle(outcome("incomplete"))),
        Reply(json=bundle(total=3)),
        Reply(json=bundle(link=[{"relation": "next", "url": "https://elsewhere.example/fhir/Flag"}])),
    ],
)
async def test_a_search_that_fails_hides_or_falls_short_leaves_nobody_eligible(
    server: FaultServer, client: FhirClient, kind: Kind, reply: Reply
) -> None:
    other = {Kind.FLAG: Kind.CONSENT, Kind.CONSENT: Kind.FLAG}[kind]
    server.on("GET", "/fhir/metadata", statement("Patient", "Flag", "Consent"))
    server.on("GET", f"/fhir/{other}", NOTHING)
    server.on("GET", f"/fhir/{kind}", reply)
    site = await read_preferences(client, RULES)
    assert site.unknown == {kind}
    assert choice_of(site, ANN) == Choice(is_known=False)
    some = await read_preferences_of(client, RULES, site, [ANN])
    assert choice_of(some, ANN) == Choice(is_known=False)


async def test_an_endless_search_is_given_up(server: FaultServer, client: FhirClient) -> None:
    def page(request: Request) -> Reply:
        number = int(dict(request.query).get("page", "1"))
        link = [{"relation": "next", "url": f"{server.base_url}/Consent?page={number + 1}"}]
        return Reply(
            json=bundle({"resourceType": "Consent", "id": str(number), "status": "inactive"}, link=link)
        )

    server.on("GET", "/fhir/metadata", statement("Patient", "Consent"))
    server.on("GET", "/fhir/Consent", page)
    site = await read_preferences(client, RULES)
    assert site.unknown == {Kind.CONSENT}
    assert len(server.asked("GET", "/fhir/Consent")) == 40


async def test_a_server_that_wants_a_patient_and_takes_no_batch_is_asked_for_each(
    server: FaultServer, client: FhirClient
) -> None:
    def only_with_patient(request: Request) -> Reply:
        wanted = dict(request.query).get("patient")
        if wanted is None:
            return Reply(400, json=outcome("required"))
        found = [consent({"reference": "Patient/ann"}, id="c")] if wanted == "Patient/ann" else []
        return Reply(json=bundle(*found, total=len(found)))

    server.on("GET", "/fhir/metadata", statement("Patient", "Consent"))
    server.on("GET", "/fhir/Consent", only_with_patient)
    site = await read_preferences(client, RULES)
    some = await read_preferences_of(client, RULES, site, [ANN, BEA])
    assert choice_of(some, ANN) == Choice(refused=True)
    assert choice_of(some, BEA) == Choice()
    assert not choice_of(some, {"resourceType": "Patient", "id": "cleo"}).is_known
    posts = len(server.asked("POST", "/fhir"))
    await read_preferences_of(client, RULES, site, [ANN, BEA])
    assert len(server.asked("POST", "/fhir")) == posts


GOES_ON = [{"relation": "next", "url": "/fhir/Consent?page=2"}]


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        ("500", None),
        ("500", bundle(total=0)),
        ("200", outcome("not-found")),
        ("200", bundle(total=0, link=GOES_ON)),
        ("200", bundle(total=1)),
        ("200", bundle()),
        ("200", bundle(outcome("suppressed"), total=0)),
    ],
)
async def test_one_search_of_a_batch_that_is_not_answered_whole_is_asked_for_again_alone(
    server: FaultServer, client: FhirClient, status: str, answer: dict[str, Any] | None
) -> None:
    def batch(request: Request) -> Reply:
        urls = [entry["request"]["url"] for entry in request.json["entry"]]
        odd = {"response": {"status": status}, **({"resource": answer} if answer else {})}
        good = {"response": {"status": "200 OK"}, "resource": bundle(total=0)}
        results = [odd if "bea" in url else good for url in urls]
        return Reply(json={"resourceType": "Bundle", "type": "batch-response", "entry": results})

    theirs = bundle(consent({"reference": "Patient/bea"}, id="c"), total=1)
    server.on("GET", "/fhir/metadata", statement("Patient", "Consent", "Flag"))
    server.on("POST", "/fhir", batch)
    server.on("GET", "/fhir/Consent", Reply(json=theirs))
    server.on("GET", "/fhir/Flag", Reply(503))
    some = await read_preferences_of(client, RULES, PER_PATIENT, [ANN, BEA])
    assert choice_of(some, ANN) == Choice()
    assert choice_of(some, BEA) == Choice(refused=True, is_known=False)


async def test_a_patient_whose_former_records_cannot_be_looked_up_is_unknown(
    server: FaultServer, client: FhirClient
) -> None:
    offered = statement("Patient", "Consent")
    offered.json["rest"][0]["resource"][0]["searchParam"] = [{"name": "link"}]
    server.on("GET", "/fhir/metadata", offered)
    server.on("GET", "/fhir/Consent", NOTHING)
    server.on("GET", "/fhir/Patient", Reply(503))
    some = await read_preferences_of(client, RULES, Preferences(unknown=[Kind.CONSENT]), [ANN])
    assert choice_of(some, ANN) == Choice(is_known=False)
    server.on("GET", "/fhir/Patient", NOTHING)
    some = await read_preferences_of(client, RULES, Preferences(unknown=[Kind.CONSENT]), [ANN])
    assert choice_of(some, ANN) == Choice()


async def test_a_search_that_ignores_the_patient_makes_nobody_elses_no_theirs(
    server: FaultServer, client: FhirClient
) -> None:
    everything = bundle(
        consent({"reference": "Patient/ann"}, id="c"), consent({"reference": "Location/3"}, id="d"), total=2
    )
    server.on("GET", "/fhir/metadata", statement("Patient", "Consent"))
    server.on("GET", "/fhir/Consent", Reply(json=everything))
    some = await read_preferences_of(client, RULES, PER_PATIENT, [BEA])
    assert not choice_of(some, BEA).refused


async def test_a_no_whose_patient_cannot_be_looked_up_for_merges_leaves_all_unknown(
    server: FaultServer, client: FhirClient
) -> None:
    server.on("GET", "/fhir/metadata", statement("Patient", "Consent"))
    server.on(
        "GET", "/fhir/Consent", Reply(json=bundle(consent({"reference": "Patient/old"}, id="c"), total=1))
    )
    server.on("GET", "/fhir/Patient/old", Reply(503))
    assert not choice_of(await read_preferences(client, RULES), ANN).is_known
    for closed in (Reply(403), Reply(404), Reply(410)):
        server.on("GET", "/fhir/Patient/old", closed)
        site = await read_preferences(client, RULES)
        assert choice_of(site, ANN) == Choice()
        assert choice_of(site, {"resourceType": "Patient", "id": "old"}).refused


async def test_a_no_of_nobody_is_counted(server: FaultServer, client: FhirClient) -> None:
    server.on("GET", "/fhir/metadata", statement("Patient", "Consent"))
    server.on("GET", "/fhir/Consent", Reply(json=bundle(consent({}, id="c"), total=1)))
    assert (await read_preferences(client, RULES)).odd["opt_out_of_nobody"] == 1


async def test_places_that_cannot_be_read_are_unknown_and_those_that_are_not_there_are_not(
    server: FaultServer, client: FhirClient
) -> None:
    stay = {
        "location": [{"location": {"reference": "Location/7"}}],
        "serviceProvider": {"reference": "Organization/1"},
    }
    server.on("GET", "/fhir/metadata", statement("Location", "Organization"))
    server.on("GET", "/fhir/Organization/1", Reply(json={"resourceType": "Organization", "id": "1"}))
    for reply, is_known in [
        (Reply(503), False),
        (Reply(403), False),
        (Reply(404, json=outcome("not-found")), True),
    ]:
        server.on("GET", "/fhir/Location/7", reply)
        around = (await read_places(client, [stay])).around(stay)
        assert around.is_known is is_known
        assert around.references == {"Location/7", "Organization/1"}


async def test_a_place_stays_unknown_until_it_was_read(server: FaultServer, client: FhirClient) -> None:
    first, second = ({"location": [{"location": {"reference": f"Location/{one}"}}]} for one in (7, 8))
    server.on("GET", "/fhir/metadata", statement("Location", "Organization"))
    server.on("GET", "/fhir/Location/7", Reply(503))
    server.on("GET", "/fhir/Location/8", Reply(json={"resourceType": "Location", "id": "8"}))
    places = await read_places(client, [first])
    places = await read_places(client, [second], places)
    assert [places.around(one).is_known for one in (first, second)] == [False, True]
    server.on("GET", "/fhir/Location/7", Reply(json={"resourceType": "Location", "id": "7"}))
    places = await read_places(client, [first], places)
    assert places.around(first).is_known


async def test_places_inside_each_other_are_followed_so_far_and_circles_once(
    server: FaultServer, client: FhirClient
) -> None:
    server.on("GET", "/fhir/metadata", statement("Location"))

    def nest(depth: int, top: int) -> None:
        for one in range(depth):
            above = {"partOf": {"reference": f"Location/{one + 1 if one + 1 < depth else top}"}}
            server.on(
                "GET",
                f"/fhir/Location/{one}",
                Reply(json={"resourceType": "Location", "id": str(one), **above}),
            )

    stay = {"location": [{"location": {"reference": "Location/0"}}]}
    nest(6, top=0)
    circle = (await read_places(client, [stay])).around(stay)
    assert circle.is_known
    assert len(circle.references) == 6
    nest(20, top=0)
    assert not (await read_places(client, [stay])).around(stay).is_known


async def test_places_of_a_type_that_is_not_offered_are_not_asked_for(
    server: FaultServer, client: FhirClient
) -> None:
    stay = {"location": [{"location": {"reference": "Location/7"}}]}
    server.on("GET", "/fhir/metadata", statement("Patient"))
    assert (await read_places(client, [stay])).around(stay).is_known
    assert len(server.requests) == 1


async def test_preferences_show_nobody(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        someone = await patient(client)
        await created(client, flag(ref(someone)))
        site = await read_preferences(client, RULES)
        shown = f"{site!r} {site.opt_outs!r} {choice_of(site, someone)!r}"
        assert someone["id"] not in shown
        assert CANARY not in shown
