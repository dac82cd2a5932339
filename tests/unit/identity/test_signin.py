from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from connectors.errors import ConnectorError, NotUnderstoodError
from service.errors import SettingsError
from service.identity.keys import KeyRing
from service.identity.provider import FRESH_S, Provider
from service.identity.refusal import Reason, Refused
from service.identity.signin import ATTEMPT_S, Begun, SignIn, own_path
from service.identity.tokens import Expected
from service.store.cipher import Cipher
from tests.unit.identity.issuer import CLIENT, ISSUER, NOW, Issuer

CALLBACK = "https://epicrisis.hospital.example/callback"


@dataclass
class Flow:
    issuer: Issuer
    cipher: Cipher
    secret: str = "s3:cret/ü"
    now: float = NOW
    ticks: float = 0.0
    sign_in: SignIn = field(init=False)
    provider: Provider = field(init=False)

    def __post_init__(self) -> None:
        self.provider = Provider(
            ISSUER, CLIENT, self.secret, monotonic=lambda: self.ticks, transport=self.issuer.transport
        )
        keys = KeyRing(self.provider.fetch_keys, lambda: self.ticks)
        expected = Expected(ISSUER, CLIENT)
        self.sign_in = SignIn(self.provider, keys, expected, self.cipher, lambda: self.now)

    async def begin(self, to: str = "/ward") -> tuple[Begun, dict[str, str]]:
        begun = await self.sign_in.begin(CALLBACK, to)
        return begun, self.issuer.authorize(begun.address)

    async def why(self, cookie: str, answer: dict[str, str]) -> Reason:
        with pytest.raises(Refused) as refused:
            await self.sign_in.finish(cookie, answer)
        return refused.value.reason


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    return Flow(Issuer(), Cipher.from_file(tmp_path / "key"))


async def test_a_sign_in_ends_with_the_providers_claims_on_the_page_that_was_asked_for(flow: Flow) -> None:
    begun, answer = await flow.begin()
    found = await flow.sign_in.finish(begun.cookie, {**answer, "iss": ISSUER})
    assert found.claims["sub"] == "sub-7"
    assert found.to == "/ward"


async def test_the_provider_is_asked_with_pkce_state_and_nonce_and_for_no_name(flow: Flow) -> None:
    asked = [parse_qs(urlsplit((await flow.begin())[0].address).query) for _ in range(2)]
    for one in asked:
        assert one["code_challenge_method"] == ["S256"]
        assert one["scope"] == ["openid fhirUser"]
        assert one["response_type"] == ["code"]
        assert one["redirect_uri"] == [CALLBACK]
    for name in ("state", "nonce", "code_challenge"):
        assert asked[0][name] != asked[1][name]
        assert len(asked[0][name][0]) >= 43


async def test_the_cookie_shows_nothing_and_opens_in_no_other_installation(
    flow: Flow, tmp_path: Path
) -> None:
    begun, answer = await flow.begin()
    assert answer["state"].encode() not in base64.urlsafe_b64decode(begun.cookie)
    other = Flow(flow.issuer, Cipher.from_file(tmp_path / "other-key"))
    assert await other.why(begun.cookie, answer) is Reason.STATE


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"state": "x"}, Reason.STATE),
        ({"state": ""}, Reason.STATE),
        ({"iss": "https://evil.example"}, Reason.ISSUER),
        ({"error": "access_denied"}, Reason.DECLINED),
        ({"code": ""}, Reason.DECLINED),
        ({"code": "code-2"}, Reason.CODE),
    ],
)
async def test_an_answer_that_is_not_the_one_asked_for_is_refused(
    flow: Flow, more: dict[str, str], reason: Reason
) -> None:
    begun, answer = await flow.begin()
    assert await flow.why(begun.cookie, {**answer, **more}) is reason


@pytest.mark.parametrize("cookie", ["", "x", "é", "AAAA", base64.urlsafe_b64encode(b"{}" * 40).decode()])
async def test_an_answer_without_our_cookie_is_refused(flow: Flow, cookie: str) -> None:
    _, answer = await flow.begin()
    assert await flow.why(cookie, answer) is Reason.STATE


async def test_the_answer_to_another_browsers_attempt_is_refused(flow: Flow) -> None:
    mine, _ = await flow.begin()
    _, theirs = await flow.begin()
    assert await flow.why(mine.cookie, theirs) is Reason.STATE


async def test_an_answer_counts_once_and_for_ten_minutes(flow: Flow) -> None:
    begun, answer = await flow.begin()
    await flow.sign_in.finish(begun.cookie, answer)
    assert await flow.why(begun.cookie, answer) is Reason.CODE
    begun, answer = await flow.begin()
    flow.now += ATTEMPT_S + 1
    assert await flow.why(begun.cookie, answer) is Reason.STATE


async def test_an_id_token_of_another_attempt_is_refused(flow: Flow) -> None:
    begun, answer = await flow.begin()
    flow.issuer.codes["code-1"]["nonce"] = "of another attempt"
    assert await flow.why(begun.cookie, answer) is Reason.NONCE


async def test_a_stolen_code_is_worth_nothing_without_the_verifier(flow: Flow) -> None:
    mine, answer = await flow.begin()
    flow.issuer.codes["stolen"] = {**flow.issuer.codes["code-1"], "code_challenge": "of-their-verifier"}
    assert await flow.why(mine.cookie, {**answer, "code": "stolen"}) is Reason.CODE


async def test_our_secret_is_sent_as_the_standard_says_and_shown_nowhere(flow: Flow) -> None:
    begun, answer = await flow.begin()
    await flow.sign_in.finish(begun.cookie, answer)
    sent = flow.issuer.forms[0].headers["authorization"].removeprefix("Basic ")
    assert base64.b64decode(sent) == b"epicrisis:s3%3Acret%2F%C3%BC"
    assert flow.secret not in repr(flow.provider) + repr(flow.sign_in)


@pytest.mark.parametrize(
    ("secret", "methods", "form"),
    [("", None, {"client_id"}), ("s", ["client_secret_post"], {"client_id", "client_secret"})],
)
async def test_a_public_client_and_one_whose_secret_goes_into_the_form(
    tmp_path: Path, secret: str, methods: Any, form: set[str]
) -> None:
    document = {"token_endpoint_auth_methods_supported": methods} if methods else {}
    flow = Flow(Issuer(document=document), Cipher.from_file(tmp_path / "key"), secret)
    begun, answer = await flow.begin()
    await flow.sign_in.finish(begun.cookie, answer)
    (request,) = flow.issuer.forms
    assert "authorization" not in request.headers
    assert set(parse_qs(request.content.decode())) >= form


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": ISSUER + "/"},
        {"issuer": None},
        {"jwks_uri": "https://evil.example/jwks"},
        {"token_endpoint": "https://login.hospital.example:8443/token"},
        {"token_endpoint": "http://login.hospital.example/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "http://elsewhere.example/"},
        {"authorization_endpoint": None},
        {"end_session_endpoint": "https://evil.example/logout"},
    ],
)
async def test_a_discovery_document_that_leads_elsewhere_is_not_followed(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    flow = Flow(Issuer(document=document), Cipher.from_file(tmp_path / "key"))
    with pytest.raises(NotUnderstoodError):
        await flow.begin()
    assert len(flow.issuer.asked) == 1


async def test_what_the_provider_offers_is_asked_for_once_an_hour_and_kept_while_it_is_down(
    flow: Flow,
) -> None:
    for _ in range(3):
        await flow.begin()
    assert len(flow.issuer.asked) == 1
    flow.ticks += FRESH_S
    flow.issuer.down = True
    await flow.begin()
    flow.issuer.down = False
    flow.ticks += FRESH_S
    flow.issuer.document = {"authorization_endpoint": "https://new.hospital.example/authorize"}
    assert (await flow.begin())[0].address.startswith("https://new.hospital.example/")


async def test_a_provider_that_is_down_is_told_as_such(tmp_path: Path) -> None:
    flow = Flow(Issuer(down=True), Cipher.from_file(tmp_path / "key"))
    with pytest.raises(ConnectorError):
        await flow.begin()


@pytest.mark.parametrize(
    "issuer", ["http://login.hospital.example", "login", "https://a:b@x.example", "file:///x"]
)
def test_an_issuer_that_cannot_be_one_is_a_wrong_setting(issuer: str) -> None:
    with pytest.raises(SettingsError, match="EPICRISIS_OIDC_ISSUER"):
        Provider(issuer, CLIENT)


@pytest.mark.parametrize("to", ["/", "/ward", "/runs/0a1b", "/runs/0a1b.json", "/runs/0a/sources/3"])
def test_a_path_of_ours_is_gone_back_to(to: str) -> None:
    assert own_path(to) == to


@pytest.mark.parametrize(
    "to",
    ["", "//evil.example", "/\\evil.example", "https://evil.example", "/a//b", "/a?x=1", "/a\n", "/é",
     "/..//x", "/.%2e/", "javascript:alert(1)", "/" + "a" * 300, "/;url=x", "/ward/"],
)  # fmt: skip
def test_another_address_is_not(to: str) -> None:
    assert own_path(to) == "/"
