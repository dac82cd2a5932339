"""What a prompt.toml says: its tables as typed values, and the line of whatever is wrong in it.

The tables and their keys are described in prompts/README.md; a key that nothing reads is refused, so that
a slip of the pen cannot silently leave a default in force.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import date
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from service.errors import EpicrisisError
from service.record.facts import Fact, Kind, Status

_PATH = re.compile(r"\$\.(?P<table>\w+)(?:\[(?P<row>\d+)\])?(?:\.(?P<key>\w+))?")
_HEADER = re.compile(r"\s*\[\[?[\w. -]+\]\]?\s*(#|$)")
_TOML_LINE = re.compile(r" ?\(at (?:line (\d+), column \d+|end of document)\)")

Words = Annotated[str, msgspec.Meta(min_length=1)]
Whole = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class TemplateError(EpicrisisError):
    """A template set is wrong. The message names the file and, where there is one, the line."""

    code = "template"
    exit_code = 3

    def __init__(self, file: str, line: int | None, sentence: str) -> None:
        where = f"{file}, line {line}" if line else file
        super().__init__(f"{where}: {sentence}", "prompts/README.md says what a template set holds.")
        self.file = file
        self.line = line


class Scope(StrEnum):
    """Which facts a heading takes: all, those of the encounter at hand, or all others."""

    ALL = "all"
    STAY = "stay"
    BEFORE = "before"


class Form(StrEnum):
    """How a block is laid out: a line a fact, a date × analyte table, vital signs by day, or note text."""

    LINES = "lines"
    PIVOT = "pivot"
    VITALS = "vitals"
    NOTES = "notes"


class FocusScope(StrEnum):
    """Where a task's further facts come from: nowhere, the stay at hand, the last days, or a question."""

    NONE = "none"
    STAY = "stay"
    DAYS = "days"
    QUESTION = "question"


class MedicationRecord(StrEnum):
    """What a medication fact is about: an order, a statement, an administration or a dispense."""

    ORDER = "order"
    STATEMENT = "statement"
    ADMINISTRATION = "administration"
    DISPENSE = "dispense"


_RECORDS = frozenset(MedicationRecord)


def record_of(fact: Fact) -> str:
    """Return the medication record word of a fact; `order` where it has none that is known."""
    words = (word for label, word in fact.details if label == "record" and word in _RECORDS)
    return next(words, MedicationRecord.ORDER)


@dataclass(frozen=True, slots=True)
class SectionRule:
    """A heading of the summary: which facts and which required kinds stand under it. No status means all."""

    key: Words
    title: Words
    kinds: tuple[Kind, ...] = ()
    required: tuple[str, ...] = ()
    scope: Scope = Scope.ALL
    statuses: tuple[Status, ...] = ()

    def takes(self, kind: Kind, status: Status, of_stay: bool) -> bool:
        """Tell whether a fact stands here; `of_stay` says that it is of the encounter at hand."""
        in_scope = self.scope is Scope.ALL or (self.scope is Scope.STAY) is of_stay
        return in_scope and kind in self.kinds and (not self.statuses or status in self.statuses)


@dataclass(frozen=True, slots=True)
class BlockRule:
    """A block of the evidence, the same for every task. No status, or no record word, means all."""

    key: Words
    title: Words
    kinds: Annotated[tuple[Kind, ...], msgspec.Meta(min_length=1)]
    statuses: tuple[Status, ...] = ()
    records: tuple[MedicationRecord, ...] = ()
    form: Form = Form.LINES

    def takes(self, kind: Kind, status: Status, record: str) -> bool:
        """Tell whether a fact stands here. `record` counts for medications alone."""
        if kind not in self.kinds or (self.statuses and status not in self.statuses):
            return False
        return kind is not Kind.MEDICATION or not self.records or record in self.records


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be said and shown. `notes_share` is a share of the evidence's tokens."""

    max_claims: Positive = 120
    trends: Whole = 8
    vitals_days: Positive = 12
    notes_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.35


@dataclass(frozen=True, slots=True)
class Focus:
    """Further facts for one task, after the shared evidence. No kinds means all; `share` is of the budget."""

    scope: FocusScope = FocusScope.NONE
    days: Whole = 0
    kinds: tuple[Kind, ...] = ()
    share: Annotated[float, msgspec.Meta(ge=0, le=0.1)] = 0.0


@dataclass(frozen=True, slots=True)
class Example:
    """A worked example for guided models: a fact's line, and the sentence that it should become."""

    kind: Kind
    status: Status
    line: Words
    claim: Words


@dataclass(frozen=True, slots=True)
class Change:
    """One dated change of a set, with its reason."""

    version: Words
    date: date
    reason: Words


@dataclass(frozen=True, slots=True)
class Order:
    """How facts compete for the budget: earlier kinds win among facts of equal rank."""

    kinds: tuple[Kind, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """One prompt.toml as written. What is None is inherited."""

    id: Words
    version: Words
    title: Words
    changes: Annotated[tuple[Change, ...], msgspec.Meta(min_length=1)]
    extends: str | None = None
    sections: Annotated[tuple[SectionRule, ...], msgspec.Meta(min_length=1)] | None = None
    blocks: Annotated[tuple[BlockRule, ...], msgspec.Meta(min_length=1)] | None = None
    limits: Limits | None = None
    focus: Focus | None = None
    order: Order | None = None
    kind_titles: dict[Kind, Words] | None = None
    unshown: dict[Kind, Words] | None = None
    examples: tuple[Example, ...] | None = None


_ROWS: Mapping[str, type] = {
    "changes": Change, "sections": SectionRule, "blocks": BlockRule, "limits": Limits, "focus": Focus,
    "order": Order, "examples": Example,
}  # fmt: skip


def read_settings(text: str, place: str) -> Written:
    """Read one prompt.toml, which messages call `place`. Raises TemplateError with its line."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _TOML_LINE.search(str(error))
        line = int(found[1]) if found and found[1] else max(len(text.splitlines()), 1)
        raise TemplateError(place, line, f"not TOML: {_TOML_LINE.sub('', str(error))}.") from None
    for table, row, key in _unknown(raw):
        line = line_in(text, table, row, key, "")
        raise TemplateError(place, line, f"the key {key or table!r} is not known here.")
    try:
        return msgspec.convert(raw, Written)
    except msgspec.ValidationError as error:
        sentence = str(error).replace("Object missing required field", "missing key")
        raise TemplateError(place, _line_of_error(text, sentence), f"{sentence}.") from None


def _unknown(raw: Mapping[str, Any]) -> Iterator[tuple[str, int, str]]:
    """Yield (table, row, key) of every key that nothing reads."""
    known = {field.name for field in fields(Written)}
    for table, value in raw.items():
        if table not in known:
            yield table, 0, ""
        if table in _ROWS:
            keys = {field.name for field in fields(_ROWS[table])}
            for row, entry in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(entry, dict):
                    yield from ((table, row, key) for key in entry if key not in keys)


def _line_of_error(text: str, message: str) -> int:
    """Return the line of the value that msgspec names by its path and, for an unknown word, by its text."""
    path = _PATH.search(message)
    quoted = re.search(r"Invalid enum value '(.*?)'", message)
    if path is None:
        return 1
    table, row, key = path["table"], int(path["row"] or 0), path["key"] or ""
    return line_in(text, table, row, key, quoted[1] if quoted else "")


def line_in(text: str, table: str, row: int, key: str, word: str) -> int:
    """Return the line (from 1) of a word or key in a table's row, as far as the text shows it."""
    lines = text.splitlines() or [""]
    start = _start(lines, table, row)
    end = next((n for n in range(start + 1, len(lines)) if _HEADER.match(lines[n])), len(lines))
    patterns = [rf"[\"']{re.escape(word)}[\"']"] if word else []
    patterns += [rf"(?:^|[{{,])\s*[\"']?{re.escape(name)}[\"']?\s*=" for name in (word, key) if name]
    for pattern in patterns:
        for n in range(start, end):
            if re.search(pattern, lines[n]):
                return n + 1
    return start + 1


def _start(lines: list[str], table: str, row: int) -> int:
    """Return the index of the line on which a table's row, or a top-level key, begins; 0 where unseen."""
    header = re.compile(rf"\s*\[\[?\s*{re.escape(table)}\s*\]")
    starts = [n for n, line in enumerate(lines) if header.match(line)]
    if starts:
        return starts[min(row, len(starts) - 1)]
    own = re.compile(rf"\s*[\"']?{re.escape(table)}[\"']?\s*[=.]")
    return next((n for n, line in enumerate(lines) if own.match(line)), 0)
