"""Text out of attachments: plain text and HTML are read, other formats are named and not read."""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import re
from html.parser import HTMLParser
from typing import NamedTuple

from service.record.fhirjson import Element, html_line
from service.record.reading import Reading

_PLAIN = ("text/plain", "text/markdown", "text/x-markdown")
_HTML = ("text/html", "application/xhtml+xml")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:+-]+)", re.IGNORECASE)
_SPACES = re.compile(r"\s+")
_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "br",
        "caption",
        "dd",
        "div",
        "dl",
        "dt",
        "fieldset",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "li",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "title",
        "tr",
        "ul",
    ]
)
_SILENT = frozenset(("script", "style", "template"))


class Attached(NamedTuple):
    """What became of one attachment."""

    text: str
    """The whole text; empty when it was not read."""
    format: str
    """Content type as recorded, without parameters: `text/plain`."""
    title: str
    unread: str = ""
    """Why there is no text, safe to show; empty when it was read."""


def read_attachment(attachment: Element, reading: Reading) -> Attached:
    """Read one Attachment: inline data, a fetched url, or a Binary of the chart."""
    declared = attachment.text("contentType")
    content, declared = _content(attachment, reading, declared)
    media = declared.split(";", 1)[0].strip().lower()
    title = attachment.text("title")
    if media and media not in _PLAIN and media not in _HTML:
        attachment.note("an attachment in a format that is not read")
        return Attached("", media, title, f"text not read (format {media})")
    if content is None:
        return Attached("", media, title, "text not read (content not at hand)")
    if not media:
        attachment.note("an attachment without a content type")
        return Attached("", "", title, "text not read (format not recorded)")
    text = _decode(content, declared, attachment)
    text = html_text(text) if media in _HTML else text.replace("\r\n", "\n").strip("\n")
    return Attached(text, media, title, "" if text.strip() else "no text in it")


def _content(attachment: Element, reading: Reading, declared: str) -> tuple[bytes | None, str]:
    data = attachment.raw.get("data")
    if isinstance(data, str) and data:
        return _unpack(data, attachment), declared
    url = attachment.text("url")
    if not url:
        return None, declared
    fetched = reading.chart.binaries.get(url)
    if fetched is not None:
        reading.chart.binary_reads[url] = hashlib.sha256(fetched).hexdigest()
        return fetched, declared
    binary = reading.resolve(url)
    if binary is None or binary.text("resourceType") != "Binary":
        return None, declared
    inline = binary.raw.get("data", binary.raw.get("content"))
    content = _unpack(inline, attachment) if isinstance(inline, str) else None
    return content, declared or binary.text("contentType")


def _unpack(data: str, attachment: Element) -> bytes | None:
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        attachment.note("attachment data that is no base64")
        return None


def _decode(content: bytes, declared: str, attachment: Element) -> str:
    match = _CHARSET.search(declared)
    charset = match[1] if match else "utf-8"
    try:
        codec = codecs.lookup(charset)
        is_text = getattr(codec, "_is_text_encoding", True)
    except LookupError:
        is_text = False
    if not is_text:
        attachment.note("an attachment in an unknown character set, read as UTF-8")
        charset = "utf-8"
    if charset.lower().replace("_", "-") == "utf-8":
        charset = "utf-8-sig"
    text = content.decode(charset, errors="replace")
    if "\ufffd" in text:
        attachment.note("an attachment with bytes that its character set cannot hold")
    return text


class _TextOf(HTMLParser):
    """Collects the text of a page: blocks on lines of their own, scripts and styles left out."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent = 0
        self._pre = 0
        """Depth of <pre>: notes that were plain text once keep their lines there."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent += 1
        elif tag in _BLOCKS:
            self.parts.append("\n")
            self._pre += tag == "pre"
        elif tag in ("td", "th"):
            self.parts.append("\t")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _SILENT:  # <script/> in XHTML is empty: nothing after it is silent
            self.handle_starttag(tag, attrs)
        self.cdata_elem = None

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT:
            self._silent = max(0, self._silent - 1)
        elif tag in _BLOCKS:
            self.parts.append("\n")
            self._pre = max(0, self._pre - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data if self._pre else _SPACES.sub(" ", data))


def html_text(html: str) -> str:
    """Return the text of an HTML or XHTML page. A page that cannot be parsed loses only its tags."""
    parser = _TextOf()
    try:
        parser.feed(html)
        parser.close()
    except (AssertionError, ValueError):  # `<![odd[` makes the standard library's parser give up
        return html_line(html)
    rows = (" ".join(row.split()) for row in "".join(parser.parts).split("\n"))
    return "\n".join(row for row in rows if row)
