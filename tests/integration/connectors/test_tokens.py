"""SMART Backend Services and the simpler ways in: tokens are shared, renewed, and go nowhere else."""

from __future__ import annotations

import asyncio
import json
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from connectors.auth import ASSERTION_TYPE, OAUTH_URIS, Auth, BasicAuth, BearerAuth, NoAuth, SmartBackendAuth
from connectors.errors import ConnectorError, KeyUnusable
from connectors.fhir.client import FhirClient
from connectors.keys import SigningKey
from tests.conftest import CANARY
from tests.integration.connectors.chart import PATIENT, capability_statement
from tests.integration.connectors.conftest import IMPATIENT, SHORT
from tests.integration.connectors.fault_server import FaultServer, HangUp, Reply, Request

RSA = RSAKey.generate_key(2048, {"kid": "rsa-1", "use": "sig", "alg": "RS384"}, private=True)
EC = ECKey.generate_key("P-384", {"kid": "ec-1", "use": "sig", "alg": "ES384"}, private=True)
SECRET = "s3cret-t0ken"


class Clock:
    """A clock that is set by hand, in seconds since the epoch."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class TokenServer:
    """Gives numbered tokens, and lets the FHIR server accept only the newest."""

    def __init__(self, server: FaultServer, lifetime_s: Any = 300) -> None:
        self.given = 0
        self.assertions: list[str] = []
        self.lifetime_s = lifetime_s
        self._server = server
        configuration = {"token_endpoint": f"{server.root_url}/token"}
        server.on("GET", "/fhir/.well-known/smart-configuration", Reply(json=configuration))
        server.on("POST", "/token", self.give)
        server.on("GET", "/fhir/Patient/p1", self.check)

    def give(self, request: Request) -> Reply:
        form = dict(parse_qsl(request.body.decode()))
        assert form["grant_type"] == "client_credentials"
        assert form["client_assertion_type"] == ASSERTION_TYPE
        self.assertions.append(form["client_assertion"])
        self.given += 1
        token = {
            "access_token": f"{SECRET}-{self.given}",
            "token_type": "bearer",
            "expires_in": self.lifetime_s,
        }
        return Reply(json=token, delay_s=0.05)

    def check(self, request: Request) -> Reply:
        newest = f"Bearer {SECRET}-{self.given}"
        return Reply(json=PATIENT) if request.headers.get("authorization") == newest else Reply(401)


def _client(server: FaultServer, auth: Auth) -> FhirClient:
    return FhirClient(server.base_url, auth=auth, limits=SHORT, patience=IMPATIENT)


def _smart(server: FaultServer, clock: Clock, key: RSAKey | ECKey = EC, **options: Any) -> SmartBackendAuth:
    signing = SigningKey.from_jwk(key.as_dict(private=True))
    return SmartBackendAuth(server.base_url, "summ-service", signing, now=clock, **options)


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS384"), (EC, "ES384")])
async def test_the_assertion_is_what_smart_asks_for(
    server: FaultServer, key: RSAKey | ECKey, algorithm: str
) -> None:
    clock, tokens = Clock(), TokenServer(server)
    async with _client(server, _smart(server, clock, key)) as client:
        assert (await client.read("Patient/p1"))["id"] == "p1"
    token = jwt.decode(tokens.assertions[0], key, algorithms=[algorithm])
    assert token.header["alg"] == algorithm
    assert token.header["kid"] == key.kid
    assert token.claims["iss"] == token.claims["sub"] == "summ-service"
    assert token.claims["aud"] == f"{server.root_url}/token"
    assert 0 < token.claims["exp"] - clock.now <= 300
    assert len(token.claims["jti"]) >= 16


async def test_requests_at_the_same_time_share_one_renewal(server: FaultServer) -> None:
    clock, tokens = Clock(), TokenServer(server)
    async with _client(server, _smart(server, clock)) as client:
        await asyncio.gather(*[client.read("Patient/p1") for _ in range(8)])
        assert tokens.given == 1
        clock.now += 250
        await asyncio.gather(*[client.read("Patient/p1") for _ in range(8)])
    assert tokens.given == 2
    assert len(set(tokens.assertions)) == 2


@pytest.mark.parametrize(
    ("lifetime_s", "after_s", "given"), [(300, 239, 1), (300, 241, 2), (30, 22, 1), (30, 23, 2)]
)
async def test_a_token_is_renewed_before_it_ends(
    server: FaultServer, lifetime_s: int, after_s: int, given: int
) -> None:
    clock, tokens = Clock(), TokenServer(server, lifetime_s)
    async with _client(server, _smart(server, clock)) as client:
        await client.read("Patient/p1")
        clock.now += after_s
        await client.read("Patient/p1")
    assert tokens.given == given


@pytest.mark.parametrize("odd", [None, "soon", -1, 0, [], "300"])
async def test_an_odd_lifetime_is_taken_as_short(server: FaultServer, odd: Any) -> None:
    clock, tokens = Clock(), TokenServer(server, odd)
    async with _client(server, _smart(server, clock)) as client:
        await client.read("Patient/p1")
        clock.now += 200
        await client.read("Patient/p1")
        assert tokens.given == 1
        clock.now += 100
        await client.read("Patient/p1")
    assert tokens.given == 2


async def test_a_401_renews_once_and_repeats(server: FaultServer) -> None:
    clock, tokens = Clock(), TokenServer(server)
    async with _client(server, _smart(server, clock)) as client:
        await client.read("Patient/p1")
        tokens.given += 5  # the server forgot our token
        await asyncio.gather(*[client.read("Patient/p1") for _ in range(4)])
    assert tokens.given == 7


async def test_a_401_that_stays_is_refused_after_one_renewal(server: FaultServer) -> None:
    tokens = TokenServer(server)
    server.on("GET", "/fhir/Patient/p1", Reply(401))
    async with _client(server, _smart(server, Clock())) as client:
        with pytest.raises(ConnectorError) as caught:
            await client.read("Patient/p1")
    assert caught.value.code == "unauthorized"
    assert tokens.given == 2
    assert len(server.asked("GET", "/fhir/Patient/p1")) == 2


async def test_the_capability_statement_names_the_token_endpoint_too(server: FaultServer) -> None:
    tokens = TokenServer(server)
    server.on("GET", "/fhir/.well-known/smart-configuration", Reply(404))
    statement = capability_statement()
    uris = [{"url": "authorize", "valueUri": "x"}, {"url": "token", "valueUri": f"{server.root_url}/token"}]
    statement["rest"][0]["security"] = {"extension": [{"url": OAUTH_URIS, "extension": uris}]}
    server.on("GET", "/fhir/metadata", Reply(json=statement))
    async with _client(server, _smart(server, Clock())) as client:
        await client.read("Patient/p1")
    assert tokens.given == 1


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (
            Reply(400, json={"error": "invalid_client", "error_description": f"{CANARY}"}),
            "token_refused",
            "invalid_client",
        ),
        (Reply(401, json={"error": CANARY}), "token_refused", "401"),
        (Reply(200, json={"token_type": "bearer"}), "token_refused", "200"),
        (Reply(200, json={"access_token": "two\r\nlines"}), "token_refused", "200"),
        (Reply(200, body=b"<html>"), "token_refused", "200"),
        (Reply(302, headers={"Location": "/elsewhere"}), "token_refused", "302"),
        (Reply(503), "server_failed", "503"),
        (HangUp(), "cut_off", "cut"),
    ],
)
async def test_a_token_endpoint_that_refuses(
    server: FaultServer, answer: Reply, code: str, said: str
) -> None:
    TokenServer(server)
    server.on("POST", "/token", answer)
    async with _client(server, _smart(server, Clock())) as client:
        with pytest.raises(ConnectorError) as caught:
            await client.read("Patient/p1")
    assert caught.value.code == code
    assert said in caught.value.message
    assert CANARY not in caught.value.message
    assert server.asked("GET", "/fhir/Patient/p1") == []


async def test_a_server_without_a_token_endpoint(server: FaultServer) -> None:
    server.on("GET", "/fhir/metadata", Reply(json=capability_statement()))
    async with _client(server, _smart(server, Clock())) as client:
        with pytest.raises(ConnectorError) as caught:
            await client.read("Patient/p1")
    assert (caught.value.code, caught.value.exit_code) == ("token_refused", 5)


async def test_an_assertion_never_travels_unencrypted(server: FaultServer) -> None:
    auth = _smart(server, Clock(), token_url="http://auth.example/token")
    async with _client(server, auth) as client:
        with pytest.raises(ConnectorError) as caught:
            await client.read("Patient/p1")
    assert caught.value.code == "plain_http"


async def test_credentials_are_sent_and_named(server: FaultServer) -> None:
    server.on("GET", "/fhir/Patient/p1", Reply(json=PATIENT))
    sent = []
    for auth in (NoAuth(), BasicAuth("user", SECRET), BearerAuth(SECRET)):
        async with _client(server, auth) as client:
            await client.read("Patient/p1")
        sent.append(server.requests[-1].headers.get("authorization"))
    assert sent == [None, "Basic dXNlcjpzM2NyZXQtdDBrZW4=", f"Bearer {SECRET}"]


async def test_no_secret_shows_anywhere(server: FaultServer, caplog: pytest.LogCaptureFixture) -> None:
    tokens = TokenServer(server)
    smart = _smart(server, Clock(), RSA)
    async with _client(server, smart) as client:
        await client.read("Patient/p1")
        private = str(RSA.as_dict(private=True)["d"])
        shown = [
            repr(a) for a in (smart, BasicAuth("u", SECRET), BearerAuth(SECRET), client.session, smart._key)
        ]
        shown += [a.profile for a in (smart, BasicAuth("u", SECRET), BearerAuth(SECRET), NoAuth())]
        shown += [record.getMessage() for record in caplog.get_records("call")]
    assert tokens.assertions
    for text in shown:
        assert SECRET not in text
        assert private not in text
        assert tokens.assertions[0] not in text
    assert smart.profile == "system:smart:summ-service"


def test_a_key_is_chosen_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.jwks"
    file.write_text(json.dumps({"keys": [RSA.as_dict(private=True), EC.as_dict(private=True)]}))
    assert SigningKey.from_file(file).algorithm == "RS384"
    chosen = SigningKey.from_file(file, "ec-1")
    assert (chosen.algorithm, chosen.kid) == ("ES384", "ec-1")
    file.write_text(json.dumps(EC.as_dict(private=True)))
    assert SigningKey.from_file(file).kid == "ec-1"


def _weak_rsa() -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return json.dumps(RSAKey.generate_key(1024, private=True).as_dict(private=True))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"keys": 5}',
        json.dumps(RSA.as_dict(private=False)),
        json.dumps({**RSA.as_dict(private=True), "alg": "RS256"}),
        _weak_rsa(),
        json.dumps(ECKey.generate_key("P-256", private=True).as_dict(private=True)),
        json.dumps({"kty": "oct", "k": "c2VjcmV0"}),
        json.dumps({"kty": "RSA", "n": "x"}),
    ],
)
def test_a_key_that_cannot_sign_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "key.jwk"
    file.write_text(content)
    with pytest.raises(KeyUnusable) as caught:
        SigningKey.from_file(file)
    assert caught.value.exit_code == 5
    assert str(tmp_path) not in caught.value.message


def test_a_key_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable):
        SigningKey.from_file(tmp_path / "nothing.jwk")
    with pytest.raises(KeyUnusable):
        SigningKey.from_jwk(EC.as_dict(private=True), kid="another")
