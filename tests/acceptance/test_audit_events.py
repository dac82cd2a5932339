"""Every act on the trail of the hospital's own AuditEvents, each once, whatever fails on the way."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from connectors.fhir.audit import AuditRepository
from connectors.fhir.client import FhirClient
from fixtures.charts import canary_bundle
from fixtures.servers import SekmetServer, free_port
from service.audit.balp import Scene
from service.audit.send import Courier, Sender
from service.filing.attest import attest
from service.filing.withdraw import withdraw
from service.ports import Action, AuditEntry
from service.recall import find_recalled, parse_wanted, withdraw_recalled
from service.store.outbox import SqlOutbox
from tests.acceptance.conftest import Ended, Run
from tests.acceptance.filing import ACTOR, Hands, hands_on
from tests.conftest import CANARY
from tests.integration.connectors.conftest import IMPATIENT
from tests.integration.connectors.cut_proxy import CutProxy
from tests.integration.connectors.fault_server import FaultServer, Reply
from tests.integration.writeback.test_validators import Validate, validate

__all__ = ["validate"]

BALP = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."


@pytest.fixture
def chart(sekmet: SekmetServer, request: pytest.FixtureRequest) -> str:
    patient = f"audited-{abs(hash(request.node.nodeid)) % 16**8:08x}"
    httpx.post(sekmet.base_url, json=canary_bundle(patient), timeout=30).raise_for_status()
    return patient


def events(base: str, query: str) -> list[dict[str, Any]]:
    """What a plain GET finds."""
    found = httpx.get(f"{base}/AuditEvent?{query}&_count=1000", trust_env=False, timeout=60).json()
    return [entry["resource"] for entry in found.get("entry", [])]


def profiles(found: list[dict[str, Any]]) -> list[str]:
    return sorted(
        one["meta"]["profile"][0].removeprefix(BALP) if "profile" in one["meta"] else one["type"]["code"]
        for one in found
    )


def counts(ended: Ended) -> tuple[int, int, int]:
    return ended.json["sent"], ended.json["due"], ended.json["failed"]


@pytest.mark.node
@pytest.mark.shared
def test_a_document_made_and_withdrawn_leaves_its_trail_in_the_ehr_once(
    epicrisis: Run, sekmet: SekmetServer, chart: str, validate: Validate
) -> None:
    on = {"EPICRISIS_AUDIT_EVENTS": "ehr"}
    url = ("--fhir-url", sekmet.base_url, "--json")
    drafted = epicrisis("summarize", chart, *url, **on)
    assert drafted.code == 0, drafted.stderr
    found = events(sekmet.base_url, f"patient=Patient/{chart}")
    assert profiles(found) == ["PatientCreate", "PatientRead", "transform", "transform"]  # one of a repair
    document = drafted.json["document"].partition("/_history")[0]
    withdrawn = epicrisis("withdraw", document, "--reason", "Wrong.", "--by", "Practitioner/roe", *url, **on)
    assert withdrawn.code == 0, withdrawn.stderr
    by_entity = events(sekmet.base_url, f"entity={document}")
    assert profiles(by_entity) == ["PatientCreate", "PatientUpdate"]
    (event,) = [one for one in by_entity if one["action"] == "U"]
    assert [e["what"].get("reference") for e in event["entity"]][:2] == [
        f"Patient/{chart}",
        withdrawn.json["document"],
    ]
    assert event["agent"][-1]["who"] == {"reference": "Practitioner/roe"}
    again = epicrisis("audit", "send", *url, **on)
    assert counts(again) == (0, 0, 0)
    everything = events(sekmet.base_url, f"patient=Patient/{chart}")
    assert len(everything) == 5
    ended = validate(everything)
    assert ended.returncode == 0, ended.stdout
    assert CANARY not in str([{**one, "text": ""} for one in everything])


def test_nothing_is_sent_where_nobody_switched_it_on(
    epicrisis: Run, sekmet: SekmetServer, chart: str
) -> None:
    url = ("--fhir-url", sekmet.base_url, "--json")
    assert epicrisis("summarize", chart, *url).code == 0
    assert events(sekmet.base_url, f"patient=Patient/{chart}") == []
    refused = epicrisis("audit", "send", *url)
    assert refused.code != 0
    assert "EPICRISIS_AUDIT_EVENTS" in refused.json["error"]["advice"]


def test_while_the_collector_is_down_nothing_fails_and_nothing_is_lost_and_nothing_is_sent_twice(
    epicrisis: Run, sekmet: SekmetServer, chart: str, tmp_path: Path
) -> None:
    port = free_port()
    collector = f"http://127.0.0.1:{port}/fhir"
    on = {"EPICRISIS_AUDIT_EVENTS": collector}
    url = ("--fhir-url", sekmet.base_url, "--json")
    drafted = epicrisis("summarize", chart, *url, **on)
    assert drafted.code == 0, drafted.stderr
    gone = epicrisis("withdraw", drafted.json["document"], "--reason", "Wrong.", *url, **on)
    assert gone.code == 0, gone.stderr
    assert gone.json["done_now"] is True
    stopped = epicrisis("stop", "--ward", "7 West", "--json", **on)
    assert stopped.code == 0, stopped.stderr
    down = epicrisis("audit", "send", *url, **on)
    assert (down.code, counts(down)) == (4, (0, 6, 0))
    with SekmetServer(tmp_path / "collector", port=port):
        up = epicrisis("audit", "send", "--json", **on)
        assert (up.code, counts(up)) == (0, (6, 0, 0))
        found = events(collector, "date=gt2000-01-01")
        here = ["110100", *["transform"] * 2]
        assert profiles(found) == sorted(["PatientCreate", "PatientRead", "PatientUpdate", *here])
        whose = {e["what"]["reference"] for one in found for e in one["entity"] if "reference" in e["what"]}
        assert f"{sekmet.base_url}/Patient/{chart}" in whose
        _forget_the_answers(tmp_path / "home" / "epicrisis.db")
        assert counts(epicrisis("audit", "send", "--json", **on)) == (6, 0, 0)
        assert len(events(collector, "date=gt2000-01-01")) == 6
    assert events(sekmet.base_url, f"patient=Patient/{chart}") == []


def test_a_collector_gets_its_own_token_and_never_the_ehrs(
    epicrisis: Run, sekmet: SekmetServer, chart: str, faults: FaultServer
) -> None:
    faults.on("POST", "/fhir/AuditEvent", Reply(201))
    on = {
        "EPICRISIS_AUDIT_EVENTS": faults.base_url,
        "EPICRISIS_AUDIT_TOKEN": "collector-secret",
        "EPICRISIS_FHIR_AUTH": "bearer",
        "EPICRISIS_FHIR_TOKEN": "ehr-secret",
    }
    done = epicrisis("summarize", chart, "--fhir-url", sekmet.base_url, "--json", **on)
    assert done.code == 0, done.stderr
    asked = faults.asked("POST", "/fhir/AuditEvent")
    assert len(asked) == 4
    assert {request.headers["authorization"] for request in asked} == {"Bearer collector-secret"}
    assert "secret" not in done.stdout + done.stderr


def test_a_collector_that_is_no_address_is_refused_by_name(epicrisis: Run) -> None:
    refused = epicrisis("audit", "send", "--json", EPICRISIS_AUDIT_EVENTS="the audit server")
    assert refused.code != 0
    assert "EPICRISIS_AUDIT_EVENTS" in refused.json["error"]["message"]


def _forget_the_answers(database: Path) -> None:
    """As if the process had died before it noted what the collector took."""
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE epicrisis_audit_sent SET state = 'sending'")


@pytest.fixture
async def hands(sekmet: SekmetServer, tmp_path: Path) -> AsyncIterator[Hands]:
    async with hands_on(sekmet.base_url, tmp_path / "home") as opened, FhirClient(sekmet.base_url) as client:
        opened.put({"resourceType": "Practitioner", "id": "roe"})
        sender = Sender(
            SqlOutbox(opened.log.database),
            AuditRepository(client),
            lambda: opened.now,
            Scene("test", "0.1.0"),
            sekmet.base_url,
        )
        opened.desk = _telling(opened, sender)
        yield opened


def _telling(hands: Hands, sender: Sender) -> Any:
    from dataclasses import replace

    return replace(hands.desk, tell_collector=Courier(sender))


def withdrawals(hands: Hands, document: str) -> list[dict[str, Any]]:
    found = events(hands.base, f"entity={document}")
    return [one for one in found if one["action"] == "U"]


async def test_the_event_of_a_withdrawal_is_there_when_the_withdrawal_is_and_a_second_one_is_its_own(
    hands: Hands,
) -> None:
    document = await hands.file("aud1")
    assert withdrawals(hands, document) == []
    await withdraw(hands.desk, document, reason="Wrong.", by="Practitioner/roe", actor=ACTOR)
    (event,) = withdrawals(hands, document)
    assert event["meta"]["profile"] == [f"{BALP}PatientUpdate"]


async def test_a_recall_of_five_documents_writes_five_events_and_again_none(hands: Hands) -> None:
    inputs = {"model_digest": "audited".rjust(64, "1"), "template_digest": "audited".rjust(64, "7")}
    filed = [await hands.file(f"aud5{n}", inputs=inputs) for n in range(5)]
    found = await find_recalled(hands.desk, parse_wanted(model=inputs["model_digest"]))
    await withdraw_recalled(hands.desk, found, reason="Faulty.", by="Epicrisis", actor=ACTOR)
    tell = hands.desk.tell_collector
    assert tell is not None
    await tell()
    assert [len(withdrawals(hands, document)) for document in filed] == [1] * 5
    before = len(events(hands.base, "patient=Patient/77"))
    await tell()
    again = await find_recalled(hands.desk, parse_wanted(model=inputs["model_digest"]))
    await withdraw_recalled(hands.desk, again, reason="Faulty.", by="Epicrisis", actor=ACTOR)
    await tell()
    assert len(events(hands.base, "patient=Patient/77")) == before


async def test_an_attested_text_and_its_draft_are_two_withdrawals_and_two_events(hands: Hands) -> None:
    draft = await hands.file("aud7")
    final = await attest(hands.desk, draft, by="Practitioner/roe", actor=ACTOR)
    await withdraw(hands.desk, final, reason="Wrong.", by="Practitioner/roe", actor=ACTOR)
    for document in (draft, final.partition("/_history")[0]):
        assert len(withdrawals(hands, document)) == 1
    (attested,) = [
        one
        for one in events(hands.base, f"entity={final.partition('/_history')[0]}")
        if one["action"] == "C" and one["subtype"][-1]["code"] == "attest"
    ]
    assert attested["agent"][-1]["who"] == {"reference": "Practitioner/roe"}


async def test_with_the_collector_down_for_an_hour_nothing_is_lost_and_nothing_is_sent_twice(
    hands: Hands, tmp_path: Path
) -> None:
    """Every minute of it something is recorded and the collector is tried; halfway our process begins anew.

    It goes down in the middle of a write whose answer is lost, and, once it is back, does so once more.
    """
    begun = hands.now
    with SekmetServer(tmp_path / "collector") as server:
        async with (
            CutProxy(server.base_url) as proxy,
            FhirClient(proxy.base_url, patience=IMPATIENT) as client,
        ):

            def courier() -> Courier:
                outbox = SqlOutbox(hands.log.database)
                scene = Scene("test", "0.1.0")
                return Courier(Sender(outbox, AuditRepository(client), lambda: hands.now, scene))

            def record(minute: int) -> None:
                target = f"DocumentReference/m{minute}/_history/2"
                hands.log.append(
                    AuditEntry(
                        Action.WITHDRAW, ACTOR, "Patient/77", hands.now, target=target, server=hands.base
                    )
                )

            tell = courier()
            for minute in range(3):
                record(minute)
            proxy.cut(2, "after")
            await tell(last=True)
            for minute in range(3, 64):
                hands.later(minutes=1)
                record(minute)
                tell = courier() if minute == 30 else tell
                await tell(last=True)
            assert hands.now - begun > timedelta(hours=1)
            assert len(events(server.base_url, "date=gt2000-01-01")) == 2
            proxy.cut(40, "after")
            await tell(last=True)
            proxy.heal()
            await tell(last=True)
            hands.later(minutes=1)
            await tell(last=True)
            assert SqlOutbox(hands.log.database).count(proxy.base_url) == 0
        found = Counter(
            one["entity"][1]["what"]["reference"] for one in events(server.base_url, "date=gt2000-01-01")
        )
    assert found == {f"{hands.base}/DocumentReference/m{n}/_history/2": 1 for n in range(64)}
