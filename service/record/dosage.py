"""Dosage as recorded, or built word by word from its structure: no rounding, no conversion (SAFETY 11)."""

from __future__ import annotations

from service.record.fhirjson import Element, dose_digits
from service.record.reading import Reading, clause, words
from service.record.values import count, read_quantity, show_period, show_quantity, show_range, show_ratio

_WHEN = {
    "MORN": "in the morning", "MORN.early": "in the early morning", "MORN.late": "in the late morning",
    "NOON": "at noon", "AFT": "in the afternoon", "AFT.early": "in the early afternoon",
    "AFT.late": "in the late afternoon", "EVE": "in the evening", "EVE.early": "in the early evening",
    "EVE.late": "in the late evening", "NIGHT": "at night", "PHS": "after falling asleep", "HS": "at bedtime",
    "WAKE": "on waking", "C": "with a meal", "CM": "with breakfast", "CD": "with lunch", "CV": "with dinner",
    "AC": "before a meal", "ACM": "before breakfast", "ACD": "before lunch", "ACV": "before dinner",
    "PC": "after a meal", "PCM": "after breakfast", "PCD": "after lunch", "PCV": "after dinner",
}  # fmt: skip
"""HL7 event-timing and v3-TimingEvent codes."""


def show_dosages(resource: Element, key: str, reading: Reading) -> str:
    """Return every dosage of a resource in its recorded sequence."""
    dosages = resource.children(key)
    if len(dosages) > 1:
        dosages.sort(key=lambda d: d.number("sequence") or 0)
    return "; ".join(shown for dosage in dosages if (shown := show_dosage(dosage, reading)))


def show_dosage(dosage: Element, reading: Reading) -> str:
    """Return one Dosage: its text as recorded, else what its structure says.

    Where there is a text, only "as needed" is added when the text does not say so, since it decides
    whether a drug is taken at all.
    """
    as_needed = _as_needed(dosage)
    text = dosage.text("text")
    if text:
        silent = as_needed and not any(w in text.lower() for w in ("need", "prn", "required"))
        return f"{text}, {as_needed}" if silent else text
    return build_dosage(dosage, reading, as_needed)


def build_dosage(dosage: Element, reading: Reading, as_needed: str = "") -> str:
    """Build a sentence from a structured Dosage: `1 tablet, oral, 2 times per day, as needed for pain`."""
    instructions = [c.name for c in dosage.concepts("additionalInstruction")]
    parts = [
        *_doses(dosage),
        dosage.concept("method").name,
        dosage.concept("route").name,
        clause("site", dosage.concept("site").name),
        show_timing(dosage.child("timing"), reading),
        as_needed,
        *_maxima(dosage),
        *instructions,
        dosage.text("patientInstruction"),
    ]
    return ", ".join(part for part in parts if part)


def structured_dose(resource: Element, key: str) -> str:
    """Return the dose quantities alone, which a text may leave out or contradict."""
    return ", ".join(dose for dosage in resource.children(key) for dose in _doses(dosage))


def _doses(dosage: Element) -> list[str]:
    found = []
    # DSTU2 and STU3 records carry doseQuantity on the dosage itself.
    for holder in [*dosage.children("doseAndRate"), dosage]:
        dose = show_quantity(holder.child("doseQuantity"), dose=True) or show_range(
            holder.child("doseRange"), dose=True
        )
        rate = (
            show_ratio(holder.child("rateRatio"), dose=True)
            or show_range(holder.child("rateRange"), dose=True)
            or show_quantity(holder.child("rateQuantity"), dose=True)
        )
        found += [part for part in (dose, f"at {rate}" if rate else "") if part]
    return found


def _as_needed(dosage: Element) -> str:
    reason = dosage.concept("asNeededCodeableConcept").name or ", ".join(
        c.name for c in dosage.concepts("asNeededFor")
    )
    if reason:
        return f"as needed for {reason}"
    return "as needed" if dosage.flag("asNeededBoolean") or dosage.flag("asNeeded") else ""


def _maxima(dosage: Element) -> list[str]:
    per_period = ", ".join(
        shown for ratio in dosage.children("maxDosePerPeriod") if (shown := show_ratio(ratio, dose=True))
    )
    single = show_quantity(dosage.child("maxDosePerAdministration"), dose=True)
    lifetime = show_quantity(dosage.child("maxDosePerLifetime"), dose=True)
    return [
        f"maximum {per_period}" if per_period else "",
        f"maximum {single} at once" if single else "",
        f"maximum {lifetime} in a lifetime" if lifetime else "",
    ]


def show_timing(timing: Element, reading: Reading) -> str:
    """Return a Timing in words: its code as recorded, else `2 times per day`, `every 8 hours`."""
    if not timing:
        return ""
    repeat = timing.child("repeat")
    code = timing.concept("code").name
    at = ", ".join(timing.texts("event"))
    rhythm = code or _rhythm(repeat)
    days = ", ".join(timing_day for timing_day in repeat.texts("dayOfWeek"))
    moments = ", ".join(
        [_WHEN.get(w, w) for w in repeat.texts("when")] + [f"at {t}" for t in repeat.texts("timeOfDay")]
    )
    offset = repeat.number("offset")
    shift = f"{count(offset, 'min')} from then" if offset is not None and moments else ""
    return ", ".join(
        p
        for p in (
            rhythm, f"on {days}" if days else "", moments, shift, clause("on", at), _length(repeat, reading),
        )
        if p
    )  # fmt: skip


def _rhythm(repeat: Element) -> str:
    frequency = _numbers(repeat, "frequency")
    period, longest = repeat.number("period"), repeat.number("periodMax")
    unit = repeat.text("periodUnit")
    if period is None:
        return f"{frequency} times" if frequency else ""
    span = count(period, unit) if longest is None else f"{dose_digits(period)}–{count(longest, unit)}"
    if frequency in ("", "1"):
        return f"every {span.removeprefix('1 ')}" if longest is None and frequency else f"every {span}"
    return f"{frequency} times per {span.removeprefix('1 ')}"


def _numbers(element: Element, key: str) -> str:
    low, high = element.number(key), element.number(f"{key}Max")
    if low is None:
        return f"up to {dose_digits(high)}" if high is not None else ""
    return f"{dose_digits(low)}–{dose_digits(high)}" if high is not None else dose_digits(low)


def _length(repeat: Element, reading: Reading) -> str:
    bounds = (
        show_period(repeat.child("boundsPeriod"), reading.chart.date)
        or show_range(repeat.child("boundsRange"))
        or show_quantity(repeat.child("boundsDuration"), dose=True)
    )
    times = _numbers(repeat, "count")
    lasting = repeat.number("duration")
    return ", ".join(
        part
        for part in (
            bounds if bounds.startswith(("from", "until", "on", "in")) else f"for {bounds}" if bounds else "",
            f"{times} times in all" if times else "",
            f"each over {count(lasting, repeat.text('durationUnit'))}" if lasting is not None else "",
        )
        if part
    )


def route_of(resource: Element, key: str) -> str:
    """Return the routes that the dosages name, each once."""
    names = [dosage.concept("route").name for dosage in resource.children(key)]
    return ", ".join(dict.fromkeys(name for name in names if name))


def show_administration(dosage: Element) -> str:
    """Return the dosage of a MedicationAdministration: `500 mg, oral, at 20 mL per 1 h`."""
    text = dosage.text("text")
    if text:
        return text
    rate = show_ratio(dosage.child("rateRatio"), dose=True) or show_quantity(
        dosage.child("rateQuantity"), dose=True
    )
    dose = read_quantity(dosage.child("dose"), dose=True)
    parts = (
        dose.text if dose else "",
        dosage.concept("method").name,
        dosage.concept("route").name,
        clause("site", dosage.concept("site").name),
        words("at", rate) if rate else "",
    )
    return ", ".join(part for part in parts if part)
