"""The pages, and how visitors are known."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

from fastapi import FastAPI

from connectors.fhir.ehr import FhirEhr
from connectors.origin import check_base_url
from service.api.app import Room, create_app
from service.api.door import Book, LocalDoor, OidcDoor
from service.api.gate import Access, Refusals
from service.api.hooks import Hooks
from service.api.summaries import Reading, Summaries
from service.api.ward import Timed
from service.api.ward import Ward as ApiWard
from service.errors import SettingsError
from service.identity.keys import KeyRing
from service.identity.onetime import OneTimeToken
from service.identity.provider import Provider
from service.identity.sessions import Sessions
from service.identity.signin import SignIn
from service.identity.tokens import Expected
from service.identity.visitor import Register, parse_roles
from service.ports import AuditLog, StoredRun
from service.scheduler import hand_tick, next_tick
from service.settings import Settings
from service.staleness import Lookout, Staleness
from service.store.sessions import SqlSessions
from service.store.sweeps import SqlAdmissions
from service.wiring.album import open_pictures_room
from service.wiring.asking import open_said
from service.wiring.cds import open_cds
from service.wiring.ehr import fhir_client, reader_of
from service.wiring.installation import (
    database_of,
    open_store,
    open_vault,
    policy,
    signer,
    software_version,
    utc_now,
)
from service.wiring.launches import open_launches
from service.wiring.ondemand import Serving
from service.wiring.review import open_review
from service.wiring.rounds import hook, schedules
from service.wiring.sidebar import open_sidebar
from service.wiring.viewer import open_gallery, open_viewer


def build_app(
    settings: Settings,
    one_time: OneTimeToken | None = None,
    tell: Callable[[str], None] = lambda token: None,
) -> FastAPI:
    """Return the pages, on the configured store. Raises SettingsError.

    Without an identity provider `one_time` opens them to one user; `tell` is given each token that follows.
    """
    store, audit = open_store(settings)
    vault = open_vault(settings)

    async def ask(run: StoredRun, actor: str) -> Staleness:
        client = fhir_client(settings, settings.fhir_url or run.inputs.server)
        try:
            lookout = Lookout(FhirEhr(client, now=utc_now), audit, utc_now, policy(settings), vault)
            return await lookout.ask(run, actor)
        finally:
            await client.aclose()

    admissions = SqlAdmissions(*database_of(settings), utc_now)
    wanted = hook(settings)
    if wanted is not None:
        admissions.nudge()  # what was told while nobody listened is found by a look
    rooms: list[Room] = []
    if wanted is not None:
        rooms.append(Hooks(wanted, admissions.nudge, utc_now, settings.fhir_url))
    launching = open_launches(settings, audit)
    if launching is not None:
        rooms.append(launching.door)
    cds = open_cds(settings, store, admissions, audit, _server(settings))
    if cds is not None:
        rooms.append(cds)
    serving = Serving(settings, store, audit, vault)
    if settings.fhir_url:
        rooms.append(_summaries(settings, serving, audit))
    said = open_said(settings, store, audit, serving, launching)
    if said.room is not None:
        rooms.append(said.room)
    sidebar, seen = None, None
    if launching is not None:
        sidebar = open_sidebar(settings, store, audit, serving, launching, said, ask)
        rooms.append(sidebar)
        seen = sidebar.why_not_whole
    console = open_review(settings, store, audit, said.feedback, admissions, seen)
    if sidebar is not None:
        sidebar.attesting = console.attesting
    rooms.extend(console.rooms)
    pictures, close_pictures = open_pictures_room(settings, store, audit, vault)
    rooms.append(pictures)
    gallery = open_gallery(settings)
    rooms.append(open_viewer(settings, gallery, store, audit, launching))
    return create_app(
        store=store,
        audit=audit,
        clock=utc_now,
        access=_access(settings, audit, one_time or OneTimeToken(), tell),
        allowed_hosts=settings.allowed_hosts,
        version=software_version(),
        ask=ask,
        jwks=signer(settings).jwks(),
        ward=ApiWard(
            admissions, _server(settings), store.names, partial(_timed, settings), hand_tick,
            utc_now, software_version(), audit,
        ),
        rooms=rooms,
        launched=launching.door if launching is not None else None,
        closing=(
            serving.aclose, gallery.aclose, *said.closing, *console.closing, close_pictures,
            *((launching.charts.lines.aclose,) if launching is not None else ()),
        ),
        feedback=said.feedback,
        feedbacks=said.feedbacks,
        guard=console.guard,
        attesting=console.attesting,
    )  # fmt: skip


def _summaries(settings: Settings, serving: Serving, audit: AuditLog) -> Summaries:
    """Return the API by which programs ask for summaries, read with our own connection."""
    reading = Reading(*reader_of(settings), serving.system_opener, serving.kinds)
    return Summaries(serving.on_demand, serving.generations, audit, utc_now, reading, software_version())


def _access(
    settings: Settings, audit: AuditLog, one_time: OneTimeToken, tell: Callable[[str], None]
) -> Access:
    """Return how visitors are known: by the configured provider, or as the one user of this machine."""
    url, cipher = database_of(settings)
    sessions = Sessions(
        SqlSessions(url, cipher), utc_now, timedelta(seconds=settings.session_idle_s),
        timedelta(seconds=settings.session_max_s), settings.oidc_issuer,
    )  # fmt: skip
    book = Book(sessions, audit, utc_now, Refusals(audit, utc_now))
    if not settings.oidc_issuer:
        return LocalDoor(book, one_time, tell)
    client_id = settings.oidc_client_id
    if not client_id or not settings.oidc_roles:
        raise SettingsError(
            "An identity provider is set, but not who we are to it, or who may do what.",
            "Set EPICRISIS_OIDC_CLIENT_ID and EPICRISIS_OIDC_ROLES too.",
        )
    provider = Provider(settings.oidc_issuer, client_id, settings.oidc_client_secret.get_secret_value())

    def expected(audience: str) -> Expected:
        return Expected(settings.oidc_issuer, audience, settings.oidc_tenant_claim, settings.oidc_tenant)

    return OidcDoor(
        book,
        SignIn(provider, KeyRing(provider.fetch_keys, time.monotonic), expected(client_id), cipher),
        Register(
            settings.oidc_issuer, settings.oidc_roles_claim, parse_roles(settings.oidc_roles),
            cipher.keyed_hash, settings.fhir_url,
        ),
        expected(settings.oidc_audience) if settings.oidc_audience else None,
    )  # fmt: skip


def tls_files(settings: Settings) -> tuple[Path, Path] | None:
    """Return the files of certificate and key, or None. Raises SettingsError where they cannot be used."""
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None and key is None:
        return None
    try:
        if cert is None or key is None:
            raise ValueError
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        raise SettingsError(
            "The certificate and its key cannot be used.",
            "Set EPICRISIS_TLS_CERT and EPICRISIS_TLS_KEY to PEM files that belong together.",
        ) from None
    return cert, key


def _server(settings: Settings) -> str:
    """Return the FHIR server's address as admissions are kept under it; empty where none is set."""
    url = settings.fhir_url
    return check_base_url(url, allow_plain_http=settings.fhir_allow_http) if url else ""


def _timed(settings: Settings) -> list[Timed]:
    return [
        Timed(one.name, one.cron, one.zone.key, next_tick(one, utc_now()))
        for one in schedules(settings).values()
    ]
