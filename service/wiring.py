"""Wiring: the only place that knows which edges are in use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

from fastapi import FastAPI

from connectors.auth import Auth, BasicAuth, BearerAuth, NoAuth, SmartBackendAuth
from connectors.fhir.client import FhirClient
from connectors.fhir.ehr import FhirEhr
from connectors.fhir.write_offer import read_offer
from connectors.keys import SigningKey
from connectors.limits import Limits
from service.api.app import LOCAL_USER, create_app
from service.context.templates import open_library
from service.engine.local import LocalEngine
from service.engine.openai import OpenAIEngine
from service.engine.profiles import profile_for
from service.engine.prompt import Engine, Profile
from service.engine.scripted import ScriptedEngine
from service.engine.weights import DEMONSTRATION_MODEL, prepare_demonstration_model, resolve_model
from service.entailment import SecondPass
from service.errors import SettingsError
from service.filing.desk import Desk, Manner
from service.ports import KEPT_AREAS, StoredRun
from service.record.assemble import Policy
from service.settings import FhirAuth, Settings
from service.signing import KEY_FILE, Signer
from service.staleness import Lookout, Staleness
from service.store.cipher import Cipher
from service.store.database import open_cipher
from service.store.sql import SqlAuditLog, SqlStore
from service.store.vault import SqlVault
from service.summarize import Progress, Summarizer
from service.writeback.profiles import choose_profile, profile_named


class ClosingEngine(Engine, Protocol):
    """An Engine that holds something open: a connection, or a server process."""

    async def aclose(self) -> None:
        """Close it."""
        ...


def utc_now() -> datetime:
    """The clock of production."""
    return datetime.now(UTC)


def software_version() -> str:
    """Return the version of this installation."""
    try:
        return version("epicrisis")
    except PackageNotFoundError:  # run from a folder that nobody installed
        return "0+unknown"


def open_store(settings: Settings) -> tuple[SqlStore, SqlAuditLog]:
    """Open the database, migrated, and the audit log in it. Raises StoreError."""
    url, cipher = _database(settings)
    return SqlStore(url, cipher), SqlAuditLog(url, cipher)


def open_vault(settings: Settings) -> SqlVault | None:
    """Open what is kept of charts between runs, without what is too old; None where nothing is to be kept.

    Raises StoreError.
    """
    url, cipher = _database(settings)
    vault = SqlVault(url, cipher, utc_now)
    try:
        for area in KEPT_AREAS:
            vault.prune(area, utc_now() - timedelta(days=settings.snapshot_days))
    except BaseException:
        vault.close()
        raise
    if settings.snapshot_days:
        return vault
    vault.close()
    return None


def _database(settings: Settings) -> tuple[str, Cipher]:
    url = settings.database_url or f"sqlite:///{(settings.home / 'epicrisis.db').resolve()}"
    return url, open_cipher(settings.key_file or settings.home / "key", url)


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
    return FhirClient(
        url,
        auth=_auth(settings, url),
        limits=fhir_limits(settings),
        allowed_origins=settings.fhir_allowed_origins,
    )


def _auth(settings: Settings, url: str) -> Auth:
    match settings.fhir_auth:
        case FhirAuth.NONE:
            return NoAuth()
        case FhirAuth.BASIC:
            _need(settings.fhir_user, "EPICRISIS_FHIR_USER")
            return BasicAuth(settings.fhir_user, settings.fhir_password.get_secret_value())
        case FhirAuth.BEARER:
            return BearerAuth(_need(settings.fhir_token.get_secret_value(), "EPICRISIS_FHIR_TOKEN"))
        case FhirAuth.BACKEND:
            if settings.fhir_private_key is None:
                raise SettingsError("SMART Backend Services need a key.", "Set EPICRISIS_FHIR_PRIVATE_KEY.")
            return SmartBackendAuth(
                url,
                _need(settings.fhir_client_id, "EPICRISIS_FHIR_CLIENT_ID"),
                SigningKey.from_file(settings.fhir_private_key),
                settings.fhir_scope,
                allow_plain_http=settings.fhir_allow_http,
            )


def _need(value: str, name: str) -> str:
    if not value:
        raise SettingsError(f"{name} is not set.", "The chosen EPICRISIS_FHIR_AUTH needs it.")
    return value


def model_folder(settings: Settings, say: Callable[[str], None] = lambda text: None) -> Path:
    """Return the folder of the weights that a local engine serves, the demonstration's if none is set."""
    if settings.model:
        return resolve_model(settings.model)
    return prepare_demonstration_model(settings.home / "models" / DEMONSTRATION_MODEL, say)


def build_engine(settings: Settings, tell: Progress) -> ClosingEngine:
    """Return the configured engine: scripted, a remote vLLM, or our own. Nothing is started yet."""
    if settings.engine == "scripted":
        return ScriptedEngine()
    if settings.engine_url:
        model = _need(settings.model, "EPICRISIS_MODEL")
        return OpenAIEngine(
            settings.engine_url,
            model,
            api_key=settings.engine_api_key.get_secret_value(),
            profile=_profile(settings, model),
            digest=settings.model_digest,
        )
    say = partial(tell, "engine")
    folder = model_folder(settings, say)
    return LocalEngine(
        folder,
        state_dir=settings.home / "engine",
        profile=profile_for(settings.model or DEMONSTRATION_MODEL, settings.profile or None),
        on_progress=say,
        base_environment=settings.engine_environment(),
    )


def _profile(settings: Settings, model: str) -> Profile:
    """Return the profile of a remote engine's model, its tokenizer on this machine where there is one."""
    profile = profile_for(model, settings.profile or None)
    return replace(profile, tokenizer=str(settings.tokenizer)) if settings.tokenizer else profile


@asynccontextmanager
async def open_summarizer(
    settings: Settings, fhir_url: str | None, tell: Progress
) -> AsyncIterator[Summarizer]:
    """Plug everything in; close everything when the block ends, well or badly."""
    library = open_library(settings.prompts)
    async with AsyncExitStack() as stack:
        store, audit = open_store(settings)
        stack.callback(store.close)
        stack.callback(audit.close)
        vault = open_vault(settings)
        if vault is not None:
            stack.callback(vault.close)
        client = fhir_client(settings, fhir_url)
        stack.push_async_callback(client.aclose)
        engine = build_engine(settings, tell)
        stack.push_async_callback(engine.aclose)
        yield Summarizer(
            ehr=FhirEhr(client, now=utc_now),
            engine=engine,
            store=store,
            audit=audit,
            clock=utc_now,
            software_version=software_version(),
            budget_tokens=settings.budget_tokens,
            digest_windows=settings.digest_windows,
            policy=policy(settings),
            library=library,
            vault=vault,
            second_pass=SecondPass(vault) if settings.second_pass == "auto" else None,  # noqa: S105
            manner=partial(manner_of, settings, client),
        )


async def manner_of(settings: Settings, client: FhirClient) -> Manner:
    """Return how this site writes to this server. Raises SettingsError, and ConnectorError."""
    name = settings.write_profile
    if not name:
        offer = await read_offer(client)
        name = choose_profile(offer.software, offer.guides, offer.creates)
    profile = profile_named(name, risk_signed_by=settings.write_risk_signed_by)
    return Manner(software_version(), profile, settings.file_when, signer(settings).sign)


def signer(settings: Settings) -> Signer:
    """Return the key that signs this site's documents, made on first use. Raises StoreError."""
    return Signer.from_file(settings.home / KEY_FILE)


@asynccontextmanager
async def open_desk(settings: Settings, fhir_url: str | None = None) -> AsyncIterator[Desk]:
    """Plug in what filing needs, without an engine; close it when the block ends, well or badly."""
    async with AsyncExitStack() as stack:
        store, audit = open_store(settings)
        stack.callback(store.close)
        stack.callback(audit.close)
        client = fhir_client(settings, fhir_url)
        stack.push_async_callback(client.aclose)
        ehr = FhirEhr(client, now=utc_now)
        yield Desk(ehr, store, store, audit, utc_now, await manner_of(settings, client))


def policy(settings: Settings) -> Policy:
    """Return how a record is read at this site."""
    return Policy(time_zone=settings.time_zone or None)


def build_app(settings: Settings) -> FastAPI:
    """Return the pages, on the configured store."""
    store, audit = open_store(settings)
    vault = open_vault(settings)

    async def ask(run: StoredRun) -> Staleness:
        client = fhir_client(settings, settings.fhir_url or run.inputs.server)
        try:
            lookout = Lookout(FhirEhr(client, now=utc_now), audit, utc_now, policy(settings), vault)
            return await lookout.ask(run, LOCAL_USER)
        finally:
            await client.aclose()

    return create_app(
        store=store,
        audit=audit,
        clock=utc_now,
        allowed_hosts=settings.allowed_hosts,
        version=software_version(),
        ask=ask,
        jwks=signer(settings).jwks(),
    )
