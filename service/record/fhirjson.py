"""Accessors over FHIR JSON that never raise: what has the wrong shape is skipped, and the skip is noted.

A note holds the resource type and element names that this code asked for, never anything that was recorded.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from service.record.facts import Code

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d{1,3})?", re.ASCII)
_NARRATIVE_TAG = re.compile(r"<[^>]*>")
_SEMANTIC_TAG = re.compile(
    r"\s*\((?:procedure|disorder|finding|situation|regime/therapy|morphologic abnormality|substance|product"
    r"|medicinal product|medicinal product form|clinical drug|physical object|body structure"
    r"|observable entity|qualifier value|record artifact|event|person|occupation|environment|organism"
    r"|social concept|context-dependent category|assessment scale|tumor staging|staging scale|specimen"
    r"|cell|cell structure|attribute|navigational concept|physical force|dose form|life style"
    r"|religion/philosophy|ethnic group|geographic location|environment / location)\)\s*$",
    re.IGNORECASE,
)
MAX_DIGITS = 30
"""A number with more digits before or after the point is not a measurement, and would fill the page."""

SKIPPED = "something of an unexpected kind was skipped"


class Concept(NamedTuple):
    """A CodeableConcept, Coding or plain string: the name to show, and the codings behind it."""

    name: str
    codes: tuple[Code, ...]

    def has(self, pairs: frozenset[tuple[str, str]]) -> bool:
        """Tell whether one of the codings is in a set of (system, code)."""
        return any((c.system, c.code) in pairs for c in self.codes)

    def code(self, default: str = "") -> str:
        """Return the first code, or the default."""
        return next((c.code for c in self.codes if c.code), default)


NO_CONCEPT = Concept("", ())


class Element:
    """One JSON object of a resource, behind accessors that never raise."""

    __slots__ = ("notes", "path", "raw")

    def __init__(self, raw: dict[str, Any], path: str, notes: set[str]) -> None:
        self.raw = raw
        self.path = path
        self.notes = notes

    def __bool__(self) -> bool:
        return bool(self.raw)

    def note(self, what: str, key: str = "") -> None:
        """Note something odd; `what` and `key` are our own words."""
        self.notes.add(f"{self.path}{'.' if key else ''}{key}: {what}")

    def text(self, key: str) -> str:
        """Return a string on one line; numbers as their digits; empty for anything else."""
        value = self.raw.get(key)
        if value is None:
            return ""
        if isinstance(value, str):
            return one_line(value)
        if isinstance(value, list) and value and isinstance(value[0], str):
            self.note("a list where one value was expected", key)
            return one_line(value[0])
        number = as_number(value)
        if number is not None:
            return digits(number)
        self.note(SKIPPED, key)
        return ""

    def texts(self, key: str) -> list[str]:
        """Return every non-empty string of a list, each on one line."""
        value = self.raw.get(key)
        items = value if isinstance(value, list) else [value]
        return [line for item in items if isinstance(item, str) and (line := one_line(item))]

    def child(self, key: str) -> Element:
        """Return the object under a key, the first of a list; an empty element where there is none."""
        value = self.raw.get(key)
        if isinstance(value, dict):
            return Element(value, self.path, self.notes)
        if value is None:
            return Element({}, self.path, self.notes)
        return next(iter(self.children(key)), Element({}, self.path, self.notes))

    def children(self, key: str) -> list[Element]:
        """Return every object of a list; one object counts as a list of one."""
        value = self.raw.get(key)
        if value is None:
            return []
        items = value if isinstance(value, list) else [value]
        found = [Element(item, self.path, self.notes) for item in items if isinstance(item, dict)]
        if len(found) < len(items):
            self.note(SKIPPED, key)
        return found

    def flag(self, key: str) -> bool | None:
        """Return a boolean; the strings `true` and `false` count, anything else is None."""
        value = self.raw.get(key)
        if isinstance(value, bool):
            return value
        if value is None:
            return None
        self.note("not a boolean", key)
        return {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else None

    def number(self, key: str) -> Decimal | None:
        """Return a number exactly as recorded, or None."""
        value = self.raw.get(key)
        if value is None:
            return None
        number = as_number(value)
        if number is None:
            self.note("not a number that can be shown", key)
        return number

    def concept(self, key: str) -> Concept:
        """Return the first CodeableConcept, Coding or string under a key that has a name."""
        if self.raw.get(key) is None:  # the usual case, asked many times a resource
            return NO_CONCEPT
        return next(iter(self.concepts(key)), NO_CONCEPT)

    def concepts(self, key: str) -> list[Concept]:
        """Return every CodeableConcept, Coding or string under a key that has a name or a code."""
        value = self.raw.get(key)
        if value is None:
            return []
        items = value if isinstance(value, list) else [value]
        found = [concept for item in items if (concept := concept_of(item)).name]
        if len(found) < len(items):
            self.note("a coded value without text, display or code", key)
        return found

    def reference(self, key: str) -> str:
        """Return the literal reference under a key, or an empty string."""
        return self.child(key).text("reference")

    def choice(self, prefix: str) -> tuple[str, Any]:
        """Return (type, value) of a choice element, `("Quantity", {...})`; `("", None)` without one."""
        found = [
            key for key in self.raw if key.startswith(prefix) and key[len(prefix) : len(prefix) + 1].isupper()
        ]
        if not found:
            return "", None
        if len(found) > 1:
            self.note("value of two types", prefix + "[x]")
        key = min(found)
        return key[len(prefix) :], self.raw[key]

    def notes_text(self, key: str = "note") -> str:
        """Return the text of every Annotation under a key."""
        value = self.raw.get(key)
        if value is None:
            return ""
        items = [value] if isinstance(value, str) else [a.raw.get("text") for a in self.children(key)]
        return "; ".join(line for item in items if isinstance(item, str) and (line := one_line(item)))


def one_line(text: str) -> str:
    """Collapse every run of white space and control characters to one space; nothing is cut."""
    if text.isprintable() and "  " not in text:
        return text.strip()
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def without_tag(name: str) -> str:
    """Remove a SNOMED CT semantic tag such as `(disorder)` from the end of a display."""
    return _SEMANTIC_TAG.sub("", name) or name if name.endswith(")") else name


def as_number(value: Any) -> Decimal | None:
    """Return a JSON number, or a string that is one, as Decimal; None for everything else.

    Digits are kept as recorded. Numbers of more than `MAX_DIGITS` digits on a side are None.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        number = Decimal(value) if value.bit_length() < 200 else None
    elif isinstance(value, Decimal):
        number = value
    elif isinstance(value, float):
        number = Decimal(repr(value))
    elif isinstance(value, str) and len(value) < 80 and _NUMBER.fullmatch(value.strip()):
        number = Decimal(value.strip())
    else:
        return None
    return number if number is not None and _is_printable(number) else None


def _is_printable(number: Decimal) -> bool:
    if not number.is_finite():
        return False
    exponent = number.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -MAX_DIGITS and number.adjusted() <= MAX_DIGITS


def digits(number: Decimal) -> str:
    """Print a number with its recorded digits, never with an exponent, never with a naked point."""
    return format(number, "f")


def dose_digits(number: Decimal) -> str:
    """Print a dose: recorded value without trailing zeros (SAFETY 11: 5 mg, not 5.0 mg)."""
    text = digits(number)
    return text.rstrip("0").rstrip(".") if "." in text else text


def concept_of(value: Any) -> Concept:
    """Read a CodeableConcept, a Coding or a string: text, then display, then code."""
    if isinstance(value, str):
        name = one_line(value)
        return Concept(without_tag(name), ()) if name else NO_CONCEPT
    if not isinstance(value, dict):
        return NO_CONCEPT
    codings = value.get("coding")
    if type(codings) is list and len(codings) == 1 and type(codings[0]) is dict:
        coding, text = codings[0], value.get("text", "")
        system, code, display = coding.get("system", ""), coding.get("code", ""), coding.get("display", "")
        if type(system) is type(code) is type(display) is type(text) is str:
            return _one_coding(system, code, display, text)
    return _read_concept(value, codings)


@lru_cache(maxsize=4096)
def _one_coding(system: str, code: str, display: str, text: str) -> Concept:
    """Read the usual CodeableConcept once: a chart repeats a few hundred of them thousands of times."""
    coding = {"system": system, "code": code, "display": display}
    return _read_concept({"text": text}, [coding])


def _read_concept(value: dict[str, Any], codings: Any) -> Concept:
    items = codings if isinstance(codings, list) else [codings] if isinstance(codings, dict) else [value]
    codes = tuple([code for item in items if isinstance(item, dict) and (code := _code(item))])
    text = value.get("text")
    name = one_line(text) if isinstance(text, str) else ""
    if not name:
        name = next((c.display for c in codes if c.display), "") or next((c.code for c in codes), "")
    return Concept(without_tag(name), codes)


def _code(coding: dict[str, Any]) -> Code | None:
    code, display = coding.get("code"), coding.get("display")
    system = coding.get("system")
    shown = one_line(display) if isinstance(display, str) else ""
    plain = (
        one_line(code) if isinstance(code, str) else digits(n) if (n := as_number(code)) is not None else ""
    )
    if not shown and not plain:
        return None
    return Code(one_line(system) if isinstance(system, str) else "", plain, shown)


def narrative(resource: Element) -> str:
    """Return the text of the resource's own narrative (`text.div`) on one line."""
    div = resource.child("text").raw.get("div")
    return html_line(div) if isinstance(div, str) else ""


def html_line(html: str) -> str:
    """Strip the tags of a short piece of XHTML."""
    text = _NARRATIVE_TAG.sub(" ", html)
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#160;", " "), ("&amp;", "&")):
        text = text.replace(entity, character)
    return one_line(text)
