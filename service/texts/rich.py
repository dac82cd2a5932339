"""Text of RTF."""

from __future__ import annotations

import re

from striprtf.striprtf import rtf_to_text

from service.texts.unreadable import Unreadable

_BRACE = re.compile(r"\\[\\{}]|([{}])")
_CELL = re.compile(r"(\\\\)|\\(?:nest)?cell(?![A-Za-z])")
_HIGH = re.compile("[\x80-\xff]")
_WIDE = re.compile("[^\x00-\x7f]")


def rich_text(content: bytes) -> str:
    """Return the text of an RTF document, cells by tab. A truncated one is refused."""
    source = _as_ascii(content.strip(b"\0 \t\r\n"))
    if not source.startswith("{\\rtf"):
        raise Unreadable("not RTF, although recorded as such")
    if _open_groups(source):
        raise Unreadable("broken RTF")
    source = _CELL.sub(lambda match: match[1] or "\\tab", source)
    try:
        return str(rtf_to_text(source, errors="replace"))  # type: ignore[no-untyped-call]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise Unreadable("broken RTF") from error


def _as_ascii(content: bytes) -> str:
    """Write what is no ASCII as RTF escapes: it should have been, but some systems transcode RTF to UTF-8."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        return _WIDE.sub(_unicode_escape, content.decode("utf-8"))
    except UnicodeDecodeError:
        return _HIGH.sub(lambda match: f"\\'{ord(match[0]):02x}", content.decode("latin-1"))


def _unicode_escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be")
    return "".join(
        f"{{\\uc0\\u{int.from_bytes(units[at : at + 2], 'big')} }}" for at in range(0, len(units), 2)
    )


def _open_groups(source: str) -> int:
    """Return how many groups are still open at the end."""
    depth = 0
    for match in _BRACE.finditer(source):
        if match[1]:
            depth += 1 if match[1] == "{" else -1
            if depth == 0:
                return 0
    return depth
