"""FHIR dates with the precision they were recorded in, and how they are shown: `04-May-2019`."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from service.record.facts import Precision, When

_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?\s?(Z|[+-]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LAST_INSTANT = time(23, 59, 59, 999999)


def load_zone(name: str | None) -> ZoneInfo | None:
    """Return the site's zone, or None where there is none or its name is unknown."""
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # by how the name is wrong
        return None


def parse_when(recorded: str, zone: tzinfo | None) -> When | None:
    """Read a FHIR date, dateTime or instant. None for what is no date, such as 2021-02-30.

    Dates are bounded in the site's zone, else in UTC; times with an offset are shown in the site's zone,
    else in their own. A leap second counts as the second before it.
    """
    match = _DATE.fullmatch(recorded)
    if match is None:
        return None
    try:
        return _instant(recorded, match, zone) if match[4] else _day_span(recorded, match, zone or UTC)
    except (ValueError, OverflowError):
        return None


def _day_span(recorded: str, match: re.Match[str], zone: tzinfo) -> When:
    year, month, day = int(match[1]), match[2], match[3]
    first = date(year, int(month or 1), int(day or 1))
    if day:
        last, precision = first, Precision.DAY
    elif month:
        last, precision = first.replace(day=monthrange(year, first.month)[1]), Precision.MONTH
    else:
        last, precision = date(year, 12, 31), Precision.YEAR
    return When(
        recorded,
        precision,
        datetime.combine(first, time.min, zone),
        datetime.combine(last, _LAST_INSTANT, zone),
        first,
    )


def _instant(recorded: str, match: re.Match[str], zone: tzinfo | None) -> When:
    offset = _offset(match[8])
    second = min(int(match[6] or 0), 59) if int(match[6] or 0) <= 60 else -1
    micro = int((match[7] or "0").ljust(6, "0")[:6])
    at = datetime(
        int(match[1]),
        int(match[2]),
        int(match[3]),
        int(match[4]),
        int(match[5]),
        second,
        micro,
        offset or UTC,
    )
    shown = at.astimezone(zone) if zone is not None and offset is not None else at
    end = at if match[6] else at + timedelta(seconds=59, microseconds=999999)
    clock = f"{shown.hour:02d}:{shown.minute:02d}"
    return When(recorded, Precision.TIME, at, end, shown.date(), offset is not None, clock)


def _offset(text: str | None) -> tzinfo | None:
    if text is None:
        return None
    if text == "Z":
        return UTC
    minutes = int(text[1:3]) * 60 + int(text[4:6])
    return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))


def show_day(when: When) -> str:
    """Show a date in its precision: `04-May-2019`, `May-2019`, `2019`."""
    day = when.day
    if when.precision is Precision.YEAR:
        return f"{day.year:04d}"
    month = MONTHS[day.month - 1]
    if when.precision is Precision.MONTH:
        return f"{month}-{day.year:04d}"
    return f"{day.day:02d}-{month}-{day.year:04d}"


def on_day(when: When | None) -> str:
    """`on 04-May-2019`, `in May-2019`, `in 2019`; empty without a date."""
    if when is None:
        return ""
    return f"{'in' if when.precision in (Precision.YEAR, Precision.MONTH) else 'on'} {show_day(when)}"


def labelled(label: str, when: When | None) -> str:
    """`recorded 04-May-2019`, or empty without a date."""
    return f"{label} {show_day(when)}" if when else ""


def span(start: When | None, end: When | None) -> str:
    """`from 03-Feb-2012 to 17-Feb-2012`; one day as `on …`; one end as `from …` or `until …`."""
    if start and end:
        first, last = show_day(start), show_day(end)
        return on_day(start) if first == last else f"from {first} to {last}"
    return labelled("from", start) or labelled("until", end)


def days_between(start: When | None, end: When | None) -> int | None:
    """Return whole calendar days from start to end; None unless both are known to the day and in order."""
    coarse = (Precision.YEAR, Precision.MONTH)
    if start is None or end is None or start.precision in coarse or end.precision in coarse:
        return None
    days = (end.day - start.day).days
    return days if days >= 0 else None
