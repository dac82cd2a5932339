"""A launch from an EHR (SMART App Launch 2.2): begun, finished by its authorization server's answer, ended.

Only configured EHRs launch us. What belongs to an attempt lies sealed on the server, good once and for the
browser that began it. Who the user is comes from a validated ID token alone; a patient is not let in.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlencode

from connectors.auth import EARLY_S
from connectors.errors import BadUrl, ConnectorError, TokenRefused
from connectors.origin import origin_of
from connectors.smart.answer import TokenAnswer
from connectors.smart.scopes import scopes_to_ask
from connectors.smart.server import SmartServer
from service.ehrs import Ehr, canonical, is_same_server
from service.errors import SettingsError
from service.identity.keys import KeyRing
from service.identity.refusal import Reason, Refused
from service.identity.tokens import Expected, read_id_token
from service.identity.visitor import NAME_LENGTH, OUTSIDERS, STAFF, Role, Visitor, split_fhir_user
from service.ports import Clock
from service.ports.launches import Attempt, Launch, LaunchStore, Tokens

ATTEMPT_LASTS: Final = timedelta(minutes=10)
"""How long somebody may take to sign in at the EHR."""
NOTED_AFTER: Final = timedelta(minutes=1)
"""A use is written down once in this time: a page has many parts, each a request."""
_OPAQUE = re.compile(r"[\x20-\x7e]{1,4096}")
_VISIT = re.compile(r"[A-Za-z0-9_-]{22}")
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Site:
    """One EHR with its authorization server, its keys, and what its users are here."""

    ehr: Ehr
    server: SmartServer
    keys: KeyRing
    roles: frozenset[Role]


def roles_of(ehr: Ehr) -> frozenset[Role]:
    """Return what an EHR's users are here. Raises SettingsError for a role that does not exist."""
    try:
        return frozenset(Role(role) for role in ehr.roles)
    except ValueError:
        raise SettingsError(
            f"EPICRISIS_EHRS: roles (ehr {ehr.name}) names a role that does not exist.",
            f"There are: {', '.join(Role)}.",
        ) from None


@dataclass(frozen=True, slots=True)
class Begun:
    """Where the browser goes, and the secret that it keeps."""

    address: str
    browser: str = field(repr=False)
    ehr: Ehr


@dataclass(frozen=True, slots=True)
class Launches:
    """The launches of one installation. `keyed_hash` hashes (purpose, value)."""

    sites: tuple[Site, ...]
    store: LaunchStore
    keyed_hash: Callable[[str, str], str]
    clock: Clock
    idle: timedelta
    longest: timedelta

    def site_of(self, iss: str) -> Site:
        """Return the EHR that launches us. Raises Refused for any that is not configured."""
        try:
            wanted = canonical(iss)
        except BadUrl:
            raise Refused(Reason.ISSUER) from None
        for site in self.sites:
            if canonical(site.ehr.iss) == wanted:
                return site
        raise Refused(Reason.ISSUER)

    def named(self, name: str) -> Site | None:
        """Return a configured EHR by its name."""
        return next((site for site in self.sites if site.ehr.name == name), None)

    async def begin(self, iss: str, launch: str, redirect_uri: str, browser: str = "") -> Begun:
        """Begin a launch; without a `launch` the user chooses the patient at the EHR.

        Raises Refused, StoreError, and ConnectorError where the EHR does not say where one signs in.
        """
        site = self.site_of(iss)
        if launch and not _OPAQUE.fullmatch(launch):
            raise Refused(Reason.MALFORMED)
        offer = await site.server.offer()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        browser = browser if _SECRET.fullmatch(browser) else secrets.token_urlsafe(32)
        scope = scopes_to_ask(site.ehr.scope, has_v2=offer.has_v2, is_launched=bool(launch))
        attempt = Attempt(site.ehr.name, nonce, verifier, redirect_uri, scope, self.clock())
        await asyncio.to_thread(self.store.put_attempt, state, browser, attempt)
        asked = {
            "response_type": "code",
            "client_id": site.ehr.client_id,
            "redirect_uri": redirect_uri,
            "scope": scope,
            "state": state,
            "nonce": nonce,
            "aud": iss,
            "code_challenge": _challenge(verifier),
            "code_challenge_method": "S256",
        }
        asked |= {"launch": launch} if launch else {}
        joint = "&" if "?" in offer.authorization else "?"
        return Begun(f"{offer.authorization}{joint}{urlencode(asked)}", browser, site.ehr)

    async def finish(self, browser: str, said: Mapping[str, str]) -> Launch:
        """Return the launch that an authorization server's answer (its query) opens; it is not stored yet.

        Raises Refused, StoreError and ConnectorError.
        """
        attempt = await self._attempt(browser, said.get("state", ""))
        site = self.named(attempt.ehr)
        if site is None:
            raise Refused(Reason.STATE)
        await _check_sender(site, said.get("iss"))
        code = said.get("code", "")
        if "error" in said or not _OPAQUE.fullmatch(code):
            raise Refused(Reason.DECLINED)
        try:
            answer = await site.server.exchange(code, attempt.verifier, attempt.redirect_uri)
        except TokenRefused:
            raise Refused(Reason.CODE) from None
        try:
            return await self._opened(site, attempt, answer)
        except (Refused, ConnectorError):
            await let_go(site, answer.access, answer.refresh)
            raise

    async def admit(self, browser: str, launch: Launch) -> str:
        """Keep a launch, and return the secret that its browser has from now on. Raises StoreError.

        Where somebody else came by the same EHR before, in this browser, all that was theirs ends.
        """
        now = self.clock()
        others = await self._all_of(browser)
        if any(one.ehr == launch.ehr and one.actor != launch.actor for one in others):
            await self._end(others)
            browser = secrets.token_urlsafe(32)
        await asyncio.to_thread(self.store.forget_launches, now - self.longest, now - self.idle)
        await asyncio.to_thread(self.store.put_launch, browser, launch, now)
        return browser

    async def find(self, browser: str, visit: str = "") -> Launch | None:
        """Return a launch of this browser, without a visit its newest; None where there is none (any more).

        Raises Refused for the launch of another browser, and StoreError.
        """
        if not _SECRET.fullmatch(browser) or (visit and not _VISIT.fullmatch(visit)):
            return None
        return await asyncio.to_thread(self._found, browser, visit)

    async def current(self, visit: str) -> Launch | None:
        """Return a launch as it stands now, or None where it has ended. Raises StoreError."""
        return await asyncio.to_thread(self._standing, visit)

    def visitor_of(self, launch: Launch) -> Visitor:
        """Return who came by a launch."""
        site = self.named(launch.ehr)
        return Visitor(launch.actor, site.roles if site is not None else frozenset(), launch.fhir_user)

    async def end(self, browser: str) -> None:
        """End every launch of a browser, and take its tokens back where that can be. Raises StoreError."""
        await self._end(await self._all_of(browser))

    async def give_back(self, launch: Launch) -> None:
        """Take a launch's tokens back at its EHR, as far as that can be."""
        site = self.named(launch.ehr)
        if site is not None:
            await let_go(site, launch.tokens.access, launch.tokens.refresh)

    def profile_of(self, actor: str, ehr: Ehr, scope: str) -> str:
        """Return the access profile of a user who was granted a scope through us."""
        said = "\0".join((actor, ehr.client_id, canonical(ehr.iss), " ".join(sorted(set(scope.split())))))
        return f"user:{self.keyed_hash('access', said)[:NAME_LENGTH]}"

    def tokens_of(self, answer: TokenAnswer, refresh: str = "") -> Tokens:
        """Return an answer's tokens; where it brings no refresh token, the one before stays good."""
        now, life_s = self.clock(), answer.life_s
        early_s = min(EARLY_S, life_s / 4)
        return Tokens(
            answer.access,
            answer.refresh or refresh,
            now + timedelta(seconds=life_s),
            now + timedelta(seconds=life_s - early_s),
        )

    async def _attempt(self, browser: str, state: str) -> Attempt:
        attempt = None
        if _SECRET.fullmatch(browser) and _SECRET.fullmatch(state):
            attempt = await asyncio.to_thread(self.store.take_attempt, state, browser)
        if attempt is None or not timedelta(0) <= self.clock() - attempt.began_at <= ATTEMPT_LASTS:
            raise Refused(Reason.STATE)
        return attempt

    async def _opened(self, site: Site, attempt: Attempt, answer: TokenAnswer) -> Launch:
        """Return the launch that tokens open. Raises Refused and ConnectorError."""
        expected = Expected(await site.server.issuer(), site.ehr.client_id)
        if not answer.id_token:
            raise Refused(Reason.SUBJECT)
        now = self.clock().timestamp()
        claims = await read_id_token(answer.id_token, site.keys, expected, attempt.nonce, now)
        subject = f"{expected.issuer}\0{_subject(claims)}"
        actor = f"user:{self.keyed_hash('subject', subject)[:NAME_LENGTH]}"
        fhir_user = _staff(claims.get("fhirUser"), site.ehr)
        if not answer.patient:
            raise Refused(Reason.NO_PATIENT)
        scope = attempt.scope if answer.scope is None else answer.scope
        return Launch(
            visit=secrets.token_urlsafe(16),
            ehr=site.ehr.name,
            server=site.ehr.iss,
            patient=answer.patient,
            encounter=answer.encounter,
            actor=actor,
            fhir_user=fhir_user,
            scope=scope,
            access_profile=self.profile_of(actor, site.ehr, scope),
            needs_banner=answer.needs_banner,
            context=answer.context,
            messaging=_trusted(answer.messaging, site.ehr),
            tokens=self.tokens_of(answer),
        )

    def _found(self, browser: str, visit: str) -> Launch | None:
        now = self.clock()
        for one in (visit,) if visit else self.store.visits_of(browser):
            seen = self.store.look_at(
                one, browser, began_after=now - self.longest, used_after=now - self.idle
            )
            if seen is None or not self._is_configured(seen.launch):
                continue
            if not seen.is_mine:
                raise Refused(Reason.BROWSER)
            if now - seen.used_at >= NOTED_AFTER:
                self.store.use_launch(one, now)
            return seen.launch
        return None

    def _standing(self, visit: str) -> Launch | None:
        """Return a launch that is not over, of an EHR that is still configured."""
        now = self.clock()
        launch = self.store.get_launch(visit, began_after=now - self.longest, used_after=now - self.idle)
        return launch if launch is not None and self._is_configured(launch) else None

    def _is_configured(self, launch: Launch) -> bool:
        site = self.named(launch.ehr)
        return site is not None and launch.server == site.ehr.iss

    async def _all_of(self, browser: str) -> list[Launch]:
        if not _SECRET.fullmatch(browser):
            return []

        def read() -> list[Launch]:
            found = (self._whole(visit) for visit in self.store.visits_of(browser))
            return [one for one in found if one is not None]

        return await asyncio.to_thread(read)

    def _whole(self, visit: str) -> Launch | None:
        """Return a launch whatever its age: who leaves wants its tokens taken back, too."""
        longest = self.clock() - timedelta(days=366)
        return self.store.get_launch(visit, began_after=longest, used_after=longest)

    async def _end(self, launches: list[Launch]) -> None:
        for one in launches:
            await asyncio.to_thread(self.store.end_launch, one.visit)
        await asyncio.gather(*map(self.give_back, launches))


async def let_go(site: Site, access: str, refresh: str) -> None:
    """Take tokens back at the EHR (RFC 7009), as far as it lets us; they are forgotten here either way."""
    for token, kind in ((refresh, "refresh_token"), (access, "access_token")):
        if token:
            with suppress(ConnectorError):
                await site.server.revoke(token, kind)


async def _check_sender(site: Site, iss: str | None) -> None:
    """Refuse an answer of another authorization server than the one that was asked (RFC 9207)."""
    offer = await site.server.offer()
    if (iss is None and offer.names_itself) or (iss is not None and iss != await site.server.issuer()):
        raise Refused(Reason.ISSUER)


def _subject(claims: Mapping[str, Any]) -> str:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise Refused(Reason.SUBJECT)
    return subject


def _staff(claim: Any, ehr: Ehr) -> str:
    """Return the reference of a member of staff, empty where it is of another server than the chart.

    Raises Refused for a patient or relative, and where nothing says that it is a member of staff: patients
    have accounts at the same authorization servers.
    """
    base, reference = split_fhir_user(claim)
    kind = reference.partition("/")[0]
    if kind in OUTSIDERS:
        raise Refused(Reason.PATIENT)
    if kind not in STAFF:
        raise Refused(Reason.ROLE)
    return reference if not base or is_same_server(base, ehr.iss) else ""


def _trusted(messaging: tuple[str, str], ehr: Ehr) -> tuple[str, str]:
    """Return where SMART Web Messaging goes, where that is one of the pages that may frame us."""
    if not messaging[1] or origin_of(messaging[1]) not in map(origin_of, ehr.frame_ancestors):
        return "", ""
    return messaging


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
