"""From a stored run to what a page shows: values in, values out, no markup.

A claim is shown only with every source that it cites; what is withheld is counted in words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime

from service.api import words
from service.context.chosen import LeftOut
from service.context.pictures import UNSEEN, spot_of
from service.grounding.summary import Claim, Origin, Summary, SummarySection, Verdict
from service.ports import RunId, RunRow, RunState, StoredRun
from service.record.allergies import NONE_KNOWN
from service.record.dates import show_day
from service.record.facts import Absence, Fact, FactId, Identity, Kind, Status
from service.writeback.moment import DRAFT_LIFE, show_instant

FOLD_AFTER = 5
"""Rows shown before "See more". Required kinds are never folded: a sixth medication may be the one."""

NO_KNOWN_ALLERGY = frozenset({"716186003", "no-known-allergies"})
"""SNOMED CT and IPS codes by which someone recorded that there is no known allergy of any kind."""

_NO_KNOWN_ALLERGY = re.compile(r"\s*(nka\b|no known allerg(y|ies)\W*$)", re.IGNORECASE)

NOT_FILED = "Not part of the filed document."
TITLES = {"history": "History"}


@dataclass(frozen=True, slots=True)
class Own:
    """What stands in an attested text in the place of one statement."""

    by: str
    """`Practitioner/7`"""
    text: str = ""
    """Their own words; empty where the statement is left out."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What is known of statements beside their text: their keys, who disputes them, what moved since."""

    keys: Mapping[Claim, str] = field(default_factory=dict)
    """By what feedback names a statement; empty where none is taken."""
    disputed: frozenset[Claim] = frozenset()
    """Statements that a clinician called wrong or outdated (SAFETY 24)."""
    changed: frozenset[FactId] = frozenset()
    """Facts whose resource has another version in the chart now."""
    own: Mapping[Claim, Own] = field(default_factory=dict)
    """What a clinician who attested the text wrote in the place of a statement, or left out of it."""


NO_MARKS = Marks()


@dataclass(frozen=True, slots=True)
class Banner:
    """Which patient this is; drawn first and never covered (PAB-0009)."""

    name: str
    born: str
    gender: str
    record_number: str
    died: str
    """Empty for the living."""


@dataclass(frozen=True, slots=True)
class Chip:
    """One citation: the number of a source in reading order, and what that source is, in words."""

    number: int
    label: str


@dataclass(frozen=True, slots=True)
class Flag:
    """An interpretation as recorded, with the range it was recorded with."""

    name: str
    """What is flagged; empty where the statement has one source only."""
    words: str
    reference_range: str


@dataclass(frozen=True, slots=True)
class ShownClaim:
    """One statement, cut where its weight lies: a drug's name, a result's value."""

    anchor: str
    before: str
    strong: str
    after: str
    chips: tuple[Chip, ...]
    flags: tuple[Flag, ...]
    from_record: bool
    corrected: bool
    key: str = ""
    """By what feedback names it."""
    disputed: bool = False
    unchecked: bool = False
    """True for what was read from a picture: no rule can check it."""
    changed: bool = False
    """True where a source has another version in the chart now."""
    own: Own | None = None
    """What a clinician put in its place when they attested the text."""


@dataclass(frozen=True, slots=True)
class ShownSection:
    """One heading with its statements; `absence` speaks where there are none."""

    anchor: str
    title: str
    state: str
    claims: tuple[ShownClaim, ...]
    folded: tuple[ShownClaim, ...]
    absence: str
    not_retrieved: bool
    conflict: str
    tally: str
    key: str = ""
    notice: str = ""
    """What stands over statements that are not checked."""

    @property
    def all(self) -> tuple[ShownClaim, ...]:
        """Every statement, those behind "See more" too."""
        return (*self.claims, *self.folded)


@dataclass(frozen=True, slots=True)
class Source:
    """One cited or read fact, as recorded."""

    number: int
    title: str
    resource_type: str
    when: str
    text: str
    rows: tuple[tuple[str, str], ...]
    flags: tuple[str, ...]
    body: str
    reference: str
    cited_at: tuple[tuple[str, int], ...]
    """(anchor, ordinal) of every statement that cites it; empty for what was read and not cited."""
    has_images: bool = False
    """True for what may have images to look at; a document only where the model was shown one of it."""


@dataclass(frozen=True, slots=True)
class Notes:
    """What a reader must know before and after the text, in sentences and counts."""

    title: str
    state: str
    document: str
    error: str
    model: str
    read_at: str
    expires: str
    expired: bool
    searched: int
    period: str
    gap_names: tuple[str, ...]
    gaps: tuple[str, ...]
    """With the reason of each."""
    incomplete: tuple[str, ...]
    restricted: bool
    published: int
    refused: int
    withheld: int
    left_out: tuple[str, ...]
    unseen: tuple[str, ...] = ()
    """Pictures that were not seen, and why."""


@dataclass(frozen=True, slots=True)
class SummaryPage:
    """One summary beside its sources."""

    run_id: str
    banner: Banner
    notes: Notes
    sections: tuple[ShownSection, ...]
    sources: tuple[Source, ...]

    @property
    def cited(self) -> tuple[Source, ...]:
        """Sources of the statements, in reading order."""
        return tuple(source for source in self.sources if source.cited_at)

    @property
    def uncited(self) -> tuple[Source, ...]:
        """What the model was given and no statement cites."""
        return tuple(source for source in self.sources if not source.cited_at)

    @property
    def missing(self) -> tuple[str, ...]:
        """Titles of the sections that were not retrieved."""
        return tuple(section.title for section in self.sections if section.not_retrieved)

    def source(self, number: int) -> Source | None:
        """Return the source with this number, or None."""
        return next((source for source in self.sources if source.number == number), None)


@dataclass(frozen=True, slots=True)
class ListedRun:
    """One row of the first page."""

    run_id: str
    patient_name: str
    patient: str
    title: str
    state: str
    has_draft: bool
    incomplete: bool
    created_at: str
    model: str
    counts: str


def build_page(
    run: StoredRun, now: datetime, marks: Marks = NO_MARKS, numbers: Mapping[FactId, int] | None = None
) -> SummaryPage:
    """Build the page of one run as it reads at an instant."""
    summary = run.summary
    facts = {fact.id: fact for fact in summary.facts}
    numbers = numbers or number_sources(summary, facts)
    anchors = _anchor_claims(summary, facts)
    places: dict[FactId, list[tuple[str, int]]] = {}
    for ordinal, (claim, anchor) in enumerate(anchors, 1):
        for fact_id in dict.fromkeys(claim.citations):
            places.setdefault(fact_id, []).append((anchor, ordinal))
    names = iter([anchor for _, anchor in anchors])
    return SummaryPage(
        run_id=run.run_id,
        banner=build_banner(summary.identity, now.date()),
        notes=build_notes(run, now, published=len(anchors), unchecked=_unchecked(anchors)),
        sections=tuple(
            _noticed(
                run,
                _show_section(
                    section, index, numbers, facts, [next(names) for _ in _showable(section, facts)], marks
                ),
            )
            for index, section in enumerate(summary.sections, 1)
        ),
        sources=tuple(
            _show_source(facts[fact_id], number, tuple(places.get(fact_id, ())))
            for fact_id, number in numbers.items()
            if fact_id in facts
        ),
    )


def is_showable(claim: Claim, facts: Mapping[FactId, Fact]) -> bool:
    """Say whether a claim is supported, or read from pictures, and every source of it is stored beside it."""
    if not claim.citations or not all(fact_id in facts for fact_id in claim.citations):
        return False
    if claim.verdict is Verdict.NOT_VERIFIABLE:
        return all(spot_of(facts[fact_id]) is not None for fact_id in claim.citations)
    return claim.verdict is Verdict.SUPPORTED


def number_sources(summary: Summary, facts: Mapping[FactId, Fact]) -> dict[FactId, int]:
    """Number the facts in reading order of their first citation; those not cited follow."""
    cited = [
        fact_id for claim in summary.published if is_showable(claim, facts) for fact_id in claim.citations
    ]
    return {fact_id: number for number, fact_id in enumerate(dict.fromkeys([*cited, *facts]), 1)}


def build_banner(identity: Identity, today: date) -> Banner:
    """Build the patient banner; what is missing is said to be (PAB-0033…0060)."""
    return Banner(
        name=identity.name or words.NOT_KNOWN,
        born=words.show_born(identity, today),
        gender=words.show_gender(identity.gender),
        record_number=identity.record_number or words.NOT_KNOWN,
        died=words.show_died(identity) if identity.deceased else "",
    )


def _noticed(run: StoredRun, section: ShownSection) -> ShownSection:
    """Say where what is read from pictures is shown here and not filed."""
    if not section.notice or run.inputs.files_images:
        return section
    return replace(section, notice=f"{section.notice} {NOT_FILED}")


def _unchecked(anchors: Sequence[tuple[Claim, str]]) -> int:
    return sum(claim.verdict is Verdict.NOT_VERIFIABLE for claim, _ in anchors)


def build_notes(run: StoredRun, now: datetime, published: int, unchecked: int = 0) -> Notes:
    """Build the account of what was read, what was not, and what is not shown."""
    summary = run.summary
    return Notes(
        title=TITLES.get(summary.kind, summary.kind.capitalize()),
        state=words.STATES[run.state],
        document=run.document,
        error=run.error if run.state is RunState.FAILED else "",
        model=run.inputs.model,
        read_at=show_instant(run.read_at),
        expires=show_instant(run.created_at + DRAFT_LIFE),
        expired=now > run.created_at + DRAFT_LIFE,
        searched=summary.searched,
        period=show_period(summary),
        gap_names=words.name_gaps(summary.gaps),
        gaps=tuple(dict.fromkeys(words.show_gap(gap) for gap in summary.gaps)),
        incomplete=summary.incomplete,
        restricted=summary.restricted,
        published=published - unchecked,
        refused=len(summary.refused),
        withheld=len(summary.published) - published,
        left_out=tuple(_show_left_out(one for one in summary.left_out if one.kind != UNSEEN)),
        unseen=tuple(_show_left_out(one for one in summary.left_out if one.kind == UNSEEN)),
    )


def show_period(summary: Summary) -> str:
    """Write the days between which the searched items lie, as far as their dates are stored."""
    recorded = [fact.when for fact in summary.facts] + [summary.as_of]
    dated = [(when.day, show_day(when)) for when in recorded if when is not None]
    for left_out in summary.left_out:
        ends = ((words.read_day(text), text) for text in (left_out.earliest, left_out.latest))
        dated += [(day, text) for day, text in ends if day is not None]
    return f"{min(dated)[1]} to {max(dated)[1]}" if dated else ""


def list_runs(
    rows: Sequence[RunRow], is_hidden: Callable[[RunId], bool] = lambda run_id: False
) -> tuple[ListedRun, ...]:
    """Build the rows of the first page, in the order given, without those that are hidden."""
    return tuple(
        ListedRun(
            run_id=row.run_id,
            patient_name=row.patient_name or words.NOT_KNOWN,
            patient=row.patient,
            title=TITLES.get(row.kind, row.kind.capitalize()),
            state=words.STATES[row.state],
            has_draft=row.state in (RunState.FILED, RunState.UNCHANGED),
            incomplete=row.incomplete and row.state is not RunState.INCOMPLETE,
            created_at=show_instant(row.created_at),
            model=row.model,
            counts=f"{words.count(row.published, 'statement')}, {row.refused:,} refused",
        )
        for row in rows
        if not is_hidden(row.run_id)
    )


def split_at(text: str, part: str) -> tuple[str, str, str]:
    """Cut a text around the first place where a part stands as whole words; all before where it does not."""
    if not part.strip():
        return text, "", ""
    found = re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text, re.IGNORECASE)
    if found is None:
        return text, "", ""
    return text[: found.start()], found[0], text[found.end() :]


def _showable(section: SummarySection, facts: Mapping[FactId, Fact]) -> list[Claim]:
    return [claim for claim in section.claims if is_showable(claim, facts)]


def _anchor_claims(summary: Summary, facts: Mapping[FactId, Fact]) -> list[tuple[Claim, str]]:
    claims = [claim for section in summary.sections for claim in _showable(section, facts)]
    return [(claim, f"statement-{ordinal}") for ordinal, claim in enumerate(claims, 1)]


def _show_section(
    section: SummarySection,
    index: int,
    numbers: Mapping[FactId, int],
    facts: Mapping[FactId, Fact],
    anchors: list[str],
    marks: Marks,
) -> ShownSection:
    claims = _showable(section, facts)
    shown = tuple(
        _show_claim(claim, anchor, numbers, facts, marks)
        for claim, anchor in zip(claims, anchors, strict=True)
    )
    fold = FOLD_AFTER if section.state is None else len(shown)
    return ShownSection(
        anchor=f"section-{index}",
        title=_section_title(section, [facts[i] for claim in claims for i in claim.citations]),
        state=_section_state(section, len(shown)),
        claims=shown[:fold],
        folded=shown[fold:],
        absence=_absence(section, len(shown)),
        not_retrieved=section.state is Absence.NOT_RETRIEVED,
        conflict=section.conflict,
        tally=_tally(len(shown), len(shown[:fold]), section.hidden),
        key=section.key,
        notice=section.reason if any(claim.unchecked for claim in shown) else "",
    )


def _section_title(section: SummarySection, cited: Sequence[Fact]) -> str:
    if section.key not in ("allergy", "allergies"):
        return section.title
    return title_allergies(section.state, cited, section.title)


def title_allergies(state: Absence | None, facts: Sequence[Fact], title: str) -> str:
    """Return one of the four things that may be said (PAB-0064…0072); `title` where the facts say neither."""
    if state is Absence.NOT_RETRIEVED:
        return "Allergies unavailable"
    if state is Absence.NONE_RECORDED:
        return "Allergies not recorded"
    if any(not _says_none(fact) and fact.status is not Status.REFUTED for fact in facts):
        return "Known allergies"
    return "No known allergies" if any(_says_none_of_any_kind(fact) for fact in facts) else title


def _says_none(fact: Fact) -> bool:
    """Say whether a fact is a record of no allergy, be it of drugs or of food alone."""
    return fact.category == NONE_KNOWN or _says_none_of_any_kind(fact)


def _says_none_of_any_kind(fact: Fact) -> bool:
    coded = any(code.code in NO_KNOWN_ALLERGY for code in fact.codes)
    return coded or _NO_KNOWN_ALLERGY.match(fact.name) is not None


def _section_state(section: SummarySection, shown: int) -> str:
    if section.state is Absence.NOT_RETRIEVED:
        return "NOT RETRIEVED"
    if section.state is Absence.NONE_RECORDED:
        return "none recorded"
    return f"{shown + section.hidden:,}"


def _absence(section: SummarySection, shown: int) -> str:
    if section.state is Absence.NOT_RETRIEVED:
        reason = f" ({section.reason})" if section.reason else ""
        return f"NOT RETRIEVED{reason}. The chart may hold entries that are missing here."
    if section.state is Absence.NONE_RECORDED:
        return "None recorded, search complete."
    return "" if shown else "No statement is shown here. Read the chart."


def _tally(total: int, open_rows: int, hidden: int) -> str:
    if hidden:
        return f"{open_rows} of {total + hidden} shown; {hidden} more in the record and not on this page"
    return f"{open_rows} of {total} shown" if open_rows < total else ""


def _show_claim(
    claim: Claim,
    anchor: str,
    numbers: Mapping[FactId, int],
    facts: Mapping[FactId, Fact],
    marks: Marks,
) -> ShownClaim:
    cited = [facts[fact_id] for fact_id in dict.fromkeys(claim.citations)]
    before, strong, after = split_at(claim.text, weigh(cited))
    return ShownClaim(
        anchor=anchor,
        before=before,
        strong=strong,
        after=after,
        chips=tuple(Chip(numbers[fact.id], _chip_label(fact, numbers[fact.id])) for fact in cited),
        flags=tuple(
            Flag(fact.name if len(cited) > 1 else "", ", ".join(fact.flags), fact.reference_range)
            for fact in cited
            if fact.flags
        ),
        from_record=claim.origin is Origin.RECORD,
        corrected=claim.corrected,
        unchecked=claim.verdict is Verdict.NOT_VERIFIABLE,
        key=marks.keys.get(claim, ""),
        disputed=claim in marks.disputed,
        changed=any(fact.id in marks.changed for fact in cited),
        own=marks.own.get(claim),
    )


def weigh(cited: Sequence[Fact]) -> str:
    """The words that carry a statement: a result's value, anything else's name (MEDi-001, GTAB-028)."""
    if len(cited) != 1:
        return ""
    fact = cited[0]
    return fact.value if fact.kind in (Kind.RESULT, Kind.VITAL) else fact.name


def _chip_label(fact: Fact, number: int) -> str:
    when = words.show_when(fact.when)
    return f"Source {number}, {words.KINDS[fact.kind]}" + (f", {when}" if when else "")


def _show_source(fact: Fact, number: int, cited_at: tuple[tuple[str, int], ...]) -> Source:
    resource_type = fact.source.reference.rsplit("/", 2)[-2] if "/" in fact.source.reference else ""
    return Source(
        number=number,
        title=words.KINDS[fact.kind],
        resource_type=resource_type,
        when=words.show_when(fact.when) or "undated",
        text=fact.text,
        rows=_source_rows(fact),
        flags=fact.flags,
        body=fact.body,
        reference=fact.source.versioned_reference,
        cited_at=cited_at,
        has_images=resource_type in ("ImagingStudy", "Media") or spot_of(fact) is not None,
    )


def _source_rows(fact: Fact) -> tuple[tuple[str, str], ...]:
    """The (label, text) pairs that stand under a source's text, as recorded; empty ones are left out."""
    rows = [
        ("Value", fact.value),
        ("Reference range", fact.reference_range),
        ("Status", fact.recorded_status or fact.status.value),
        ("Certainty", fact.certainty),
        ("Until", words.show_when(fact.until)),
        ("About", (fact.person.text or fact.person.role) if fact.person.role != "patient" else ""),
        ("Category", fact.category),
        *fact.details,
        ("Author", fact.author),
        ("Encounter", fact.encounter or ""),
        ("Characters", f"{fact.span[0]} to {fact.span[1]} of the note" if fact.span else ""),
        ("Also recorded in", ", ".join(copy.versioned_reference for copy in fact.copies)),
    ]
    return tuple((label, text) for label, text in rows if text)


def _show_left_out(items: Iterable[LeftOut]) -> list[str]:
    lines = []
    for left_out in items:
        days = [day for day in dict.fromkeys((left_out.earliest, left_out.latest)) if day]
        period = f", {' to '.join(days)}" if days else ""
        reason = f" ({left_out.reason})" if left_out.reason else ""
        lines.append(f"{left_out.title}: {words.count(left_out.count, 'item')}{period}{reason}")
    return lines
