"""Photographs and pages that no PACS holds: JPEG, PNG, PDF. Run it in a child."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO

import numpy as np
import pypdfium2
from PIL import Image, ImageOps

from service.imaging.decode import MAX_PIXELS
from service.imaging.refusal import BROKEN, TOO_MANY_PIXELS, Refused

_JPEG, _PNG, _PDF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"%PDF-"
_SEARCHED_BYTES = 1024
"""A PDF's mark may stand behind other bytes (PDF 1.7, H.3.13)."""
MOST_PAGES = 8
_LONGEST_SIDE_POINTS = 14_400
"""The largest page that PDF allows."""


def is_photograph(data: bytes) -> bool:
    """Tell JPEG and PNG by their first bytes; what they are called proves nothing."""
    return data.startswith((_JPEG, _PNG))


def is_pdf(data: bytes) -> bool:
    """Tell a PDF by its mark."""
    return _PDF in data[:_SEARCHED_BYTES]


def read_photograph(data: bytes) -> Image.Image:
    """Return an upright RGB picture; raise Refused. Its size is known before anything is allocated."""
    try:
        with Image.open(BytesIO(data), formats=("JPEG", "PNG")) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise Refused(TOO_MANY_PIXELS)
            opened.load()
            return _flat(ImageOps.exif_transpose(opened))
    except (Refused, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise Refused(TOO_MANY_PIXELS) from error
    except Exception as error:
        raise Refused(BROKEN) from error


def _flat(picture: Image.Image) -> Image.Image:
    """Return RGB: 16 bits scaled and not cut, and what is transparent on white, as a browser shows it."""
    if picture.mode.startswith(("I", "F")):
        values = np.asarray(picture).astype(np.float32)
        most = 65535.0 if picture.mode.startswith("I") else max(1.0, float(values.max()))
        return Image.fromarray((np.clip(values / most, 0, 1) * 255).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        seen = picture.convert("RGBA")
        white = Image.new("RGBA", seen.size, "white")
        return Image.alpha_composite(white, seen).convert("RGB")
    return picture.convert("RGB")


def read_pages(data: bytes, pages: Sequence[int], side: int) -> Iterator[tuple[int, Image.Image]]:
    """Yield pages of a PDF, from 1, no larger than `side`; all of the first few where none is named."""
    try:
        document = pypdfium2.PdfDocument(data)
    except Exception as error:
        raise Refused("a PDF that does not open") from error
    try:
        for page in pages or range(1, min(len(document), MOST_PAGES) + 1):
            yield page, _page(document, page, side)
    finally:
        document.close()


def _page(document: pypdfium2.PdfDocument, number: int, side: int) -> Image.Image:
    if not 1 <= number <= len(document):
        raise Refused("no such page")
    try:
        page = document[number - 1]
        longest = max(page.get_size())
        if not 1 <= longest <= _LONGEST_SIDE_POINTS:
            raise Refused(BROKEN)
        drawn: Image.Image = page.render(scale=side / longest, may_draw_forms=False).to_pil()
        return drawn.convert("RGB")
    except (Refused, MemoryError):
        raise
    except Exception as error:
        raise Refused(BROKEN) from error
