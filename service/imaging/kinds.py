"""What a DICOM instance is by its SOP class: a picture, or what it is instead (DICOM PS3.4 B.5)."""

from __future__ import annotations

import enum

_STORAGE = "1.2.840.10008.5.1.4.1.1."


class Kind(enum.StrEnum):
    """What an instance is, in words that may be shown."""

    PICTURE = "picture"
    REPORT = "structured report"
    KEY_IMAGES = "selection of key images"
    SEGMENTATION = "segmentation"
    RADIOTHERAPY = "radiotherapy object"
    WAVEFORM = "waveform"
    PAGES = "encapsulated document"
    PRESENTATION = "presentation state"
    VIDEO = "video"
    MAP = "parametric map"
    MODEL = "surface or mesh"
    SLIDE = "whole slide image"
    RAW = "raw data"
    UNKNOWN = "unknown kind of object"


_BY_BEGINNING = (
    ("88.59", Kind.KEY_IMAGES),
    ("88.", Kind.REPORT),
    ("9.", Kind.WAVEFORM),
    ("11.", Kind.PRESENTATION),
    ("30", Kind.MAP),
    ("66.4", Kind.SEGMENTATION),
    ("66.5", Kind.MODEL),
    ("66.6", Kind.RAW),  # tractography
    ("66.7", Kind.SEGMENTATION),
    ("66.8", Kind.SEGMENTATION),
    ("66", Kind.RAW),
    ("67", Kind.RAW),
    ("68.", Kind.MODEL),
    ("77.1.6", Kind.SLIDE),
    ("77.1.8", Kind.SLIDE),
    ("77.1.1.1", Kind.VIDEO),
    ("77.1.2.1", Kind.VIDEO),
    ("77.1.4.1", Kind.VIDEO),
    ("77.1.5.3", Kind.RAW),
    ("78.", Kind.RAW),  # lensometry, refraction and the like: measurements
    ("79.1", Kind.RAW),
    ("80.1", Kind.RAW),
    ("104.", Kind.PAGES),
    ("200.", Kind.RAW),
    ("201.", Kind.RAW),
    ("481.1", Kind.PICTURE),  # RT Image: a portal picture
    ("481.", Kind.RADIOTHERAPY),
    ("601.", Kind.RAW),
)
_PICTURES = (
    "1", "2", "3", "4", "6", "7", "12", "13", "14", "20", "77.1", "128", "130", "481.1", "501",
)  # fmt: skip
_OTHER = {
    "1.2.840.10008.5.1.4.34.7": Kind.RADIOTHERAPY,
    "1.2.840.10008.1.3.10": Kind.RAW,  # a DICOMDIR
}
_MODALITIES = frozenset(
    "BI CR CT DG DX ECHO ES GM IO IVOCT IVUS LS MG MR NM OCT OP OPT OT PT PX RF RG SM TG US XA XC".split()
)


def kind_of(sop_class: str, modality: str = "") -> Kind:
    """Return what an instance is. Without a SOP class its modality decides; a private class is unknown."""
    if not sop_class:
        return Kind.PICTURE if modality in _MODALITIES else Kind.UNKNOWN
    if not sop_class.startswith(_STORAGE):
        return _OTHER.get(sop_class, Kind.UNKNOWN)
    rest = sop_class.removeprefix(_STORAGE)
    for beginning, kind in _BY_BEGINNING:
        if _begins(rest, beginning):
            return kind
    return Kind.PICTURE if any(_begins(rest, beginning) for beginning in _PICTURES) else Kind.UNKNOWN


def _begins(rest: str, beginning: str) -> bool:
    """Whole components only: `66` is not the beginning of `660`."""
    return rest == beginning or rest.startswith(beginning if beginning.endswith(".") else beginning + ".")
