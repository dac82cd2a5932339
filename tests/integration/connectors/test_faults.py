"""Each way in which a server fails: its own error, exit code and advice, and nothing of the patient in it."""

from __future__ import annotations

import gzip
import ssl
import zlib
from pathlib import Path

import pytest
import trustme

from connectors.errors import ConnectorError
from connectors.fhir.client import FhirClient
from connectors.fhir.patient import pull_patient
from connectors.limits import MIB, Limits
from tests.conftest import CANARY
from tests.integration.connectors.chart import PATIENT, READ_AT, capability_statement, serve_chart
from tests.integration.connectors.conftest import IMPATIENT, SHORT
from tests.integration.connectors.fault_server import Answer, FaultServer, HangUp, Raw, Reply

OUTCOME = {
    "resourceType": "OperationOutcome",
    "issue": [{"severity": "error", "code": "processing", "diagnostics": f"Patient {CANARY} p1 not here"}],
}
HTML = f"<html><body>Welcome {CANARY}</body></html>".encode()


async def _failure(client: FhirClient) -> ConnectorError:
    with pytest.raises(ConnectorError) as caught:
        await pull_patient(client, "p1", now=lambda: READ_AT)
    error = caught.value
    shown = f"{error} {error.message} {error.advice} {error!r}"
    assert CANARY not in shown
    assert "p1" not in shown
    assert "/fhir" not in error.message
    assert error.message.endswith(".")
    assert error.advice
    return error


@pytest.mark.parametrize(
    ("answer", "code", "exit_code"),
    [
        (Reply(401, json=OUTCOME), "unauthorized", 5),
        (Reply(403, json=OUTCOME), "forbidden", 5),
        (Reply(404, json=OUTCOME), "unknown_patient", 6),
        (Reply(410, json=OUTCOME), "gone", 6),
        (Reply(404, body=HTML, content_type="text/html"), "no_fhir_here", 4),
        (Reply(429, json=OUTCOME), "throttled", 4),
        (Reply(429, json=OUTCOME, headers={"Retry-After": "3"}), "throttled", 4),
        (Reply(500, json=OUTCOME), "server_failed", 4),
        (Reply(400, json=OUTCOME), "rejected", 7),
        (Reply(200, body=HTML, content_type="text/html"), "not_fhir", 7),
        (Reply(200, json={"name": CANARY}), "not_fhir", 7),
        (Reply(200, json=[CANARY]), "not_fhir", 7),
        (Reply(200, body=b'{"resourceType":"Patient","name":"' + CANARY.encode()), "broken_json", 7),
        (Reply(200, body=b'{"resourceType":"Patient","x":' + b"[" * 50_000), "broken_json", 7),
        (Reply(200, json={**PATIENT, "resourceType": "Group"}), "not_fhir", 7),
        (Reply(200, json={**PATIENT, "id": "p2"}), "patient_moved", 6),
        (Reply(200, json=PATIENT, cut_after=20), "cut_off", 4),
        (Reply(200, json=PATIENT, delay_s=1.0), "timeout", 4),
        (HangUp(), "cut_off", 4),
        (Raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "not_fhir", 7),
        (Reply(200, body=b"x" * 300_000), "too_large", 7),
        (Reply(302, headers={"Location": "https://login.example/p1"}), "foreign_link", 7),
    ],
)
async def test_a_failure_has_its_own_error(
    server: FaultServer, client: FhirClient, answer: Answer, code: str, exit_code: int
) -> None:
    server.on("GET", "/fhir/Patient/p1", answer)
    error = await _failure(client)
    assert (error.code, error.exit_code) == (code, exit_code)


async def test_a_wrong_path_is_not_an_unknown_patient(server: FaultServer) -> None:
    server.on("GET", "/Patient/p1", Reply(404, json={"detail": "Not Found"}, content_type="application/json"))
    async with FhirClient(server.root_url, limits=SHORT, patience=IMPATIENT) as client:
        assert (await _failure(client)).code == "no_fhir_here"


async def test_a_host_that_does_not_exist() -> None:
    async with FhirClient("https://nowhere.invalid/fhir", limits=SHORT, patience=IMPATIENT) as client:
        error = await _failure(client)
    assert (error.code, error.exit_code) == ("dns", 4)
    assert "https://nowhere.invalid:443" in error.message


async def test_a_port_where_nothing_listens(server: FaultServer) -> None:
    await server.__aexit__(None, None, None)
    async with FhirClient(server.base_url, limits=SHORT, patience=IMPATIENT) as client:
        error = await _failure(client)
    assert (error.code, error.exit_code) == ("connection_refused", 4)
    assert server.root_url in error.message


def _tls(host: str, authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return context


async def test_a_certificate_that_is_not_trusted() -> None:
    async with (
        FaultServer(tls=_tls("127.0.0.1", trustme.CA())) as server,
        FhirClient(server.base_url, limits=SHORT, patience=IMPATIENT) as client,
    ):
        error = await _failure(client)
    assert (error.code, error.exit_code) == ("tls", 4)
    assert "certificate" in error.message


async def test_a_hospitals_own_authority_can_be_trusted(tmp_path: Path) -> None:
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    async with (
        FaultServer(tls=_tls("127.0.0.1", authority)) as server,
        FhirClient(server.base_url, limits=SHORT, patience=IMPATIENT, ca_file=ca_file) as client,
    ):
        server.on("GET", "/fhir/Patient/p1", Reply(json=PATIENT))
        assert (await client.read("Patient/p1"))["id"] == "p1"


async def test_a_certificate_for_another_host_says_so(tmp_path: Path) -> None:
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    async with (
        FaultServer(tls=_tls("other.example", authority)) as server,
        FhirClient(server.base_url, limits=SHORT, patience=IMPATIENT, ca_file=ca_file) as client,
    ):
        error = await _failure(client)
    assert error.code == "tls"


async def test_https_towards_a_server_that_speaks_http(server: FaultServer) -> None:
    url = server.base_url.replace("http://", "https://")
    async with FhirClient(url, limits=SHORT, patience=IMPATIENT) as client:
        assert (await _failure(client)).code == "tls"


async def test_a_server_of_another_release(server: FaultServer, client: FhirClient) -> None:
    server.on("GET", "/fhir/Patient/p1", Reply(json=PATIENT))
    server.on("GET", "/fhir/metadata", Reply(json={**capability_statement(), "fhirVersion": "5.0.0"}))
    error = await _failure(client)
    assert (error.code, error.exit_code) == ("wrong_release", 7)


async def test_an_illegal_id_is_not_sent(server: FaultServer, client: FhirClient) -> None:
    with pytest.raises(ConnectorError) as caught:
        await pull_patient(client, f"../{CANARY}", now=lambda: READ_AT)
    assert (caught.value.code, caught.value.exit_code) == ("invalid_id", 6)
    assert CANARY not in caught.value.message
    assert server.requests == []


async def test_a_failure_that_passes_is_not_noticed(server: FaultServer, client: FhirClient) -> None:
    server.on("GET", "/fhir/Patient/p1", HangUp(), Reply(503), Reply(429), Reply(json=PATIENT))
    assert (await client.read("Patient/p1"))["id"] == "p1"


async def test_a_gzip_bomb_is_stopped_before_it_unfolds(server: FaultServer, client: FhirClient) -> None:
    bomb = gzip.compress(b"[" + b" " * (20 * MIB), compresslevel=9)
    assert len(bomb) < SHORT.max_bytes
    server.on("GET", "/fhir/Patient/p1", Reply(body=bomb, headers={"Content-Encoding": "gzip"}))
    assert (await _failure(client)).code == "too_large"


async def test_a_bomb_in_an_error_page_is_stopped_too(server: FaultServer, client: FhirClient) -> None:
    bomb = gzip.compress(b" " * (20 * MIB))
    server.on("GET", "/fhir/Patient/p1", Reply(401, body=bomb, headers={"Content-Encoding": "gzip"}))
    assert (await _failure(client)).code == "too_large"


async def test_an_answer_without_a_length_is_bounded(server: FaultServer, client: FhirClient) -> None:
    reply = Reply(
        body=b"x" * 300_000, headers={"Content-Length": "", "Connection": "close"}, cut_after=300_000
    )
    server.on("GET", "/fhir/Patient/p1", reply)
    assert (await _failure(client)).code == "too_large"


async def test_compressed_answers_are_read(server: FaultServer, client: FhirClient) -> None:
    body = gzip.compress(Reply(json=PATIENT).content())
    server.on("GET", "/fhir/Patient/p1", Reply(body=body, headers={"Content-Encoding": "gzip"}))
    assert await client.read("Patient/p1") == PATIENT
    assert server.requests[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (gzip.compress(Reply(json=PATIENT).content())[:40], "cut_off"),
        (b"not compressed at all", "not_understood"),
        (zlib.compress(b"{}"), "not_understood"),
    ],
    ids=["cut off", "not compressed", "another compression"],
)
async def test_damaged_compression(server: FaultServer, client: FhirClient, body: bytes, code: str) -> None:
    server.on("GET", "/fhir/Patient/p1", Reply(body=body, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(ConnectorError) as caught:
        await client.read("Patient/p1")
    assert caught.value.code == code


async def test_an_answer_that_trickles_for_ever_ends(server: FaultServer) -> None:
    head = b"HTTP/1.1 200 X\r\nContent-Type: application/fhir+json\r\nContent-Length: 1000\r\n\r\n"
    server.on("GET", "/fhir/Patient/p1", Reply(delay_s=0.4), Raw(head))
    limits = Limits(read_s=5.0, total_s=0.2, retries=0)
    async with FhirClient(server.base_url, limits=limits, patience=IMPATIENT) as client:
        assert (await _failure(client)).code == "timeout"


async def test_the_environments_proxies_are_not_used(
    server: FaultServer, client: FhirClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    serve_chart(server)
    async with FhirClient(server.base_url, limits=SHORT) as fresh:
        assert (await fresh.read("Patient/p1"))["id"] == "p1"
