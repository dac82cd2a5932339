"""Text of XML: the narrative of a C-CDA's sections, and all text of any other document.

No entity is resolved, no DTD is loaded, nothing is fetched.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

from lxml import etree

from service.record.attachments import media_type_of
from service.texts.lines import Lines
from service.texts.page import walk
from service.texts.unreadable import Unreadable


def parse_markup(document: str) -> etree._Element:
    """Return the root of an XML document. A broken one is refused: its end would be missing."""
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False,
        remove_comments=True, remove_pis=True, encoding="utf-8",
    )  # fmt: skip
    try:
        root = etree.fromstring(document.encode("utf-8", "replace"), parser)
    except etree.XMLSyntaxError as error:
        raise Unreadable("broken XML") from error
    if root is None:
        raise Unreadable("broken XML")
    if next(root.iter(etree.Entity), None) is not None:
        raise Unreadable("XML with entities of its own")
    return root


def embedded_body(root: etree._Element) -> tuple[bytes, str, str] | None:
    """Return (content, media type, declared type) of a CDA whose body is a document of another format."""
    for body in _named(root, "nonXMLBody") if is_cda(root) else ():
        for text in _named(body, "text"):
            declared = text.get("mediaType") or "text/plain"
            inner = "".join(text.itertext())
            if text.get("representation", "").upper() != "B64":
                return inner.encode(), media_type_of(declared), f"{media_type_of(declared)}; charset=utf-8"
            try:
                return base64.b64decode("".join(inner.split())), media_type_of(declared), declared
            except (binascii.Error, ValueError) as error:
                raise Unreadable("broken body of a CDA document") from error
    return None


def markup_text(root: etree._Element) -> str:
    """Return each section's title and narrative of a C-CDA, else all text of the document."""
    lines = Lines()
    if is_cda(root):
        for section in _named(root, "section"):
            for child in _parts(section):
                lines.end_line()
                walk(child, lines)
                lines.end_line()
    else:
        _walk_any(root, lines)
    return lines.text()


def is_cda(root: etree._Element) -> bool:
    """Tell whether a document is a ClinicalDocument, in its namespace or without one."""
    return _local_name(root) == "ClinicalDocument"


def _parts(section: etree._Element) -> Iterator[etree._Element]:
    """Yield the title of a section, then its narrative."""
    for name in ("title", "text"):
        yield from (child for child in section if _local_name(child) == name)


def _named(root: etree._Element, name: str) -> Iterator[etree._Element]:
    yield from root.iter("{*}" + name)


def _local_name(element: etree._Element) -> str:
    return str(etree.QName(element).localname)


def _walk_any(root: etree._Element, lines: Lines) -> None:
    """Put each element on a line of its own, but those that stand in the midst of text."""
    inline = [False]
    for event, element in etree.iterwalk(root, events=("start", "end")):
        if event == "start":
            if not inline[-1]:
                lines.end_line()
            inline.append(_is_mixed(element))
            lines.data(element.text)
        else:
            inline.pop()
            if not inline[-1]:
                lines.end_line()
            lines.data(element.tail)


def _is_mixed(element: etree._Element) -> bool:
    texts = [element.text, *(child.tail for child in element)]
    return any(text and not text.isspace() for text in texts)
