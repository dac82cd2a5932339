"""The FHIR server, as whom we ask it, how we write to it, and who is told of our acts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from connectors.auth import Auth, BasicAuth, BearerAuth, NoAuth, SmartBackendAuth
from connectors.fhir.audit import AuditRepository
from connectors.fhir.client import FhirClient
from connectors.fhir.ehr import FhirEhr
from connectors.fhir.write_offer import read_offer
from connectors.keys import SigningKey
from connectors.limits import Limits
from connectors.origin import origin_of
from service.audit.balp import Scene
from service.audit.send import Courier, Sender, send_regularly
from service.errors import SettingsError
from service.filing.desk import Desk, Manner
from service.settings import FhirAuth, Settings
from service.store.outbox import SqlOutbox
from service.store.trail import SqlAuditLog
from service.wiring.installation import open_store, signer, software_version, utc_now
from service.writeback.profiles import choose_profile, profile_named


def fhir_limits(settings: Settings) -> Limits:
    """Return the limits of the FHIR connection."""
    return Limits(
        read_s=settings.fhir_timeout_s,
        total_s=5 * settings.fhir_timeout_s,
        concurrency=settings.fhir_concurrency,
        allow_plain_http=settings.fhir_allow_http,
    )


def fhir_client(settings: Settings, fhir_url: str | None = None) -> FhirClient:
    """Return a client of the configured FHIR server, or of the one named. Raises SettingsError."""
    url = fhir_url or settings.fhir_url
    if not url:
        raise SettingsError(
            "No FHIR server is configured.",
            "Give --fhir-url URL, or set EPICRISIS_FHIR_URL, for example https://ehr.hospital.example/fhir/R4",
        )
    if settings.fhir_auth is not FhirAuth.NONE and not _is_ours(settings, url):
        raise SettingsError(
            "The credentials are for the server that EPICRISIS_FHIR_URL names, and are not sent to another.",
            "Set EPICRISIS_FHIR_URL to the server that is meant, or EPICRISIS_FHIR_AUTH=none.",
        )
    return FhirClient(
        url,
        auth=_auth(settings, url),
        limits=fhir_limits(settings),
        allowed_origins=settings.fhir_allowed_origins,
    )


def reader_of(settings: Settings) -> tuple[str, str]:
    """Return the configured server's base URL, and as whom we read there. Raises SettingsError."""
    client = fhir_client(settings)
    return client.base_url, client.session.auth.profile


def _is_ours(settings: Settings, url: str) -> bool:
    """Tell whether a server is the configured one; where none is configured, whichever is named is."""
    return not settings.fhir_url or origin_of(url) == origin_of(settings.fhir_url)


def _auth(settings: Settings, url: str) -> Auth:
    match settings.fhir_auth:
        case FhirAuth.NONE:
            return NoAuth()
        case FhirAuth.BASIC:
            need(settings.fhir_user, "EPICRISIS_FHIR_USER")
            return BasicAuth(settings.fhir_user, settings.fhir_password.get_secret_value())
        case FhirAuth.BEARER:
            return BearerAuth(need(settings.fhir_token.get_secret_value(), "EPICRISIS_FHIR_TOKEN"))
        case FhirAuth.BACKEND:
            if settings.fhir_private_key is None:
                raise SettingsError("SMART Backend Services need a key.", "Set EPICRISIS_FHIR_PRIVATE_KEY.")
            return SmartBackendAuth(
                url,
                need(settings.fhir_client_id, "EPICRISIS_FHIR_CLIENT_ID"),
                SigningKey.from_file(settings.fhir_private_key),
                _scope(settings),
                allow_plain_http=settings.fhir_allow_http,
            )


def _scope(settings: Settings) -> str:
    """Return the scope to ask for; a server that has not granted one of them gives no token at all."""
    return (
        f"{settings.fhir_scope} system/AuditEvent.c"
        if settings.audit_events == "ehr"
        else settings.fhir_scope
    )


def need(value: str, name: str) -> str:
    """Return a setting's value. Raises SettingsError that names it where it is empty."""
    if not value:
        raise SettingsError(f"{name} is not set.", "The chosen EPICRISIS_FHIR_AUTH needs it.")
    return value


async def manner_of(settings: Settings, client: FhirClient) -> Manner:
    """Return how this site writes to this server. Raises SettingsError, and ConnectorError."""
    name = settings.write_profile
    if not name:
        offer = await read_offer(client)
        name = choose_profile(offer.software, offer.guides, offer.creates)
    profile = profile_named(name, risk_signed_by=settings.write_risk_signed_by)
    return Manner(software_version(), profile, settings.file_when, signer(settings).sign)


@asynccontextmanager
async def open_desk(settings: Settings, fhir_url: str | None = None) -> AsyncIterator[Desk]:
    """Plug in what filing needs, without an engine; close it when the block ends, well or badly."""
    async with AsyncExitStack() as stack:
        store, audit = open_store(settings)
        stack.callback(store.close)
        stack.callback(audit.close)
        client = fhir_client(settings, fhir_url)
        stack.push_async_callback(client.aclose)
        tell = await stack.enter_async_context(telling_collector(settings, client, audit))
        ehr = FhirEhr(client, now=utc_now)
        yield Desk(ehr, store, store, audit, utc_now, await manner_of(settings, client), tell)


@asynccontextmanager
async def audit_sender(
    settings: Settings, client: FhirClient, audit: SqlAuditLog
) -> AsyncIterator[Sender | None]:
    """Return what sends audit entries as FHIR AuditEvents; None where this site has none sent.

    `client` is of the FHIR server: it is used where that is the collector.
    """
    if settings.audit_events == "off":
        yield None
        return
    server: str | None = client.base_url
    async with AsyncExitStack() as stack:
        if settings.audit_events != "ehr":
            token = settings.audit_token.get_secret_value()
            client = FhirClient(
                settings.audit_events,
                auth=BearerAuth(token) if token else NoAuth(),
                limits=fhir_limits(settings),
            )
            stack.push_async_callback(client.aclose)
            server = None
        scene = Scene(socket.gethostname(), software_version())
        outbox = SqlOutbox(audit.database)
        yield Sender(outbox, AuditRepository(client), utc_now, scene, server)


@asynccontextmanager
async def telling_collector(
    settings: Settings, client: FhirClient, audit: SqlAuditLog
) -> AsyncIterator[Courier | None]:
    """Send what is due every minute, when the block ends, well or badly, and whenever it asks for that."""
    async with audit_sender(settings, client, audit) as sender:
        if sender is None:
            yield None
            return
        courier = Courier(sender)
        regularly = asyncio.create_task(send_regularly(courier))
        try:
            yield courier
        finally:
            regularly.cancel()
            await asyncio.wait((regularly,))
            await courier(last=True)


async def tell_collector(settings: Settings) -> None:
    """Send what is due in passing, where that goes without more than the settings say. Raises StoreError."""
    if settings.audit_events == "off" or not (settings.fhir_url or settings.audit_events != "ehr"):
        return
    store, audit = open_store(settings)
    try:
        async with (
            fhir_client(settings, settings.fhir_url or settings.audit_events) as client,
            telling_collector(settings, client, audit),
        ):
            pass
    finally:
        store.close()
        audit.close()
