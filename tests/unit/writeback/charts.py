"""Hand-built runs: one ordinary chart with everything a summary can hold, and ways to vary it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from connectors.fhir.pull import Gap, GapReason
from service.context.chosen import LeftOut
from service.engine.prompt import Completion, Message, Prompt, Sampling, Usage
from service.grounding.summary import Claim, Origin, Summary, SummarySection, Verdict
from service.ports import RunId, RunInputs, RunState, StoredRun
from service.record.facts import (
    Absence,
    Code,
    Fact,
    FactId,
    Identity,
    Kind,
    Person,
    Precision,
    Quantity,
    ResourceVersion,
    Status,
    When,
)
from tests.conftest import CANARY

CREATED = datetime(2026, 11, 20, 9, 30, 15, 250_000, tzinfo=UTC)
READ = datetime(2026, 11, 20, 9, 29, 59, tzinfo=UTC)
RUN_KEY = "0123456789abcdef" * 4


def on(text: str, precision: Precision = Precision.DAY, time: str | None = None) -> When:
    """A date as the record gives it, bounded in UTC."""
    day = date.fromisoformat((text + "-01-01")[:10]) if len(text) < 10 else date.fromisoformat(text)
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    length = {Precision.YEAR: 364, Precision.MONTH: 27}.get(precision, 0)
    return When(text, precision, start, start + timedelta(days=length, hours=23), day, True, time)


def fact(number: int, name: str, **more: Any) -> Fact:
    """A problem of `Condition/<number>`, version 2, unless told otherwise."""
    given: dict[str, Any] = {
        "id": FactId(f"Condition/{number}"),
        "kind": Kind.PROBLEM,
        "source": ResourceVersion(f"Condition/{number}", "2", f"{number:064x}"),
        "text": f"{name} (active)",
        "name": name,
        "status": Status.ACTIVE,
    }
    return Fact(**given | more)


T2DM = Code("http://snomed.info/sct", "44054006", "T2DM")
DIABETES = fact(
    1,
    "Diabetes mellitus type 2",
    when=on("2011", Precision.YEAR),
    codes=(T2DM,),
)
A1C = fact(
    2,
    "Hemoglobin A1c",
    id=FactId("Observation/a1c#2"),
    kind=Kind.RESULT,
    source=ResourceVersion("Observation/a1c", "3", "a" * 64),
    text="Hemoglobin A1c 6.10 % on 25-Nov-2020 (final)",
    when=on("2020-11-25"),
    quantity=Quantity("6.10 %", Decimal("6.10"), "", "%"),
    flags=("H",),
    person=Person(),
    details=(("method", "HPLC"),),
)
PENICILLIN = fact(
    3,
    "Penicillin",
    id=FactId("AllergyIntolerance/3"),
    kind=Kind.ALLERGY,
    source=ResourceVersion("AllergyIntolerance/3", None, "c" * 64),
    text="Allergy to Penicillin (active)",
    when=on("1999-04", Precision.MONTH),
)
NOTE = fact(
    4,
    "Progress note",
    id=FactId("urn:uuid:0f0e0d0c-0b0a-4908-8706-050403020100"),
    kind=Kind.NOTE,
    source=ResourceVersion("urn:uuid:0f0e0d0c-0b0a-4908-8706-050403020100", None, "d" * 64),
    text="Progress note on 03-May-2021",
    when=on("2021-05-03", Precision.TIME, "14:05"),
    body="Well controlled on metformin.",
)
NOWHERE = FactId("Condition/none#1")
IDENTITY = Identity("Patient/77", f"Ada {CANARY}", "1951-05-04", "female", "MRN-4711")


def claim(text: str, *facts: Fact, section: str = "problem", **more: Any) -> Claim:
    """A supported claim of the model that cites these facts."""
    given: dict[str, Any] = {"origin": Origin.MODEL, "verdict": Verdict.SUPPORTED}
    return Claim(section, text, tuple(f.id for f in facts), **given | more)


def make_summary(**more: Any) -> Summary:
    """Three sections, one claim of each kind, something left out and something not retrieved."""
    given: dict[str, Any] = {
        "kind": "history",
        "identity": IDENTITY,
        "sections": (
            SummarySection(
                "allergy",
                "Allergies and intolerances",
                (
                    claim(
                        "Allergy to Penicillin (active)", PENICILLIN, section="allergy", origin=Origin.RECORD
                    ),
                ),
                Absence.LISTED,
                conflict="Penicillin is listed as an allergy and as prescribed.",
                hidden=2,
            ),
            SummarySection(
                "problem",
                "Active problems",
                (
                    claim("Diabetes mellitus type 2, hemoglobin A1c 6.10 % on 25-Nov-2020.", DIABETES, A1C),
                    claim("A progress note of 03-May-2021 calls it well controlled.", NOTE, corrected=True),
                ),
            ),
            SummarySection("implant", "Implants and devices", (), Absence.NONE_RECORDED),
            SummarySection("order", "Pending orders", (), Absence.NOT_RETRIEVED, reason="timed out"),
        ),
        "refused": (
            claim(
                "Hemoglobin A1c was 8.2 %.",
                A1C,
                verdict=Verdict.UNSUPPORTED,
                reasons=("number_not_in_source:8.2",),
            ),
            Claim(
                "problem",
                "Invented.",
                (FactId("Condition/none#1"),),
                Origin.MODEL,
                Verdict.UNSUPPORTED,
                ("x",),
            ),
        ),
        "facts": (DIABETES, A1C, PENICILLIN, NOTE),
        "left_out": (LeftOut("vital", "Vital signs", 12, "04-May-2019", "03-Jun-2020"),),
        "gaps": (Gap("ServiceRequest", GapReason.TIMED_OUT, "no answer in 30 s"),),
        "incomplete": (),
        "as_of": on("2021-05-03"),
        "searched": 40,
    }
    return Summary(**given | more)


def make_run(**more: Any) -> StoredRun:
    """A generated run of `make_summary()`; `key`, `patient` and `attempt` vary the inputs."""
    inputs = RunInputs(
        key=more.pop("key", RUN_KEY),
        patient=more.pop("patient", "Patient/77"),
        server="http://127.0.0.1:9/fhir",
        kind="history",
        prompt_id="history",
        prompt_version="3",
        template_digest="b" * 64,
        schema_digest="e" * 64,
        model="google/medgemma-1.5-4b-it",
        model_digest="f" * 64,
        engine_version="vllm 0.32.0",
        sampling={"temperature": 0.0, "stop": ("\n\n", "END"), "top_p": Decimal("0.90"), "seed": 7},
        record_digest="9" * 64,
        rules_version="1",
        access_profile="system:none",
        budget_tokens=4096,
        attempt=more.pop("attempt", 1),
    )
    schema = {"type": "object", "required": ("cites", "text"), "$defs": {"cite": {"enum": ["F1", "F2"]}}}
    given: dict[str, Any] = {
        "run_id": RunId("run-1"),
        "inputs": inputs,
        "state": RunState.GENERATED,
        "created_at": CREATED,
        "read_at": READ,
        "prompts": (
            Prompt(
                (Message("system", "Write."), Message("user", f"Ada {CANARY}: …")), Sampling(700), schema, 10
            ),
            Prompt((Message("user", "Again."),), Sampling(700, 0.5, 3, ("x",))),
        ),
        "completions": (Completion('{"claims": []}', "stop", Usage(900, 12, 800), 1.25),),
        "summary": make_summary(),
        "seconds": {"generate": 1.5},
    }
    return StoredRun(**given | more)


def varied(run: StoredRun, **changes: Any) -> StoredRun:
    """The run with another summary: `varied(run, incomplete=("Allergies",))`."""
    return replace(run, summary=replace(run.summary, **changes))


def east(hours: int) -> timezone:
    """A zone that is not UTC."""
    return timezone(timedelta(hours=hours))
