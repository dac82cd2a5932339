"""`epicrisis evaluate`: a model with a prompt tried on a cohort, alone or against another, before it is used.

Nothing is filed, and no summary that anybody sees is made: the runs are shadows. What was cut off goes on
with the same command. Exit code 0 says that the report is there; whether the gate would open, it says itself.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from service.api.review.quality import render_report
from service.commands.audit import record_change
from service.errors import SettingsError
from service.given import read_file
from service.ports.quality import Evaluation, EvaluationId
from service.quality.evaluate import Arm, Tell, read_cohort, run_arm
from service.quality.report import build_report
from service.settings import Settings
from service.terminal import Steps, print_json, print_table, stderr, stdout
from service.wiring import software_version, utc_now
from service.wiring.quality import ArmSettings, arm_against, arm_of, open_quality, thresholds

STAGE_WORDS = {"fetch": "reading", "generate": "writing", "verify": "checking"}


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(evaluate)


def evaluate(
    context: typer.Context,
    patients: Annotated[
        list[str] | None, typer.Argument(help="Patient ids, beside or without a file.")
    ] = None,
    cohort: Annotated[
        Path | None, typer.Option("--cohort", help="A file of Patient/ID, one a line; - is stdin.")
    ] = None,
    kind: Annotated[str, typer.Option("--kind", help="Which template set [EPICRISIS_SWEEP_KIND].")] = "",
    against: Annotated[
        str,
        typer.Option(
            "--against",
            help="What to compare with on the same charts: model=NAME,url=URL or prompts=FOLDER,kind=KIND.",
        ),
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the report, as HTML and JSON.")
    ] = None,
    fhir_url: Annotated[str | None, typer.Option(help="FHIR base URL [EPICRISIS_FHIR_URL].")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")
    ] = False,
) -> None:
    """Try a model with a prompt on a cohort of charts, and report what it came to. Files nothing."""
    settings: Settings = context.obj
    named = _cohort(cohort, patients or [])
    kind = kind or settings.sweep_kind
    arms = [arm_of(settings, kind)]
    if against:
        arms.append(arm_against(settings, kind, against))
    report = asyncio.run(_evaluate(settings, arms, named, fhir_url))
    files = _write(report, out) if out is not None else ()
    print_json(report) if as_json else _show(report)
    for path in files:
        stderr.print(f"Written: {path}", soft_wrap=True, markup=False)


def _cohort(path: Path | None, patients: Sequence[str]) -> tuple[str, ...]:
    lines: list[str] = []
    if path is not None:
        try:
            lines = read_file(path).decode().splitlines()
        except UnicodeDecodeError:
            raise SettingsError("The cohort's file is not text.", "Give Patient/ID, one a line.") from None
    return read_cohort([*lines, *patients])


async def _evaluate(
    settings: Settings, arms: Sequence[ArmSettings], cohort: Sequence[str], fhir_url: str | None
) -> dict[str, Any]:
    limits = thresholds(settings).gate
    identities = [await arm.identify() for arm in arms]
    if len(identities) > 1 and identities[0].is_same(identities[1]):
        raise SettingsError(
            "Both are the same model with the same prompt.", "Let --against say what differs."
        )
    with open_quality(settings) as opened, Steps() as steps:
        store = opened.quality
        digest = store.cohort_digest("\n".join([fhir_url or settings.fhir_url, *sorted(cohort)]))
        evaluation = store.begin(
            Evaluation(
                id=EvaluationId(secrets.token_hex(10)),
                began_at=utc_now(),
                identity=identities[0],
                against=identities[1] if len(identities) > 1 else None,
                cohort_digest=digest,
                charts=len(cohort),
            )
        )
        made: list[Arm] = []
        for number, arm in enumerate(arms):
            name = f"{identities[number].model} · {identities[number].prompt}"
            with steps.step(name, len(cohort)) as step:

                def tell(done: int, stage: str) -> None:
                    step.at(done, len(cohort))
                    step.detail(STAGE_WORDS.get(stage, ""))

                made.append(await _run(store, arm, evaluation.id, number, cohort, fhir_url, tell))
        ended_at = utc_now()
        report = build_report(evaluation, arms[0].kind, made, limits, ended_at)
        record_change(settings, f"evaluation:{evaluation.id}", {"charts": len(cohort), "arms": len(arms)})
        store.end(evaluation.id, ended_at, report)
    return report


async def _run(
    store: Any, arm: ArmSettings, evaluation: EvaluationId, number: int, cohort: Sequence[str],
    fhir_url: str | None, tell: Tell,
) -> Arm:  # fmt: skip
    async with arm.open(fhir_url, lambda stage, detail: None) as summarizer:
        return await run_arm(store, summarizer, evaluation, number, cohort, arm.kind, tell)


def _write(report: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write the report twice, whole or not at all. Raises SettingsError where the folder takes no file."""
    name = f"evaluation-{report['evaluation']}"
    contents = {
        folder / f"{name}.json": msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n",
        folder / f"{name}.html": render_report(report, software_version()).encode(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            part = path.with_name(path.name + ".part")
            part.write_bytes(content)
            os.replace(part, path)
    except OSError as error:
        raise SettingsError(
            f"The report cannot be written ({error.strerror}).", "Give another --out."
        ) from None
    first, second = contents
    return first, second


def _show(report: dict[str, Any]) -> None:
    arms = report["arms"]
    names = [f"{one['identity']['model']} · {one['identity']['prompt']}" for one in arms]
    keys = list(dict.fromkeys(key for one in arms for key in one["measures"]))
    rows = [(key.replace("_", " "), *(_shown(one["measures"].get(key)) for one in arms)) for key in keys]
    rows.append(("fabricated core facts", *(str(one["fabricated"]) for one in arms)))
    rows.append(("failed charts", *(_counted(one["failed"]) for one in arms)))
    print_table(
        f"{report['charts']} charts, 95 % intervals", ("measure", *(f"#{name}" for name in names)), rows
    )
    for name, one in zip(names, arms, strict=True):
        for refused in one["refused"][:5]:
            stdout.print(f"{name}: refused {refused['count']} × {refused['words']}", markup=False)
    if paired := report.get("paired"):
        _show_paired(paired)
    gate = arms[0]["gate"]
    for check in gate["checks"]:
        word = "passed" if check["is_passed"] else "NOT PASSED"
        stdout.print(f"Gate: {check['name']} {check['found']}, {check['wanted']}: {word}", markup=False)
    stdout.print(
        "The gate would let it through." if gate["is_passed"] else "The gate would not let it through."
    )


def _show_paired(paired: dict[str, Any]) -> None:
    rows: list[tuple[str, ...]] = [
        (key.replace("_", " "), _signed(one), f"{_signed(one, 'low')} to {_signed(one, 'high')}")
        for key, one in paired["differences"].items()
    ]
    title = f"First minus second, on the same {paired['charts']} charts"
    print_table(title, ("measure", "#difference", "#95 % interval"), rows)
    facts = paired["facts"]
    stdout.print(
        f"Required facts told by the first alone {facts['told_by_first_alone']}, by the second alone "
        f"{facts['told_by_second_alone']} (McNemar, p = {facts['p']:.3g})."
    )
    if paired["changed_meanwhile"]:
        stdout.print(f"{paired['changed_meanwhile']} charts changed in between and are not compared.")


def _shown(one: dict[str, Any] | None) -> str:
    if one is None:
        return "not known"
    return f"{_number(one['value'])} ({_number(one['low'])} to {_number(one['high'])})"


def _signed(one: dict[str, Any], key: str = "value") -> str:
    return f"{'+' if one[key] > 0 else ''}{_number(one[key])}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{code} {count}" for code, count in counts.items()) or "none"
