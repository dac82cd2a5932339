"""Launches from an EHR: who came from where, for which patient, and with whose right to read."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from connectors.fhir.client import FhirClient
from service.ports.held import Closes


@dataclass(frozen=True, slots=True)
class Tokens:
    """A user's tokens at one EHR. They never show."""

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    """Empty where the server gave none: the launch then ends with the access token."""
    expires_at: datetime
    renew_at: datetime | None = None
    """When it should be renewed; None: a minute before it ends."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One user's look at one patient, opened by an EHR. It stays on its patient until it ends."""

    visit: str
    """Random; stands in URLs and is no secret: it opens nothing without the browser's cookie."""
    ehr: str
    """The EHR's name in the configuration."""
    server: str
    """FHIR base URL (the launch's `iss`), without a trailing slash."""
    patient: str = field(repr=False)
    """`Patient/1`"""
    encounter: str = field(repr=False)
    """`Encounter/9` or empty."""
    actor: str
    """`user:<hash>`"""
    fhir_user: str = field(repr=False)
    """`Practitioner/7` on this server, or empty."""
    scope: str
    """As granted, which may be less than was asked for."""
    access_profile: str
    """`user:<hash>` of actor, client, server and granted scope: equal where the same may be read."""
    needs_banner: bool
    """Whether the page must say whose chart it is."""
    context: Mapping[str, str] = field(repr=False)
    """What a CDS card passed on (`appContext`). Anybody may have written it."""
    messaging: tuple[str, str] = field(repr=False)
    """Handle and origin of SMART Web Messaging, or two empty texts."""
    tokens: Tokens = field(repr=False)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A launch that is under way: what the answer of the authorization server is held against."""

    ehr: str
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    redirect_uri: str
    scope: str
    """As asked for."""
    began_at: datetime


@dataclass(frozen=True, slots=True)
class Seen:
    """A launch as one browser sees it."""

    launch: Launch
    is_mine: bool
    """Whether it is this browser's."""
    used_at: datetime


class LaunchStore(Protocol):
    """Launches by visit and by browser. Every method raises StoreError.

    `browser` is the secret in a browser's cookie: only its keyed hash is stored. The rest lies sealed, under
    the patient's key where it is about one.
    """

    def put_attempt(self, state: str, browser: str, attempt: Attempt) -> None:
        """Keep what an answer will be held against; what began ten minutes ago is forgotten."""
        ...

    def take_attempt(self, state: str, browser: str) -> Attempt | None:
        """Return an attempt of this browser, once. Whoever asks for it a second time gets None."""
        ...

    def put_launch(self, browser: str, launch: Launch, at: datetime) -> None:
        """Keep a new launch. Raises ShreddedError where what was stored about the patient was destroyed."""
        ...

    def get_launch(self, visit: str, *, began_after: datetime, used_after: datetime) -> Launch | None:
        """Return a launch that is not over by its age or by disuse, whoever's it is; or None."""
        ...

    def look_at(
        self, visit: str, browser: str, *, began_after: datetime, used_after: datetime
    ) -> Seen | None:
        """Return the same, as a browser sees it: each request asks for this."""
        ...

    def visits_of(self, browser: str) -> tuple[str, ...]:
        """Return the launches of a browser, the newest first."""
        ...

    def use_launch(self, visit: str, at: datetime) -> None:
        """Note that it is in use; where it has ended, nothing happens."""
        ...

    def renew_launch(self, visit: str, tokens: Tokens, scope: str, access_profile: str) -> bool:
        """Keep new tokens, and what they may do; False where the launch has ended."""
        ...

    def end_launch(self, visit: str) -> None:
        """Delete it; where there is none, nothing happens."""
        ...

    def forget_launches(self, began_before: datetime, used_before: datetime) -> int:
        """Delete those that began, or were last used, before then; return how many."""
        ...

    def hold(self, visit: str) -> Closes | None:
        """Return the right to renew a launch's tokens until it is closed, or None where another has it."""
        ...


class Charts(Protocol):
    """Opens the record as the user of a launch."""

    def open(self, launch: Launch) -> AbstractAsyncContextManager[FhirClient]:
        """Return a client with this user's token, renewed as it is needed. It asks allowed origins alone."""
        ...
