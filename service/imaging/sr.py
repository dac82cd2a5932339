"""The text of a DICOM Structured Report, or of a selection of key images, as plain lines (PS3.3 C.17.3).

A report's tree is told in reading order: a container's name is a line, every other item `name: value`.
Nothing is interpreted. Run it in a child: the file is a stranger's.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from pydicom import Dataset

from service.imaging.decode import open_dicom
from service.imaging.groups import value_of, word_of
from service.imaging.header import header_of
from service.imaging.kinds import Kind, kind_of
from service.imaging.refusal import Refused

_DEEPEST = 32
_MOST_ITEMS = 20_000
_REFERENCES = frozenset({"IMAGE", "COMPOSITE", "WAVEFORM", "UIDREF", "SCOORD", "SCOORD3D", "TCOORD", "TABLE"})
"""Point at something that a line of text cannot show."""
_SIMPLE = {
    "TEXT": "TextValue", "DATETIME": "DateTime", "DATE": "Date", "TIME": "Time", "PNAME": "PersonName",
}  # fmt: skip


def report_text(data: bytes) -> str:
    """Return a report's lines; raise Refused where the file holds none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = open_dicom(data)
        header = header_of(dataset)
        kind = kind_of(header.sop_class, header.modality)
        if kind not in (Kind.REPORT, Kind.KEY_IMAGES):
            raise Refused(f"a DICOM file without text: {kind}")
        lines = [*_standing(dataset), *_items(dataset, 0, [_MOST_ITEMS])]
        if kind is Kind.KEY_IMAGES:
            lines.append(f"Images marked: {_marked(dataset)}")
        return "\n".join(lines)


def _standing(dataset: Dataset) -> Iterator[str]:
    """Tell what must not be overlooked: a report that nobody has verified, or that goes on."""
    title = _meaning(dataset, "ConceptNameCodeSequence")
    yield title or "Report"
    if word_of(dataset, "VerificationFlag") == "UNVERIFIED":
        yield "Not verified."
    if word_of(dataset, "CompletionFlag") == "PARTIAL":
        yield "Partial report."
    if word_of(dataset, "PreliminaryFlag") == "PRELIMINARY":
        yield "Preliminary."


def _items(parent: Dataset, depth: int, left: list[int]) -> Iterator[str]:
    if depth > _DEEPEST:
        raise Refused("a report nested too deeply")
    for item in value_of(parent, "ContentSequence") or ():
        left[0] -= 1
        if left[0] < 0:
            raise Refused("a report with too many items")
        yield from _line(item)
        yield from _items(item, depth + 1, left)


def _line(item: Dataset) -> Iterator[str]:
    kind, name = word_of(item, "ValueType"), _meaning(item, "ConceptNameCodeSequence")
    if kind == "CONTAINER":
        if name:
            yield name
    elif kind not in _REFERENCES:
        value = _value(item, kind)
        if value:
            yield f"{name}: {value}" if name else value


def _value(item: Dataset, kind: str) -> str:
    if kind == "CODE":
        return _meaning(item, "ConceptCodeSequence")
    if kind == "NUM":
        return _number(item)
    keyword = _SIMPLE.get(kind)
    return _one_line(value_of(item, keyword)) if keyword else ""


def _number(item: Dataset) -> str:
    for measured in value_of(item, "MeasuredValueSequence") or ():
        unit = ""
        for code in value_of(measured, "MeasurementUnitsCodeSequence") or ():
            unit = _one_line(value_of(code, "CodeValue"))
        value = _one_line(value_of(measured, "NumericValue"))
        return value if unit in ("", "1") else f"{value} {unit}"
    return ""


def _meaning(item: Dataset, keyword: str) -> str:
    for code in value_of(item, keyword) or ():
        return _one_line(value_of(code, "CodeMeaning"))
    return ""


def _one_line(value: object) -> str:
    return "" if value is None else " ".join(str(value).replace("^", " ").split())


def _marked(dataset: Dataset) -> int:
    references = value_of(dataset, "ContentSequence") or ()
    return sum(word_of(item, "ValueType") in ("IMAGE", "COMPOSITE") for item in references)
