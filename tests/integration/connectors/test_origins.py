"""URLs that a record, an export, a discovery document or a redirect names: none leads elsewhere.

Each place that a URL can come in by is given addresses that mean another machine, or another port of this
one, in every spelling that has misled somebody. Nobody may be asked, and no other name even looked up.
"""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from joserfc.jwk import ECKey

from connectors.admissions.export import Export, ExportFile, Manifest, Progress, check_export, read_export
from connectors.admissions.export import start_export as kick_off
from connectors.auth import OAUTH_URIS, Auth, BasicAuth, BearerAuth, NoAuth, SmartBackendAuth
from connectors.errors import ConnectorError, ForeignLink, PlainHttp
from connectors.fhir.client import FhirClient
from connectors.fhir.patient import pull_patient
from connectors.http import Session
from connectors.keys import SigningKey
from connectors.limits import Limits
from service.identity.provider import Provider
from tests.integration.connectors.chart import (
    PATIENT,
    READ_AT,
    bundle,
    capability_statement,
    resource,
    serve_chart,
)
from tests.integration.connectors.conftest import IMPATIENT
from tests.integration.connectors.fault_server import FaultServer, Reply

SECRET = "s3cret-t0ken"
LIMITS = Limits(page_size=10)
Attempt = Callable[[FaultServer, str], Awaitable[object]]


def hostile(own: int, other: int) -> list[str]:
    """Return addresses that are not `http://127.0.0.1:{own}`, for a server on that port."""
    hosts = (
        "127.0.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "0", "0.0.0.0", "[::1]",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "localhost", "LOCALHOST", "localhost.", "127.0.0.1.",
        "a.localhost", "localtest.me", "127.0.0.1.nip.io", "１２７.0.0.1", "127。0。0。1", "ⓛocalhost",
    )  # fmt: skip
    elsewhere = (
        "169.254.169.254", "2852039166", "0xa9fea9fe", "[::ffff:169.254.169.254]", "[fd00:ec2::254]",
        "[fe80::1]", "metadata.google.internal", "metadata", "evil.example", "evil.example.", "ⓔvil.example",
        "10.0.0.1", "xn--vil-4ua.example", "evil.example%00.localhost", "0.0.0.0", "224.0.0.1", "[::]",
    )  # fmt: skip
    tricks = (
        f"http://127.0.0.1:{own}@127.0.0.1:{other}/x",
        f"http://user:pw@127.0.0.1:{own}/x",
        f"http://127.0.0.1:{own}\\@127.0.0.1:{other}/x",
        f"http://127.0.0.1:{other}\\@127.0.0.1:{own}/x",
        f"http://127.0.0.1:{own}%40127.0.0.1:{other}/x",
        f"http://127.0.0.1:{other}#@127.0.0.1:{own}/x",
        f"http://127.0.0.1:{other}?@127.0.0.1:{own}/x",
        f"http://127.0.0.1:{own}:{other}/x",
        f"http://127.0.0.1:{own} 127.0.0.1:{other}/x",
        f"http://127.0.0.1:0{other}/x",
        f"//127.0.0.1:{other}/x",
        f"HTTP://127.0.0.1:{other}/x",
        f"https://127.0.0.1:{own}/x",
        f"http:127.0.0.1:{other}/x",
        f"http:///127.0.0.1:{other}/x",
        f"http://127.0.0.1:{other}\r\nX-Injected: 1/x",
        f"gopher://127.0.0.1:{other}/_GET%20/",
        f"GOPHER://127.0.0.1:{own}/_GET%20/",
        f"ftp://127.0.0.1:{own}/x",
        f"dict://127.0.0.1:{own}/x",
        f"ldap://127.0.0.1:{own}/x",
        f"ws://127.0.0.1:{own}/x",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "file://127.0.0.1/etc/passwd",
        "unix:///var/run/docker.sock",
        "http+unix://%2Fvar%2Frun%2Fdocker.sock/x",
        "data:text/plain,x",
        "javascript:alert(1)",
        "jar:http://evil.example!/x",
        "https://[",
        "http://",
    )
    spelled = [f"http://{host}:{other}/x" for host in hosts] + [
        f"http://{host}:{own}/x" for host in hosts[1:]
    ]
    return [*spelled, *(f"http://{host}/latest/meta-data/" for host in elsewhere), *tricks]


SAME = ("１２７.0.0.1", "127。0。0。1")
"""Other signs for the digits and dots of one address, which IDNA maps: with its own port it is the server."""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names and addresses that were looked up; only this machine's are answered."""
    asked: set[str] = set()
    real = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **more: Any) -> Any:
        asked.add(host.decode() if isinstance(host, bytes) else str(host))
        if host not in ("127.0.0.1", b"127.0.0.1"):
            raise socket.gaierror(socket.EAI_NONAME, "not in this test")
        return real(host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    context = ssl.create_default_context()  # to read every authority anew for each address takes a minute
    monkeypatch.setattr(ssl, "create_default_context", lambda: context)
    return asked


def client_of(server: FaultServer, auth: Auth | None = None, **more: Any) -> FhirClient:
    return FhirClient(server.base_url, auth=auth or NoAuth(), limits=LIMITS, patience=IMPATIENT, **more)


async def next_page(server: FaultServer, url: str) -> object:
    page = bundle(resource("Observation", "o1"), next_link=url)
    server.on("GET", "/fhir/Observation", Reply(json=page))
    async with client_of(server) as client:
        return await client.search("Observation")


async def redirect(server: FaultServer, url: str) -> object:
    server.on("GET", "/fhir/Patient/p1", Reply(307, headers={"Location": url}))
    async with client_of(server) as client:
        return await client.read("Patient/p1")


async def redirected_write(server: FaultServer, url: str) -> object:
    server.on("POST", "/fhir/Observation", Reply(307, headers={"Location": url}))
    async with client_of(server) as client:
        return await client.create(resource("Observation", "o1"))


async def attachment(server: FaultServer, url: str) -> object:
    attached = {"attachment": {"url": url, "contentType": "text/plain"}}
    document = resource("DocumentReference", "d1", subject={"reference": "Patient/p1"}, content=[attached])
    return await _gap(server, document)


async def presented_form(server: FaultServer, url: str) -> object:
    form = {"url": url, "contentType": "text/plain"}
    return await _gap(server, resource("DiagnosticReport", "r1", presentedForm=[form]))


async def _gap(server: FaultServer, holder: dict[str, Any]) -> object:
    kind = holder["resourceType"]
    serve_chart(server, kind)
    server.on("GET", f"/fhir/{kind}", Reply(json=bundle(holder)))
    async with client_of(server) as client:
        pull = await pull_patient(client, "Patient/p1", now=lambda: READ_AT)
    assert pull.binaries == {}
    if any(gap.resource_type == kind for gap in pull.gaps):
        raise ForeignLink("It was not fetched.")
    return pull


async def redirected_attachment(server: FaultServer, url: str) -> object:
    server.on("GET", "/fhir/Binary/b1", Reply(302, headers={"Location": url}))
    return await attachment(server, "Binary/b1")


async def medication(server: FaultServer, url: str) -> object:
    """A reference to somewhere else is no reference of this server: it is not read, and that is no error."""
    serve_chart(server, "MedicationRequest")
    asked = resource("MedicationRequest", "m1", medicationReference={"reference": f"{url}/Medication/1"})
    server.on("GET", "/fhir/MedicationRequest", Reply(json=bundle(asked)))
    async with client_of(server) as client:
        pull = await pull_patient(client, "Patient/p1", now=lambda: READ_AT)
    assert all(one["resourceType"] != "Medication" for one in pull.resources)
    raise ForeignLink("It was not fetched.")


async def named_reference(server: FaultServer, url: str) -> object:
    async with client_of(server) as client:
        return await client.read(f"{url}/Patient/p1")


async def export_status(server: FaultServer, url: str) -> object:
    server.on("GET", "/fhir/Group/g1/$export", Reply(202, headers={"Content-Location": url}))
    async with client_of(server) as client:
        return await kick_off(client, "g1")


async def export_manifest(server: FaultServer, url: str) -> object:
    files = {"output": [{"type": "Encounter", "url": url}]}
    server.on("GET", "/status/1", Reply(json=files))
    async with client_of(server) as client:
        return await check_export(client, Export(f"{server.root_url}/status/1"))


async def export_file_of_a_kept_manifest(server: FaultServer, url: str) -> object:
    async with client_of(server) as client:
        files = read_export(
            client, Manifest(None, True, (ExportFile("Encounter", url, None),)), Progress(), Counter()
        )
        return [one async for one in files]


async def redirected_export_file(server: FaultServer, url: str) -> object:
    server.on("GET", "/files/a", Reply(302, headers={"Location": url}))
    return await export_file_of_a_kept_manifest(server, f"{server.root_url}/files/a")


async def kept_export(server: FaultServer, url: str) -> object:
    async with client_of(server) as client:
        return await check_export(client, Export(url))


async def token_endpoint(server: FaultServer, url: str) -> object:
    server.on("GET", "/fhir/.well-known/smart-configuration", Reply(json={"token_endpoint": url}))
    server.on("GET", "/fhir/metadata", Reply(json=capability_statement()))
    return await _with_key(server)


async def token_endpoint_of_capabilities(server: FaultServer, url: str) -> object:
    statement = capability_statement()
    uris = [{"url": "token", "valueUri": url}]
    statement["rest"][0]["security"] = {"extension": [{"url": OAUTH_URIS, "extension": uris}]}
    server.on("GET", "/fhir/metadata", Reply(json=statement))
    return await _with_key(server)


async def redirected_token_endpoint(server: FaultServer, url: str) -> object:
    found = {"token_endpoint": f"{server.root_url}/token"}
    server.on("GET", "/fhir/.well-known/smart-configuration", Reply(json=found))
    server.on("POST", "/token", Reply(307, headers={"Location": url}))
    return await _with_key(server)


async def _with_key(server: FaultServer, **more: Any) -> object:
    async with client_of(server, _smart(server), **more) as client:
        return await client.read("Patient/p1")


def _smart(server: FaultServer, **more: Any) -> SmartBackendAuth:
    key = ECKey.generate_key("P-384", {"kid": "k1", "use": "sig", "alg": "ES384"}, private=True)
    return SmartBackendAuth(server.base_url, "us", SigningKey.from_jwk(key.as_dict(private=True)), **more)


async def provider_keys(server: FaultServer, url: str) -> object:
    _serve_discovery(server, jwks_uri=url)
    return await Provider(server.root_url, "us").fetch_keys()


async def provider_token_endpoint(server: FaultServer, url: str) -> object:
    _serve_discovery(server, token_endpoint=url)
    return await Provider(server.root_url, "us", SECRET).exchange("code", "verifier", "http://127.0.0.1/cb")


async def redirected_provider(server: FaultServer, url: str) -> object:
    server.on("GET", "/.well-known/openid-configuration", Reply(302, headers={"Location": url}))
    return await Provider(server.root_url, "us").fetch_keys()


def _serve_discovery(server: FaultServer, **more: str) -> None:
    root = server.root_url
    document = {"issuer": root, "authorization_endpoint": f"{root}/a", "token_endpoint": f"{root}/t",
                "jwks_uri": f"{root}/k", **more}  # fmt: skip
    server.on("GET", "/.well-known/openid-configuration", Reply(json=document))


PLACES: tuple[Attempt, ...] = (
    next_page, redirect, redirected_write, attachment, presented_form, redirected_attachment, medication,
    named_reference, export_status, export_manifest, export_file_of_a_kept_manifest, redirected_export_file,
    kept_export, token_endpoint, token_endpoint_of_capabilities, redirected_token_endpoint, provider_keys,
    provider_token_endpoint, redirected_provider,
)  # fmt: skip


@pytest.mark.parametrize("attempt", PLACES, ids=lambda attempt: attempt.__name__)
async def test_no_url_leads_to_another_origin(server: FaultServer, names: set[str], attempt: Attempt) -> None:
    async with FaultServer() as other:
        server.on("GET", "/fhir/Patient/p1", Reply(json=PATIENT))
        addresses = hostile(server.port, other.port)
        assert len(addresses) > 80
        for url in addresses:
            if any(f"//{host}:{server.port}/" in url for host in SAME):
                continue
            try:
                await attempt(server, url)
            except ConnectorError:
                continue
            finally:
                assert other.requests == [], url
                assert names <= {"127.0.0.1"}, url
            # RFC 3986 5.2.2, as urljoin reads it: these are paths of the server itself
            assert url == "http://" or url.startswith(("http:127", "http:///127")), f"{url} raised nothing"
    assert {request.headers["host"] for request in server.requests} <= {f"127.0.0.1:{server.port}"}


@pytest.mark.parametrize("attempt", [next_page, attachment, export_status, provider_keys])
async def test_the_servers_own_origin_is_asked(server: FaultServer, attempt: Attempt) -> None:
    server.on("GET", "/own", Reply(json=bundle(), content_type="application/fhir+json"))
    with suppress(ConnectorError):  # what it says there is no page, no note and no key
        await attempt(server, f"HTTP://127.0.0.1:{server.port}/own")
    if attempt is not export_status:  # there it is only kept
        assert len(server.asked("GET", "/own")) == 1


@pytest.mark.parametrize("auth", [BasicAuth("user", SECRET), BearerAuth(SECRET)], ids=repr)
async def test_credentials_are_shown_to_the_servers_own_origin_alone(server: FaultServer, auth: Auth) -> None:
    async with FaultServer() as files:
        files.on("GET", "/note", Reply(body=b"note", content_type="text/plain"))
        serve_chart(server, "DocumentReference")
        attached = {"attachment": {"url": f"{files.root_url}/note", "contentType": "text/plain"}}
        document = resource("DocumentReference", "d1", content=[attached])
        server.on("GET", "/fhir/DocumentReference", Reply(json=bundle(document)))
        async with client_of(server, auth, allowed_origins=(files.root_url,)) as client:
            pull = await pull_patient(client, "Patient/p1", now=lambda: READ_AT)
        assert pull.binaries == {f"{files.root_url}/note": b"note"}
        assert [request.headers.get("authorization") for request in files.requests] == [None]
    assert all("authorization" in request.headers for request in server.requests)


async def test_a_401_elsewhere_gets_no_token_of_ours(server: FaultServer) -> None:
    async with FaultServer() as files:
        files.on("GET", "/note", Reply(401))
        async with client_of(server, _smart(server), allowed_origins=(files.root_url,)) as client:
            with pytest.raises(ConnectorError):
                await client.session.send("GET", f"{files.root_url}/note", repeatable=True)
        assert len(files.requests) == 1
    assert server.requests == []


@pytest.mark.parametrize("is_allowed", [True, False])
async def test_a_token_endpoint_elsewhere_is_asked_where_it_is_allowed(
    server: FaultServer, is_allowed: bool
) -> None:
    server.on("GET", "/fhir/Patient/p1", Reply(json=PATIENT))
    async with FaultServer() as other:
        found = {"token_endpoint": f"{other.root_url}/token"}
        server.on("GET", "/fhir/.well-known/smart-configuration", Reply(json=found))
        other.on("POST", "/token", Reply(json={"access_token": SECRET}))
        if not is_allowed:
            with pytest.raises(ForeignLink) as caught:
                await _with_key(server)
            assert other.root_url in caught.value.message
            assert other.requests == []
            return
        await _with_key(server, allowed_origins=(other.root_url,))
        named = _smart(server, token_url=f"{other.root_url}/token")
        async with client_of(server, named) as client:
            await client.read("Patient/p1")
        assert len(other.requests) == 2


@pytest.mark.parametrize(
    "origin",
    ["http://files.example", "https://user:pw@files.example", "ftp://files.example", "files.example", ""],
)
def test_an_allowed_origin_is_as_safe_as_the_server(origin: str) -> None:
    with pytest.raises(ConnectorError):
        Session("https://ehr.example/fhir", allowed_origins=(origin,))
    if origin == "http://files.example":
        with pytest.raises(PlainHttp):
            Session("https://ehr.example/fhir", allowed_origins=(origin,))
