"""Text of PDF, by PDFium: it keeps the words of a table's row on one line, and reads filled-in forms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from service.texts.unreadable import Partial, Unreadable

_HYPHEN = "\ufffe"
"""PDFium's word for a hyphen at the end of a line, whose parts it joins: `anti\ufffecoagulant`."""


class _Page(NamedTuple):
    text: str
    is_drawn: bool
    """It shows something, but no text."""


def portable_text(content: bytes) -> str:
    """Return the text of a PDF, pages one below the other. Pages that are pictures make it Partial."""
    with closing(_open(content)) as document:
        try:
            if document.get_formtype() != pdfium_c.FORMTYPE_NONE:
                document.init_forms()
            pages = list(_pages(document))
        except pdfium.PdfiumError as error:
            raise Unreadable("broken PDF") from error
    if not pages:
        raise Unreadable("PDF without pages")
    if not any(page.text.strip() for page in pages):
        raise Unreadable("PDF without text, perhaps scanned")
    text = "\n".join(page.text for page in pages).replace(_HYPHEN, "-")
    drawn = sum(page.is_drawn for page in pages)
    if drawn:
        raise Partial(f"{drawn} of {len(pages)} pages without text, perhaps scanned", text)
    return text


def _open(content: bytes) -> pdfium.PdfDocument:
    try:
        return pdfium.PdfDocument(content)
    except pdfium.PdfiumError as error:
        code = getattr(error, "err_code", None)
        locked = code in (pdfium_c.FPDF_ERR_PASSWORD, pdfium_c.FPDF_ERR_SECURITY)
        raise Unreadable("encrypted PDF" if locked else "broken PDF") from error


def _pages(document: pdfium.PdfDocument) -> Iterator[_Page]:
    for number in range(len(document)):
        with closing(document[number]) as page:
            # What was typed into a form, or over the page, becomes part of the page.
            pdfium_c.FPDFPage_Flatten(page.raw, pdfium_c.FLAT_NORMALDISPLAY)
        with closing(document[number]) as page, closing(page.get_textpage()) as text:
            shown = text.get_text_range()
            yield _Page(shown, not shown.strip() and next(page.get_objects(max_depth=1), None) is not None)
