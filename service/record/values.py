"""Measured, coded and other values as they are shown: recorded unit, digits and comparator (SAFETY 11)."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

from service.record.dates import show_day, span
from service.record.facts import Quantity, When
from service.record.fhirjson import Element, as_number, concept_of, digits, dose_digits, one_line

DateReader = Callable[[str], When | None]

_DOSE_UNITS = {
    "U": "units",
    "u": "units",
    "[U]": "units",
    "IU": "international units",
    "[IU]": "international units",
    "[iU]": "international units",
}
"""Units that may not be abbreviated in a dose (SAFETY 11: no "U" for units)."""
_PERIOD_UNITS = {
    "s": "second",
    "min": "minute",
    "h": "hour",
    "d": "day",
    "wk": "week",
    "mo": "month",
    "a": "year",
}
_COMPARATORS = ("<", "<=", ">=", ">")
UNREADABLE = "value of an unknown kind"


class Value(NamedTuple):
    """A value as shown, and as a quantity where it is one."""

    text: str
    quantity: Quantity | None = None


NO_VALUE = Value("")


def read_quantity(element: Element, *, dose: bool = False) -> Quantity | None:
    """Read a Quantity, Age, Duration or Money; None where there is no number to show."""
    number = element.number("value")
    if number is None:
        return None
    comparator = element.text("comparator")
    unit = element.text("unit") or element.text("code") or element.text("currency")
    amount = dose_digits(number) if dose else digits(number)
    shown_unit = _DOSE_UNITS.get(unit, unit) if dose else unit
    prefix = comparator if comparator in _COMPARATORS else f"{comparator} " if comparator else ""
    return Quantity(f"{prefix}{amount} {shown_unit}".rstrip(), number, comparator, unit)


def show_quantity(element: Element, *, dose: bool = False) -> str:
    """Show a Quantity, or an empty string."""
    quantity = read_quantity(element, dose=dose)
    return quantity.text if quantity else ""


def show_range(element: Element, *, dose: bool = False) -> str:
    """Show a Range: `4.0–5.6 mg`, `≥4.0 mg`, `≤5.6 mg`; the unit once where both ends share it."""
    low, high = (read_quantity(element.child(end), dose=dose) for end in ("low", "high"))
    if low and high:
        start = _amount(low) if low.unit == high.unit or not low.unit else low.text
        return f"{start}–{high.text}"
    if low:
        return f"≥{low.text}"
    return f"≤{high.text}" if high else ""


def _amount(quantity: Quantity) -> str:
    return quantity.text.split(" ", 1)[0]


def show_ratio(element: Element, *, dose: bool = False) -> str:
    """Show a Ratio: `1:128` for a titre, `100 mg per 1 mL` where an end has a unit."""
    top, bottom = (read_quantity(element.child(end), dose=dose) for end in ("numerator", "denominator"))
    if top is None or bottom is None:
        return ""
    if not top.unit and not bottom.unit:
        return f"{top.text}:{bottom.text}"
    return f"{top.text} per {bottom.text}"


def show_period(element: Element, read_date: DateReader) -> str:
    """Show a Period: `from 03-Feb-2012 to 17-Feb-2012`."""
    return span(read_date(element.text("start")), read_date(element.text("end")))


def count(number: Decimal, unit_code: str) -> str:
    """Show a length of time: `1 day`, `8 hours`; an unknown unit as recorded."""
    amount = dose_digits(number)
    unit = _PERIOD_UNITS.get(unit_code)
    if unit is None:
        return f"{amount} {unit_code}".rstrip()
    return f"{amount} {unit}{'' if amount == '1' else 's'}"


def read_value(element: Element, prefix: str, read_date: DateReader) -> Value:
    """Read a choice element (`value[x]`, `onset[x]`…) of any type. NO_VALUE where there is none."""
    kind, raw = element.choice(prefix)
    if not kind or raw is None:
        return NO_VALUE
    value = _read(kind, raw, element, read_date)
    if not value.text:
        element.note(UNREADABLE, prefix + "[x]")
    return value


def _read(kind: str, raw: Any, element: Element, read_date: DateReader) -> Value:
    if isinstance(raw, list):
        raw = raw[0] if raw else None
    if isinstance(raw, dict):
        return _read_object(kind, Element(raw, element.path, element.notes), read_date)
    if isinstance(raw, bool):
        return Value("yes" if raw else "no")
    if isinstance(raw, str):
        return Value(_show_text(kind, one_line(raw), read_date))
    number = as_number(raw)
    return Value(digits(number), Quantity(digits(number), number, "", "")) if number is not None else NO_VALUE


def _show_text(kind: str, text: str, read_date: DateReader) -> str:
    if kind in ("DateTime", "Date", "Instant"):
        when = read_date(text)
        return show_day(when) if when else text
    return text


def _read_object(kind: str, value: Element, read_date: DateReader) -> Value:
    if kind in ("Quantity", "Age", "Duration", "Money", "Count", "Distance"):
        quantity = read_quantity(value)
        return Value(quantity.text, quantity) if quantity else NO_VALUE
    if kind == "Range":
        return Value(show_range(value))
    if kind == "Ratio":
        return Value(show_ratio(value))
    if kind == "Period":
        return Value(show_period(value, read_date))
    return Value(_show_object(kind, value))


def _show_object(kind: str, value: Element) -> str:
    if kind == "SampledData":
        return "a waveform, not shown"
    if kind == "Attachment":
        return f"an attachment, not read: {value.text('title') or 'no title'}"
    if kind == "Reference":
        return ""  # its display may name what is withheld: ask `Reading.name_of`
    if kind == "Identifier":
        return value.text("value")
    return value.concept("code").name if kind == "Timing" else concept_of(value.raw).name
