"""How dates, ages, people and states are written for a clinician, whatever the browser's locale.

Rules and numbers in brackets are those of the NHS Common User Interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date

from connectors.fhir.pull import Gap, GapReason
from service.ports import RunState
from service.record import everyday
from service.record.dates import MONTHS, parse_when
from service.record.dates import show_day as show_recorded_day
from service.record.facts import Identity, Kind, Precision, When

NOT_KNOWN = "Not known"

STATES = {
    RunState.GENERATED: "Written, not filed yet",
    RunState.FILED: "Draft filed",
    RunState.UNCHANGED: "Unchanged, already filed",
    RunState.INCOMPLETE: "Incomplete, not filed",
    RunState.WITHHELD: "Patient deceased, not filed",
    RunState.DRY: "Dry run, not filed",
    RunState.FAILED: "Failed, not filed",
}

KINDS = {
    Kind.PATIENT: "Patient",
    Kind.PROBLEM: "Problem",
    Kind.ALLERGY: "Allergy or intolerance",
    Kind.MEDICATION: "Medication",
    Kind.RESULT: "Result",
    Kind.VITAL: "Vital sign",
    Kind.SOCIAL: "Social history",
    Kind.PROCEDURE: "Procedure",
    Kind.ENCOUNTER: "Encounter",
    Kind.IMMUNIZATION: "Immunization",
    Kind.REPORT: "Report",
    Kind.NOTE: "Note",
    Kind.IMAGING: "Imaging study",
    Kind.ORDER: "Order",
    Kind.PLAN: "Care plan",
    Kind.GOAL: "Goal",
    Kind.FAMILY_HISTORY: "Family history",
    Kind.DEVICE: "Device",
    Kind.FLAG: "Flag",
    Kind.DIRECTIVE: "Directive",
}

RESOURCE_TYPES = everyday.RESOURCE_TYPES


def show_day(day: date) -> str:
    """Write a day as `04-May-2026` (D+Ta-0006)."""
    return f"{day.day:02}-{MONTHS[day.month - 1]}-{day.year:04}"


def show_when(when: When | None) -> str:
    """Write a recorded date with the precision it has: `2026`, `May-2026`, `04-May-2026 14:05`."""
    if when is None:
        return ""
    day = show_recorded_day(when)
    if when.precision is not Precision.TIME or not when.time:
        return day
    return f"{day} {when.time}" + ("" if when.zone_known else " (time zone not recorded)")


def read_day(text: str) -> date | None:
    """Read a day written by `show_day`; None for anything else."""
    parts = text.split("-")
    if len(parts) != 3 or parts[1] not in MONTHS:
        return None
    try:
        return date(int(parts[2]), MONTHS.index(parts[1]) + 1, int(parts[0]))
    except ValueError:
        return None


def show_partial(recorded: str) -> str:
    """Write a FHIR date string as `04-May-1951`, `May-1951` or `1951`; as recorded where it is none."""
    when = parse_when(recorded, UTC)
    return show_recorded_day(when) if when else recorded.strip()


def show_age(birth_date: str, on: date) -> str:
    """Write the age on a day: `75y`, `7y 2m`, `3w 4d`; `Approx 75y` for a partial date; empty when unknown.

    Units follow the age bands of the CUI patient banner (PAB-0045).
    """
    when = parse_when(birth_date, UTC)
    if when is None or when.day > on:
        return ""
    born = when.day
    if when.precision in (Precision.YEAR, Precision.MONTH):
        return f"Approx {on.year - born.year}y"
    years, months = _years_months(born, on)
    days = (on - born).days
    if years >= 18:
        return f"{years}y"
    if years >= 2:
        return f"{years}y {months}m"
    if years >= 1:
        return f"{12 * years + months}m"
    if days >= 28:
        return f"{days // 7}w {days % 7}d"
    return f"{days}d"


def show_born(identity: Identity, today: date) -> str:
    """Write `04-May-1951 (75y)`; a dead patient's age stands beside the day of death instead."""
    if not identity.birth_date:
        return NOT_KNOWN
    age = "" if identity.deceased else show_age(identity.birth_date, today)
    return _with_age(show_partial(identity.birth_date), age)


def show_died(identity: Identity) -> str:
    """Write `03-Jan-2025 (73y)`; that the date is not known where it is not."""
    died = parse_when(identity.deceased_when, UTC)
    if died is None:
        return identity.deceased_when or "date not known"
    whole = died.precision in (Precision.DAY, Precision.TIME)
    age = show_age(identity.birth_date if whole else identity.birth_date[:4], died.day)
    return _with_age(show_recorded_day(died), age)


def show_gender(recorded: str) -> str:
    """Write the recorded gender with a capital; `Not known` where it is missing or says so."""
    if recorded.strip().lower() in ("", "unknown"):
        return NOT_KNOWN
    return recorded[:1].upper() + recorded[1:]


def name_gap(gap: Gap) -> str:
    """Write what was not retrieved: `results and vital signs`."""
    if gap.resource_type is None:
        return "a part of the whole record"
    return everyday.name_type(gap.resource_type)


def name_gaps(gaps: Sequence[Gap]) -> tuple[str, ...]:
    """Name what was not retrieved, for the top of the page; the end of the page lists all of it.

    Kinds that have no everyday name and that the server does not offer at all are counted.
    """
    rare = {
        gap.resource_type
        for gap in gaps
        if gap.reason is GapReason.NOT_SUPPORTED and gap.resource_type not in (None, *RESOURCE_TYPES)
    }
    names = tuple(dict.fromkeys(name_gap(gap) for gap in gaps if gap.resource_type not in rare))
    return (*names, count(len(rare), "further kind") + " that this server does not offer") if rare else names


def show_gap(gap: Gap) -> str:
    """Write what was not retrieved and why: `imaging (timed out)`, with the detail where there is one."""
    detail = f", {gap.detail}" if gap.detail else ""
    return f"{name_gap(gap)} ({gap.reason.value}{detail})"


def count(number: int, one: str, many: str = "") -> str:
    """Write `1 statement`, `5,000 statements`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _with_age(day: str, age: str) -> str:
    return f"{day} ({age})" if age else day


def _years_months(born: date, on: date) -> tuple[int, int]:
    months = (on.year - born.year) * 12 + on.month - born.month - (on.day < born.day)
    return divmod(months, 12)
