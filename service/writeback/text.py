"""The two human-readable forms of one page: plain text and XHTML. They say the same, line by line."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from xml.etree.ElementTree import Element, SubElement, tostring

from service.writeback.page import Block, Line

_LISTS = {Line.STATEMENT: "ul", Line.SOURCE: "ul"}
_STYLE = (
    "body{font-family:sans-serif;line-height:1.4;max-width:48em}"
    ".banner{font-weight:bold;border:2px solid;padding:.3em}.identity,.warning{font-weight:bold}"
    "h2{font-size:1.1em;margin-bottom:.2em}.mark{font-style:italic}.sources{list-style:none;padding-left:0}"
)


def plain_text(page: Iterable[Block]) -> str:
    """Return the page as lines of text. The first and the last line are the banner."""
    return "\n".join(_plain(block) for block in page)


def xhtml(page: Iterable[Block], language: str = "en") -> str:
    """Return the page as an XHTML document without scripts, links out, or pictures."""
    page = tuple(page)
    root = Element("html", {"xmlns": "http://www.w3.org/1999/xhtml", "lang": language, "xml:lang": language})
    head = SubElement(root, "head")
    SubElement(head, "meta", {"charset": "utf-8"})
    SubElement(head, "title").text = page[0].text
    SubElement(head, "style").text = _STYLE
    _fill(SubElement(root, "body"), page)
    return tostring(root, encoding="unicode")


def narrative(blocks: Iterable[Block]) -> dict[str, str]:
    """Return lines of the page as a FHIR Narrative."""
    root = Element("div", {"xmlns": "http://www.w3.org/1999/xhtml"})
    _fill(root, blocks)
    return {"status": "generated", "div": tostring(root, encoding="unicode")}


def _fill(body: Element, blocks: Iterable[Block]) -> None:
    for line, alike in groupby(blocks, key=lambda block: block.line):
        parent = SubElement(body, "ul", {"class": f"{line}s"}) if line in _LISTS else body
        for block in alike:
            _element(parent, block)


def _plain(block: Block) -> str:
    match block.line:
        case Line.HEADING:
            return f"\n{block.text}\n{'-' * min(len(block.text), 60)}"
        case Line.STATEMENT:
            return f"- {_sentence(block)}"
        case Line.SOURCE:
            return f"{_cited(block)} {block.text}"
        case Line.WARNING:
            return f"! {block.text}"
    return block.text


def _sentence(block: Block) -> str:
    return " ".join(part for part in (block.text, _cited(block), block.mark) if part)


def _cited(block: Block) -> str:
    return "".join(f"[{number}]" for number in block.numbers)


def _element(parent: Element, block: Block) -> None:
    match block.line:
        case Line.HEADING:
            SubElement(parent, "h2").text = block.text
        case Line.STATEMENT:
            _statement(SubElement(parent, "li"), block)
        case Line.SOURCE:
            number = block.numbers[0]
            SubElement(parent, "li", {"id": f"source-{number}"}).text = f"{_cited(block)} {block.text}"
        case _:
            SubElement(parent, "p", {"class": block.line.value}).text = block.text


def _statement(item: Element, block: Block) -> None:
    """Write `text [1][2] (mark)`, each number a link to its line in the list of sources."""
    item.text = f"{block.text} "
    last: Element | None = None
    for number in block.numbers:
        last = SubElement(item, "a", {"href": f"#source-{number}"})
        last.text = f"[{number}]"
    if block.mark and last is not None:
        last.tail = " "
        SubElement(item, "span", {"class": "mark"}).text = block.mark
