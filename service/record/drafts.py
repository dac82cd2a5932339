"""What an AI wrote into this chart: the lines of its documents, and what a person added to an attested one.

Our own documents carry their statements as JSON beside the text. Of a text that a clinician edited and made
final, what the JSON does not hold is the clinician's; without it nothing can be told apart, and nothing of
the document is evidence (SAFETY 25). Nothing is noted as odd of documents that are not read for facts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from service.record.attachments import attached_content, media_type_of, read_attachment
from service.record.dates import show_day
from service.record.echo import ALWAYS, BANNER, UNDATED, Line, OwnWords, Stripped
from service.record.facts import Fact
from service.record.fhirjson import Element
from service.record.reading import Reading

FORMAT = "epicrisis-summary/"
"""The JSON form's `format` begins so; a number follows."""
ADDITION = "Clinician's addition to a drafted summary"
LEFT_OUT = "passages pasted from an AI-generated draft are left out"

_UNDERLINE = re.compile(r"^-{3,60}$")
_FIXED = tuple(
    re.compile(pattern)
    for pattern in (
        r"AI-GENERATED\b[A-Z ,\-]*",
        r"AI-GENERATED, REVIEWED AND ATTESTED BY \S+ ON \d\d-\w{3}-\d{4} \d\d:\d\d UTC",
        r"Added by \S+ on \d\d-\w{3}-\d{4} \d\d:\d\d UTC",
        r"Written by \S+ on \d\d-\w{3}-\d{4} \d\d:\d\d UTC, in place of a statement of the AI\.",
        r"A statement of the AI was left out here by \S+ on \d\d-\w{3}-\d{4} \d\d:\d\d UTC\.",
        r"Patient: .* · .* · record number .*",
        r"Chart read up to \d\d-\w{3}-\d{4} \d\d:\d\d UTC",
        r"Draft expires \d\d-\w{3}-\d{4} \d\d:\d\d UTC",
        r"(?:! )?INCOMPLETE: NOT RETRIEVED: .*",
        r"(?:! )?NOT RETRIEVED: .*: .*\.",
        r"\d+ more in the record, not shown here\.",
        r"No statement is shown here; that does not mean that nothing is recorded\.",
        r"Left out (?:for lack of room|\([^)]*\)): \d+ of .*\.",
        r"Nothing was left out for lack of room\.",
        r"Every part of the record that was asked for was retrieved\.",
        r"Some entries are not open to this summary\.",
        r"Statements not shown because their sources do not bear them out: \d+\.",
        r"Entries of the record searched: \d+(?:; the newest is of .*)?\.",
        r"The values match the sources that are cited; nothing replaces reading the sources themselves\.",
        r"Intended use: a navigation aid .* not for patients\.",
        r"Written on .* by the model .*, prompt .*, Epicrisis .*\.",
    )
)
"""Whole lines of our text form that the JSON form does not hold word for word."""
_BULLET = re.compile(r"^- ")
"""Ours before every statement, a clinician's too; blanked, so that every word keeps its place."""
_HEADINGS = ("Sources", "Left out, and not retrieved", "About this draft", "About this summary")


@dataclass(frozen=True, slots=True)
class Draft:
    """One document that an AI wrote."""

    reference: str
    written: float
    """Instant in seconds; before all others where it has none."""
    lines: tuple[Line, ...]
    rests_on: frozenset[tuple[str, str]] = frozenset()
    """(reference, digest) of every resource version that it cites: they were there before it."""
    attested_by: str = ""
    """Who made it final, for a document of ours whose statements can be told from what was added."""
    has_addition: bool = False


@dataclass(slots=True)
class Echo:
    """Everything that an AI wrote into one chart, and what became of texts that hold it."""

    words: OwnWords = field(default_factory=OwnWords)
    attested: dict[str, Draft] = field(default_factory=dict)
    passages: int = 0
    """Passages of clinicians' notes that were blanked."""
    open_banners: int = 0
    _named: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, draft: Draft) -> None:
        """Take over one document."""
        self.words.add(draft.lines, draft.written)
        for version in draft.rests_on:
            self._named[version] = min(draft.written, self._named.get(version, draft.written))
        if draft.has_addition:
            self.attested[draft.reference] = draft

    def strip(self, fact: Fact) -> Fact:
        """Return a note or report without an AI's words in its text; any other fact as it is."""
        draft = self.attested.get(fact.source.reference)
        if draft is not None:
            return _addition(fact, draft)
        if not fact.body:
            return fact
        found = self.words.strip(fact.body, self._newest(fact))
        self.open_banners += found.is_open
        if not found.passages and found.text == fact.body:
            return fact
        self.passages += found.passages
        return replace(fact, body=found.text if found.text.strip() else "", text=f"{fact.text}; {LEFT_OUT}")

    def _newest(self, fact: Fact) -> float:
        """Return the last instant at which something may have been pasted into a note.

        A version that a draft cites was there before that draft, whatever its date says.
        """
        times = [fact.when.latest.timestamp()] if fact.when else []
        if fact.source.updated and (updated := _instant(fact.source.updated)) is not None:
            times.append(updated)
        newest = max(times, default=UNDATED)
        named = self._named.get((fact.source.reference, fact.source.digest))
        return newest if named is None else min(newest, named - 0.001)


def _addition(fact: Fact, draft: Draft) -> Fact:
    body = addition_to(fact.body, draft.lines).text
    when = f"dated {show_day(fact.when)}" if fact.when else "without date"
    return replace(
        fact,
        name=ADDITION,
        text=f"{ADDITION}: note {when}, {fact.recorded_status or fact.status.value}; by {draft.attested_by}",
        author=draft.attested_by,
        codes=(),
        details=(),
        body=body if body.strip() else "",
    )


def read_draft(resource: Element, reading: Reading) -> Draft:
    """Return what a document of an AI's says, and whether a person's words stand in it."""
    form = None
    texts: list[str] = []
    for content in resource.children("content"):
        attachment = content.child("attachment")
        data, declared = attached_content(attachment, reading)
        if media_type_of(declared) == "application/json":
            form = form or _our_form(data)
        else:
            texts.append(read_attachment(attachment, reading).text)
    reading.chart.binary_reads.clear()  # drafts are read before all else, and are no input
    written = reading.chart.date(resource.text("date"))
    draft = Draft(
        reading.version.reference,
        written.earliest.timestamp() if written else ALWAYS,
        tuple(_lines_of(form)) if form else (),
        frozenset(_rests_on(form)) if form else frozenset(),
    )
    if is_attested(resource):
        return _attested(draft, texts, reading.name_of(resource.child("authenticator")))
    return replace(draft, lines=(*draft.lines, *(line for text in texts for line in _text_lines(text))))


def _attested(draft: Draft, texts: list[str], who: str) -> Draft:
    """Only what the machine wrote of an attested text is an AI's."""
    if not draft.lines:
        return draft
    added = any(addition_to(text, draft.lines).text.strip() for text in texts)
    return replace(draft, attested_by=who or "the authenticator", has_addition=added)


def is_attested(resource: Element) -> bool:
    """Tell whether a human made a document final."""
    return resource.text("docStatus") in ("final", "amended") and bool(
        resource.reference("authenticator") or resource.child("authenticator").text("display")
    )


def addition_to(text: str, lines: tuple[Line, ...]) -> Stripped:
    """Return what of an attested text no machine wrote, every word in its place."""
    kept = "\n".join(
        " " * len(line) if _is_fixed(line) else _BULLET.sub("  ", line) for line in text.split("\n")
    )
    words = OwnWords()
    words.add(lines)
    found = words.strip_lines(kept)
    return found if any(c.isalnum() for c in found.text) else replace(found, text="")


def _is_fixed(line: str) -> bool:
    said = line.strip()
    return bool(_UNDERLINE.match(said)) or any(pattern.fullmatch(said) for pattern in _FIXED)


def _text_lines(text: str) -> Iterator[Line]:
    lines = text.split("\n")
    for place, line in enumerate(lines):
        below = lines[place + 1].strip() if place + 1 < len(lines) else ""
        yield Line(line, bool(_UNDERLINE.match(below)))


def _our_form(data: bytes | None) -> dict[str, Any] | None:
    """Return the JSON form of a document of ours that holds statements; None for anything else."""
    try:
        form = json.loads(data or b"")
    except (ValueError, RecursionError):
        return None
    ours = isinstance(form, dict) and str(form.get("format", "")).startswith(FORMAT)
    return form if ours and (any(_statements(form)) or any(_objects(form.get("written")))) else None


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    yield from (item for item in (value if isinstance(value, list) else ()) if isinstance(item, dict))


def _statements(form: Mapping[str, Any]) -> Iterator[str]:
    for section in _objects(form.get("sections")):
        yield from (text for one in _objects(section.get("statements")) if (text := _text(one, "text")))


def _lines_of(form: Mapping[str, Any]) -> Iterator[Line]:
    yield Line(BANNER)
    yield from (Line(heading, True) for heading in _HEADINGS)
    for section in _objects(form.get("sections")):
        title = _text(section, "title")
        yield Line(title, True)
        yield Line(f"Conflict in the record: {_text(section, 'conflict')}")
        yield Line(f"{title}: {_text(section, 'state')}")
        yield Line(f"{title}: NOT RETRIEVED ({_text(section, 'reason') or 'no reason known'})")
    yield from (Line(text) for text in _statements(form))
    # Where a clinician kept most of a statement, those words are the AI's still.
    yield from (Line(_text(one, "in_place_of")) for one in _objects(form.get("written")))
    for source in _objects(form.get("sources")):
        yield Line(_text(source, "text"))
        version = _text(source, "version")
        also = source.get("also")
        words = (
            _text(source, "type"),
            _text(source, "name"),
            _text(source, "date") or "no date recorded",
            _text(source, "reference") + (f"/_history/{version}" if version else ""),
            f"and {len(also)} more that say the same" if isinstance(also, list) and also else "",
        )
        yield Line(" · ".join(word for word in words if word))


def _rests_on(form: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for source in _objects(form.get("sources")):
        for one in (source, *_objects(source.get("also"))):
            yield _text(one, "reference"), _text(one, "sha256")


def _text(holder: Mapping[str, Any], key: str) -> str:
    value = holder.get(key)
    return value if isinstance(value, str) else ""


def _instant(text: str) -> float | None:
    try:
        when = datetime.fromisoformat(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
