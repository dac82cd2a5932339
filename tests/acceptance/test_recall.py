"""Recall on real servers: found in the store and in the server's Provenance, withdrawn, and begun again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from connectors.fhir.client import FhirClient
from connectors.fhir.ehr import FhirEhr
from connectors.limits import Limits
from fixtures.servers import SekmetServer
from service.errors import FilingError, SettingsError
from service.filing.attest import attest
from service.ports import Wanted
from service.recall import find_recalled, parse_wanted, withdraw_recalled
from service.record.facts import FactId, ResourceVersion
from tests.acceptance.filing import ACTOR, Hands, hands_on
from tests.integration.connectors.conftest import IMPATIENT
from tests.integration.connectors.cut_proxy import CutProxy
from tests.unit.writeback.charts import DIABETES, make_summary

BAD, GOOD = "bad", "good"


@pytest.fixture(params=["sekmet", "medplum"])
async def hands(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Hands]:
    found = request.getfixturevalue(request.param)
    base = found.base_url if isinstance(found, SekmetServer) else found
    async with hands_on(base, tmp_path / "home") as opened:
        opened.put({"resourceType": "Practitioner", "id": "roe"})
        yield opened


def digest(name: str, model: str) -> str:
    return f"{name}{model}".rjust(64, "1")


def inputs(name: str, model: str) -> dict[str, str]:
    """A model and a prompt that no other test has."""
    return {"model_digest": digest(name, model), "prompt_id": name, "template_digest": name.rjust(64, "7")}


async def test_by_model_exactly_its_documents_are_found_and_withdrawn(hands: Hands) -> None:
    name = f"aa{len(hands.base)}"
    bad = [await hands.file(f"a{n}", inputs=inputs(name, BAD)) for n in range(4)]
    good = [await hands.file(f"ab{n}", inputs=inputs(name, GOOD)) for n in range(2)]
    final = (await attest(hands.desk, bad[0], by="Practitioner/roe", actor=ACTOR)).partition("/_history")[0]
    wanted = parse_wanted(model=digest(name, BAD))
    found = await find_recalled(hands.desk, wanted)
    assert found.server_asked
    assert {d.document for d in found.documents} == {*bad, final}
    assert all(d.known_to == ("store", "server") for d in found.documents)
    by_reference = {d.document: d for d in found.documents}
    assert (by_reference[final].standing, by_reference[final].attested_by) == ("attested", "Practitioner/roe")
    told: list[tuple[int, int]] = []
    done = await withdraw_recalled(
        hands.desk, found, reason="Faulty weights.", by="Epicrisis", actor=ACTOR,
        tell=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert done.not_withdrawn == ()
    assert told[-1] == (5, 5)
    assert set(hands.states(*bad, final)) == {("entered-in-error", "entered-in-error")}
    assert set(hands.states(*good)) == {("current", "preliminary")}
    assert all(hands.provenances(document)[-1] == "NULLIFY" for document in (*bad, final))
    withdrawals = [e for e in hands.log.entries(1000) if e.action.value == "withdraw"]
    assert {e.target.partition("/_history")[0] for e in withdrawals} == {*bad, final}


async def test_without_our_store_the_servers_provenance_finds_them(hands: Hands, tmp_path: Path) -> None:
    name = f"bb{len(hands.base)}"
    filed = [await hands.file(f"b{n}", inputs=inputs(name, BAD)) for n in range(2)]
    async with hands_on(hands.base, tmp_path / "elsewhere") as elsewhere:
        found = await find_recalled(elsewhere.desk, parse_wanted(model=digest(name, BAD)))
        assert {d.document for d in found.documents} == set(filed)
        assert {d.known_to for d in found.documents} == {("server",)}
        days = Wanted(after=hands.now.replace(hour=0), before=hands.now.replace(year=2030))
        assert set(filed) <= {d.document for d in (await find_recalled(elsewhere.desk, days)).documents}


async def test_by_one_bad_source_also_where_it_was_given_and_not_cited(hands: Hands) -> None:
    name = f"Observation/bad{len(hands.base)}"
    given = replace(DIABETES, id=FactId("x"), source=ResourceVersion(name, "5", "5" * 64))
    uncited = make_summary(facts=(*make_summary().facts, given))
    touched = [await hands.file(f"c{n}", summary=uncited, inputs=inputs("cc", BAD)) for n in range(2)]
    await hands.file("c9", inputs=inputs("cc", BAD))
    for source in (name, f"{name}/_history/5"):
        found = await find_recalled(hands.desk, parse_wanted(source=source))
        assert {d.document for d in found.documents} == set(touched)
    assert hands.search(f"Provenance?entity={name}/_history/5")
    none = await find_recalled(hands.desk, parse_wanted(source=f"{name}/_history/4"))
    assert none.documents == ()


async def test_by_prompt_and_version(hands: Hands) -> None:
    name = f"dd{len(hands.base)}"
    first = await hands.file("d1", inputs=inputs(name, BAD))
    second = inputs(name, BAD) | {"prompt_version": "4", "template_digest": f"{name}4".rjust(64, "7")}
    newer = await hands.file("d2", inputs=second)
    found = await find_recalled(hands.desk, parse_wanted(prompt=f"{name}@3"))
    assert [(d.document, d.known_to) for d in found.documents] == [(first, ("store", "server"))]
    both = await find_recalled(hands.desk, parse_wanted(prompt=name))
    assert {d.document for d in both.documents} == {first, newer}


async def test_a_recall_that_was_interrupted_is_begun_again(hands: Hands) -> None:
    name = f"ee{len(hands.base)}"
    filed = [await hands.file(f"e{n}", inputs=inputs(name, BAD)) for n in range(12)]
    wanted = parse_wanted(model=digest(name, BAD))
    async with CutProxy(hands.base) as proxy:
        limits = Limits(read_s=30, total_s=60)
        async with FhirClient(proxy.base_url, limits=limits, patience=IMPATIENT) as client:
            weak = replace(hands.desk, ehr=FhirEhr(client))
            found = await find_recalled(hands.desk, wanted)
            proxy.cut(5, "after")
            first = await withdraw_recalled(weak, found, reason="Bad.", by="Epicrisis", actor=ACTOR)
    assert first.not_withdrawn
    assert all(d.result.startswith("not withdrawn: ") for d in first.not_withdrawn)
    again = await find_recalled(hands.desk, wanted)
    done = await withdraw_recalled(hands.desk, again, reason="Bad.", by="Epicrisis", actor=ACTOR)
    assert done.not_withdrawn == ()
    assert set(hands.states(*filed)) == {("entered-in-error", "entered-in-error")}
    assert [hands.provenances(document) for document in filed] == [["CREATE", "NULLIFY"]] * 12


async def test_what_cannot_be_withdrawn_is_listed_with_why(hands: Hands) -> None:
    name = f"ff{len(hands.base)}"
    filed = await hands.file("f1", inputs=inputs(name, BAD))
    found = await find_recalled(hands.desk, parse_wanted(model=digest(name, BAD)))
    lost = replace(found.documents[0], document="DocumentReference/nowhere")
    done = await withdraw_recalled(
        hands.desk, replace(found, documents=(lost, *found.documents)), reason="x", by="x", actor=ACTOR
    )
    assert [(d.document, d.result) for d in done.not_withdrawn] == [
        ("DocumentReference/nowhere", "not withdrawn: not_found")
    ]
    assert hands.states(filed) == [("entered-in-error", "entered-in-error")]
    with pytest.raises(FilingError, match="reason"):
        await withdraw_recalled(hands.desk, found, reason=" ", by="x", actor=ACTOR)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"model": "x", "prompt": "y"},
        {"source": "nothing"},
        {"source": "Observation/1/_history/"},
        {"between": "2026-11-01"},
        {"between": "2026-13-01..2026-12-01"},
        {"between": ".."},
    ],
)
def test_what_cannot_be_read_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        parse_wanted(**given)
