"""Instants and dates as a document writes them: absolute, and never more precise than recorded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from service.record.dates import MONTHS, parse_when, show_day
from service.record.facts import Precision, When

DRAFT_LIFE = timedelta(hours=72)
"""An unattested draft is withdrawn after this time (SAFETY 18)."""


def fhir_instant(at: datetime) -> str:
    """Return an instant with milliseconds, in UTC: what every server keeps."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def show_instant(at: datetime) -> str:
    """`20-Nov-2026 09:29 UTC`. Rounded down, so that "read up to" and "expires" never promise too much."""
    utc = at.astimezone(UTC)
    return f"{utc.day:02d}-{MONTHS[utc.month - 1]}-{utc.year:04d} {utc:%H:%M} UTC"


def show_when(when: When) -> str:
    """`04-May-2019 14:05`, `04-May-2019`, `May-2019`, `2019`."""
    day = show_day(when)
    return f"{day} {when.time}" if when.precision is Precision.TIME and when.time else day


def show_recorded(date: str) -> str:
    """Show a FHIR date in the same style; what cannot be read as a date stays as recorded."""
    when = parse_when(date, None)
    return show_day(when) if when else date


def fhir_date(when: When) -> str:
    """Return the FHIR date of a fact's day in its precision: `2019-05-04`, `2019-05`, `2019`."""
    length = {Precision.YEAR: 4, Precision.MONTH: 7}.get(when.precision, 10)
    return when.day.isoformat()[:length]
