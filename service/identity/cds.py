"""Who calls a CDS service: the EHR's own JSON Web Token, checked (CDS Hooks 2.0, Trusting CDS Clients).

An EHR is known by the pair of `iss` and `jku` that a person has configured. Keys are fetched from that
address alone; what a token's header offers besides is a reason to refuse it. A token opens one call.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import msgspec

from connectors.errors import ConnectorError, NotUnderstoodError
from connectors.http import Session
from connectors.limits import MIB, Limits
from connectors.origin import origin_of, refuse_plain_http
from service.errors import SettingsError
from service.identity.keys import KeyRing, read_keys
from service.identity.refusal import Reason, Refused
from service.identity.tokens import SKEW_S, audiences, read_claims, read_header, seconds
from service.identity.visitor import split_fhir_user
from service.ports import Clock
from service.ports.hooks import HookStore

ALGORITHMS: Final = frozenset({"ES384", "RS384"})
"""What CDS Hooks recommends. All else is refused: `none`, shared secrets, and the shorter digests."""
LIFE_S: Final = 3_600
"""A token counts no longer than this after it was issued, whatever it says: used ones are kept as long."""
MOST_ID: Final = 255
LIMITS: Final = Limits(connect_s=2, read_s=3, total_s=4, retries=0)
"""A clinician waits; an EHR whose keys cannot be had is refused, and calls again."""
MAX_BYTES: Final = MIB
_FOREIGN_KEYS: Final = ("jwk", "x5u", "x5c")


@dataclass(frozen=True, slots=True)
class Caller:
    """One EHR that may call, as it is configured."""

    ehr: str
    """Its name in the configuration."""
    server: str
    """Base URL of its FHIR server, without a trailing slash: patients and tokens are of this one."""
    iss: str
    jku: str
    tenant: str = ""
    """Which of several hospitals of one issuer; empty: the issuer has one."""
    client_id: str = ""
    """What we are registered as at its authorization server (`fhirAuthorization.subject`)."""
    origins: tuple[str, ...] = ()
    """Origins of its pages: a browser there may call (CORS)."""
    allow_plain_http: bool = False
    """For tests on one machine."""

    @property
    def actor(self) -> str:
        """As audit entries name it."""
        return f"service:{self.iss}"


@dataclass
class Callers:
    """Checks tokens of calls. Keys of one address are fetched once for all who share it.

    `turn` is whose turn it is to write: SQLite lets one write, and makes those wait longest who came first.
    """

    known: Sequence[Caller]
    store: HookStore
    clock: Clock
    monotonic: Callable[[], float]
    transport: httpx.AsyncBaseTransport | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._rings: dict[str, KeyRing] = {}
        for caller in self.known:
            _check_address(caller)
            fetch = _fetcher(caller, self.transport)
            self._rings.setdefault(caller.jku, KeyRing(fetch, self.monotonic))

    async def check(self, token: str, addresses: Sequence[str]) -> Caller:
        """Return who calls; the token must be for one of these addresses of ours. It is then used.

        Raises Refused, StoreError, and ConnectorError where the EHR's keys cannot be had.
        """
        header = read_header(token)
        algorithm, kid = _signed_by(header)
        candidates = self._candidates(_unchecked_issuer(token), header.get("jku"))
        ring = self._rings[candidates[0].jku]
        claims = read_claims(token, await ring.find(algorithm, kid), algorithm)
        caller = _of_tenant(candidates, claims.get("tenant"))
        if not set(addresses) & set(audiences(claims)):
            raise Refused(Reason.AUDIENCE)
        now = self.clock()
        until = _until(claims, now.timestamp())
        used, end = f"{caller.iss}\0{_id_of(claims)}", datetime.fromtimestamp(until, UTC)
        async with self.turn:
            if not await asyncio.to_thread(self.store.use, used, now, end):
                raise Refused(Reason.REPLAYED)
        return caller

    def _candidates(self, issuer: str, jku: Any) -> Sequence[Caller]:
        """Return whom an issuer may stand for, all with the same keys."""
        found = [caller for caller in self.known if caller.iss == issuer]
        if not found:
            raise Refused(Reason.ISSUER)
        if jku is not None:
            found = [caller for caller in found if caller.jku == jku]
        if len({caller.jku for caller in found}) != 1:
            raise Refused(Reason.KEY_OFFERED)
        return found


def staff_of(user_id: str) -> str:
    """Return `Practitioner/7` of the `userId` that an EHR claims; empty for a patient, or what is nobody."""
    base, reference = split_fhir_user(user_id)
    is_staff = not base and reference.startswith(("Practitioner/", "PractitionerRole/"))
    return reference if is_staff else ""


async def count_keys(caller: Caller) -> int:
    """Return how many keys of an EHR could check a call of it now. Raises ConnectorError."""
    return sum(key.kind in ("RSA", "P-384") for key in read_keys(await _fetcher(caller, None)()))


def _signed_by(header: Mapping[str, Any]) -> tuple[str, str]:
    """Return algorithm and key id of a header; both are required (RFC 7515 4.1)."""
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise Refused(Reason.ALGORITHM)
    if any(name in header for name in _FOREIGN_KEYS):
        raise Refused(Reason.KEY_OFFERED)
    if "crit" in header or "b64" in header or not isinstance(kid, str) or not kid:
        raise Refused(Reason.MALFORMED)
    if not isinstance(kind, str) or kind.lower() != "jwt":
        raise Refused(Reason.KIND)
    return algorithm, kid


def _unchecked_issuer(token: str) -> str:
    """Return whom a token says it is from: enough to choose the keys that it must be signed with."""
    issuer = _payload(token).get("iss")
    if not isinstance(issuer, str) or not issuer:
        raise Refused(Reason.ISSUER)
    return issuer


def _payload(token: str) -> Mapping[str, Any]:
    part = token.split(".")[1]
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Refused(Reason.MALFORMED) from None
    if not isinstance(claims, dict):
        raise Refused(Reason.MALFORMED)
    return claims


def _of_tenant(candidates: Sequence[Caller], tenant: Any) -> Caller:
    """Return the one hospital that is meant; where one is configured, the token must name it."""
    if tenant is not None and not isinstance(tenant, str):
        raise Refused(Reason.TENANT)
    found = [caller for caller in candidates if caller.tenant == tenant] if tenant else []
    found = found or [caller for caller in candidates if not caller.tenant]
    if len(found) != 1:
        raise Refused(Reason.TENANT)
    return found[0]


def _until(claims: Mapping[str, Any], now: float) -> float:
    """Return until when a token could be shown again. Raises Refused for one that does not hold now."""
    expires, issued, begins = (seconds(claims, name) for name in ("exp", "iat", "nbf"))
    if issued is None or max(issued, begins or issued) > now + SKEW_S:
        raise Refused(Reason.NOT_YET)
    if expires is None or now >= (until := min(expires, issued + LIFE_S) + SKEW_S):
        raise Refused(Reason.EXPIRED)
    return until


def _id_of(claims: Mapping[str, Any]) -> str:
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= MOST_ID:
        raise Refused(Reason.NO_ID)
    return jti


def _check_address(caller: Caller) -> None:
    """Refuse a configured address that no key can be fetched from. Raises SettingsError."""
    try:
        refuse_plain_http(origin_of(caller.jku), allow_plain_http=caller.allow_plain_http)
    except ConnectorError as error:
        raise SettingsError(
            f"The keys of the EHR {caller.ehr} cannot be fetched from its jku ({error.code}).",
            "Give an https address in [[ehr.cds]].",
        ) from None


def _fetcher(caller: Caller, transport: httpx.AsyncBaseTransport | None) -> Callable[[], Awaitable[Any]]:
    """Return what fetches an EHR's keys, from its configured address alone."""

    async def fetch() -> Any:
        limits = replace(LIMITS, allow_plain_http=caller.allow_plain_http)
        session = Session(origin_of(caller.jku), limits=limits, transport=transport)
        try:
            answer = await session.send(
                "GET",
                caller.jku,
                repeatable=True,
                headers={"Accept": "application/json"},
                max_bytes=MAX_BYTES,
            )
        finally:
            await session.aclose()
        try:
            return msgspec.json.decode(answer.body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise NotUnderstoodError(f"The keys at {origin_of(caller.jku)} are not JSON.") from None

    return fetch
