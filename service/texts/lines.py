"""Lines out of marked-up text: blocks on lines of their own, cells by tab, scripts left out."""

from __future__ import annotations

import re

_BLOCKS = frozenset(
    """
    address article aside blockquote br caption center dd details dir div dl dt fieldset figcaption figure
    footer form h1 h2 h3 h4 h5 h6 header hr item legend li list main menu nav ol optgroup option p paragraph
    pre section summary table tbody tfoot thead title tr ul
    """.split()
)
"""Blocks of HTML, and of the narrative of a C-CDA (item, list, paragraph)."""
_CELLS = frozenset(("td", "th"))
_SILENT = frozenset(("script", "style", "template"))
_SPACES = re.compile(r"\s+")
_SPACES_IN_LINE = re.compile(r"[^\S\n]+")
_RAISED = re.compile(r"\s*[0-9+\-−]+\s*")
_SUPERSCRIPT = str.maketrans("0123456789+-−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻")


class Lines:
    """Collects the text between tags, in one pass. Unbalanced tags cost their layout only."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._silent = 0
        self._pre = 0
        """Depth of <pre>: notes that were plain text once keep their lines there."""
        self._raised = 0
        """Depth of <sup>: 10<sup>9</sup> is no 109."""
        self._rows: list[int] = []
        """Cells so far of every open row."""
        self._cells: list[int] = []
        """Number of parts at the start of every open cell."""

    def start(self, tag: str, silent: bool = False) -> None:
        """Enter an element; what stands in a silent one is left out."""
        if silent or tag in _SILENT:
            self._silent += 1
        elif tag in _CELLS:
            self._open_cell()
        elif tag in _BLOCKS:
            self.end_line()
            self._pre += tag == "pre"
            if tag == "tr":
                self._rows.append(0)
        elif tag == "sup":
            self._raised += 1

    def end(self, tag: str, silent: bool = False) -> None:
        """Leave an element."""
        if silent or tag in _SILENT:
            self._silent = max(0, self._silent - 1)
        elif tag in _CELLS:
            self._close_cell()
        elif tag in _BLOCKS:
            self.end_line()
            self._pre = max(0, self._pre - (tag == "pre"))
            if tag == "tr" and self._rows:
                self._rows.pop()
        elif tag == "sup":
            self._raised = max(0, self._raised - 1)

    def data(self, text: str | None) -> None:
        """Take in text."""
        if not text or self._silent:
            return
        text = _SPACES_IN_LINE.sub(" ", text) if self._pre else _SPACES.sub(" ", text)
        if text == " " and self._at_start():
            return
        if self._raised and _RAISED.fullmatch(text):
            text = text.translate(_SUPERSCRIPT)
        self._parts.append(text)

    def end_line(self) -> None:
        """Begin a new line, unless nothing stands on this one yet."""
        if not self._at_start():
            self._parts.append("\n")

    def text(self) -> str:
        """Return the lines that hold text."""
        rows = (_row(line) for line in "".join(self._parts).split("\n"))
        return "\n".join(row for row in rows if row)

    def _at_start(self) -> bool:
        return not self._parts or self._parts[-1] in ("\n", "\t")

    def _open_cell(self) -> None:
        if self._rows and self._rows[-1]:
            self._parts.append("\t")
        else:
            self.end_line()
        if self._rows:
            self._rows[-1] += 1
        self._cells.append(len(self._parts))

    def _close_cell(self) -> None:
        begun = self._cells.pop() if self._cells else len(self._parts)
        while len(self._parts) > begun and self._parts[-1] in ("\n", " "):
            self._parts.pop()


def _row(line: str) -> str:
    return "\t".join(" ".join(cell.split()) for cell in line.split("\t")).rstrip("\t")
