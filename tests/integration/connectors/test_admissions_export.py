"""Bulk Data exports that wait, break, lie and are begun again."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.admissions.backfill import Backfill, read_admissions
from connectors.admissions.cursor import Cursor
from connectors.admissions.encounter import Ward
from connectors.admissions.export import (
    Export,
    ExportFile,
    ExportPace,
    Manifest,
    Progress,
    Waiting,
    check_export,
    read_export,
    start_export,
    wait_for_export,
)
from connectors.auth import BearerAuth
from connectors.errors import (
    ConnectorError,
    CutOff,
    Forbidden,
    ForeignLink,
    InvalidId,
    NotFhir,
    RequestRejected,
    ServerFailed,
    TimedOut,
    TooLarge,
)
from connectors.fhir.client import FhirClient
from connectors.http import Patience
from tests.conftest import CANARY
from tests.integration.connectors.conftest import SHORT
from tests.integration.connectors.fault_server import Answer, FaultServer, Reply, Request

NOW = datetime(2026, 11, 24, 5, tzinfo=UTC)
NDJSON = "application/fhir+ndjson"


def line(number: int, **more: Any) -> bytes:
    return json.dumps({"resourceType": "Encounter", "id": f"e{number}", **more}).encode() + b"\n"


def file(server: FaultServer, name: str = "a", count: int | None = None) -> ExportFile:
    return ExportFile("Encounter", f"{server.root_url}/files/{name}", count)


def manifest(*files: ExportFile, needs_token: bool = True) -> Manifest:
    return Manifest(NOW, needs_token, files)


def serve(server: FaultServer, data: bytes, name: str = "a", **more: Any) -> None:
    server.on("GET", f"/files/{name}", Reply(body=data, content_type=NDJSON, **more))


def with_ranges(data: bytes) -> Any:
    """Serve ranges as RFC 9110 says."""

    def answer(request: Request) -> Answer:
        wanted = request.headers.get("range", "")
        if not wanted:
            return Reply(body=data, content_type=NDJSON)
        begin = int(wanted.removeprefix("bytes=").rstrip("-"))
        if begin >= len(data):
            return Reply(416, body=b"")
        headers = {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"}
        return Reply(206, body=data[begin:], content_type=NDJSON, headers=headers)

    return answer


async def read(
    client: FhirClient, what: Manifest, progress: Progress | None = None, pace: ExportPace | None = None
) -> tuple[list[str], Progress, Counter[str]]:
    ids, odd, progress = list[str](), Counter[str](), progress or Progress()
    async for one in read_export(client, what, progress, odd, pace=pace):
        ids += [one.resource["id"]] if one.resource else []
        progress = one.progress
    return ids, progress, +odd


class Waits:
    """Keeps the pauses instead of making them."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
async def patient_client(server: FaultServer, waits: Waits) -> AsyncIterator[FhirClient]:
    patience = Patience(sleep=waits.sleep)
    async with FhirClient(server.base_url, limits=SHORT, patience=patience, auth=BearerAuth("t0k")) as made:
        yield made


def status_reply(server: FaultServer, **more: Any) -> Reply:
    url = f"{server.root_url}/files/a"
    output = [{"type": "Encounter", "url": url, "count": 2}]
    plain = {"transactionTime": NOW.isoformat(), "requiresAccessToken": True, "output": output, "error": []}
    return Reply(json={**plain, **more}, content_type="application/json")


async def test_an_export_is_asked_for_waited_for_and_read(
    server: FaultServer, patient_client: FhirClient, waits: Waits
) -> None:
    where = {"Content-Location": f"{server.root_url}/status/1"}
    server.on("GET", "/fhir/Group/g1/$export", Reply(202, headers=where))
    wait = (
        Reply(202, headers={"Retry-After": "7"}),
        Reply(202),
        Reply(202, headers={"Retry-After": "99999"}),
    )
    server.on("GET", "/status/1", *wait, status_reply(server))
    serve(server, line(1) + line(2))
    since = datetime(2026, 11, 1, tzinfo=UTC)
    export = await start_export(patient_client, "g1", types=("Encounter", "Patient"), since=since)
    found = await wait_for_export(patient_client, export, ExportPace(poll_s=2, max_poll_s=60))
    assert waits.pauses == [7, 4, 60]
    assert (await read(patient_client, found))[0] == ["e1", "e2"]
    (asked,) = server.asked("GET", "/fhir/Group/g1/$export")
    assert dict(asked.query) == {
        "_outputFormat": NDJSON, "_type": "Encounter,Patient", "_since": "2026-11-01T00:00:00+00:00",
    }  # fmt: skip
    assert asked.headers["prefer"] == "respond-async"


async def test_an_export_that_never_gets_ready_times_out_and_can_be_waited_for_again(
    server: FaultServer, patient_client: FhirClient, waits: Waits
) -> None:
    server.on("GET", "/status/1", Reply(202))
    export = Export(f"{server.root_url}/status/1")
    with pytest.raises(TimedOut):
        await wait_for_export(patient_client, export, ExportPace(poll_s=10, deadline_s=100))
    assert 100 <= sum(waits.pauses) < 200
    server.on("GET", "/status/1", status_reply(server))
    assert isinstance(await check_export(patient_client, export), Manifest)


async def test_throttled_while_waiting_is_no_end(server: FaultServer, patient_client: FhirClient) -> None:
    server.on("GET", "/status/1", Reply(429, headers={"Retry-After": "3"}), Reply(202))
    assert isinstance(await check_export(patient_client, Export(f"{server.root_url}/status/1")), Waiting)


@pytest.mark.parametrize("reply", [Reply(202), Reply(200, json={"resourceType": "Bundle"})])
async def test_a_kick_off_without_a_place_to_wait_is_an_error(
    server: FaultServer, client: FhirClient, reply: Reply
) -> None:
    server.on("GET", "/fhir/Group/g1/$export", reply)
    with pytest.raises(NotFhir):
        await start_export(client, "Group/g1")


async def test_a_kick_off_is_sent_once_even_where_it_fails(server: FaultServer, client: FhirClient) -> None:
    server.on("GET", "/fhir/Group/g1/$export", Reply(503))
    with pytest.raises(ServerFailed):
        await start_export(client, "Group/g1")
    assert len(server.requests) == 1


@pytest.mark.parametrize("group", ["Patient/1", "../x", "Group/1/_history/2", ""])
async def test_only_a_group_is_exported(client: FhirClient, group: str) -> None:
    with pytest.raises(InvalidId):
        await start_export(client, group)


async def test_links_to_other_origins_are_not_followed(server: FaultServer, client: FhirClient) -> None:
    where = {"Content-Location": "https://elsewhere.example/status/1"}
    server.on("GET", "/fhir/Group/g1/$export", Reply(202, headers=where))
    with pytest.raises(ForeignLink):
        await start_export(client, "g1")
    output = [{"type": "Encounter", "url": "https://elsewhere.example/a"}]
    server.on("GET", "/status/1", status_reply(server, output=output))
    with pytest.raises(ForeignLink):
        await check_export(client, Export(f"{server.root_url}/status/1"))
    with pytest.raises(ForeignLink):
        await read(client, manifest(ExportFile("Encounter", "https://elsewhere.example/a")))


@pytest.mark.parametrize("body", [[], {"output": 7}, {"resourceType": "OperationOutcome"}])
async def test_what_is_no_manifest_is_an_error(server: FaultServer, client: FhirClient, body: Any) -> None:
    server.on("GET", "/status/1", Reply(json=body))
    with pytest.raises(NotFhir):
        await check_export(client, Export(f"{server.root_url}/status/1"))


@pytest.mark.parametrize("needs_token", [True, False])
async def test_a_token_goes_to_a_file_only_where_the_manifest_asks_for_one(
    server: FaultServer, patient_client: FhirClient, needs_token: bool
) -> None:
    serve(server, line(1))
    await read(patient_client, manifest(file(server), needs_token=needs_token))
    (asked,) = server.asked("GET", "/files/a")
    assert ("authorization" in asked.headers) is needs_token


async def test_odd_lines_are_counted_and_the_others_read(server: FaultServer, client: FhirClient) -> None:
    lines = [line(1), b"{" + CANARY.encode() + b"\n", b"\n", b"[7]\n",
             b'{"resourceType": "Patient", "id": "p"}\r\n',
             line(2, text="x" * 3_000), line(3).rstrip()]  # fmt: skip
    serve(server, b"".join(lines))
    ids, progress, odd = await read(
        client, manifest(file(server, count=9)), pace=ExportPace(max_line_bytes=2_000)
    )
    assert ids == ["e1", "p", "e3"]
    assert odd == {
        "broken_line": 1, "not_a_resource": 1, "other_type_than_announced": 1, "line_too_long": 1,
        "count_differs": 1,
    }  # fmt: skip
    assert len(progress.done) == 1


async def test_a_line_longer_than_many_pieces_is_passed_over_in_little_memory(
    server: FaultServer, client: FhirClient
) -> None:
    serve(server, line(1, text="x" * 150_000) + line(2))
    assert (await read(client, manifest(file(server)), pace=ExportPace(max_line_bytes=1_000)))[0] == ["e2"]


async def test_a_file_larger_than_the_limit_stops(server: FaultServer, client: FhirClient) -> None:
    serve(server, b"".join(line(n) for n in range(500)))
    with pytest.raises(TooLarge):
        await read(client, manifest(file(server)), pace=ExportPace(max_file_bytes=5_000))


async def test_compressed_files_are_read(server: FaultServer, client: FhirClient) -> None:
    serve(server, gzip.compress(line(1) + line(2)), headers={"Content-Encoding": "gzip"})
    assert (await read(client, manifest(file(server))))[0] == ["e1", "e2"]


@pytest.mark.parametrize("ranges", [True, False])
async def test_a_file_that_was_cut_anywhere_is_read_on_from_its_last_whole_line(
    server: FaultServer, client: FhirClient, ranges: bool
) -> None:
    data = b"".join(line(n, note="ü" * n) for n in range(6))
    what = manifest(file(server, count=6))
    for cut in range(0, len(data), 7):
        serve(server, data, cut_after=cut)
        ids, odd, progress = list[str](), Counter[str](), Progress()
        try:
            async for one in read_export(client, what, progress, odd):
                ids += [one.resource["id"]] if one.resource else []
                progress = Progress.load(one.progress.dump())
            pytest.fail("a file that was cut was taken for whole")
        except CutOff:
            pass
        server.on("GET", "/files/a", with_ranges(data) if ranges else Reply(body=data, content_type=NDJSON))
        rest, done, more_odd = await read(client, what, progress)
        assert ids + rest == [f"e{n}" for n in range(6)], cut
        assert (len(done.done), +odd, more_odd) == (1, {}, {})
        assert (await read(client, what, done))[0] == []


async def test_a_file_that_was_read_to_its_end_but_not_marked_is_done(
    server: FaultServer, client: FhirClient
) -> None:
    data = line(1) + line(2)
    server.on("GET", "/files/a", with_ranges(data))
    what = manifest(file(server))
    ids, progress, _ = await read(client, what, Progress({file(server).url: len(data)}))
    assert not ids
    assert progress.done == {file(server).url}


async def test_another_range_than_asked_for_is_an_error(server: FaultServer, client: FhirClient) -> None:
    headers = {"Content-Range": "bytes 90-99/100"}
    server.on("GET", "/files/a", Reply(206, body=line(1), content_type=NDJSON, headers=headers))
    with pytest.raises(NotFhir):
        await read(client, manifest(file(server)), Progress({file(server).url: 10}))


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(403, body=CANARY.encode()), Forbidden),
        (Reply(416), RequestRejected),
        (Reply(200, body=b"<html>log in</html>", content_type="text/html"), NotFhir),
    ],
)
async def test_a_file_that_cannot_be_read_is_an_error_without_its_text(
    server: FaultServer, client: FhirClient, reply: Reply, error: type[ConnectorError]
) -> None:
    server.on("GET", "/files/a", reply)
    with pytest.raises(error) as raised:
        await read(client, manifest(file(server)))
    assert CANARY not in str(raised.value)


async def test_a_backfill_that_broke_goes_on_and_admits_each_once(
    server: FaultServer, client: FhirClient
) -> None:
    stay = {"status": "in-progress", "class": {"code": "IMP"}, "subject": {"reference": "Patient/x"}}
    stays = [line(n, meta={"versionId": "1"}, **stay) for n in range(450)]
    over = line(900, **{**stay, "status": "finished"}) + line(901, status="in-progress", subject={})
    data = over + b"".join(stays)
    serve(server, data, cut_after=len(data) - 100)
    start, events, odd = Backfill(Progress(), Cursor()), list[str](), Counter[str]()
    try:
        async for batch in read_admissions(client, manifest(file(server)), Ward(), start, now=NOW):
            events += [event.key for event in batch.events]
            odd += batch.odd
            start = batch.cursor
            assert not batch.is_complete
        pytest.fail("an export that was cut was taken for whole")
    except CutOff:
        assert (len(events), odd) == (400, {"without_patient": 1})
    serve(server, data)
    async for batch in read_admissions(client, manifest(file(server)), Ward(), start, now=NOW):
        events += [event.key for event in batch.events]
        last = batch
    assert len(events) == len(set(events)) == 450
    assert last.is_complete
    assert (last.cursor.cursor.since, len(last.cursor.cursor.stays)) == (NOW, 450)


def test_a_manifest_comes_back_from_its_bytes_and_shows_no_address() -> None:
    one = ExportFile("Encounter", "https://ehr.example/files/a", 3)
    whole = replace(manifest(one, needs_token=False), errors=(replace(one, count=None),))
    assert Manifest.load(whole.dump()) == whole
    assert "https" not in repr(whole)
