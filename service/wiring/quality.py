"""Quality: its store, the arms of an evaluation, and the release gate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from connectors.admissions.consents import PreferenceRules, parse_codes
from connectors.admissions.sitelist import ListFile, SiteList, SiteListUnreadable
from service.api.review.quality import Quality
from service.context.templates import open_library
from service.engine.prompt import Engine
from service.engine.window import SCHEDULE, Window
from service.errors import GateError, SettingsError
from service.ports import Store
from service.ports.quality import Identity
from service.quality.gate import Standing, identify, stand_at_gate
from service.quality.thresholds import Thresholds, read_thresholds
from service.settings import Settings
from service.store.attesting import SqlAttesting
from service.store.quality import SqlQuality
from service.store.reviews import SqlReviews
from service.store.urgency import SqlUrgency
from service.summarize import Progress, Summarizer
from service.wiring.engines import build_engine, open_use_case
from service.wiring.installation import database_of, open_admissions, utc_now, zone_of

SPEC: Final = {
    "model": "model", "url": "engine_url", "digest": "model_digest", "profile": "profile",
    "tokenizer": "tokenizer", "prompts": "prompts", "kind": "",
}  # fmt: skip
"""What `--against` may say, and which setting that is."""
_PATHS: Final = frozenset({"tokenizer", "prompts"})
LOOKED_AT: Final = 1000
"""Evaluations among which the gate looks for the newest of a model with a prompt."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The stores that quality is told from."""

    quality: SqlQuality
    reviews: SqlReviews
    attesting: SqlAttesting


@contextmanager
def open_quality(settings: Settings) -> Iterator[Opened]:
    """Open what quality is told from. Raises StoreError."""
    url, cipher = database_of(settings)
    opened = Opened(SqlQuality(url, cipher), SqlReviews(url, cipher), SqlAttesting(url, cipher))
    try:
        yield opened
    finally:
        for store in (opened.quality, opened.reviews, opened.attesting):
            store.close()


def thresholds(settings: Settings) -> Thresholds:
    """Return the site's limits. Raises SettingsError."""
    return read_thresholds(settings.quality)


@dataclass(frozen=True, slots=True)
class ArmSettings:
    """One arm of an evaluation: how its engine is set, and which template set it uses."""

    settings: Settings
    kind: str

    async def identify(self) -> Identity:
        """Say which model and prompt it is. Starts no engine of ours. Raises EngineError, SettingsError."""
        templates = open_library(self.settings.prompts).load(self.kind)
        engine = await asyncio.to_thread(build_engine, self.settings, lambda stage, detail: None)
        try:
            info = await engine.describe()
        finally:
            await engine.aclose()
        return identify(info, f"{templates.id}@{templates.version}", templates.digest)

    @asynccontextmanager
    async def open(self, fhir_url: str | None, tell: Progress) -> AsyncIterator[Summarizer]:
        """Plug the use case in for this arm: it gives way to whoever waits, as the schedule does."""
        with open_admissions(self.settings) as admissions:
            waiting = partial(SqlUrgency(admissions.database).waits, SCHEDULE)

            def behind(engine: Engine) -> Engine:
                return Window(engine, self.settings.sweep_requests, waiting, priority=SCHEDULE)

            async with open_use_case(self.settings, fhir_url, tell, behind) as plugged:
                yield plugged.summarizer


def arm_of(settings: Settings, kind: str) -> ArmSettings:
    """Return the arm of a kind as this installation is set. Raises SettingsError."""
    available = open_library(settings.prompts).available()
    if kind not in available:
        raise SettingsError("There is no template set of that kind.", f"There are: {', '.join(available)}.")
    return ArmSettings(settings, kind)


def arm_against(settings: Settings, kind: str, spec: str) -> ArmSettings:
    """Return the arm that `--against` describes: `model=…,url=…` or `prompts=FOLDER,kind=…`.

    What it does not say is as this installation is set. Raises SettingsError.
    """
    said: dict[str, str] = {}
    for part in spec.split(","):
        name, equals, value = part.strip().partition("=")
        if name not in SPEC or not equals or not value.strip():
            raise SettingsError(
                "--against cannot be used.",
                f"Give NAME=VALUE, separated by commas; names are {', '.join(SPEC)}.",
            )
        said[name] = value.strip()
    changed: dict[str, object] = {
        SPEC[name]: Path(value) if name in _PATHS else value for name, value in said.items() if SPEC[name]
    }
    if {"model", "url"} & said.keys():
        changed = {"model_digest": "", "profile": "", "tokenizer": None, **changed}
        changed.setdefault("engine_url", "")
        changed["engine"] = "vllm"
    return arm_of(settings.model_copy(update=changed), said.get("kind", kind))


async def gate_standings(settings: Settings, kinds: Iterable[str]) -> list[Standing]:
    """Return where each kind's model and prompt stand. Raises EngineError, SettingsError, StoreError."""
    limits, found = thresholds(settings).gate, []
    with open_quality(settings) as opened:
        evaluations = opened.quality.evaluations(LOOKED_AT)
    for kind in dict.fromkeys(kinds):
        identity = await arm_of(settings, kind).identify()
        found.append(stand_at_gate(identity, evaluations, limits, utc_now()))
    return found


def check_gate(settings: Settings, kinds: Iterable[str]) -> None:
    """Refuse to schedule what has no passed evaluation, where the gate is on. Raises GateError."""
    if settings.gate == "off":
        return
    named = list(dict.fromkeys(kinds))
    for kind, standing in zip(named, asyncio.run(gate_standings(settings, named)), strict=True):
        if not standing.is_released:
            identity = standing.identity
            raise GateError(
                f"{identity.model} with the prompt {identity.prompt} is not released: {standing.why}. "
                "Nothing is scheduled.",
                f"Run: epicrisis evaluate --kind {kind} --cohort FILE",
            )


def wishes_of(settings: Settings) -> tuple[PreferenceRules, SiteList | None]:
    """Return how this site's patients say no, and its list; None where that cannot be read."""
    rules = PreferenceRules(parse_codes(settings.opt_out_flags), parse_codes(settings.opt_out_consents))
    if settings.opt_out_list is None:
        return rules, SiteList()
    try:
        return rules, ListFile(settings.opt_out_list).read()
    except SiteListUnreadable:
        return rules, None


def open_quality_room(settings: Settings, runs: Store) -> tuple[Quality, Callable[[], Awaitable[None]]]:
    """Return the pages of quality, and what closes their stores. Raises StoreError, SettingsError."""
    url, cipher = database_of(settings)
    quality, reviews, attesting = SqlQuality(url, cipher), SqlReviews(url, cipher), SqlAttesting(url, cipher)
    thresholds(settings)  # a file that cannot be used is told at the start
    room = Quality(
        runs=runs,
        store=quality,
        reviews=reviews.reviews,
        attestations=attesting.attestations,
        limits=lambda: thresholds(settings).drift,
        clock=utc_now,
        zone=zone_of(settings),
    )

    async def close() -> None:
        for store in (quality, reviews, attesting):
            await asyncio.to_thread(store.close)

    return room, close
