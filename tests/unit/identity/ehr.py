"""An EHR in memory that launches us: discovery, tokens that are good once, and what a test turns in them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx

from connectors.smart.server import Client, SmartServer
from service.ehrs import Ehr
from service.identity.keys import KeyRing
from service.identity.launch import Launches, Site, roles_of
from service.identity.renewal import Renewal
from service.ports.launches import Launch
from service.store.cipher import Cipher
from tests.conftest import CANARY
from tests.unit.identity.issuer import KEYS, NOW, encode, jwks
from tests.unit.in_memory_launches import InMemoryLaunches

ISS = "https://ehr.hospital.example/fhir/R4"
LOGIN = "https://login.hospital.example"
HOST = "https://pages.hospital.example"
CLIENT = "epicrisis"
CALLBACK = "https://epicrisis.hospital.example/launch/callback"
PATIENT = f"p-{CANARY}"
SCOPE = "launch openid fhirUser offline_access patient/*.rs"
EHR = Ehr(
    name="general", title="General Hospital", iss=ISS, client_id=CLIENT, scope=SCOPE,
    allowed_origins=(LOGIN,), frame_ancestors=(HOST,),
)  # fmt: skip
AT = datetime.fromtimestamp(NOW, UTC)
IDLE, LONGEST = timedelta(minutes=30), timedelta(hours=12)
CONFIGURATION: Mapping[str, Any] = {
    "issuer": LOGIN, "jwks_uri": f"{LOGIN}/jwks", "authorization_endpoint": f"{LOGIN}/authorize",
    "token_endpoint": f"{LOGIN}/token", "revocation_endpoint": f"{LOGIN}/revoke",
    "code_challenge_methods_supported": ["S256"],
    "capabilities": ["launch-ehr", "permission-v2", "sso-openid-connect"],
}  # fmt: skip

Sign = Callable[[Mapping[str, Any]], str]


def signed(claims: Mapping[str, Any]) -> str:
    """Return an ID token as the EHR signs it."""
    return encode({"alg": "ES384", "kid": "P-384"}, dict(claims), KEYS["P-384"])


@dataclass
class EhrDouble:
    """The EHR's HTTP side, for httpx.MockTransport. None in `claims` or `said` takes a value out."""

    claims: dict[str, Any] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    """Of token answers."""
    configuration: dict[str, Any] | None = field(default_factory=lambda: dict(CONFIGURATION))
    statement: dict[str, Any] = field(default_factory=lambda: {"resourceType": "CapabilityStatement"})
    openid: dict[str, Any] | None = None
    keys: dict[str, Any] = field(default_factory=jwks)
    sign: Sign = signed
    now: Callable[[], float] = lambda: NOW
    refuses: int = 0
    """Status of every answer of the token endpoint; 0: it works."""
    down: bool = False
    go: asyncio.Event | None = None
    """Until it is set the token endpoint does not answer; `reached` is set when it was asked."""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[httpx.Request] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    refreshed: int = 0
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)
    _refresh: str = ""
    _made: int = 0

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.answer)

    @property
    def addresses(self) -> list[str]:
        return [str(request.url) for request in self.asked]

    def authorize(self, address: str) -> dict[str, str]:
        """What a browser brings back from the EHR's sign-in."""
        asked = dict(parse_qsl(urlsplit(address).query))
        code = f"code-{len(self._codes) + 1}"
        self._codes[code] = asked
        return {"code": code, "state": asked["state"]}

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.down:
            return httpx.Response(503)
        path = request.url.path
        if path.endswith("/.well-known/smart-configuration"):
            found = self.configuration
            return httpx.Response(404) if found is None else httpx.Response(200, json=found)
        if path.endswith("/metadata"):
            return httpx.Response(200, json=self.statement)
        if path.endswith("/openid-configuration"):
            return httpx.Response(404) if self.openid is None else httpx.Response(200, json=self.openid)
        if path.endswith("/jwks"):
            return httpx.Response(200, json=self.keys)
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        if path.endswith("/revoke"):
            self.revoked.append(form["token"])
            return httpx.Response(200)
        return await self._tokens(form)

    async def _tokens(self, form: Mapping[str, str]) -> httpx.Response:
        """Use up what was shown, and only then wait: whoever does not hear the answer has lost it."""
        answer = self._answered(form)
        self.reached.set()
        if self.go is not None:
            await self.go.wait()
        return answer

    def _answered(self, form: Mapping[str, str]) -> httpx.Response:
        if self.refuses:
            return httpx.Response(self.refuses, json={"error": "invalid_grant"})
        if form["grant_type"] == "refresh_token":
            self.refreshed += 1
            if form["refresh_token"] != self._refresh:
                return httpx.Response(400, json={"error": "invalid_grant"})
            return httpx.Response(200, json=self._answer({}))
        asked = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        is_good = asked is not None and asked["code_challenge"] == challenge
        if asked is None or not is_good or asked["redirect_uri"] != form["redirect_uri"]:
            return httpx.Response(400, json={"error": "invalid_grant"})
        return httpx.Response(200, json=self._answer(asked))

    def _answer(self, asked: Mapping[str, str]) -> dict[str, Any]:
        self._made += 1
        self._refresh = f"refresh-{self._made}"
        claims = {
            "iss": LOGIN, "aud": CLIENT, "sub": "sub-7", "iat": self.now() - 10, "exp": self.now() + 300,
            "nonce": asked.get("nonce"), "fhirUser": f"{ISS}/Practitioner/roe", **self.claims,
        }  # fmt: skip
        answer = {
            "access_token": f"access-{self._made}", "token_type": "bearer", "expires_in": 300,
            "refresh_token": self._refresh, "scope": SCOPE, "patient": PATIENT, "encounter": "e-9",
            "id_token": self.sign(_without_none(claims)) if asked else None, "need_patient_banner": False,
            "smart_web_messaging_handle": "handle", "smart_web_messaging_origin": HOST, **self.said,
        }  # fmt: skip
        return _without_none(answer)


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


@dataclass
class Launching:
    """Everything that a launch needs, around one EHR (and others that are configured beside it)."""

    cipher: Cipher
    ehr: EhrDouble = field(default_factory=EhrDouble)
    config: Ehr = EHR
    client: Client = Client(CLIENT)  # noqa: RUF009 - frozen
    others: tuple[Ehr, ...] = ()
    store: InMemoryLaunches = field(default_factory=InMemoryLaunches)
    now: datetime = AT
    clock: Callable[[], datetime] | None = None
    """In place of `now`."""
    refused: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ehr.now = self.seconds
        self.launches = Launches(
            tuple(map(self.site, (self.config, *self.others))), self.store, self.cipher.keyed_hash,
            self.time, IDLE, LONGEST,
        )  # fmt: skip
        self.renewal = Renewal(
            self.launches, lambda reason, actor: self.refused.append((reason, actor)), self.rest
        )

    def site(self, ehr: Ehr) -> Site:
        server = SmartServer(
            ehr.iss, self.client, ehr.check_endpoint, ehr.allowed_origins, ehr.issuer,
            now=self.ehr.now, monotonic=lambda: 0.0, transport=self.ehr.transport,
        )  # fmt: skip
        return Site(ehr, server, KeyRing(server.fetch_keys, time.monotonic), roles_of(ehr))

    def time(self) -> datetime:
        return self.now if self.clock is None else self.clock()

    def seconds(self) -> float:
        return self.time().timestamp()

    async def rest(self, seconds: float) -> None:
        await asyncio.sleep(0)

    async def begin(self, launch: str = "xyz", browser: str = "") -> tuple[str, str]:
        """Return the browser's secret, and where it is sent."""
        begun = await self.launches.begin(ISS, launch, CALLBACK, browser)
        return begun.browser, begun.address

    async def opened(self, browser: str = "", **more: str) -> tuple[str, Launch]:
        """Go through a whole launch; return the browser's secret, and what it opened."""
        browser, address = await self.begin(browser=browser)
        launch = await self.launches.finish(browser, {**self.ehr.authorize(address), **more})
        return await self.launches.admit(browser, launch), launch
