"""From an answer to what a page and a program are told of it: values in, values out.

What was searched stands in every answer, found or not; where nothing answers, nothing is said of the patient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from service.api import words
from service.api.export import export_fact
from service.api.feedback import Taps
from service.api.pages import Marks, ShownClaim, Source, build_page
from service.context.manifest import describe_left_out
from service.filing.stopped import is_stopped
from service.grounding.summary import Claim, Summary, SummarySection
from service.ports import RunId, RunState, Stop, StoredRun
from service.ports.questions import Answer, Question, QuestionState
from service.record.facts import Absence, FactId, Identity
from service.writeback.labels import BANNER
from service.writeback.moment import show_instant

ADVICE: Final = (
    "Epicrisis does not advise and does not judge. What the record holds about this stands below; "
    "the decision is yours."
)
STAGES: Final = {
    "": "Waiting for its turn",
    "fetch": "Reading the chart",
    "assemble": "Putting the chart in order",
    "choose": "Searching the chart",
    "generate": "Writing",
    "verify": "Checking every sentence against its source",
}
ERRORS: Final = {
    "timeout": "This took too long, and was stopped.",
    "engine": "The model cannot be asked at the moment.",
    "forbidden": "Your account may not read this chart.",
    "unauthorized": "Your sign-in at the EHR is over. Open the patient's chart again.",
    "record": "This is not the patient's current record. Look the patient up in the EHR.",
}
STOPPED: Final = "This answer is stopped: it is not shown until the stop is lifted."
_FAILED: Final = "The question could not be answered."
_CHART: Final = "The patient's chart is not affected."


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """One question with its answer, as a page shows it. While `stage` speaks, it is still being answered."""

    id: str
    question: str
    visit: str
    asked_at: str
    stage: str = ""
    error: str = ""
    cancelled: bool = False
    found: bool = False
    advice: str = ""
    headline: str = ""
    """What was found, or that nothing was, in how many items."""
    remarks: tuple[str, ...] = ()
    """What was not found, not searched or left out, in sentences."""
    claims: tuple[ShownClaim, ...] = ()
    beside: tuple[ShownClaim, ...] = ()
    sources: tuple[Source, ...] = ()
    """Those that a shown statement cites."""
    taps: Taps | None = None
    """What this visitor has said of its statements; None while there are none."""

    @property
    def is_open(self) -> bool:
        """True while it is being answered."""
        return bool(self.stage)


@dataclass(frozen=True, slots=True)
class AskView:
    """Everything that `_ask.html` draws: the form, what may be asked, and what was asked before."""

    visit: str
    run_id: str = ""
    suggested: tuple[str, ...] = ()
    answers: tuple[ShownAnswer, ...] = ()
    """Newest first."""
    refused: str = ""
    """Why the last question was not taken."""

    @property
    def former(self) -> str:
        """The id of the question that the next one follows."""
        return self.answers[0].id if self.answers else ""


def run_of(question: Question, answer: Answer) -> StoredRun | None:
    """Return an answer in the shape of a stored run, which pages know how to show."""
    if question.inputs is None:
        return None
    identity = Identity(question.patient, "", "", "", "")  # a page knows whose chart it shows
    sections = tuple(
        SummarySection(key, "", claims, state=Absence.LISTED)
        for key, claims in (("answer", answer.claims), ("beside", answer.beside))
    )
    summary = Summary(
        kind="question",
        identity=identity,
        sections=sections,
        refused=(),
        facts=answer.facts,
        left_out=answer.left_out,
        gaps=answer.gaps,
        incomplete=(),
        as_of=answer.as_of,
        searched=answer.searched,
        restricted=answer.restricted,
    )
    return StoredRun(
        RunId(question.id), question.inputs, RunState.DRY, question.asked_at, answer.read_at, (), (), summary
    )


def show_question(
    question: Question,
    now: datetime,
    visit: str,
    marks: Marks,
    taps: Taps | None,
    stops: Iterable[Stop] = (),
) -> ShownAnswer:
    """Return what a page shows of a question, however far its answer is."""
    base = ShownAnswer(question.id, question.text, visit, show_instant(question.asked_at))
    if question.state is QuestionState.ASKED:
        return replace(base, stage=STAGES.get(question.stage, STAGES[""]))
    if question.state is QuestionState.CANCELLED:
        return replace(base, cancelled=True)
    answer = question.answer
    run = run_of(question, answer) if answer is not None else None
    if answer is None or run is None:
        return replace(base, error=f"{ERRORS.get(question.error, _FAILED)} {_CHART}")
    if is_stopped(run, stops):
        return replace(base, error=f"{STOPPED} {_CHART}")
    shown = build_page(run, now, marks)
    told, beside = ((*section.claims, *section.folded) for section in shown.sections)
    return replace(
        base,
        found=answer.found,
        advice=ADVICE if answer.advice else "",
        headline=headline_of(answer),
        remarks=tuple(remarks_of(answer)),
        claims=tuple(told),
        beside=tuple(beside),
        sources=shown.cited,
        taps=taps,
    )


def headline_of(answer: Answer) -> str:
    """Return the one sentence above an answer."""
    searched = words.count(answer.searched, "item")
    if answer.found:
        told = words.count(len(answer.claims), "statement")
        return f"{told} from {searched} searched. Values match the source. Nobody has reviewed them."
    return f"Not found in the {searched} searched{f': {_quoted(answer.nowhere)}' if answer.nowhere else ''}."


def remarks_of(answer: Answer) -> list[str]:
    """Return what else must be said: what no item holds, what was not searched, and what is not shown."""
    searched = words.count(answer.searched, "item")
    said = []
    if answer.found and answer.nowhere:
        said.append(f"Not found in the {searched} searched: {_quoted(answer.nowhere)}.")
    said += [f"No item holds these words together as asked: {_quoted([one])}." for one in answer.elsewhere]
    said += [
        f"{one.title}: {one.state}{f' ({one.reason})' if one.reason else ''}." for one in answer.standings
    ]
    if answer.engine:
        said.append("The model gave no answer in words: these are the record's own lines.")
    if answer.unshown:
        said.append(
            f"{words.count(answer.unshown, 'further item')} of the record that match are not shown here."
        )
    if answer.beside:
        said.append(
            "The lines below are the record's own, found by words of the question. They may not answer it."
        )
    not_retrieved = ", ".join(words.name_gaps(answer.gaps)) or "nothing reported"
    said.append(f"Read up to {show_instant(answer.read_at)}. Not retrieved: {not_retrieved}.")
    if answer.restricted:
        said.append("Some of the record was not searched, because of who may read it.")
    if answer.left_out:
        left = "; ".join(describe_left_out(one) for one in answer.left_out)
        said.append(f"Searched by words alone, and not shown to the model: {left}.")
    return said


def export_question(
    question: Question, keys: Mapping[Claim, str], disputed: frozenset[Claim]
) -> dict[str, Any]:
    """Return a question and its answer for programs."""
    answer = question.answer
    body: dict[str, Any] = {
        "label": BANNER,
        "id": question.id,
        "state": question.state,
        "question": question.text,
        "asked_at": question.asked_at,
        "error": question.error or None,
    }
    if answer is None:
        return body
    facts = _cited(answer)
    numbers = {fact_id: number for number, fact_id in enumerate(_citations(answer), 1)}
    claims, beside = (
        [_export_claim(claim, numbers, keys, disputed) for claim in part]
        for part in (answer.claims, answer.beside)
    )
    return body | {
        "found": answer.found,
        "statement": headline_of(answer),
        "advice": ADVICE if answer.advice else None,
        "claims": claims,
        "beside": beside,
        "sources": sorted(
            (export_fact(fact, numbers[fact.id]) for fact in facts), key=lambda one: int(one["number"])
        ),
        "searched": answer.searched,
        "not_found": answer.nowhere,
        "not_found_together": answer.elsewhere,
        "standings": answer.standings,
        "unshown": answer.unshown,
        "not_retrieved": answer.gaps,
        "left_out": answer.left_out,
        "restricted": answer.restricted,
        "read_at": answer.read_at,
        "remarks": remarks_of(answer),
    }


def _export_claim(
    claim: Claim, numbers: Mapping[FactId, int], keys: Mapping[Claim, str], disputed: frozenset[Claim]
) -> dict[str, Any]:
    return {
        "text": claim.text,
        "origin": claim.origin,
        "corrected": claim.corrected,
        "key": keys.get(claim, ""),
        "disputed": claim in disputed,
        "sources": [numbers[fact_id] for fact_id in dict.fromkeys(claim.citations)],
    }


def _citations(answer: Answer) -> list[FactId]:
    claims = (*answer.claims, *answer.beside)
    return list(dict.fromkeys(fact_id for claim in claims for fact_id in claim.citations))


def _cited(answer: Answer) -> tuple[Any, ...]:
    cited = set(_citations(answer))
    return tuple(fact for fact in answer.facts if fact.id in cited)


def _quoted(said: Sequence[str]) -> str:
    return ", ".join(f"“{one}”" for one in said)
