"""An evaluation: a cohort summarised as shadow runs, which are counted, compared and never filed.

What was made is kept chart by chart, so that an evaluation that was cut off goes on where it stood. A chart
of which no summary comes is counted by its error's code, and tried again when it is gone on with.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from connectors.errors import ConnectorError
from service.context.choose import required_in
from service.context.stay import find_stay
from service.errors import EngineError, EpicrisisError, SettingsError, ShreddedError, StoreError
from service.ports.quality import EvaluationId, QualityStore, Shadow
from service.ports.runs import StoredRun
from service.quality.count import count_run
from service.record.facts import FactId
from service.record.required import required_facts
from service.summarize import Ready, Summarizer

ACTOR = "system:evaluate"
MOST_CHARTS = 10_000
MOST_SILENT = 3
"""Charts in a row that the engine fails: then it is the engine, and not the charts."""
_PATIENT = re.compile(r"(?:Patient/)?([A-Za-z0-9.-]{1,64})")

Tell = Callable[[int, str], None]
"""`(charts done, stage)`; never a patient."""


@dataclass
class Arm:
    """What one model with one prompt made of the cohort."""

    shadows: Mapping[str, Shadow] = field(default_factory=dict)
    """By patient, `Patient/1`."""
    failed: Counter[str] = field(default_factory=Counter)
    """Error code → charts."""


def read_cohort(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the patients that are named one a line, each once; `#` begins a remark. Raises SettingsError."""
    named = (line.partition("#")[0].strip() for line in lines)
    cohort: dict[str, None] = {}
    for number, text in enumerate(named, 1):
        found = _PATIENT.fullmatch(text)
        if text and found is None:
            raise SettingsError(
                f"Line {number} of the cohort names no patient.", "Give Patient/ID, one a line."
            )
        if found is not None:
            cohort[f"Patient/{found[1]}"] = None
    if not cohort:
        raise SettingsError("The cohort names nobody.", "Give --cohort FILE, or the patients' ids.")
    if len(cohort) > MOST_CHARTS:
        raise SettingsError(f"The cohort names more than {MOST_CHARTS} patients.")
    return tuple(cohort)


async def run_arm(
    store: QualityStore,
    summarizer: Summarizer,
    evaluation: EvaluationId,
    number: int,
    cohort: Sequence[str],
    kind: str,
    tell: Tell,
) -> Arm:
    """Make a shadow run of every chart that has none yet, and return all of them.

    Raises StoreError, for what cannot be kept need not be made, and EngineError where the engine is gone.
    """
    kept, failed, silent = store.shadows(evaluation, number), Counter[str](), 0
    for done, patient in enumerate(cohort):
        tell(done, "")
        if patient in kept:
            continue
        try:
            await _make(store, summarizer, evaluation, number, patient, kind, partial(_stage, tell, done))
            silent = 0
        except (EpicrisisError, ConnectorError) as error:
            silent = silent + 1 if isinstance(error, EngineError) else 0
            if silent == MOST_SILENT or (
                isinstance(error, StoreError) and not isinstance(error, ShreddedError)
            ):
                raise
            failed[error.code] += 1
    tell(len(cohort), "")
    return Arm(store.shadows(evaluation, number), failed)


def _stage(tell: Tell, done: int, stage: str, _: str) -> None:
    tell(done, stage)


async def _make(
    store: QualityStore,
    summarizer: Summarizer,
    evaluation: EvaluationId,
    number: int,
    patient: str,
    kind: str,
    tell: Callable[[str, str], None],
) -> None:
    ready = await summarizer.prepare(patient, kind=kind, actor=ACTOR, tell=tell)
    required = _required(ready)

    def keep(run: StoredRun) -> None:
        counts, told = count_run(run, required)
        store.keep_shadow(Shadow(evaluation, number, run, counts, told.by_model, told.required))

    await summarizer.draft(ready, shadow=keep)


def _required(ready: Ready) -> list[FactId]:
    """Return what no summary of this record may leave out, from the record and not from a summary."""
    stay = find_stay(ready.record)
    kinds = required_facts(ready.record, encounter=stay.reference if stay is not None else None)
    return [fact.id for fact in required_in(ready.record, kinds, ready.templates)]
