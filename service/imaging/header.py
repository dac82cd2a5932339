"""What a DICOM header says that we use, from a file or from DICOM JSON (PS3.18 F). It refuses nothing.

Whatever is absent, repeated, misspelt or of a wrong type is empty. Bytes of strangers are parsed in a child
process only (`reader`); DICOM JSON may be read anywhere.
"""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from service.imaging.picture import Header, Spot

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)  # it quotes values of the files that it reads
_MOST_CHARACTERS = 200
_MOST_FRAMES = 1_000_000
_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


class _Tags(Protocol):
    """One dataset, by keywords."""

    def values(self, keyword: str) -> Sequence[Any]: ...
    def items(self, keyword: str) -> Sequence[_Tags]: ...


class _JsonTags:
    def __init__(self, raw: Any) -> None:
        self._raw: Mapping[Any, Any] = raw if isinstance(raw, Mapping) else {}

    def values(self, keyword: str) -> Sequence[Any]:
        from pydicom.datadict import tag_for_keyword  # noqa: PLC0415 - most commands read no header

        tag = tag_for_keyword(keyword)
        element = self._raw.get(f"{tag:08X}") if tag is not None else None
        values = element.get("Value") if isinstance(element, Mapping) else None
        return [_plain(value) for value in values] if isinstance(values, list) else []

    def items(self, keyword: str) -> Sequence[_Tags]:
        return [_JsonTags(item) for item in self.values(keyword) if isinstance(item, Mapping)]


def _plain(value: Any) -> Any:
    """A person's name is an object of groups; the first one is the one in Latin letters."""
    return value.get("Alphabetic") if isinstance(value, Mapping) and "Alphabetic" in value else value


class _DatasetTags:
    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def values(self, keyword: str) -> Sequence[Any]:
        value = self._value(keyword)
        if value is None or isinstance(value, bytes):
            return []
        return value if isinstance(value, Sequence) and not isinstance(value, str) else [value]

    def items(self, keyword: str) -> Sequence[_Tags]:
        from pydicom.dataset import Dataset  # noqa: PLC0415

        return [_DatasetTags(item) for item in self.values(keyword) if isinstance(item, Dataset)]

    def _value(self, keyword: str) -> Any:
        with suppress(Exception):  # values are converted when they are first asked for
            return self._dataset.get(keyword)
        return None


def header_of(source: bytes | Mapping[str, Any] | Dataset) -> Header:
    """Return the header of a Part 10 file, a dataset or DICOM JSON; raise nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if isinstance(source, Mapping):
            return _header(_JsonTags(source), "")
        dataset = _parsed(source) if isinstance(source, bytes) else source
        return _header(_DatasetTags(dataset), _transfer_syntax(dataset))


def _parsed(data: bytes) -> Dataset:
    from pydicom.dataset import Dataset  # noqa: PLC0415

    from service.imaging.decode import open_dicom  # noqa: PLC0415 - decode needs headers

    with suppress(Exception):
        return open_dicom(data, with_pixels=False)
    return Dataset()


def _transfer_syntax(dataset: Dataset) -> str:
    with suppress(Exception):
        return str(dataset.file_meta.TransferSyntaxUID)
    return ""


def _header(tags: _Tags, syntax: str) -> Header:
    anatomy, measures = _first(tags, "FrameAnatomySequence"), _plane(tags)
    number = _number(tags, "InstanceNumber")
    return Header(
        spot=spot_of(tags),
        sop_class=_uid(tags, "SOPClassUID"),
        modality=_word(tags, "Modality").upper()[:16],
        frames=max(1, min(_MOST_FRAMES, int(_number(tags, "NumberOfFrames") or 1))),
        number=None if number is None else int(number),
        position=measures[0],
        patient_id=_word(tags, "PatientID"),
        issuer=_word(tags, "IssuerOfPatientID"),
        birth_date=_day(tags, "PatientBirthDate"),
        taken=_taken(tags),
        study_description=_word(tags, "StudyDescription"),
        series_description=_word(tags, "SeriesDescription"),
        body_part=_word(tags, "BodyPartExamined") or _meaning(tags, anatomy, "AnatomicRegionSequence"),
        laterality=_laterality(tags, anatomy),
        view=_word(tags, "ViewPosition") or _meaning(tags, None, "ViewCodeSequence"),
        rows=_count(tags, "Rows"),
        columns=_count(tags, "Columns"),
        burned_in=_word(tags, "BurnedInAnnotation").upper()[:3],
        transfer_syntax=syntax or _uid(tags, "AvailableTransferSyntaxUID"),
        image_type=tuple(_clean(value).upper() for value in tags.values("ImageType")[:8]),
        normal=measures[1],
        title=_meaning(tags, None, "ConceptNameCodeSequence"),
    )


def spot_of(tags: _Tags) -> Spot:
    """Return the three UIDs."""
    return Spot(_uid(tags, "StudyInstanceUID"), _uid(tags, "SeriesInstanceUID"), _uid(tags, "SOPInstanceUID"))


def _taken(tags: _Tags) -> str:
    for keyword in ("AcquisitionDate", "AcquisitionDateTime", "ContentDate", "SeriesDate", "StudyDate"):
        if found := _day(tags, keyword):
            return found
    return ""


def _laterality(tags: _Tags, anatomy: _Tags | None) -> str:
    """`Image Laterality` is of the picture; `Laterality` of the series, and often left as it was."""
    return (
        _word(tags, "ImageLaterality")
        or (_word(anatomy, "FrameLaterality") if anatomy is not None else "")
        or _word(tags, "Laterality")
    )


def _plane(tags: _Tags) -> tuple[float | None, tuple[float, ...]]:
    """Return the millimetres along the normal, and the normal; of several frames those of the first."""
    position = _first(tags, "PlanePositionSequence") or tags
    orientation = _first(tags, "PlaneOrientationSequence") or tags
    at = _floats(position, "ImagePositionPatient", 3)
    axes = _floats(orientation, "ImageOrientationPatient", 6)
    if not axes:
        return None, ()
    normal = _cross(axes[:3], axes[3:])
    length = math.hypot(*normal)
    if not 0.5 < length < 2:  # the two axes are unit vectors at a right angle
        return None, ()
    unit = tuple(part / length for part in normal)
    return (sum(a * n for a, n in zip(at, unit, strict=True)) if at else None), unit


def _cross(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _first(tags: _Tags, macro: str) -> _Tags | None:
    """Return a functional group's first item: of the first frame, or shared by all (PS3.3 C.7.6.16)."""
    for keyword in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in tags.items(keyword)[:1]:
            for item in group.items(macro)[:1]:
                return item
    return None


def _meaning(tags: _Tags, inner: _Tags | None, keyword: str) -> str:
    for source in (tags, inner):
        for item in source.items(keyword)[:1] if source is not None else ():
            return _word(item, "CodeMeaning")
    return ""


def _word(tags: _Tags, keyword: str) -> str:
    return next((_clean(value) for value in tags.values(keyword) if value is not None), "")


def _clean(value: Any) -> str:
    with suppress(Exception):
        return _SPACE.sub(" ", str(value)).strip()[:_MOST_CHARACTERS]
    return ""


def _uid(tags: _Tags, keyword: str) -> str:
    found = _word(tags, keyword)
    return found if re.fullmatch(r"[0-9.]{1,64}", found) else ""


def _day(tags: _Tags, keyword: str) -> str:
    found = _word(tags, keyword).replace("-", "").replace(".", "")[:8]
    return found if re.fullmatch(r"[0-9]{8}", found) else ""


def _number(tags: _Tags, keyword: str) -> float | None:
    found = _floats(tags, keyword, 1)
    return found[0] if found else None


def _count(tags: _Tags, keyword: str) -> int:
    found = _number(tags, keyword)
    return int(found) if found is not None and 0 < found <= 1_000_000 else 0


def _floats(tags: _Tags, keyword: str, size: int) -> tuple[float, ...]:
    with suppress(Exception):
        found = tuple(float(value) for value in tags.values(keyword)[:size])
        if len(found) == size and all(map(math.isfinite, found)):
            return found
    return ()
