"""What a page server needs to make summaries: opened once, with one engine for all who ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from connectors.fhir.client import FhirClient
from connectors.fhir.ehr import FhirEhr
from service.context.templates import QUESTION, open_library
from service.ehrs import is_same_server
from service.engine.local import LocalEngine
from service.engine.openai import OpenAIEngine
from service.engine.prompt import Engine
from service.engine.shared import SharedEngine
from service.engine.window import Pressing
from service.entailment import SecondPass
from service.errors import FilingError
from service.filing.publish import Published
from service.ondemand import OnDemand, Opener, Pace
from service.ports import AuditEntry, AuditLog, StoredRun, Vault
from service.ports.ondemand import Asked
from service.readings import Images
from service.settings import Settings
from service.store.ondemand import SqlGenerations
from service.store.sql import SqlStore
from service.store.urgency import SqlUrgency
from service.summarize import Progress, Summarizer
from service.wiring.counting import open_counter
from service.wiring.ehr import fhir_client, manner_of
from service.wiring.engines import ClosingEngine, build_engine, cache_salt_of
from service.wiring.installation import database_of, open_inputs, policy, software_version, utc_now
from service.wiring.pictures import open_images

OpenClient = Callable[[], AbstractAsyncContextManager[FhirClient]]
"""Opens the record as one reader, each time anew: a summary may outlive the request that asked for it."""


@dataclass(frozen=True, slots=True)
class OnBehalf:
    """An audit log whose entries say who answers for them (`Practitioner/7`)."""

    audit: AuditLog
    by: str

    def append(self, entry: AuditEntry) -> None:
        """Append an entry. Raises StoreError."""
        self.audit.append(replace(entry, by=entry.by or self.by))


class Serving:
    """One installation's store, audit log, vault and engine, plugged in for each reader who asks.

    The engine is built at first use and kept until `aclose`: a vLLM of our own starts once a process.
    """

    def __init__(self, settings: Settings, store: SqlStore, audit: AuditLog, vault: Vault | None) -> None:
        """The store, the log and the vault stay their owner's to close."""
        self._settings = settings
        self._store = store
        self._audit = audit
        self._vault = vault
        self._library = open_library(settings.prompts)
        self._engine: ClosingEngine | None = None
        self._building = asyncio.Lock()
        self._inputs = open_inputs(settings, store)
        self._count, self._numbers = open_counter(settings)
        self.generations = SqlGenerations(*database_of(settings))
        self._urgency = SqlUrgency(self.generations.database)
        self.on_demand = OnDemand(
            store=self.generations,
            runs=store,
            clock=utc_now,
            file=self.file,
            pace=Pace(gone_s=settings.follow_s, keep=timedelta(hours=settings.told_hours)),
        )

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of summaries that there are template sets for."""
        return frozenset(self._library.available()) - {QUESTION}

    def system_opener(self, by: str = "") -> Opener:
        """Return what opens the use case with this installation's own connection.

        `by` is who answers for it, `Practitioner/7` or empty.
        """
        return self.user_opener(partial(fhir_client, self._settings), by)

    def user_opener(self, open_client: OpenClient, by: str = "") -> Opener:
        """Return what opens the use case for a reader whose record a client opens."""

        @asynccontextmanager
        async def opened(tell: Progress) -> AsyncIterator[Summarizer]:
            async with (
                open_client() as client,
                open_images(self._settings, self._vault, client) as images,
            ):
                yield self._summarizer(client, await self._engine_for(client), by, images)

        return opened

    async def file(self, run: StoredRun, asked: Asked) -> Published:
        """File a stored run by our own connection, whoever's it was read by (SAFETY 17)."""
        async with self.system_opener(asked.by)(lambda stage, detail: None) as summarizer:
            if not is_same_server(summarizer.server, run.inputs.server):
                raise FilingError("This summary is of another server than the one that we file to.")
            return await summarizer.file_stored(run, asked.actor)

    async def aclose(self) -> None:
        """Stop what is being made here, and the engine."""
        await self.on_demand.aclose()
        if self._engine is not None:
            await self._engine.aclose()
        await asyncio.to_thread(self.generations.close)
        await asyncio.to_thread(self._numbers.close)

    def _summarizer(self, client: FhirClient, engine: Engine, by: str, images: Images | None) -> Summarizer:
        settings = self._settings
        return Summarizer(
            ehr=FhirEhr(client, now=utc_now),
            engine=Pressing(engine, self._urgency),
            store=self._store,
            audit=OnBehalf(self._audit, by) if by else self._audit,
            clock=utc_now,
            software_version=software_version(),
            budget_tokens=settings.budget_tokens,
            digest_windows=settings.digest_windows,
            policy=policy(settings),
            library=self._library,
            vault=self._vault,
            second_pass=SecondPass(self._vault) if settings.second_pass == "auto" else None,  # noqa: S105
            manner=partial(manner_of, settings, client),
            inputs=self._inputs,
            count=self._count,
            images=images,
        )

    async def _engine_for(self, client: FhirClient) -> Engine:
        """Return the engine as one reader has it; what is kept of their prompts serves nobody else."""
        async with self._building:
            if self._engine is None:  # weights may have to be looked at first
                self._engine = await asyncio.to_thread(
                    build_engine, self._settings, lambda stage, detail: None
                )
        engine = self._engine
        if isinstance(engine, LocalEngine | OpenAIEngine):
            return SharedEngine(engine, cache_salt_of(self._settings, client))
        return engine
