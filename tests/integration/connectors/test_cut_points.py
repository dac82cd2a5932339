"""Filing on real servers with the connection lost at every write: after a restart there is one of each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import httpx
import pytest

from connectors.errors import ConnectorError
from connectors.fhir.client import FhirClient
from connectors.fhir.documents import file_transaction
from connectors.limits import Limits
from fixtures.servers import SekmetServer
from service.writeback.transaction import build_transaction
from tests.integration.connectors.conftest import IMPATIENT
from tests.integration.connectors.cut_proxy import CutProxy, When
from tests.integration.connectors.medplum import medplum_server
from tests.unit.writeback.charts import make_run

LIMITS = Limits(read_s=10.0, total_s=20.0)


class Real(NamedTuple):
    name: str
    base: str
    transactions: bool


@pytest.fixture(scope="module")
def sekmet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with SekmetServer(tmp_path_factory.mktemp("sekmet")) as running:
        yield running.base_url


@pytest.fixture(scope="module")
def medplum(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with medplum_server(tmp_path_factory.mktemp("medplum")) as base:
        yield base


@pytest.fixture(params=["sekmet", "sekmet without transactions", "medplum"])
def real(request: pytest.FixtureRequest) -> Real:
    base = request.getfixturevalue(request.param.split()[0])
    httpx.put(f"{base}/Patient/77", json={"resourceType": "Patient", "id": "77"}, trust_env=False)
    return Real(request.param, base, request.param == "sekmet")


@pytest.fixture
async def proxy(real: Real) -> AsyncIterator[CutProxy]:
    async with CutProxy(real.base, transactions=real.transactions) as running:
        yield running


def filing(number: str) -> dict[str, Any]:
    """A transaction that shares nothing with those of other tests: a run and a model of its own."""
    run = make_run(key=number.rjust(64, "0"))
    run = replace(
        run,
        inputs=replace(run.inputs, model_digest=number.rjust(64, "d"), template_digest=number.rjust(64, "e")),
    )
    return build_transaction(run, software_version="0.1.0")


async def file(proxy: CutProxy, bundle: dict[str, Any]) -> str:
    async with FhirClient(proxy.base_url, limits=LIMITS, patience=IMPATIENT) as client:
        return (await file_transaction(client, bundle)).document


def read(real: Real, reference: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{real.base}/{reference}", trust_env=False).json()
    return found


def everything(base: str, kind: str) -> list[dict[str, Any]]:
    found = httpx.get(f"{base}/{kind}", params={"_count": "1000"}, trust_env=False).json()
    return [entry["resource"] for entry in found.get("entry", [])]


def check_one_of_each(real: Real, bundle: dict[str, Any], document: str) -> None:
    """One of every entry that was to be written, and a Provenance of exactly this version of the document."""
    for entry in bundle["entry"]:
        wanted = entry["resource"]
        kind = wanted["resourceType"]
        if "identifier" in wanted:
            value = wanted["identifier"][0]["value"]
            there = [
                r for r in everything(real.base, kind) if r.get("identifier", [{}])[0].get("value") == value
            ]
            assert len(there) == 1, (kind, len(there))
    plain = document.partition("/_history")[0]
    targets = [p["target"][0]["reference"] for p in everything(real.base, "Provenance")]
    ours = [t for t in targets if t.partition("/_history")[0].endswith(plain)]
    assert [t.endswith(document) for t in ours] == [True], ours


async def write_count(proxy: CutProxy, bundle: dict[str, Any]) -> int:
    proxy.heal()
    await file(proxy, bundle)
    return len(proxy.writes)


@pytest.mark.parametrize("stays_dead", [True, False], ids=["process died", "one answer lost"])
async def test_every_cut_point_ends_in_one_of_each(
    real: Real, proxy: CutProxy, stays_dead: bool, record_property: Any
) -> None:
    prefix = f"{'a' if stays_dead else 'b'}{len(real.name)}"
    count = await write_count(proxy, filing(f"{prefix}ff"))
    plan = tuple(proxy.writes)
    assert count >= (2 if real.transactions else 3)
    whens: tuple[When, ...] = ("before", "after")
    for at in range(1, count + 1):
        for when in whens:
            bundle = filing(f"{prefix}{at}{'bc'[when == 'after']}")
            proxy.cut(at, when, stays_dead=stays_dead)
            try:
                await file(proxy, bundle)
                first = "done"
            except ConnectorError as error:
                first = error.code
            proxy.heal()
            document = await file(proxy, bundle)
            check_one_of_each(real, bundle, document)
            print(f"{real.name} | {at} {plan[at - 1]} | {when} | {first} | {len(proxy.writes)} writes")


@pytest.mark.parametrize("real", ["sekmet"], indirect=True)  # elsewhere an installation files under a lock
async def test_eight_filings_at_once_are_one(real: Real, proxy: CutProxy) -> None:
    bundle = filing("e8")
    async with FhirClient(real.base, limits=LIMITS) as client:
        filed = await asyncio.gather(*[file_transaction(client, bundle) for _ in range(8)])
    assert sum(one.created for one in filed) == 1
    check_one_of_each(real, bundle, filed[0].document)


async def test_filing_again_after_someone_edited_the_document_keeps_the_pin(
    real: Real, proxy: CutProxy
) -> None:
    bundle = filing(f"ed{len(real.name)}")
    document = await file(proxy, bundle)
    plain = document.partition("/_history")[0]
    edited = {**read(real, plain), "description": "someone else's words"}
    async with FhirClient(real.base, limits=LIMITS) as client:
        await client.update(edited)
    assert (await file(proxy, bundle)).partition("/_history")[0] == plain
    check_one_of_each(real, bundle, document)
    assert read(real, plain)["description"] == "someone else's words"
