"""Wiring: the only place that knows which edges are in use."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo

from fastapi import FastAPI
from sqlalchemy import make_url

from connectors.admissions.consents import PreferenceRules, parse_codes
from connectors.admissions.events import Event
from connectors.admissions.mllp import MllpLimits, MllpServer
from connectors.admissions.resolve import Resolver
from connectors.admissions.sitelist import ListFile
from connectors.admissions.subscription import Hook
from connectors.auth import Auth, BasicAuth, BearerAuth, NoAuth, SmartBackendAuth
from connectors.fhir.audit import AuditRepository
from connectors.fhir.client import FhirClient
from connectors.fhir.ehr import FhirEhr
from connectors.fhir.write_offer import read_offer
from connectors.keys import SigningKey
from connectors.limits import Limits
from connectors.origin import check_base_url, origin_of
from service.admissions.ears import Ears
from service.admissions.roster import Roster
from service.admissions.screen import EligibilityScreen
from service.api.app import create_app
from service.api.door import Book, LocalDoor, OidcDoor
from service.api.gate import Access, Refusals
from service.api.hooks import PATH as HOOK_PATH
from service.api.hooks import Hooks
from service.api.ward import Timed
from service.api.ward import Ward as ApiWard
from service.audit.anchor import AnchorFile
from service.audit.balp import Scene
from service.audit.send import Courier, Sender, send_regularly
from service.context.templates import open_library
from service.durable import Durable, Queue, Waits, open_queue
from service.eligibility import EligibilityRules, Subgroup, load_marks
from service.engine.counted import CountedEngine
from service.engine.local import LocalEngine
from service.engine.openai import OpenAIEngine
from service.engine.profiles import profile_for
from service.engine.prompt import Engine, Profile
from service.engine.scripted import ScriptedEngine
from service.engine.weights import DEMONSTRATION_MODEL, prepare_demonstration_model, resolve_model
from service.engine.window import SCHEDULE, Pressing, Urgency, Window
from service.entailment import SecondPass
from service.errors import SettingsError
from service.filing.desk import Desk, Manner
from service.identity.keys import KeyRing
from service.identity.onetime import OneTimeToken
from service.identity.provider import Provider
from service.identity.sessions import Sessions
from service.identity.signin import SignIn
from service.identity.tokens import Expected
from service.identity.visitor import Register, parse_roles
from service.ports import KEPT_AREAS, Admission, AuditLog, StoredRun
from service.record.assemble import Policy
from service.scheduler import Schedule, Scheduler, hand_tick, next_tick, read_schedules
from service.settings import FhirAuth, Settings
from service.signing import KEY_FILE, Signer
from service.staleness import Lookout, Staleness
from service.store.cipher import Cipher
from service.store.database import Database, open_cipher
from service.store.keys import KeyRoom
from service.store.outbox import SqlOutbox
from service.store.sessions import SqlSessions
from service.store.sql import SqlStore
from service.store.sweeps import SqlAdmissions
from service.store.trail import SqlAuditLog
from service.store.urgency import SqlUrgency
from service.store.vault import SqlVault
from service.summarize import Progress, Summarizer
from service.sweep import Sweep, Watch
from service.visits import Visits
from service.watchman import Watchman
from service.worker import Pulse, arrive, take_place
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
    anchors = settings.audit_anchors or settings.home / "audit-anchors"
    return SqlStore(url, cipher), SqlAuditLog(url, cipher, partial(AnchorFile, anchors, utc_now))


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
    secrets_given = (settings.master_key, settings.master_key_previous)
    return url, open_cipher(key_file(settings), url, *(one.get_secret_value() for one in secrets_given))


def key_file(settings: Settings) -> Path:
    """Return the path of the key file, whether there is one or not."""
    return settings.key_file or settings.home / "key"


@contextmanager
def open_keys(settings: Settings) -> Iterator[KeyRoom]:
    """Open what changes the keys of the database. Raises StoreError."""
    url, cipher = _database(settings)
    database = Database(url, cipher)
    try:
        own = None if settings.master_key.get_secret_value() else key_file(settings)
        yield KeyRoom(database, utc_now, own)
    finally:
        database.close()


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


def _is_ours(settings: Settings, url: str) -> bool:
    """Tell whether a server is the configured one; where none is configured, whichever is named is."""
    return not settings.fhir_url or origin_of(url) == origin_of(settings.fhir_url)


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


def _need(value: str, name: str) -> str:
    if not value:
        raise SettingsError(f"{name} is not set.", "The chosen EPICRISIS_FHIR_AUTH needs it.")
    return value


def model_folder(settings: Settings, say: Callable[[str], None] = lambda text: None) -> Path:
    """Return the folder of the weights that a local engine serves, the demonstration's if none is set."""
    if settings.model:
        return resolve_model(settings.model)
    return prepare_demonstration_model(settings.home / "models" / DEMONSTRATION_MODEL, say)


def build_engine(settings: Settings, tell: Progress, cache_salt: str = "") -> ClosingEngine:
    """Return the configured engine: scripted, a remote vLLM, or our own. Nothing is started yet.

    Only requests with the same `cache_salt` share what the engine keeps of prompts.
    """
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
            cache_salt=cache_salt,
        )
    say = partial(tell, "engine")
    folder = model_folder(settings, say)
    return LocalEngine(
        folder,
        state_dir=settings.home / "engine",
        profile=profile_for(settings.model or DEMONSTRATION_MODEL, settings.profile or None),
        on_progress=say,
        base_environment=settings.engine_environment(),
        cache_salt=cache_salt,
    )


def cache_salt_of(settings: Settings, client: FhirClient) -> str:
    """Return what sets this installation, server and access apart at the engine; nobody else can guess it."""
    _, cipher = _database(settings)
    return cipher.keyed_hash("cache_salt", f"{client.base_url}\n{client.session.auth.profile}")


def _profile(settings: Settings, model: str) -> Profile:
    """Return the profile of a remote engine's model, its tokenizer on this machine where there is one."""
    profile = profile_for(model, settings.profile or None)
    return replace(profile, tokenizer=str(settings.tokenizer)) if settings.tokenizer else profile


@asynccontextmanager
async def open_summarizer(
    settings: Settings, fhir_url: str | None, tell: Progress
) -> AsyncIterator[Summarizer]:
    """Plug everything in for somebody who waits; close everything when the block ends, well or badly."""
    with open_admissions(settings) as admissions:
        urgency = SqlUrgency(admissions.database)
        async with _open_use_case(settings, fhir_url, tell, partial(Pressing, urgency=urgency)) as plugged:
            yield plugged.summarizer


@dataclass(frozen=True, slots=True)
class _Plugged:
    """The use case, and the edges that it was given."""

    summarizer: Summarizer
    client: FhirClient
    ehr: FhirEhr
    store: SqlStore
    audit: SqlAuditLog
    tell_collector: Courier | None


@asynccontextmanager
async def _open_use_case(
    settings: Settings,
    fhir_url: str | None,
    tell: Progress,
    before: Callable[[Engine], Engine] = lambda engine: engine,
) -> AsyncIterator[_Plugged]:
    """Plug the use case in; `before` puts something before the engine."""
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
        tell_collector = await stack.enter_async_context(telling_collector(settings, client, audit))
        engine = build_engine(settings, tell, cache_salt_of(settings, client))
        stack.push_async_callback(engine.aclose)
        ehr = FhirEhr(client, now=utc_now)
        summarizer = Summarizer(
            ehr=ehr,
            engine=before(engine),
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
        yield _Plugged(summarizer, client, ehr, store, audit, tell_collector)


@dataclass(frozen=True, slots=True)
class Rounds:
    """Everything that looks after admissions, open in this process."""

    sweep: Sweep
    pulse: Pulse
    store: SqlAdmissions
    durable: Durable
    client: FhirClient

    async def order(self, admission: Admission, kind: str) -> str:
        """Have one admission visited before those of a sweep."""
        return await self.durable.order(f"heard-{secrets.token_hex(8)}", admission.id, kind, priority=5)


@asynccontextmanager
async def open_rounds(
    settings: Settings, fhir_url: str | None, tell: Progress, *, drain_s: int = 0
) -> AsyncIterator[Rounds]:
    """Plug in what looks after admissions; close it when the block ends, well or badly.

    What is under way then gets `drain_s` seconds; the rest stays in the queue.
    """
    url, cipher = _database(settings)
    async with AsyncExitStack() as stack:
        admissions = SqlAdmissions(url, cipher, utc_now)
        stack.callback(admissions.close)
        urgency = SqlUrgency(admissions.database)
        place = take_place(admissions, socket.gethostname().partition(".")[0])
        stack.callback(place.lock.close)
        plugged = await stack.enter_async_context(
            _open_use_case(settings, fhir_url, tell, partial(_at_night, settings, urgency))
        )
        client, ehr, store = plugged.client, plugged.ehr, plugged.store
        manner = await manner_of(settings, client)
        desk = Desk(ehr, store, store, plugged.audit, utc_now, manner, plugged.tell_collector)
        screen = EligibilityScreen(
            client=client, store=admissions, documents=store, clock=utc_now, zone=_zone(settings),
            rules=EligibilityRules(
                frozenset(map(Subgroup, settings.subgroups)), load_marks(settings.subgroup_codes),
                parse_codes(settings.allowed_labels),
            ),
            wishes=PreferenceRules(
                parse_codes(settings.opt_out_flags), parse_codes(settings.opt_out_consents)
            ),
            site_list=ListFile(settings.opt_out_list) if settings.opt_out_list else None,
        )  # fmt: skip
        visits = Visits(
            plugged.summarizer, ehr, admissions, store, screen, utc_now,
            keeps=desk.manner.file_when == "attested", desk=desk,
        )  # fmt: skip
        arrive(place, admissions, utc_now, software_version())
        durable = await open_queue(_queue(settings, place.name), visits)
        stack.push_async_callback(durable.close, drain_s)

        async def cancel(admission: Admission) -> None:
            await durable.cancel(admission.id)

        def open_roster() -> Roster:
            resolver = Resolver(client, authorities=settings.authorities)
            return Roster(admissions, resolver, desk, cancel=cancel)

        def open_ears() -> Ears:
            return Ears(client, admissions, utc_now, _zone(settings), census=settings.census)

        yield Rounds(
            Sweep(admissions, desk, screen, durable, utc_now, open_ears, open_roster),
            Pulse(place, admissions, durable, utc_now, software_version()),
            admissions,
            durable,
            client,
        )


def open_watchman(settings: Settings, rounds: Rounds) -> Watchman:
    """Return what a worker does beside the queue. Raises SettingsError."""
    known = schedules(settings)
    watches = tuple(watch_of_schedule(one) for one in known.values())

    async def run(schedule: Schedule, tick_id: str) -> None:
        await rounds.sweep.run(watch_of_schedule(schedule), tick_id)

    return Watchman(
        sweep=rounds.sweep,
        watches=watches or (Watch("all", settings.sweep_kind),),
        pulse=rounds.pulse,
        scheduler=Scheduler(known, rounds.store, utc_now, run),
        store=rounds.store,
        client=rounds.client,
        clock=utc_now,
        order=rounds.order,
        poll_s=settings.poll_s,
        keep_days=settings.queue_days,
        hook=hook(settings),
        adt=partial(_adt, settings, rounds.sweep.open_ears) if settings.hl7_port else None,
    )


def watch_of_schedule(schedule: Schedule) -> Watch:
    """Return whom a schedule looks after."""
    return Watch(schedule.name, schedule.kind, schedule.ward, polls=schedule.polls)


def hook(settings: Settings) -> Hook | None:
    """Return how the FHIR server tells us of admissions; None where it does not. Raises SettingsError."""
    if not settings.hook_url:
        return None
    secret = settings.hook_secret.get_secret_value()
    try:
        return Hook(settings.hook_url.rstrip("/") + HOOK_PATH, secret)
    except ValueError as error:
        raise SettingsError("EPICRISIS_HOOK_SECRET cannot be used.", str(error)) from None


def _adt(settings: Settings, open_ears: Callable[[], Ears]) -> MllpServer:
    ears = open_ears()

    async def keep(event: Event) -> None:
        await ears.hear([event])

    return MllpServer(
        keep, _zone(settings), utc_now, settings.hl7_host, settings.hl7_port,
        limits=MllpLimits(allow_plain=settings.hl7_allow_plain),
    )  # fmt: skip


def _at_night(settings: Settings, urgency: Urgency, engine: Engine) -> Engine:
    """Let the schedule keep few requests at the engine, and give way to whoever waits."""
    waiting = partial(urgency.waits, SCHEDULE)
    return CountedEngine(Window(engine, settings.sweep_requests, waiting, priority=SCHEDULE))


def _queue(settings: Settings, worker: str) -> Queue:
    """Return where the queue lies: beside the SQLite file, or in the same PostgreSQL."""
    url, _ = _database(settings)
    if url.startswith("sqlite:"):
        path = Path(make_url(url).database or "")
        url = f"sqlite:///{path.with_name(f'{path.stem}-queue{path.suffix}')}"
    waits = Waits().scaled(settings.retry_scale)
    return Queue(url, worker, seats=settings.sweep_visits, waits=waits)


def _zone(settings: Settings) -> tzinfo:
    return ZoneInfo(settings.time_zone) if settings.time_zone else UTC


def schedules(settings: Settings) -> dict[str, Schedule]:
    """Return the site's schedules; none where no file is set. Raises SettingsError."""
    found = read_schedules(settings.schedules, settings.time_zone) if settings.schedules else {}
    for one in found.values():
        check_kind(settings, one.kind, f"The schedule {one.name!r} cannot be used")
    return found


def check_kind(settings: Settings, kind: str, what: str) -> None:
    """Raise SettingsError where there is no template set of a kind."""
    available = open_library(settings.prompts).available()
    if kind not in available:
        raise SettingsError(
            f"{what}: there is no template set of its kind.", f"There are: {', '.join(available)}."
        )


@contextmanager
def open_admissions(settings: Settings) -> Iterator[SqlAdmissions]:
    """Open what is kept of admissions and schedules. Raises StoreError."""
    url, cipher = _database(settings)
    store = SqlAdmissions(url, cipher, utc_now)
    try:
        yield store
    finally:
        store.close()


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


def policy(settings: Settings) -> Policy:
    """Return how a record is read at this site."""
    return Policy(time_zone=settings.time_zone or None)


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

    admissions = SqlAdmissions(*_database(settings), utc_now)
    wanted = hook(settings)
    if wanted is not None:
        admissions.nudge()  # what was told while nobody listened is found by a look
    return create_app(
        store=store,
        audit=audit,
        clock=utc_now,
        access=_access(settings, audit, one_time or OneTimeToken(), tell),
        allowed_hosts=settings.allowed_hosts,
        version=software_version(),
        ask=ask,
        jwks=signer(settings).jwks(),
        hooks=Hooks(wanted, admissions.nudge, utc_now, settings.fhir_url) if wanted is not None else None,
        ward=ApiWard(
            admissions, _server(settings), store.names, partial(_timed, settings), hand_tick,
            utc_now, software_version(), audit,
        ),
    )  # fmt: skip


def _access(
    settings: Settings, audit: AuditLog, one_time: OneTimeToken, tell: Callable[[str], None]
) -> Access:
    """Return how visitors are known: by the configured provider, or as the one user of this machine."""
    url, cipher = _database(settings)
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
