"""Scopes in the words that a server knows, and how we say who we are at a token endpoint."""

from __future__ import annotations

import base64
from urllib.parse import parse_qs

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from connectors.errors import BadUrl, ConnectorError, ForeignLink, ServerFailed, TokenRefused
from connectors.keys import SigningKey
from connectors.smart.answer import read_answer
from connectors.smart.offer import read_capabilities, read_configuration
from connectors.smart.scopes import scopes_to_ask
from connectors.smart.server import FRESH_S, Client, SmartServer
from tests.conftest import CANARY

ISS = "https://ehr.example.org/fhir"
TOKEN = "https://login.example.org/token"
SECRET = "s3:cret/ü&%"


@pytest.mark.parametrize(
    ("scope", "v1"),
    [
        ("patient/*.rs", "patient/*.read"),
        ("patient/*.r", "patient/*.read"),
        ("patient/*.s", "patient/*.read"),
        ("user/DocumentReference.cu", "user/DocumentReference.write"),
        ("user/Observation.cruds", "user/Observation.*"),
        ("patient/Observation.rs?category=laboratory", "patient/Observation.read"),
        ("patient/*.read", "patient/*.read"),
        ("openid fhirUser launch offline_access", "openid fhirUser launch offline_access"),
        ("patient/A.rs patient/A.rs?x=1 patient/A.s", "patient/A.read"),
        ("patient/A.", "patient/A."),
        ("https://x.example/scope.rs", "https://x.example/scope.rs"),
    ],
)
def test_a_server_of_smart_1_is_asked_in_its_own_words(scope: str, v1: str) -> None:
    assert scopes_to_ask(scope, has_v2=False, is_launched=True) == v1
    assert scopes_to_ask(scope, has_v2=True, is_launched=True) == " ".join(dict.fromkeys(scope.split()))


def test_who_is_not_launched_asks_for_a_patient_to_choose() -> None:
    assert scopes_to_ask("openid launch x", has_v2=True, is_launched=False) == "openid launch/patient x"
    assert scopes_to_ask("openid launch/patient", has_v2=True, is_launched=True) == "openid launch/patient"
    assert scopes_to_ask("launch launch/patient", has_v2=True, is_launched=False) == "launch/patient"


class Ehr:
    """An EHR that notes what its endpoints are asked."""

    def __init__(self, **configuration: object) -> None:
        self.forms: list[tuple[httpx.Headers, dict[str, list[str]]]] = []
        self.asked: list[str] = []
        self.status = 200
        self.configuration = {
            "authorization_endpoint": "https://login.example.org/authorize", "token_endpoint": TOKEN,
            **configuration,
        }  # fmt: skip

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url}")
        if request.method == "GET":
            return httpx.Response(self.status, json=self.configuration)
        self.forms.append((request.headers, parse_qs(request.content.decode())))
        said = {"access_token": "a", "token_type": "Bearer", "patient": CANARY, "error": "invalid_grant"}
        return httpx.Response(self.status, json=said)


def server(ehr: Ehr, client: Client, ticks: list[float] | None = None) -> SmartServer:
    now = ticks or [0.0]
    return SmartServer(
        ISS, client, lambda url: url, ("https://login.example.org",), now=lambda: 1_795_000_000.0,
        monotonic=lambda: now[0], transport=httpx.MockTransport(ehr.answer),
    )  # fmt: skip


async def test_a_public_client_names_itself_and_shows_nothing() -> None:
    ehr = Ehr()
    await server(ehr, Client("epicrisis")).exchange("code", "verifier", "https://us.example/cb")
    headers, form = ehr.forms[0]
    assert "authorization" not in headers
    assert form == {
        "grant_type": ["authorization_code"], "code": ["code"], "code_verifier": ["verifier"],
        "redirect_uri": ["https://us.example/cb"], "client_id": ["epicrisis"],
    }  # fmt: skip


async def test_a_secret_stands_in_the_header_form_encoded_and_not_in_the_form() -> None:
    ehr = Ehr(token_endpoint_auth_methods_supported=["client_secret_basic", "client_secret_post"])
    await server(ehr, Client("an:id", SECRET)).refresh("r")
    headers, form = ehr.forms[0]
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == (
        b"an%3Aid:s3%3Acret%2F%C3%BC%26%25"
    )
    assert form == {"grant_type": ["refresh_token"], "refresh_token": ["r"]}


async def test_a_secret_stands_in_the_form_only_where_nothing_else_is_taken() -> None:
    ehr = Ehr(token_endpoint_auth_methods_supported=["client_secret_post"])
    await server(ehr, Client("epicrisis", SECRET)).refresh("r")
    headers, form = ehr.forms[0]
    assert "authorization" not in headers
    assert (form["client_id"], form["client_secret"]) == (["epicrisis"], [SECRET])


@pytest.mark.parametrize(
    ("key", "algorithm"), [(RSAKey.generate_key(2048), "RS384"), (ECKey.generate_key("P-384"), "ES384")]
)
async def test_a_key_signs_a_short_assertion_for_this_endpoint(key: RSAKey | ECKey, algorithm: str) -> None:
    ehr = Ehr(revocation_endpoint="https://login.example.org/revoke")
    known = SigningKey.from_jwk({**key.as_dict(private=True), "kid": "ours"})
    smart = server(ehr, Client("epicrisis", key=known))
    await smart.refresh("r")
    await smart.revoke("r", "refresh_token")
    seen = []
    for (_, form), endpoint in zip(ehr.forms, (TOKEN, "https://login.example.org/revoke"), strict=True):
        assert "client_id" not in form
        assert form["client_assertion_type"] == ["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"]
        said = jwt.decode(form["client_assertion"][0], key, algorithms=[algorithm])
        assert said.header["kid"] == "ours"
        assert said.claims["iss"] == said.claims["sub"] == "epicrisis"
        assert said.claims["aud"] == endpoint
        assert 0 < said.claims["exp"] - 1_795_000_000 <= 300
        seen.append(said.claims["jti"])
    assert len(set(seen)) == 2


@pytest.mark.parametrize(("status", "kind"), [(400, TokenRefused), (401, TokenRefused), (500, ServerFailed)])
async def test_a_refusal_is_told_without_what_was_sent(status: int, kind: type[ConnectorError]) -> None:
    ehr = Ehr()
    smart = server(ehr, Client("epicrisis", SECRET))
    await smart.offer()
    ehr.status = status
    with pytest.raises(kind) as refused:
        await smart.refresh(f"refresh-{CANARY}")
    said = f"{refused.value} {refused.value!r} {refused.value.message} {smart!r}"
    assert CANARY not in said
    assert SECRET not in said
    assert len(ehr.forms) == 1


async def test_a_token_endpoint_beyond_the_allowed_origins_is_not_asked() -> None:
    ehr = Ehr(token_endpoint="https://evil.example/token")
    with pytest.raises(ForeignLink):
        await server(ehr, Client("epicrisis", SECRET)).refresh("r")
    assert ehr.forms == []


async def test_an_offer_is_read_once_an_hour_and_an_old_one_is_better_than_none() -> None:
    ehr, ticks = Ehr(), [0.0]
    smart = server(ehr, Client("epicrisis"), ticks)
    first = await smart.offer()
    assert await smart.offer() is first
    assert len(ehr.asked) == 1
    ticks[0] = FRESH_S + 1
    ehr.status = 503
    assert await smart.offer() is first
    asked = len(ehr.asked)
    assert await smart.offer() is first
    assert len(ehr.asked) == asked


async def test_without_a_place_to_take_tokens_back_nothing_is_sent() -> None:
    ehr = Ehr()
    await server(ehr, Client("epicrisis")).revoke("r", "refresh_token")
    assert ehr.forms == []


def refuse(url: str) -> str:
    raise BadUrl("not allowed")


@given(
    st.recursive(st.none() | st.booleans() | st.text(max_size=9), lambda inner: st.lists(inner, max_size=3))
)
def test_an_odd_offer_is_none_or_an_error_and_never_a_crash(value: object) -> None:
    for document in (
        value,
        {"token_endpoint": value, "authorization_endpoint": value, "capabilities": value},
    ):
        assert read_configuration(document if not isinstance(value, str) else {}, refuse) is None
    assert read_capabilities({"rest": value}, refuse) is None
    assert read_capabilities({"rest": [{"security": value}]}, refuse) is None


@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: st.one_of(st.none(), st.integers(), st.text(max_size=20), st.lists(st.text(max_size=5)))
            for name in (
                "patient",
                "encounter",
                "expires_in",
                "fhirContext",
                "appContext",
                "need_patient_banner",
                "smart_web_messaging_handle",
                "smart_web_messaging_origin",
                "refresh_token",
                "id_token",
            )
        },
    )
)
def test_whatever_stands_beside_a_token_is_read_or_left(said: dict[str, object]) -> None:
    answer = read_answer(msgspec.json.encode({"access_token": "a", **said}))
    assert answer.access == "a"
    assert answer.patient == "" or answer.patient.startswith("Patient/")
    assert 0 < answer.life_s <= 86_400
    assert all(isinstance(value, str) for value in answer.context.values())


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"7", b'{"access_token": 7}', b"\xff"])
def test_an_answer_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(TokenRefused):
        read_answer(body)
