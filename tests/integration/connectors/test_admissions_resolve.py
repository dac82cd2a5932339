"""An event's patient and stay on a real FHIR server, and on one that answers oddly."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from connectors.admissions.encounter import Ward
from connectors.admissions.events import Admitted, Event, Identifier, Merged, Source, Subject, Visit
from connectors.admissions.resolve import Resolver, Unresolved
from connectors.errors import ServerFailed, Unauthorized
from connectors.fhir.client import FhirClient
from connectors.http import metered
from connectors.limits import Limits
from fixtures.servers import SekmetServer
from tests.conftest import CANARY
from tests.integration.connectors.fault_server import FaultServer, Reply, Request

ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
MRN = "urn:oid:1.2.36.146"
_numbers = itertools.count(700_100)


@pytest.fixture(scope="module")
def sekmet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SekmetServer]:
    with SekmetServer(tmp_path_factory.mktemp("sekmet")) as server:
        yield server


@asynccontextmanager
async def at(server: SekmetServer, page_size: int = 500) -> AsyncIterator[FhirClient]:
    async with FhirClient(server.base_url, limits=Limits(page_size=page_size)) as client:
        yield client


def number() -> str:
    return str(next(_numbers))


async def patient(client: FhirClient, *identifiers: tuple[str, str], **more: Any) -> str:
    written = await client.create(
        {
            "resourceType": "Patient",
            "name": [{"family": CANARY}],
            "identifier": [{"system": system, "value": value} for system, value in identifiers],
            **more,
        }
    )
    return f"Patient/{written.reference.id}"


async def stay(client: FhirClient, subject: str, **more: Any) -> str:
    encounter = {
        "resourceType": "Encounter",
        "status": "in-progress",
        "class": {"system": ACT, "code": "IMP"},
        "subject": {"reference": subject},
        "period": {"start": "2026-11-20T08:00:00Z"},
        **more,
    }
    return f"Encounter/{(await client.create(encounter)).reference.id}"


def replaced_by(reference: str) -> dict[str, Any]:
    return {"active": False, "link": [{"type": "replaced-by", "other": {"reference": reference}}]}


def event(reference: str = "", *identifiers: Identifier, visit: Visit | None = None) -> Event:
    subject = Subject(reference, identifiers)
    return Admitted(patient=subject, visit=visit or Visit(), source=Source.HL7)


async def test_references_resolve_to_themselves_and_many_are_read_with_two_requests(
    sekmet: SekmetServer,
) -> None:
    async with at(sekmet) as client:
        stays = [await stay(client, await patient(client)) for _ in range(30)]
        events = [event(visit=Visit(one)) for one in stays]
        resolver = Resolver(client)
        with metered() as meter:
            await resolver.prefetch(events)
            resolved = [await resolver.resolve(one) for one in events]
        assert [one.encounter for one in resolved] == stays
        assert all(one.reason is None and one.patient.startswith("Patient/") for one in resolved)
        assert all(one.patient_resource and one.encounter_resource for one in resolved)
        assert meter.requests == 2
        assert resolver.counts == {"resolved": 30}


@pytest.mark.parametrize(
    ("authority", "authorities"),
    [(MRN, {}), ("1.2.36.146", {}), ("HOSP", {"HOSP": MRN}), ("HOSP", {}), ("", {}), ("", {"": MRN})],
)
async def test_a_number_finds_its_patient_by_system_by_map_and_by_value(
    sekmet: SekmetServer, authority: str, authorities: dict[str, str]
) -> None:
    async with at(sekmet) as client:
        mrn = number()
        known = await patient(client, (MRN, mrn))
        here = await stay(client, known)
        resolver = Resolver(client, authorities=authorities)
        with metered() as meter:
            first = await resolver.resolve(event("", Identifier(authority, mrn, "MR")))
            again = await resolver.resolve(event("", Identifier(authority, f" {mrn} ", "MR")))
        assert (first.patient, first.encounter, first.reason) == (known, here, None)
        assert again == first
        assert meter.requests == 2


async def test_a_number_of_two_patients_is_never_guessed(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        mrn, ssn = number(), number()
        known = await patient(client, (MRN, mrn))
        await patient(client, ("urn:ssn", mrn), ("urn:ssn", ssn))
        resolver = Resolver(client, authorities={"SSA": "urn:ssn"})
        by_value = await resolver.resolve(event("", Identifier("HOSP", mrn)))
        assert (by_value.patient, by_value.reason) == ("", Unresolved.AMBIGUOUS_PATIENT)
        assert (await resolver.resolve(event("", Identifier(MRN, mrn)))).patient == known
        both = await resolver.resolve(event("", Identifier(MRN, mrn), Identifier("SSA", ssn)))
        assert both.reason is Unresolved.AMBIGUOUS_PATIENT
        assert resolver.counts["ambiguous_patient"] == 2


async def test_by_value_only_record_numbers_are_asked_for_where_there_are_any(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        mrn, insured = number(), number()
        known = await patient(client, (MRN, mrn))
        await patient(client, (MRN, insured))
        numbers = (Identifier("PAYER", insured, "NI"), Identifier("HOSP", mrn, "MR"))
        assert (await Resolver(client).resolve(event("", *numbers))).patient == known


async def test_an_unknown_or_empty_number_is_nobody(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        resolver = Resolver(client)
        for identifiers, reference in [
            ((Identifier(MRN, "does-not-exist"),), ""),
            ((Identifier(MRN, " "),), ""),
            ((Identifier(MRN, "70|0,1$"),), ""),
            ((), "Patient/does-not-exist"),
            ((), "Patient/../1"),
        ]:
            resolved = await resolver.resolve(event(reference, *identifiers))
            assert (resolved.patient, resolved.reason) == ("", Unresolved.UNKNOWN_PATIENT)
        assert (await resolver.resolve(event())).reason is Unresolved.NAMES_NOBODY


async def test_a_reference_whose_numbers_say_another_is_ambiguous(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        mrn = number()
        known = await patient(client, (MRN, mrn))
        resolver = Resolver(client)
        assert (await resolver.resolve(event(known, Identifier(MRN, mrn)))).patient == known
        assert (await resolver.resolve(event(known, Identifier("urn:other", "1")))).patient == known
        contradicted = await resolver.resolve(event(known, Identifier(MRN, "1")))
        assert contradicted.reason is Unresolved.AMBIGUOUS_PATIENT


async def test_a_merged_patient_is_followed_to_the_one_who_remains(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        mrn = number()
        last = await patient(client, (MRN, mrn))
        middle = await patient(client, (MRN, mrn), **replaced_by(last))
        first = await patient(client, (MRN, mrn), **replaced_by(middle))
        here = await stay(client, first)
        resolver = Resolver(client)
        resolved = await resolver.resolve(event(first))
        assert (resolved.patient, resolved.encounter) == (last, here)
        assert resolved.retired == (first, middle)
        assert (await resolver.resolve(event("", Identifier(MRN, mrn)))).patient == last
        assert (await resolver.resolve(event(last, visit=Visit(here)))).encounter == here
        merged = Merged(patient=Subject(first), retired=Subject(middle), visit=Visit(), source=Source.HL7)
        assert (await resolver.resolve(merged)).patient == last


async def test_a_merge_that_leads_nowhere_or_in_a_circle_is_unclear(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        one = await patient(client)
        two = await patient(client, **replaced_by(one))
        await client.update({"resourceType": "Patient", "id": one.split("/")[1], **replaced_by(two)})
        live, other = await patient(client), await patient(client)
        split = await patient(client, link=[*replaced_by(live)["link"], *replaced_by(other)["link"]])
        lost = await patient(client, **replaced_by("Patient/does-not-exist"))
        elsewhere = await patient(client, **replaced_by("https://other.example/fhir/Patient/1"))
        resolver = Resolver(client)
        for reference in (one, two, split, lost, elsewhere):
            resolved = await resolver.resolve(event(reference))
            assert (resolved.patient, resolved.reason) == ("", Unresolved.MERGE_UNCLEAR)


async def test_without_a_visit_the_newest_inpatient_stay_in_progress_is_meant(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        known = await patient(client)
        resolver = Resolver(client, Ward(locations=("Location/elsewhere",)))
        none = await resolver.resolve(event(known))
        assert (none.patient, none.encounter, none.reason) == (known, "", Unresolved.NO_STAY)
        await stay(client, known, status="finished")
        await stay(client, known, **{"class": {"system": ACT, "code": "AMB"}})
        emergency = {"class": {"system": ACT, "code": "EMER"}, "period": {"start": "2026-11-27T08:00:00Z"}}
        await stay(client, known, **emergency)
        await stay(client, known)
        newest = await stay(client, known, period={"start": "2026-11-21T08:00:00Z"}, status="onleave")
        assert (await Resolver(client).resolve(event(known))).encounter == newest


async def test_a_visit_number_finds_its_stay_and_only_of_this_patient(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        known, other = await patient(client), await patient(client)
        visit = number()
        numbered = [{"system": "urn:visits", "value": visit}]
        here = await stay(client, known, identifier=numbered)
        resolver = Resolver(client, authorities={"ADT": "urn:visits"})
        named = Visit(number=Identifier("ADT", visit))
        assert (await resolver.resolve(event(known, visit=named))).encounter == here
        assert (await resolver.resolve(event(visit=named))).patient == known
        foreign = await resolver.resolve(event(other, visit=named))
        assert (foreign.patient, foreign.reason) == ("", Unresolved.STAY_OF_ANOTHER_PATIENT)
        direct = await resolver.resolve(event(other, visit=Visit(here)))
        assert direct.reason is Unresolved.STAY_OF_ANOTHER_PATIENT

        theirs = await stay(client, other, identifier=numbered)
        resolver = Resolver(client, authorities={"ADT": "urn:visits"})
        assert (await resolver.resolve(event(other, visit=named))).encounter == theirs
        assert (await resolver.resolve(event(visit=named))).reason is Unresolved.AMBIGUOUS_STAY


async def test_an_unknown_visit_number_means_the_only_stay_there_is(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        known = await patient(client)
        here = await stay(client, known)
        named = event(known, visit=Visit(number=Identifier("ADT", "unknown-number")))
        resolver = Resolver(client)
        assert (await resolver.resolve(named)).encounter == here
        assert resolver.counts == {"resolved": 1, "visit_number_unknown": 1}
        await stay(client, known, period={"start": "2026-11-24T08:00:00Z"})
        assert (await Resolver(client).resolve(named)).reason is Unresolved.UNKNOWN_STAY


BASE = "/fhir/Patient"
CHAIN = 12


def bundle(*resources: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Bundle",
        "type": "searchset",
        "entry": [{"resource": r} for r in resources],
        **more,
    }


def person(id_: str, value: str) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": id_, "identifier": [{"system": MRN, "value": value}]}


async def test_a_server_that_ignores_the_number_gives_nobody_and_is_not_read_to_its_end(
    server: FaultServer, client: FhirClient
) -> None:
    def page(request: Request) -> Reply:
        number_of_page = int(dict(request.query).get("page", "1"))
        more = {"relation": "next", "url": f"{server.base_url}/Patient?page={number_of_page + 1}"}
        return Reply(json=bundle(person(f"q{number_of_page}", "1"), link=[more]))

    server.on("GET", BASE, page)
    resolved = await Resolver(client).resolve(event("", Identifier(MRN, "2")))
    assert resolved.reason is Unresolved.NOT_SEARCHABLE
    assert len(server.requests) == 4


async def test_a_second_patient_on_the_second_page_is_seen(server: FaultServer, client: FhirClient) -> None:
    more = {"relation": "next", "url": f"{server.base_url}/Patient?page=2"}
    server.on(
        "GET", BASE, Reply(json=bundle(person("q1", "7"), link=[more])), Reply(json=bundle(person("q2", "7")))
    )
    resolved = await Resolver(client).resolve(event("", Identifier(MRN, "7")))
    assert resolved.reason is Unresolved.AMBIGUOUS_PATIENT


HIDDEN = {"resourceType": "OperationOutcome", "issue": [{"code": "suppressed"}]}
REFUSED = {"resourceType": "OperationOutcome", "issue": [{"code": "not-supported"}]}
ODD: list[dict[str, Any]] = [{"resourceType": "Patient", "id": 7}, {"resourceType": "Patient"}]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(json=bundle(person("q1", "7"), HIDDEN)), Unresolved.ANSWER_HIDDEN),
        (Reply(400, json=REFUSED), Unresolved.NOT_SEARCHABLE),
        (Reply(json=bundle(*ODD)), Unresolved.UNKNOWN_PATIENT),
    ],
)
async def test_an_answer_that_may_hide_somebody_is_no_answer(
    server: FaultServer, client: FhirClient, reply: Reply, reason: Unresolved
) -> None:
    server.on("GET", BASE, reply)
    assert (await Resolver(client).resolve(event("", Identifier(MRN, "7")))).reason is reason


async def test_one_record_that_is_closed_is_a_reason_and_a_server_that_is_closed_is_an_error(
    server: FaultServer, client: FhirClient
) -> None:
    server.on("GET", f"{BASE}/q1", Reply(403))
    assert (await Resolver(client).resolve(event("Patient/q1"))).reason is Unresolved.NOT_READABLE
    server.on("GET", f"{BASE}/q1", Reply(json=person("q2", "7")))
    assert (await Resolver(client).resolve(event("Patient/q1"))).reason is Unresolved.UNKNOWN_PATIENT
    server.on("GET", f"{BASE}/q1", Reply(401))
    with pytest.raises(Unauthorized):
        await Resolver(client).resolve(event("Patient/q1"))
    server.on("GET", f"{BASE}/q1", Reply(503))
    with pytest.raises(ServerFailed):
        await Resolver(client).resolve(event("Patient/q1"))


async def test_what_a_search_by_ids_does_not_bring_is_read_singly(
    server: FaultServer, client: FhirClient
) -> None:
    for one in ("q1", "q2"):
        server.on("GET", f"{BASE}/{one}", Reply(json=person(one, one)))
    server.on("GET", BASE, Reply(json=bundle(person("q9", "9"))))
    server.on("GET", "/fhir/Encounter", Reply(json=bundle()))
    resolver = Resolver(client)
    events = [event("Patient/q1"), event("Patient/q2")]
    await resolver.prefetch(events)
    assert [(await resolver.resolve(one)).patient for one in events] == ["Patient/q1", "Patient/q2"]


async def test_a_resolved_event_shows_nobody(sekmet: SekmetServer) -> None:
    async with at(sekmet) as client:
        mrn = number()
        known = await patient(client, (MRN, mrn))
        shown = repr(await Resolver(client).resolve(event(known)))
        assert CANARY not in shown
        assert mrn not in shown
        assert known not in shown


async def test_a_stranger_that_a_server_brings_instead_is_not_taken(
    server: FaultServer, client: FhirClient
) -> None:
    server.on("GET", BASE, Reply(json=bundle(person("q1", "1"))))
    assert (
        await Resolver(client).resolve(event("", Identifier(MRN, "2")))
    ).reason is Unresolved.UNKNOWN_PATIENT
    assert (
        await Resolver(client).resolve(event("", Identifier("H", "2")))
    ).reason is Unresolved.UNKNOWN_PATIENT


async def test_a_chain_of_merges_is_followed_for_so_long_and_no_longer(
    server: FaultServer, client: FhirClient
) -> None:
    for one in range(CHAIN):
        merged = {**person(f"q{one}", "7"), **replaced_by(f"Patient/q{one + 1}")}
        server.on("GET", f"{BASE}/q{one}", Reply(json=merged))
    server.on("GET", f"{BASE}/q{CHAIN}", Reply(json=person(f"q{CHAIN}", "7")))
    far = await Resolver(client).resolve(event("Patient/q0"))
    assert far.reason is Unresolved.MERGE_UNCLEAR
    server.on("GET", "/fhir/Encounter", Reply(json=bundle()))
    near = await Resolver(client).resolve(event(f"Patient/q{CHAIN - 8}"))
    assert near.patient == f"Patient/q{CHAIN}"
