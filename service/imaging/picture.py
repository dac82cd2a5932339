"""Where a picture is, what its header says, and the picture as the model is shown it. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field

MODEL_SIDE = 896
"""Pixels of a side of what MedGemma is shown (256 tokens a picture)."""
ENCODER_SIDE = 448
"""Pixels of a side of what MedSigLIP is shown."""


@dataclass(frozen=True, slots=True, order=True)
class Spot:
    """One frame of one DICOM instance, by its UIDs (DICOM PS3.3 C.7, C.12).

    A picture that the record itself keeps has none: `study` is its entry (`Media/3`), the others are empty.
    """

    study: str
    series: str
    instance: str
    frame: int = 1
    """From 1, as DICOM counts."""


@dataclass(frozen=True, slots=True)
class Header:
    """What of a DICOM header is used. Whatever was absent or unreadable is empty or None."""

    spot: Spot
    sop_class: str
    modality: str
    """`CT`, `DX`…"""
    frames: int = 1
    number: int | None = None
    """Instance Number."""
    position: float | None = None
    """Millimetres along the normal of the slices, from Image Position and Orientation (Patient)."""
    patient_id: str = field(default="", repr=False)
    issuer: str = field(default="", repr=False)
    birth_date: str = field(default="", repr=False)
    """`19510504`"""
    taken: str = ""
    """Acquisition, content or study date, `20240131`."""
    study_description: str = field(default="", repr=False)
    series_description: str = field(default="", repr=False)
    body_part: str = ""
    laterality: str = ""
    view: str = ""
    rows: int = 0
    columns: int = 0
    burned_in: str = ""
    """BurnedInAnnotation as recorded: `YES`, `NO`, or empty."""
    transfer_syntax: str = ""
    image_type: tuple[str, ...] = ()
    """`ORIGINAL`, `PRIMARY`, `LOCALIZER`…"""
    normal: tuple[float, ...] = ()
    """Unit normal of the slice, three numbers."""
    title: str = field(default="", repr=False)
    """What a document says that it is: the Concept Name of a report or of key images."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """One frame as a square PNG, and what was done to get there."""

    png: bytes = field(repr=False)
    """RGB, `side` × `side`, aspect kept by black margins."""
    window: str
    """How values became grey or colour, in words."""
    frame: int
    """From 1; the page of a PDF."""
    burned_in: bool
    """True where text may be burned into the pixels."""
    rows: int
    columns: int
    """Of the original, before scaling."""
    side: int
    header: Header | None = None
    """What the instance itself says; None where it is no DICOM."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A content became no picture. `reason` is ours, safe to show, and never holds what was recorded."""

    reason: str


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture as the model is shown it: which, of what, how it was windowed, and its bytes."""

    spot: Spot
    source: str
    """`ImagingStudy/7`, `Media/3`, `DocumentReference/9`."""
    source_version: str
    modality: str
    taken: str
    """Day as `04-May-2019`, partial or empty as recorded."""
    what: str = field(repr=False)
    """Study and series in words, with body part, laterality and view of the header."""
    window: str
    """How values became grey or colour: `CT: −1024…1024, −135…215, 0…80 HU as red, green, blue`."""
    png: bytes = field(repr=False)
    digest: str
    """SHA-256 (hex) of `png`."""
    burned_in: bool = False
    """True where text may be burned into the pixels."""
    why: str = ""
    """Why this one was chosen."""
    score: float | None = None
