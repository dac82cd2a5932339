"""The character set that HTML and XML name inside themselves."""

from __future__ import annotations

import re

from service.record.attachments import charset_of, codec_named, decode_text

_INSIDE = re.compile(
    rb"<meta\b[^>]{0,300}?\bcharset\s*=\s*[\"']?\s*([\w.:+-]+)"
    rb"|^\s*<\?xml\b[^>]{0,200}?\bencoding\s*=\s*[\"']([\w.:+-]+)",
    re.IGNORECASE,
)
_HEAD_BYTES = 4096


def decode_marked_up(content: bytes, declared: str) -> str:
    """Decode a page or an XML document: by its mark, its content type, then what it says of itself.

    Who can be read as ASCII up to its own declaration is not UTF-16, whatever the declaration says (HTML
    Standard 13.2.3.2).
    """
    if not charset_of(declared):
        match = _INSIDE.search(content[:_HEAD_BYTES])
        name = codec_named((match[1] or match[2]).decode("ascii", "replace")) if match else ""
        if name and not name.startswith(("utf-16", "utf-32")):
            declared = f"text/html; charset={name}"
    return decode_text(content, declared)
