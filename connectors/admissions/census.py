"""Admissions from a census file, and from a list by hand: for sites whose servers tell no admissions.

A file is a state, not news: what differs from the file before is the news. A file that is cut or odd ends no
stay, since who is missing from it may only be missing from it.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo

from connectors.admissions.cursor import Cursor
from connectors.admissions.events import Admitted, Batch, Event, Identifier, Source, Subject, Visit
from connectors.admissions.stays import GOES_ON, WITHOUT_VISIT, Phase, Stay, Stays
from connectors.errors import NotUnderstoodError, TooLarge
from connectors.fhir.reference import parse_reference
from connectors.limits import MIB

MAX_BYTES = 32 * MIB
MAX_ROWS = 100_000
_MAX_CELL = 4_096


class CensusUnreadable(NotUnderstoodError):
    """The file is no table with the columns that were named."""

    code = "census_unreadable"
    advice_text = "Give a CSV file whose first row names the columns, and those names in the settings."


@dataclass(frozen=True, slots=True)
class Columns:
    """The names in the first row, in any case and order. An empty name means: there is no such column."""

    patient: str = "patient"
    """`Patient/1`, or a business identifier."""
    visit: str = "visit"
    """`Encounter/1`, or a visit number; without it, a patient has one stay."""
    encounter_class: str = "class"
    location: str = "location"
    admitted: str = "admitted"
    """When the stay began: ISO 8601, with or without offset."""
    patient_system: str = ""
    """The URI of what numbers the patients; not a column."""


def read_census(
    data: bytes, cursor: Cursor, *, now: datetime, zone: tzinfo, columns: Columns | None = None
) -> Batch[Cursor]:
    """Return what a census file says that the one before did not, and the next cursor.

    `zone` is the site's time zone. Raises CensusUnreadable and TooLarge, without any text of the file.
    """
    stays, odd = Stays.of(Source.CENSUS, cursor.stays), Counter[str]()
    rows = _rows(data, columns or Columns(), odd)
    events: list[Event] = []
    seen = 0
    for row in rows:
        seen += 1
        stay = _stay(row, columns or Columns(), zone, now, odd)
        if stay is None:
            continue
        if stay.id in stays.touched:
            odd["doubled_row"] += 1
            continue
        events += _take(stays, stay)
    missing = [stay.id for stay in stays if stay.phase in GOES_ON and stay.id not in stays.touched]
    if missing and (_CUT & odd.keys() or len(missing) > max(_MAX_MISSING, len(stays.touched))):
        odd["ends_not_believed"] += len(missing)
        return Batch(tuple(events), replace(cursor, stays=tuple(stays)), odd, seen, is_complete=False)
    for stay_id in missing:
        events += stays.end(stay_id, Phase.ENDED, None, f"missing at {now.isoformat()}")
    kept = tuple(stay for stay in stays if stay.phase in GOES_ON)
    return Batch(tuple(events), Cursor(now, now, kept), odd, seen)


_CUT = frozenset({"cells_do_not_match_columns", "without_patient", "cell_too_long"})
"""Rows of which nobody can say whom they were about."""
_MAX_MISSING = 10
"""More stays than that, and more than remain, do not end between two files: the file is cut, or another."""


def list_by_hand(lines: Iterable[str], *, now: datetime) -> Batch[None]:
    """Return an admission for each `Patient/1` or `Encounter/1`, each once; anything else is counted."""
    odd: Counter[str] = Counter()
    events: dict[str, Event] = {}
    seen = 0
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        seen += 1
        found = parse_reference(text)
        if found is None or found.resource_type not in ("Patient", "Encounter") or found.version:
            odd["no_reference"] += 1
        elif text in events:
            odd["doubled_row"] += 1
        else:
            events[text] = _by_hand(text, now)
    return Batch(tuple(events.values()), None, odd, seen)


def _by_hand(reference: str, now: datetime) -> Event:
    is_patient = reference.startswith("Patient/")
    return Admitted(
        patient=Subject(reference if is_patient else ""),
        visit=Visit("" if is_patient else reference),
        source=Source.HAND,
        key=f"{reference}/{now.isoformat()}",
    )


def _take(stays: Stays, stay: Stay) -> tuple[Event, ...]:
    """Take a row as a new version only where it says something new: a census has no versions."""
    before = stays.known.get(stay.id)
    if before is not None and replace(stay, version=before.version) == before:
        stays.touched.add(stay.id)
        return ()
    return stays.take(stay)


Row = dict[str, str]


def _rows(data: bytes, columns: Columns, odd: Counter[str]) -> Iterator[Row]:
    if len(data) > MAX_BYTES:
        raise TooLarge(f"The census file is larger than {MAX_BYTES:,} bytes.")
    text = _decode(data, odd)
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t|", key=head.count)
    reader = csv.reader(io.StringIO(text.replace("\0", ""), newline=""), delimiter=delimiter)
    try:
        names = [name.strip().casefold() for name in next(reader, [])]
        if columns.patient.casefold() not in names:
            raise CensusUnreadable("The census file has no column for the patient.")
        for number, cells in enumerate(reader):
            if number >= MAX_ROWS:
                raise TooLarge(f"The census file has more than {MAX_ROWS:,} rows.")
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(names):
                odd["cells_do_not_match_columns"] += 1
            yield {name: cell.strip() for name, cell in zip(names, cells, strict=False)}
    except csv.Error:
        raise CensusUnreadable("The census file is damaged.") from None


def _decode(data: bytes, odd: Counter[str]) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        odd["not_utf_8"] += 1
        return data.decode("cp1252", errors="replace")


def _stay(row: Row, columns: Columns, zone: tzinfo, now: datetime, odd: Counter[str]) -> Stay | None:
    def cell(name: str) -> str:
        return row.get(name.casefold(), "") if name else ""

    patient = _subject(cell(columns.patient), columns.patient_system)
    if not patient:
        odd["without_patient"] += 1
        return None
    if any(len(text) > _MAX_CELL for text in row.values()):
        odd["cell_too_long"] += 1
        return None
    admitted = _instant(cell(columns.admitted), zone)
    if admitted is None and not _is_date(cell(columns.admitted)):
        odd["unreadable_time"] += 1
    return Stay(
        id=cell(columns.visit) or WITHOUT_VISIT + cell(columns.patient),
        phase=Phase.OPEN,
        patient=patient,
        encounter_class=cell(columns.encounter_class).upper(),
        location=cell(columns.location),
        version=f"row at {now.isoformat()}",
        at=admitted,
    )


def _subject(text: str, system: str) -> Subject:
    found = parse_reference(text)
    if found is not None and found.resource_type == "Patient":
        return Subject(f"Patient/{found.id}")
    return Subject(identifiers=(Identifier(system, text),)) if text else Subject()


def _instant(text: str, zone: tzinfo) -> datetime | None:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    if _is_date(text):
        return None
    return when if when.tzinfo else when.replace(tzinfo=zone)


def _is_date(text: str) -> bool:
    """Tell whether nothing or no more than a day is given: that is no instant, and no fault."""
    try:
        return not text or (len(text) <= len("2026-11-24") and bool(datetime.fromisoformat(text)))
    except ValueError:
        return False
