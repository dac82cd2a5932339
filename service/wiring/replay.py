"""What replays a stored run, with the engine of now where one is wanted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from service.context.templates import open_library
from service.engine.prompt import Engine
from service.entailment import SecondPass
from service.ports import RunId
from service.replay import Replay, Replayer
from service.settings import Settings
from service.store.inputs import SqlInputs
from service.summarize import Progress
from service.wiring.engines import build_engine
from service.wiring.installation import open_store, open_vault, software_version, utc_now


@dataclass(frozen=True, slots=True)
class Replaying:
    """A replayer, and the engine that it may ask."""

    replayer: Replayer
    engine: Engine | None
    second_pass: SecondPass | None

    async def replay(self, run_id: RunId, actor: str) -> Replay | None:
        """Replay one run; None where there is none. Raises StoreError and EngineError."""
        return await self.replayer.replay(run_id, actor, self.engine, self.second_pass)


@asynccontextmanager
async def open_replaying(settings: Settings, *, generate: bool, tell: Progress) -> AsyncIterator[Replaying]:
    """Plug in what replays runs, without a FHIR server; close it when the block ends, well or badly."""
    async with AsyncExitStack() as stack:
        store, audit = open_store(settings)
        stack.callback(store.close)
        stack.callback(audit.close)
        library = open_library(settings.prompts)
        replayer = Replayer(store, SqlInputs(store), audit, utc_now, software_version(), library)
        if not generate:
            yield Replaying(replayer, None, None)
            return
        vault = open_vault(settings)
        if vault is not None:
            stack.callback(vault.close)
        engine = build_engine(settings, tell)
        stack.push_async_callback(engine.aclose)
        second_pass = SecondPass(vault) if settings.second_pass == "auto" else None  # noqa: S105
        yield Replaying(replayer, engine, second_pass)
