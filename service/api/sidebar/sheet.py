"""One view of the sidebar: from a stored run and one user's sight to what is shown. Values, no markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from service.api import words
from service.api.pages import Marks, ShownSection, SummaryPage, build_page, number_sources
from service.grounding.since import KEY as SINCE
from service.ports import DocumentState, FiledDocument, StoredRun
from service.record.everyday import say_type
from service.sight import Sight, Why, Withheld, WithheldType, seen_by
from service.writeback.moment import show_instant

NOT_REVIEWED = "AI-generated, not reviewed"


class Standing(StrEnum):
    """What there is to show."""

    STORED = "stored"
    NONE = "none"
    """Nothing is stored of this kind."""
    STOPPED = "stopped"
    HIDDEN = "hidden"
    """A clinician hid it (SAFETY 24)."""
    DESTROYED = "destroyed"
    ANOTHER = "another"
    """What is stored is about somebody else: the chart under this id is another person's now."""
    UNCHECKED = "unchecked"
    """Nobody could say what this user may read."""
    FORBIDDEN = "forbidden"
    """This user may not read the patient at all."""
    UNUSABLE = "unusable"
    """The record was merged away, or is not active."""
    OFF = "off"
    """The user switched summaries off."""


NOTICES = {
    Standing.NONE: ("No summary is stored", "Nothing of this kind was written about this patient yet."),
    Standing.STOPPED: (
        "This summary is stopped",
        "It is not shown until the stop is lifted. The chart is not affected.",
    ),
    Standing.HIDDEN: (
        "This summary is hidden",
        "A clinician hid it. It is not shown until a clinician shows it again. The chart is not affected.",
    ),
    Standing.DESTROYED: (
        "What was stored was destroyed",
        "Nothing that was stored about this patient can be read any more. The chart is not affected.",
    ),
    Standing.ANOTHER: (
        "What is stored is not about this person",
        "Name, birth date or record number of the chart are not those of the summary, so it is not shown.",
    ),
    Standing.UNCHECKED: (
        "What you may read could not be checked",
        "The chart did not answer, so nothing that is stored is shown. Read the chart.",
    ),
    Standing.FORBIDDEN: (
        "Your account may not read this patient",
        "The EHR did not let Epicrisis read this chart as you, so nothing is shown.",
    ),
    Standing.UNUSABLE: ("This record cannot be used", "Look the patient up in the EHR."),
    Standing.OFF: ("Summaries are switched off for you", "What is read live from the chart is still shown."),
}


@dataclass(frozen=True, slots=True)
class View:
    """One kind of summary that can be chosen."""

    key: str
    title: str
    is_current: bool


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What does not agree in the record, and under which heading it stands."""

    title: str
    anchor: str
    text: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """What one view shows below the live strip."""

    view: str
    title: str
    standing: Standing
    notice: tuple[str, str] = ("", "")
    """Title and text where there is no summary to show."""
    page: SummaryPage | None = None
    label: str = ""
    """Who wrote it, and who reviewed it."""
    is_attested: bool = False
    attested_beside: str = ""
    """A sentence about an attested document beside this draft; empty where there is none."""
    since: ShownSection | None = None
    contradictions: tuple[Contradiction, ...] = ()
    sections: tuple[ShownSection, ...] = ()
    withheld: tuple[str, ...] = ()
    disputed: int = 0
    may_make: bool = False
    hidden_run: str = ""
    """The run that a clinician hid: by it another one sees why, and shows it again."""


def notice(view: str, title: str, standing: Standing, text: str = "", *, may_make: bool = False) -> Sheet:
    """Return a view that shows no summary, and says why."""
    heading, usual = NOTICES[standing]
    return Sheet(view, title, standing, notice=(heading, text or usual), may_make=may_make)


def build_sheet(
    run: StoredRun,
    sight: Sight,
    marks: Marks,
    now: datetime,
    *,
    view: str,
    title: str,
    documents: Sequence[FiledDocument] = (),
    may_make: bool = False,
) -> Sheet:
    """Show a stored run as far as its reader may see it.

    `documents` are those of this patient and kind that are attested. Sources keep the numbers that they have
    in the whole summary, so that a number means the same source to every reader.
    """
    seen, withheld = seen_by(run.summary, sight)
    facts = {fact.id: fact for fact in run.summary.facts}
    numbers = number_sources(run.summary, facts)
    shown = build_page(replace(run, summary=seen), now, replace(marks, changed=withheld.changed), numbers)
    own = next((one for one in documents if one.run_id == run.run_id), None)
    claims = [claim for section in shown.sections for claim in section.all]
    return Sheet(
        view=view,
        title=title,
        standing=Standing.STORED,
        page=shown,
        label=_attested_words(own) if own else NOT_REVIEWED,
        is_attested=own is not None,
        attested_beside="" if own else _beside(documents),
        since=next((section for section in shown.sections if section.key == SINCE), None),
        contradictions=tuple(
            Contradiction(section.title, section.anchor, section.conflict)
            for section in shown.sections
            if section.conflict
        ),
        sections=tuple(section for section in shown.sections if section.key != SINCE),
        withheld=tuple(withheld_lines(withheld)),
        disputed=sum(claim.disputed for claim in claims),
        may_make=may_make,
    )


def withheld_lines(withheld: Withheld) -> list[str]:
    """Say how much is withheld from a reader, and of which kinds; nothing where nothing is."""
    if not withheld:
        return []
    counted = words.count(withheld.claims, "statement")
    return [f"Withheld from you: {counted}.", *map(_withheld_words, withheld.types)]


def _withheld_words(one: WithheldType) -> str:
    name = say_type(one.resource_type)
    rest = f" ({words.count(one.claims, 'statement')})" if one.claims else ""
    return {
        Why.REFUSED: f"Your account may not read {name}{rest}.",
        Why.FAILED: f"Whether your account may read {name} could not be checked now{rest}.",
        Why.GONE: f"Some {name} are not among what your account can read now{rest}.",
    }[one.why]


def _attested_words(document: FiledDocument) -> str:
    by = f" by {document.attested_by}" if document.attested_by else ""
    on = f", {show_instant(document.changed_at)}" if document.changed_at else ""
    return f"AI-generated, attested{by}{on}"


def _beside(documents: Sequence[FiledDocument]) -> str:
    attested = [one for one in documents if one.state is DocumentState.ATTESTED]
    if not attested:
        return ""
    return f"An older summary is in the chart: {_attested_words(attested[0])}. This one is a newer draft."
