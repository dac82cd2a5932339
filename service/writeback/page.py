"""What a document says, line by line and in order: the one structure behind its text and its XHTML form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from connectors.fhir.pull import Gap
from service.context.chosen import LeftOut
from service.context.manifest import NO_ROOM
from service.grounding.summary import Claim, Origin, Summary, SummarySection, Verdict
from service.ports import StoredRun
from service.record.facts import Absence, FactId, Identity
from service.writeback.clean import one_line
from service.writeback.labels import BANNER
from service.writeback.moment import DRAFT_LIFE, show_instant, show_recorded, show_when
from service.writeback.pictures import FILED, MARK, OF_PICTURES
from service.writeback.sources import Source

Sources = Mapping[FactId, Source]


class Line(StrEnum):
    """What a line is, which decides how it looks."""

    BANNER = "banner"
    IDENTITY = "identity"
    WARNING = "warning"
    HEADING = "heading"
    STATEMENT = "statement"
    NOTE = "note"
    SOURCE = "source"


@dataclass(frozen=True, slots=True)
class Block:
    """One line: its text, and for a statement the numbers of its sources and what is said of it."""

    line: Line
    text: str
    numbers: tuple[int, ...] = ()
    mark: str = ""


def compose_page(run: StoredRun, sources: Sources, software_version: str) -> tuple[Block, ...]:
    """Return every line of the document. Banner and identity begin and end it (SAFETY 16)."""
    head = tuple(Block(Line.IDENTITY, text) for text in identity_lines(run))
    banner = Block(Line.BANNER, BANNER)
    return (
        banner,
        *head,
        *_warnings(run.summary),
        *(block for section in run.summary.sections for block in section_blocks(section, sources)),
        *source_blocks(sources),
        *closing_blocks(run, software_version),
        *head,
        banner,
    )


def source_blocks(sources: Sources) -> Iterator[Block]:
    """Yield the list of sources under its heading."""
    yield Block(Line.HEADING, "Sources")
    yield from (Block(Line.SOURCE, source.title, (source.number,)) for source in sources.values())


def closing_blocks(run: StoredRun, software_version: str) -> Iterator[Block]:
    """Yield what is not in the document, and what the document is."""
    yield from _not_here(run.summary)
    yield from _about(run, software_version)


def identity_lines(run: StoredRun) -> tuple[str, ...]:
    """Who, read up to when, and until when the draft stands."""
    return (
        f"Patient: {_who(run.summary.identity)}",
        f"Chart read up to {show_instant(run.read_at)}",
        f"Draft expires {show_instant(run.created_at + DRAFT_LIFE)}",
    )


def describe(run: StoredRun) -> str:
    """Return the document's one-line description, which begins and ends with the banner too."""
    return " · ".join((BANNER, *_incomplete(run.summary), *identity_lines(run), BANNER))


def _who(identity: Identity) -> str:
    name = one_line(identity.name) or "name not recorded"
    born = one_line(show_recorded(identity.birth_date))
    number = one_line(identity.record_number)
    return " · ".join(
        (
            name,
            f"born {born}" if born else "birth date not recorded",
            f"record number {number}" if number else "record number not recorded",
        )
    )


def _incomplete(summary: Summary) -> Iterator[str]:
    if summary.incomplete:
        yield f"INCOMPLETE: NOT RETRIEVED: {', '.join(one_line(title) for title in summary.incomplete)}"


def _warnings(summary: Summary) -> Iterator[Block]:
    for text in _incomplete(summary):
        yield Block(Line.WARNING, text)


def section_blocks(section: SummarySection, sources: Sources) -> Iterator[Block]:
    """Yield the lines of one section, its heading first."""
    title = one_line(section.title)
    yield Block(Line.HEADING, title)
    yield from (Block(Line.NOTE, text) for text in _state(section, title))
    of_pictures = section.key in OF_PICTURES
    if of_pictures:
        yield Block(Line.WARNING, FILED)
    if section.conflict:
        what = "Picture and report differ" if of_pictures else "Conflict in the record"
        yield Block(Line.WARNING, f"{what}: {one_line(section.conflict)}")
    for claim in section.claims:
        numbers = tuple(sources[fact_id].number for fact_id in claim.citations)
        yield Block(Line.STATEMENT, one_line(claim.text), numbers, _mark(claim))


def _state(section: SummarySection, title: str) -> Iterator[str]:
    """One of the three things that may be said of a required kind (SAFETY 5)."""
    match section.state:
        case Absence.NONE_RECORDED:
            yield f"{title}: none recorded, search complete."
        case Absence.NOT_RETRIEVED:
            yield f"{title}: NOT RETRIEVED ({one_line(section.reason) or 'no reason known'})."
        case Absence.LISTED:
            yield f"{title}: listed."
    if section.hidden:
        yield f"{section.hidden} more in the record, not shown here."
    if not section.claims and section.state in (None, Absence.LISTED):
        yield "No statement is shown here; that does not mean that nothing is recorded."


def _mark(claim: Claim) -> str:
    marks = (MARK if claim.verdict is Verdict.NOT_VERIFIABLE else "",
             "(added from the record)" if claim.origin is Origin.RECORD else "",
             "(citation corrected)" if claim.corrected else "")  # fmt: skip
    return " ".join(mark for mark in marks if mark)


def _not_here(summary: Summary) -> Iterator[Block]:
    yield Block(Line.HEADING, "Left out, and not retrieved")
    yield from (Block(Line.NOTE, _left_out(left)) for left in summary.left_out)
    yield from (Block(Line.WARNING, text) for text in _gaps(summary.gaps))
    if not summary.left_out:
        yield Block(Line.NOTE, "Nothing was left out for lack of room.")
    if not summary.gaps:
        yield Block(Line.NOTE, "Every part of the record that was asked for was retrieved.")
    if summary.restricted:
        yield Block(Line.NOTE, "Some entries are not open to this summary.")
    if summary.refused:
        yield Block(
            Line.NOTE,
            f"Statements not shown because their sources do not bear them out: {len(summary.refused)}.",
        )
    searched = f"Entries of the record searched: {summary.searched}"
    newest = f"; the newest is of {show_when(summary.as_of)}" if summary.as_of else ""
    yield Block(Line.NOTE, f"{searched}{newest}.")


def _left_out(left: LeftOut) -> str:
    days = tuple(dict.fromkeys(one_line(day) for day in (left.earliest, left.latest) if day))
    what = f"{left.count} of {one_line(left.title)}{_period(days)}"
    reason = one_line(left.reason) or NO_ROOM
    return f"Left out for lack of room: {what}." if reason == NO_ROOM else f"Left out ({reason}): {what}."


def _period(days: tuple[str, ...]) -> str:
    return f" ({' to '.join(days)})" if days else ""


def _gaps(gaps: Iterable[Gap]) -> Iterator[str]:
    """Yield one line a reason: `NOT RETRIEVED: Goal, List: not offered by the server (…).`"""
    by_reason: dict[str, list[str]] = {}
    for gap in gaps:
        detail = f" ({one_line(gap.detail).rstrip('.')})" if gap.detail else ""
        what = one_line(gap.resource_type or "") or "parts of the record"
        by_reason.setdefault(f"{gap.reason.value}{detail}", []).append(what)
    for reason, kinds in by_reason.items():
        yield f"NOT RETRIEVED: {', '.join(dict.fromkeys(kinds))}: {reason}."


def _about(run: StoredRun, software_version: str) -> Iterator[Block]:
    inputs = run.inputs
    yield Block(Line.HEADING, "About this draft")
    yield Block(
        Line.NOTE,
        "The values match the sources that are cited; nothing replaces reading the sources themselves.",
    )
    if any(section.key in OF_PICTURES for section in run.summary.sections):
        yield Block(Line.NOTE, "That does not hold of what was read from pictures, which is not checked.")
    yield Block(
        Line.NOTE,
        "Intended use: a navigation aid for the treating clinician. Not for direct clinical use without"
        " validation; not for time-critical decisions; not advice; not for patients.",
    )
    written = (
        f"Written on {show_instant(run.created_at)} by the model {inputs.model} on {inputs.engine_version}"
    )
    prompt = f"prompt {inputs.prompt_id} {inputs.prompt_version}, Epicrisis {software_version}"
    yield Block(Line.NOTE, one_line(f"{written}, {prompt}."))
