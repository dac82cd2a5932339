"""Whether text may be burned into the pixels: a name there would be shown, and no header would tell."""

from __future__ import annotations

from service.imaging.picture import Header

_SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
_WRITES_INTO_PICTURES = frozenset({"US", "IVUS", "ES", "XC", "OT", "SC", "CR", "RG", "DG", "BMD", "XA", "RF"})
"""Devices that write names, dates and measurements into their pictures, or digitise films and screens."""


def is_burned_in(header: Header) -> bool:
    """Return the header's own word; without one, what such a device is known to do.

    CR counts where the tag is missing: old readers burn in the plate's label. DX, CT and MR do not.
    """
    if header.burned_in in ("YES", "NO"):
        return header.burned_in == "YES"
    is_capture = header.sop_class == _SECONDARY or header.sop_class.startswith(_SECONDARY + ".")
    is_screen = "SCREEN SAVE" in header.image_type
    return is_capture or is_screen or header.modality in _WRITES_INTO_PICTURES
