"""Attachments of documents and reports: their contents, and the texts that were read out of them.

Plain text is decoded here. Every other format is read outside the core, in a process that can be killed
(`service.texts`), and its text is looked up in the chart by the key of its content.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import re
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, NamedTuple

from charset_normalizer import from_bytes

from service.record.facts import Extracted, Resource
from service.record.fhirjson import Element
from service.record.reading import Reading
from service.record.references import full_url_of, own_reference, plain

PLAIN = frozenset(("text/plain", "text/markdown", "text/x-markdown"))
PAGES = frozenset(("text/html", "application/xhtml+xml"))
RICH = frozenset(("text/rtf", "application/rtf"))
PORTABLE = frozenset(("application/pdf",))
MARKUP = frozenset(("application/xml", "text/xml", "application/hl7-cda+xml", "application/cda+xml"))
DICOM = frozenset(("application/dicom",))
"""Of these, Structured Reports have text."""
READABLE = PLAIN | PAGES | RICH | PORTABLE | MARKUP | DICOM
"""Media types whose text can be read, here or outside the core."""

NOT_AT_HAND = "text not read (content not at hand)"

_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:+-]+)", re.IGNORECASE | re.ASCII)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order marks; UTF-32 first, because its little-endian mark begins with that of UTF-16."""
_WESTERN = frozenset(("iso8859-1", "latin-1", "cp1252"))
_NO_CHARSETS = frozenset(
    ("idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7", "mbcs", "oem")
)
"""Codecs of Python that are no character sets of documents, or that read one thing as another."""
_OTHER_SCRIPTS = [
    "cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "cp874", "cp932", "euc_jp", "gb18030", "big5", "cp949",
]  # fmt: skip
_SAMPLE_BYTES = 65_536
_LEAST_EVIDENCE = 24
_LINE_END = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_LONE = re.compile("[\ud800-\udfff]")


class AttachedContent(NamedTuple):
    """The bytes of one attachment, and what they are said to be."""

    key: str
    """`content_key` of the two that follow: the name under which the text is looked up."""
    content: bytes
    media_type: str
    """Content type in lower case, without parameters: `text/html`."""
    declared: str
    """Content type as recorded: `text/html; charset=ISO-8859-15`."""


class Attached(NamedTuple):
    """What became of one attachment."""

    text: str
    """The whole text; empty when it was not read, the rest when it was read in part."""
    format: str
    """Content type as recorded, without parameters: `text/plain`."""
    title: str
    unread: str = ""
    """Why there is no text, or not all of it, safe to show; empty when it was read."""


def read_attachment(attachment: Element, reading: Reading) -> Attached:
    """Return the text of one Attachment: of inline data, a fetched url, or a Binary of the chart."""
    content, declared = _content(attachment, reading)
    media = media_type_of(declared)
    text, unread = _extracted(content, declared, attachment, reading)
    if not unread and not text.strip():
        unread = "no text in it"
    if "\ufffd" in text:
        attachment.note("an attachment with bytes that its character set cannot hold")
    return Attached(text, media, attachment.text("title"), unread)


def attached_content(attachment: Element, reading: Reading) -> tuple[bytes | None, str]:
    """Return the bytes of one Attachment where they are at hand, and its content type as recorded."""
    return _content(attachment, reading)


def _extracted(content: bytes | None, declared: str, attachment: Element, reading: Reading) -> Extracted:
    media = media_type_of(declared)
    if content is None and (not media or media in READABLE):
        return Extracted("", NOT_AT_HAND)
    if not media:
        attachment.note("an attachment without a content type")
        return Extracted("", "text not read (format not recorded)")
    texts = reading.chart.texts
    found = texts.get(content_key(content, declared)) if texts and content is not None else None
    if found is not None:
        return found
    if content is None or media not in PLAIN:
        attachment.note("an attachment in a format that is not read")
        return Extracted("", f"text not read (format {media})")
    if _CHARSET.search(declared) and not charset_of(declared):
        attachment.note("an attachment in an unknown character set")
    return Extracted(decode_text(content, declared))


def _content(attachment: Element, reading: Reading) -> tuple[bytes | None, str]:
    declared, data, url = attachment.text("contentType"), attachment.raw.get("data"), attachment.text("url")
    if isinstance(data, str) and data:
        content = _unpack(data)
        if content is None:
            attachment.note("attachment data that is no base64")
        return content, declared
    if not url:
        return None, declared
    fetched = reading.chart.binaries.get(url)
    if fetched is not None:
        reading.chart.binary_reads[url] = hashlib.sha256(fetched).hexdigest()
        return fetched, declared
    binary = reading.resolve(url)
    if binary is None or binary.text("resourceType") != "Binary":
        return None, declared
    return _inline(binary.raw), declared or binary.text("contentType")


def _inline(binary: Resource) -> bytes | None:
    data = binary.get("data", binary.get("content"))  # `content` in DSTU2 and STU3
    return _unpack(data) if isinstance(data, str) else None


def _unpack(data: str) -> bytes | None:
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def attached_contents(resources: Iterable[Any], binaries: Mapping[str, bytes]) -> Iterator[AttachedContent]:
    """Yield every content that `read_attachment` may ask a text of, each once. Never raises.

    `resources` is what `assemble_record` gets: it is read twice, and only its Binary resources are held.
    `binaries` maps the url of an attachment to what was fetched.
    """
    given = resources if isinstance(resources, Sized) else list(resources)
    linked = {name: r for r in given if _is_a(r, "Binary") for name in _names(r)}
    seen: set[str] = set()
    for holder in given:
        if not _is_a(holder, "DocumentReference", "DiagnosticReport"):
            continue
        contained = {f"#{r.get('id')}": r for r in _objects(holder.get("contained"))}
        for attachment in _attachments(holder):
            content, declared = _content_of(attachment, binaries, ChainMap(contained, linked))
            if content is None or not media_type_of(declared):
                continue
            key = content_key(content, declared)
            if key not in seen:
                seen.add(key)
                yield AttachedContent(key, content, media_type_of(declared), declared)


def _is_a(resource: Any, *kinds: str) -> bool:
    return isinstance(resource, dict) and resource.get("resourceType") in kinds


def _attachments(holder: Resource) -> Iterator[Element]:
    resource = Element(holder, "", set())
    if holder["resourceType"] == "DocumentReference":
        yield from (content.child("attachment") for content in resource.children("content"))
    else:
        yield from resource.children("presentedForm")


def _content_of(
    attachment: Element, binaries: Mapping[str, bytes], linked: Mapping[str, Resource]
) -> tuple[bytes | None, str]:
    declared, data, url = attachment.text("contentType"), attachment.raw.get("data"), attachment.text("url")
    if isinstance(data, str) and data:
        return _unpack(data), declared
    if url in binaries:
        return binaries[url], declared
    binary = linked.get(url) or linked.get(plain(url)) or linked.get("/".join(plain(url).split("/")[-2:]))
    if not binary:
        return None, declared
    return _inline(binary), declared or Element(binary, "", set()).text("contentType")


def _names(binary: Resource) -> Iterator[str]:
    yield from (name for name in (own_reference(binary), full_url_of(binary)) if name)


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def content_key(content: bytes, declared: str) -> str:
    """Return the SHA-256 (hex) over a content and its declared type, parameters included."""
    return hashlib.sha256(b"\0".join((declared.encode("utf-8", "replace"), content))).hexdigest()


def media_type_of(declared: str) -> str:
    """Return a content type in lower case, without parameters."""
    return declared.split(";", 1)[0].strip().lower()


def charset_of(declared: str) -> str:
    """Return Python's name of the declared character set; empty for none, or one that is unknown."""
    match = _CHARSET.search(declared)
    return codec_named(match[1]) if match else ""


def codec_named(charset: str) -> str:
    """Return Python's name of a character set; empty for what is none."""
    try:
        codec = codecs.lookup(charset)
    except (LookupError, ValueError):
        return ""
    is_text = getattr(codec, "_is_text_encoding", True)
    return codec.name if is_text and codec.name.replace("_", "-") not in _NO_CHARSETS else ""


def decode_text(content: bytes, declared: str) -> str:
    """Return a text as recorded, with `\\n` as its only line end and without control characters but tabs.

    A byte order mark outranks the declared character set. Without either it is UTF-8 where it decodes,
    else a guess.
    """
    mark = next((pair for pair in _MARKS if content.startswith(pair[0])), None)
    if mark:
        return tidy(content[len(mark[0]) :].decode(mark[1], errors="replace"))
    charset = charset_of(declared) or _wide(content)
    if charset == "ascii" and not content.isascii():
        charset = ""
    return tidy(_decode_as(content, charset) if charset else _decode_undeclared(content))


def _wide(content: bytes) -> str:
    """UTF-16 without a mark and a declaration shows by its NULs."""
    head = content[:256]
    if len(head) < 4 or 0 not in head:
        return ""
    if head[1::2].count(0) * 2 > len(head[1::2]):
        return "utf-16-le"
    return "utf-16-be" if head[0::2].count(0) * 2 > len(head[0::2]) else ""


def _decode_as(content: bytes, charset: str) -> str:
    """ISO-8859-1 is read as windows-1252, as browsers do: 0x92 there is an apostrophe, no control."""
    if charset not in _WESTERN:
        return content.decode(charset, errors="replace")
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:
        return content.decode(charset, errors="replace")


def _decode_undeclared(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode(_guess(content) or "cp1252", errors="replace")


def _guess(content: bytes) -> str:
    """Name the character set of a text in another script than Latin; empty where too little speaks for one.

    A few accents, a degree or a micro sign are no evidence: guesses on so little turn `5 µg` into Chinese.
    """
    sample = content[:_SAMPLE_BYTES]
    high = sum(byte > 0x7F for byte in sample)
    letters = high + sum(65 <= byte & 0xDF <= 90 for byte in sample if byte < 0x80)
    if high < _LEAST_EVIDENCE or high * 3 < letters:
        return ""
    best = from_bytes(sample, cp_isolation=_OTHER_SCRIPTS).best()
    return best.encoding if best else ""


def tidy(text: str) -> str:
    """Make `\\n` the only line end, and control characters but tabs spaces; lone surrogates are replaced.

    A control character between two digits must not join them: `1<NUL>2 mg` is not 12 mg.
    """
    text = _CONTROL.sub(" ", _LINE_END.sub("\n", text))
    if _LONE.search(text):  # halves of a pair that stand side by side, as RTF writes them, become one
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
