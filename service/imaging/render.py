"""Eight bits become a square PNG: aspect kept, by black margins. Pure, but for Pillow's own faults."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image
from pydicom import Dataset

from service.imaging.groups import item_of, numbers_of
from service.imaging.window import Bytes

_COMPRESSION = 4
_MOST_STRETCH = 8.0
"""A pixel further from a square than this is a mistake in the header."""


def picture_of(pixels: Bytes) -> Image.Image:
    """Return grey or colour as an RGB picture of Pillow's."""
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def square_png(picture: Image.Image, side: int, stretch: float = 1.0) -> bytes:
    """Return a PNG of `side` × `side` with the whole picture in its middle.

    `stretch` is the height of a pixel by its width: ultrasound and reformatted volumes have others than 1.
    """
    width, height = picture.width, picture.height * stretch
    scale = side / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    scaled = picture.resize(size, Image.Resampling.BILINEAR)
    canvas = Image.new("RGB", (side, side))
    canvas.paste(scaled, ((side - size[0]) // 2, (side - size[1]) // 2))
    return png_of(canvas)


def png_of(picture: Image.Image) -> bytes:
    """Return a PNG without any text or time in it."""
    written = BytesIO()
    picture.save(written, "PNG", compress_level=_COMPRESSION)
    return written.getvalue()


def stretch_of(dataset: Dataset, frame: int) -> float:
    """Return a pixel's height by its width, from spacing or aspect ratio; 1 where nothing says otherwise."""
    measures = item_of(dataset, "PixelMeasuresSequence", frame)
    for item, keyword in (
        (measures, "PixelSpacing"),
        (dataset, "ImagerPixelSpacing"),
        (dataset, "PixelAspectRatio"),
    ):
        found = numbers_of(item, keyword)
        if len(found) == 2 and min(found) > 0:
            ratio = found[0] / found[1]
            return ratio if 1 / _MOST_STRETCH <= ratio <= _MOST_STRETCH else 1.0
    return 1.0
