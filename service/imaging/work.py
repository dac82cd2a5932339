"""What the child does with one content: a DICOM file, a photograph or a PDF becomes pictures."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator

from PIL import Image
from pydicom import Dataset

from service.imaging.burned import is_burned_in
from service.imaging.decode import frames_of, open_dicom, read_frame
from service.imaging.grey import Wanted, is_mr, measure, show_frame
from service.imaging.header import header_of
from service.imaging.kinds import Kind, kind_of
from service.imaging.order import Order, pack
from service.imaging.photograph import is_pdf, is_photograph, read_pages, read_photograph
from service.imaging.picture import Header, Rendered, Spot
from service.imaging.refusal import Refused
from service.imaging.render import picture_of, square_png, stretch_of
from service.imaging.sr import report_text
from service.imaging.volume import spread
from service.imaging.window import Window

BURNED_IN = "text may be burned into its pixels"


def carry_out(content: bytes, order: Order) -> bytes:
    """Return the packed reply to an order; raise Refused, and MemoryError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if is_photograph(content) or is_pdf(content):
            return pack(list(_of_no_dicom(content, order)))
        return _of_dicom(content, order)


def _of_no_dicom(content: bytes, order: Order) -> Iterator[Rendered]:
    if order.what != "read":
        raise Refused("not a DICOM file")
    if order.refuse_burned_in:
        raise Refused(BURNED_IN)
    if is_photograph(content):
        yield _square(read_photograph(content), "colours as stored", 1, order)
        return
    for page, picture in read_pages(content, order.frames, order.side):
        yield _square(picture, "page as printed", page, order)


def _square(picture: Image.Image, words: str, frame: int, order: Order) -> Rendered:
    """A photograph or page may bear a name like any capture: it counts as burned in."""
    png = square_png(picture, order.side)
    return Rendered(png, words, frame, True, picture.height, picture.width, order.side)


def _of_dicom(content: bytes, order: Order) -> bytes:
    if order.what == "report":
        return pack(text=report_text(content))
    dataset = open_dicom(content, with_pixels=order.what != "header")
    header = header_of(dataset)
    if order.what == "header":
        return pack(header=header)
    _check(header, order)
    numbers = order.frames or spread(frames_of(dataset), order.most)
    if order.what == "measure":
        return pack(header=header, span=_measured(dataset, numbers))
    return pack(list(_pictures(dataset, header, order, numbers)), header)


def _check(header: Header, order: Order) -> None:
    kind = kind_of(header.sop_class, header.modality)
    if kind is not Kind.PICTURE:
        raise Refused(f"no picture: {kind}")
    if not _is_wanted(header.spot, order.spot):
        raise Refused("another instance than the one that was asked for")
    if order.refuse_burned_in and is_burned_in(header):
        raise Refused(BURNED_IN)


def _is_wanted(found: Spot, wanted: Spot) -> bool:
    pairs = (
        (found.study, wanted.study), (found.series, wanted.series), (found.instance, wanted.instance),
    )  # fmt: skip
    return all(not asked or have == asked for have, asked in pairs)


def _pictures(dataset: Dataset, header: Header, order: Order, numbers: Iterable[int]) -> Iterator[Rendered]:
    wanted = Wanted(order.as_model, _window(order), order.span, order.over)
    for number in numbers:
        frame = read_frame(dataset, number)
        rows, columns = frame.stored.shape[:2]
        shown = show_frame(dataset, frame, number, wanted)
        png = square_png(picture_of(shown.pixels), order.side, stretch_of(dataset, number))
        yield Rendered(png, shown.words, number, is_burned_in(header), rows, columns, order.side)


def _measured(dataset: Dataset, numbers: Iterable[int]) -> tuple[float, float] | None:
    """Return the lowest and the highest value of these frames of an MR; nothing of any other file."""
    if not is_mr(dataset):
        return None
    spans = [measure(dataset, read_frame(dataset, number), number) for number in numbers]
    known = [span for span in spans if span is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def _window(order: Order) -> Window | None:
    if order.window is None:
        return None
    window = Window(*order.window)
    if not window.is_usable:
        raise Refused("a window that cannot be used")
    return window
