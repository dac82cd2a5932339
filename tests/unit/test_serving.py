"""What a page server opens once: one engine for all readers, and who answers for what is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors.auth import BearerAuth
from connectors.fhir.client import FhirClient
from service.engine.shared import SharedEngine
from service.engine.window import Pressing
from service.errors import FilingError
from service.ports import Action, AuditEntry
from service.settings import load_settings
from service.store.sql import SqlStore
from service.wiring.installation import open_store
from service.wiring.ondemand import OnBehalf, Serving
from tests.unit.api.in_memory import InMemoryAudit
from tests.unit.test_ondemand import ASKED
from tests.unit.writeback.charts import CREATED, make_run

HERE = "http://127.0.0.1:1/fhir"


@asynccontextmanager
async def serving(folder: Path, **more: Any) -> AsyncIterator[tuple[Serving, SqlStore]]:
    settings = load_settings(home=folder, fhir_url=HERE, **more)
    store, audit = open_store(settings)
    one = Serving(settings, store, audit, None)
    yield one, store
    await one.aclose()
    store.close()
    audit.close()


def said(tell: str, detail: str) -> None:
    """Nobody listens."""


class UserAuth(BearerAuth):
    """A user's token."""

    profile = "user:abc"


async def test_all_readers_share_one_engine_and_none_its_cache(tmp_path: Path) -> None:
    async with serving(tmp_path, engine_url="http://127.0.0.1:2/v1", model="m") as (one, _):

        def as_user() -> FhirClient:
            return FhirClient(HERE, auth=UserAuth("t"))

        async def engine_of(opener: Any) -> SharedEngine:
            async with opener(said) as summarizer:
                assert isinstance(summarizer.engine, Pressing)
                shared = summarizer.engine._engine
                assert isinstance(shared, SharedEngine)
                return shared

        openers = [one.system_opener(), one.system_opener("Practitioner/7"), one.user_opener(as_user)]
        system, again, user = await asyncio.gather(*map(engine_of, openers))
        assert system.engine is again.engine is user.engine
        assert system.cache_salt == again.cache_salt != user.cache_salt
        assert one.kinds >= {"history", "admission", "handover", "problems"}
        assert "question" not in one.kinds


@pytest.mark.parametrize("by", ["", "Practitioner/7"])
def test_every_entry_says_who_answers_for_it_unless_it_says_so_itself(by: str) -> None:
    audit = InMemoryAudit()
    entry = AuditEntry(Action.READ, "user:1", "Patient/1", CREATED)
    OnBehalf(audit, by).append(entry)
    OnBehalf(audit, by).append(replace(entry, by="Practitioner/8"))
    assert [one.by for one in audit.entries] == [by, "Practitioner/8"]


async def test_nothing_is_filed_on_another_server_than_it_was_read_from(tmp_path: Path) -> None:
    async with serving(tmp_path, engine="scripted") as (one, _):
        run = make_run()
        elsewhere = replace(run, inputs=replace(run.inputs, server="https://other.example/fhir"))
        with pytest.raises(FilingError):
            await one.file(elsewhere, ASKED)
