"""Text of a chart made fit to stand in a document: legal in XML, and reading the way it is stored.

Nothing is dropped. A character that cannot be seen, or that changes what is seen, is written as `[U+202E]`:
taking it out would join what it kept apart (`1<NUL>2 mg` must not become `12 mg`).
"""

from __future__ import annotations

import re

_ODD = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls; XML 1.0 allows tab, newline and carriage return of them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # Unicode's Bidi_Control
    "\u200b\u2060-\u2064\ufeff\U000e0000-\U000e007f"  # invisible; joiners stay, Persian and Hindi need them
    "\ud800-\udfff\ufffe\uffff]"  # not characters at all
)
_BREAKS = re.compile("\r\n|[\r\u2028\u2029]")


def clean(text: str) -> str:
    """Return a text with every odd character spelled out; line breaks become newlines."""
    return _ODD.sub(lambda found: f"[U+{ord(found[0]):04X}]", _BREAKS.sub("\n", text))


def one_line(text: str) -> str:
    """Return a clean text on one line, so that no text of a chart can pose as a heading or a banner."""
    lines = (line.strip() for line in clean(text).replace("\t", " ").split("\n"))
    return " ".join(line for line in lines if line)
