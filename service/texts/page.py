"""Text of an HTML or XHTML page."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from lxml import etree

from service.texts.lines import Lines

_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)[^<>]*>")
_NO_MARKUP = re.compile(r"<!\[(?!(?:if|else|endif)\b)", re.IGNORECASE)
_CDATA, _CDATA_END = "<![CDATA[", "]]>"


def page_text(page: str) -> str:
    """Return the text of a page: blocks on lines of their own, rows as lines with their cells by tab.

    What is no markup stays as text: an unfinished tag at the end, a `<![` of nobody's.
    """
    page = _with_text_escaped(page)
    root = _parse(page)
    lines = Lines()
    if root is None:
        _scan(page, lines)
    else:
        walk(root, lines)
    return lines.text()


def _with_text_escaped(page: str) -> str:
    page = "".join(_cdata_as_text(page))
    page = _NO_MARKUP.sub("&lt;![", page)
    end = page.rfind(">") + 1
    return page[:end] + page[end:].replace("<", "&lt;")


def _cdata_as_text(page: str) -> Iterator[str]:
    at = 0
    while (begin := page.find(_CDATA, at)) >= 0 and (end := page.find(_CDATA_END, begin)) >= 0:
        yield page[at:begin]
        yield html.escape(page[begin + len(_CDATA) : end])
        at = end + len(_CDATA_END)
    yield page[at:]


def _parse(page: str) -> etree._Element | None:
    """Return the tree; None where the parser gave up, which it does on more than 256 open tags."""
    parser = etree.HTMLParser(
        recover=True, no_network=True, huge_tree=False, remove_comments=True, remove_pis=True,
        encoding="utf-8",
    )  # fmt: skip
    try:
        root = etree.fromstring(page.encode("utf-8", "replace"), parser)
    except etree.XMLSyntaxError:
        return None
    gave_up = any(entry.level == etree.ErrorLevels.FATAL for entry in parser.error_log)
    return None if gave_up else root


def walk(root: etree._Element, lines: Lines) -> None:
    """Feed the elements of a tree, the root included, and the text between them."""
    for event, element in etree.iterwalk(root, events=("start", "end")):
        tag = etree.QName(element).localname.lower()
        silent = element.get("revised") == "delete"  # CDA R2 4.3.5.2: deleted narrative is suppressed
        if event == "start":
            lines.start(tag, silent)
            lines.data(element.text)
        else:
            lines.end(tag, silent)
            if element is not root:
                lines.data(element.tail)


def _scan(page: str, lines: Lines) -> None:
    """Read a page tag by tag, without a tree."""
    page, at = "".join(_without_comments(page)), 0
    for tag in _TAG.finditer(page):
        lines.data(html.unescape(page[at : tag.start()]))
        (lines.end if tag[1] else lines.start)(tag[2].lower())
        at = tag.end()
    lines.data(html.unescape(page[at:]))


def _without_comments(page: str) -> Iterator[str]:
    at = 0
    while (begin := page.find("<!--", at)) >= 0 and (end := page.find("-->", begin + 2)) >= 0:
        yield page[at:begin]
        at = end + 3
    yield page[at:]
