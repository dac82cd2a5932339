"""What a DICOM file (PS3.10 7.1) says of itself before its dataset: that it is one, and which instance.

It reads the file meta information alone, which is Explicit VR Little Endian always. It never raises.
"""

from __future__ import annotations

import struct

_PREAMBLE = 128
_MAGIC = b"DICM"
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""Value representations with a length of four bytes after two reserved ones (PS3.5 7.1.2)."""
_INSTANCE = 0x0003
"""Media Storage SOP Instance UID (0002,0003)."""
_MAX_ELEMENTS = 32


def is_file(data: bytes) -> bool:
    """Tell whether these bytes begin as a DICOM file does."""
    return data[_PREAMBLE : _PREAMBLE + len(_MAGIC)] == _MAGIC


def instance_of(data: bytes) -> str:
    """Return the SOP instance UID that a file carries in its meta information; empty where it has none."""
    at = _PREAMBLE + len(_MAGIC)
    for _ in range(_MAX_ELEMENTS):
        head = data[at : at + 12]
        if len(head) < 8 or not is_file(data):
            break
        group, element = struct.unpack_from("<HH", head)
        is_long = head[4:6] in _LONG
        if group != 0x0002 or (is_long and len(head) < 12):
            break
        size = struct.unpack_from("<I", head, 8)[0] if is_long else struct.unpack_from("<H", head, 6)[0]
        at += 12 if is_long else 8
        if element == _INSTANCE:
            return data[at : at + min(size, 64)].rstrip(b"\0 ").decode("ascii", "replace")
        at += size
    return ""
