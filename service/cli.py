"""The command line: `epicrisis`. With `--json` a command prints exactly one JSON document on stdout."""

from __future__ import annotations

import asyncio
import errno
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from connectors.errors import BrokenJson, ConnectorError
from connectors.fhir.codec import decode
from service.commands import (
    admissions,
    attest,
    audit,
    evaluate,
    hold,
    images,
    keys,
    quality,
    recall,
    replay,
    retain,
    schedule,
    serve,
    stale,
    stop,
    sweep,
    verify,
    withdraw,
    work,
)
from service.commands.serve import run_pages
from service.context.choose import TokenCount, choose_facts, required_in
from service.context.render import whole_chat
from service.context.stay import find_stay
from service.context.templates import TemplateSet, open_library
from service.demo import DemoReport, run_demo, start_ehr
from service.doctor import examine
from service.engine.openai import open_tokenizer
from service.engine.profiles import profile_for
from service.engine.prompt import Profile
from service.engine.scripted import ScriptedEngine
from service.engine.weights import DEMONSTRATION_MODEL
from service.errors import EpicrisisError, FilingError, RecordError, SettingsError
from service.filing.stopped import is_stopped
from service.given import read_file
from service.grounding.claims import CitedClaim, judge_claims
from service.hardening import describe, keep_memory_private, silence_crashes
from service.ports import Action, AuditEntry, RunId, RunState, StoredRun
from service.record.assemble import assemble_record, resources_of
from service.record.facts import PatientRecord
from service.record.required import required_facts
from service.settings import Settings, load_settings
from service.shapes import context_shape, record_shape
from service.summarize import Outcome
from service.terminal import Steps, print_json, print_table, set_up_logging, stderr, stdout, tell_error
from service.texts.worker import TextReader, read_texts
from service.wiring import (
    build_engine,
    model_folder,
    open_store,
    open_summarizer,
    policy,
    software_version,
    utc_now,
)
from service.writeback.page import compose_page
from service.writeback.sources import numbered_sources
from service.writeback.text import plain_text

INTERRUPTED = 130
NOT_FILED = 10
STOPPED = 17
STORE_FULL = 9
INTERNAL = 1

app = typer.Typer(
    name="epicrisis",
    help="Summarise a patient's FHIR record with a local model, check every sentence, file it as a draft.",
    epilog="Settings are EPICRISIS_* in the environment or in ./epicrisis.env; the README lists them. "
    "Start with `epicrisis doctor`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")]
Kind = Annotated[str, typer.Option("--kind", help="Which template set to use.")]
BundleFile = Annotated[Path, typer.Argument(help="A FHIR Bundle, resource or list (JSON, also gzipped).")]
EncounterOption = Annotated[
    str | None,
    typer.Option("--encounter", help="The encounter at hand, as Encounter/<id>; else the stay that lasts."),
]
PatientOption = Annotated[
    str | None, typer.Option("--patient", help="The patient's id, where the file holds several.")
]


@app.callback()
def _common(
    context: typer.Context,
    home: Annotated[
        Path | None, typer.Option(help="Folder of the database and key [EPICRISIS_HOME].")
    ] = None,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True)
    ] = False,
) -> None:
    if show_version:
        stdout.print(software_version())
        raise typer.Exit
    settings = load_settings(home=home)
    set_up_logging(settings.log_level)
    context.obj = settings


@app.command()
def demo(
    context: typer.Context,
    serve_pages: Annotated[
        bool, typer.Option("--serve/--no-serve", help="Show the pages afterwards.")
    ] = True,
    ehr_only: Annotated[bool, typer.Option("--ehr-only", help="Only run the demonstration's EHR.")] = False,
    port: Annotated[int, typer.Option(help="Port of the pages; 0 takes a free one.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Six synthetic charts: read from a FHIR server, summarised by a real model, filed back, shown.

    Everything runs on this machine and listens on loopback alone. Its data stays in the home folder, so a
    second run finds the charts unchanged and writes nothing; `make clean-demo` removes it.
    """
    settings: Settings = context.obj
    with Steps() as steps:
        server = start_ehr(settings, steps)
        try:
            if ehr_only:
                stderr.print(f"The demonstration's EHR answers at {server.base_url}; Ctrl-C stops it.")
                server.wait()
                return
            report = asyncio.run(run_demo(settings, steps, server))
        except BaseException:
            server.stop()
            raise
    try:
        print_json(report) if as_json else _show_demo(report)
        if serve_pages:
            run_pages(settings, "127.0.0.1", port)
    finally:
        server.stop()


@app.command()
def summarize(
    context: typer.Context,
    patient: Annotated[str, typer.Argument(help="The patient's id on the FHIR server.")],
    fhir_url: Annotated[str | None, typer.Option(help="FHIR base URL [EPICRISIS_FHIR_URL].")] = None,
    kind: Kind = "history",
    encounter: EncounterOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing to the EHR; store locally.")
    ] = False,
    attempt: Annotated[
        int, typer.Option(min=1, help="Raise it to have an unchanged chart written anew.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Summarise one patient and file the draft. The same chart is never filed twice."""
    settings: Settings = context.obj
    _known(settings, kind)
    outcome = asyncio.run(_summarize(settings, patient, fhir_url, kind, encounter, dry_run, attempt))
    print_json(outcome) if as_json else _show_outcome(outcome)
    if outcome.is_stopped:
        raise typer.Exit(STOPPED)
    if outcome.state in (RunState.INCOMPLETE, RunState.WITHHELD):
        raise typer.Exit(NOT_FILED)


@app.command()
def assemble(
    context: typer.Context, bundle: BundleFile, patient: PatientOption = None, as_json: AsJson = False
) -> None:
    """Show the facts of a chart in a file, and what was not kept and why. Sends nothing anywhere."""
    record, read_at = _assemble(context.obj, bundle, patient)
    print_json(record_shape(record, read_at)) if as_json else _show_record(record)


@app.command()
def context(
    context: typer.Context,
    bundle: BundleFile,
    budget: Annotated[int, typer.Option(min=1, help="Token budget of the whole prompt.")],
    patient: PatientOption = None,
    kind: Kind = "history",
    encounter: EncounterOption = None,
    as_json: AsJson = False,
) -> None:
    """Show the prompt that a chart in a file leads to within a budget, and what it leaves out."""
    settings: Settings = context.obj
    templates = _known(settings, kind)
    record, _ = _assemble(settings, bundle, patient)
    if encounter is not None and find_stay(record, encounter) is None:
        raise RecordError("This encounter is not in the patient's record.", "Give it as Encounter/<id>.")
    profile = profile_for(settings.model or DEMONSTRATION_MODEL, settings.profile or None)
    at_hand = find_stay(record, encounter)
    required = required_facts(record, encounter=at_hand.reference if at_hand else None)
    chosen = choose_facts(
        record, required, templates, profile, budget, _counter(settings, profile),
        stay=find_stay(record, encounter, ended=True),
    )  # fmt: skip
    chat = whole_chat(chosen, templates, profile)
    if as_json:
        needed = required_in(record, required, templates)
        print_json(context_shape(chosen, needed, "\n\n".join(message.content for message in chat)))
        return
    for message in chat:
        stdout.print(f"--- {message.role}\n{message.content}\n", markup=False)
    stderr.print(
        f"{chosen.tokens} of {budget} tokens; {len(chosen.facts)} of {chosen.searched} statements shown."
    )


@app.command()
def check(
    context: typer.Context,
    bundle: BundleFile,
    claims: Annotated[Path, typer.Argument(help='A JSON list of {"text", "cites": ["Type/id", …]}.')],
    patient: PatientOption = None,
    as_json: AsJson = False,
) -> None:
    """Judge claims about a chart in a file by the entries that they cite. Corrects no citation."""
    record, _ = _assemble(context.obj, bundle, patient)
    judged = list(judge_claims(record, _claims(claims)))
    if as_json:
        print_json(judged)
        return
    print_table(
        f"{len(judged)} claims",
        ("#claim", "verdict", "why"),
        [
            (str(n), one.verdict, " ".join(reason.detail for reason in one.reasons))
            for n, one in enumerate(judged, 1)
        ],
    )


@app.command()
def runs(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    offset: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """List the stored runs, newest first."""
    store, audit = open_store(context.obj)
    try:
        rows, total = store.rows(limit, offset)
    finally:
        store.close()
        audit.close()
    if as_json:
        print_json({"total": total, "runs": rows})
        return
    if not rows:
        stdout.print("No runs are stored yet. Start with `make demo` or `epicrisis summarize PATIENT`.")
        return
    print_table(
        f"{len(rows)} of {total} runs",
        ("run", "when", "state", "#published", "#refused"),
        [
            (row.run_id, f"{row.created_at:%d-%b-%Y %H:%M}", row.state, str(row.published), str(row.refused))
            for row in rows
        ],
    )


@app.command()
def show(
    context: typer.Context, run: Annotated[str, typer.Argument(help="A run's id.")], as_json: AsJson = False
) -> None:
    """Show one stored summary as it was filed, with its sources."""
    stored = _stored(context.obj, run, Action.EXPORT if as_json else Action.VIEW)
    if as_json:
        print_json(stored)
        return
    page = compose_page(stored, numbered_sources(stored.summary), software_version())
    stdout.print(plain_text(page), markup=False)


@app.command()
def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Say what is set up, what answers, and what to do about the rest."""
    findings = asyncio.run(examine(context.obj))
    if as_json:
        print_json({"findings": findings})
    else:
        print_table("", ("what", "state", "detail", "what to do"),
                    [(f.name, f.state, f.detail, f.advice) for f in findings])  # fmt: skip
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(1)


for command in (
    serve,
    attest,
    withdraw,
    recall,
    replay,
    stop,
    stale,
    verify,
    sweep,
    work,
    schedule,
    admissions,
    audit,
    keys,
    retain,
    hold,
    evaluate,
    quality,
    images,
):
    command.register(app)


async def _summarize(
    settings: Settings,
    patient: str,
    fhir_url: str | None,
    kind: str,
    encounter: str | None,
    dry_run: bool,
    attempt: int,
) -> Outcome:
    with Steps() as steps, steps.step("Summarising") as step:

        def tell(stage: str, detail: str) -> None:
            step.detail(f"{stage} {detail}".strip())

        async with open_summarizer(settings, fhir_url, tell) as summarizer:
            return await summarizer.summarize(
                patient, kind=kind, encounter=encounter, dry_run=dry_run, attempt=attempt, tell=tell
            )


def _known(settings: Settings, kind: str) -> TemplateSet:
    library = open_library(settings.prompts)
    if kind not in library.available():
        sets = ", ".join(library.available())
        raise SettingsError(f"There is no template set of that kind. There are: {sets}.")
    return library.load(kind)


def _assemble(settings: Settings, path: Path, patient: str | None) -> tuple[PatientRecord, datetime]:
    """Return the record in a file, and when the file was read."""
    read_at = utc_now()
    resources = list(resources_of(_read_json(path, "Give a FHIR Bundle, a resource, or a list.")))
    texts = read_texts(resources, {}, TextReader())
    return assemble_record(resources, patient, policy=policy(settings), texts=texts, read_at=read_at), read_at


def _read_json(path: Path, advice: str) -> Any:
    """Return the JSON of a file, also gzipped, or of stdin for `-`."""
    try:
        return decode(read_file(path))
    except BrokenJson:
        raise BrokenJson("The file is not JSON.", advice) from None


def _claims(path: Path) -> list[CitedClaim]:
    """Read a file of claims. What is no claim stays in its place, as one that nothing can bear out."""
    advice = 'Give [{"text": "…", "cites": ["Type/id", …]}, …].'
    content = _read_json(path, advice)
    if not isinstance(content, list):
        raise BrokenJson("The file of claims is not a JSON list.", advice)
    return [CitedClaim.of(item) for item in content]


def _counter(settings: Settings, profile: Profile) -> TokenCount:
    """Return the tokenizer of the model that would serve, without starting an engine."""
    if settings.engine == "scripted":
        return lambda chat: asyncio.run(ScriptedEngine().count_tokens(chat))
    if settings.tokenizer:
        return open_tokenizer(settings.tokenizer, profile).count
    if settings.engine_url:
        return lambda chat: asyncio.run(_count_remotely(settings, chat))
    return open_tokenizer(model_folder(settings, stderr.print), profile).count


async def _count_remotely(settings: Settings, chat: tuple[Any, ...]) -> int:
    engine = build_engine(settings, lambda stage, detail: None)
    try:
        return await engine.count_tokens(chat)
    finally:
        await engine.aclose()


def _stored(settings: Settings, run: str, action: Action) -> StoredRun:
    store, audit = open_store(settings)
    try:
        stored = store.get(RunId(run))
        if stored is None:
            raise SettingsError("There is no such run.", "`epicrisis runs` lists them.")
        if is_stopped(stored, store.stops()):
            raise FilingError(
                "This summary is stopped: it is not shown.", "`epicrisis stop` lists what is halted."
            )
        seen = AuditEntry(
            action,
            "system:cli",
            stored.inputs.patient,
            utc_now(),
            run_id=run,
            server=stored.inputs.server,
        )
        audit.append(seen)
        return stored
    finally:
        store.close()
        audit.close()


def _show_record(record: PatientRecord) -> None:
    for fact in record.facts:
        stdout.print(f"{fact.kind.value:15} {fact.text}", markup=False)
    skipped = ", ".join(f"{reason} {count}" for reason, count in sorted(record.skipped.items())) or "none"
    stderr.print(
        f"{record.seen} resources seen: {record.kept} kept, {record.seen - record.kept} skipped ({skipped})."
    )


def _show_outcome(outcome: Outcome) -> None:
    stdout.print(f"{outcome.state.value}: {outcome.document or outcome.reason}")
    stdout.print(
        f"{outcome.claims_published} statements published, {outcome.claims_from_model} of them by the model; "
        f"{outcome.claims_dropped} refused; {outcome.resources} resources, {outcome.facts} facts, "
        f"{outcome.skipped} skipped."
    )
    if outcome.run_id:
        stdout.print(f"Read it: epicrisis show {outcome.run_id}")


def _show_demo(report: DemoReport) -> None:
    counts = (
        "resources",
        "facts",
        "skipped",
        "prompt_tokens",
        "claims_published",
        "claims_from_model",
        "claims_dropped",
    )
    print_table(
        report.message,
        ("chart", "#resources", "#facts", "#skipped", "#tokens", "#published", "#model", "#dropped", "#s"),
        [
            (str(number), *(str(row[name]) for name in counts), f"{sum(row['seconds'].values()):.0f}")  # type: ignore[attr-defined]
            for number, row in enumerate(report.patients, 1)
        ],
    )
    stderr.print(
        "Published: statements in the document; model: those written by the model, the rest by code."
    )
    stderr.print(f"The documents: {report.fhir_url}/DocumentReference?_security=AIAST", soft_wrap=True)


def main() -> None:
    """Run the command line. Every failure ends in one sentence, an exit code, and nothing half-written."""
    keep_memory_private()
    silence_crashes()
    as_json = "--json" in sys.argv
    try:
        app()
    except SystemExit as ended:
        if ended.code != INTERRUPTED:  # Ctrl-C, as Typer reports it
            raise
        _end("interrupted", "Stopped.", "Nothing half-written remains.", INTERRUPTED, as_json)
    except (EpicrisisError, ConnectorError) as error:
        _end(error.code, error.message, error.advice, error.exit_code, as_json)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _end(
                "disk_full",
                "The disk is full.",
                "Free some space; nothing half-written remains.",
                STORE_FULL,
                as_json,
            )
        stderr.print(describe(type(error), error.__traceback__), markup=False, soft_wrap=True)
        _end(
            "internal",
            f"This should not have happened ({type(error).__name__}).",
            "Tell those who look after Epicrisis what is said above; it holds nothing of a patient.",
            INTERNAL,
            as_json,
        )


def _end(code: str, message: str, advice: str, exit_code: int, as_json: bool) -> None:
    tell_error(message, advice)
    if as_json:
        print_json({"error": {"code": code, "message": message, "advice": advice}})
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
