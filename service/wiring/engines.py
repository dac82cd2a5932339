"""The engine, and the use case before it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from connectors.fhir.client import FhirClient
from connectors.fhir.ehr import FhirEhr
from service.audit.send import Courier
from service.context.templates import open_library
from service.engine.local import LocalEngine
from service.engine.openai import OpenAIEngine
from service.engine.profiles import profile_for
from service.engine.prompt import Engine, Profile
from service.engine.scripted import ScriptedEngine
from service.engine.weights import DEMONSTRATION_MODEL, prepare_demonstration_model, resolve_model
from service.engine.window import Pressing
from service.entailment import SecondPass
from service.settings import Settings
from service.store.sql import SqlStore
from service.store.trail import SqlAuditLog
from service.store.urgency import SqlUrgency
from service.summarize import Progress, Summarizer
from service.wiring.counting import open_counter
from service.wiring.ehr import fhir_client, manner_of, need, telling_collector
from service.wiring.installation import (
    database_of,
    open_admissions,
    open_inputs,
    open_store,
    open_vault,
    policy,
    software_version,
    utc_now,
)
from service.wiring.pictures import open_images


class ClosingEngine(Engine, Protocol):
    """An Engine that holds something open: a connection, or a server process."""

    async def aclose(self) -> None:
        """Close it."""
        ...


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
        return ScriptedEngine(keeps_prompts=False)
    if settings.engine_url:
        model = need(settings.model, "EPICRISIS_MODEL")
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
    _, cipher = database_of(settings)
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
        async with open_use_case(settings, fhir_url, tell, partial(Pressing, urgency=urgency)) as plugged:
            yield plugged.summarizer


@dataclass(frozen=True, slots=True)
class Plugged:
    """The use case, and the edges that it was given."""

    summarizer: Summarizer
    client: FhirClient
    ehr: FhirEhr
    store: SqlStore
    audit: SqlAuditLog
    tell_collector: Courier | None


@asynccontextmanager
async def open_use_case(
    settings: Settings,
    fhir_url: str | None,
    tell: Progress,
    before: Callable[[Engine], Engine] = lambda engine: engine,
) -> AsyncIterator[Plugged]:
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
        count, numbers = open_counter(settings)
        stack.callback(numbers.close)
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
            inputs=open_inputs(settings, store),
            count=count,
            images=await stack.enter_async_context(open_images(settings, vault, client)),
        )
        yield Plugged(summarizer, client, ehr, store, audit, tell_collector)
