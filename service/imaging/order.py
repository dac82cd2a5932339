"""What the reader's two processes say to each other, beside the bytes that were sent."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from service.imaging.picture import Header, Rendered, Spot

_SIZE = struct.Struct("!I")


class Order(msgspec.Struct, frozen=True):
    """What is wanted of one content."""

    what: str = "read"
    """`read`, `measure`, `header` or `report`."""
    spot: Spot = Spot("", "", "")
    side: int = 896
    frames: tuple[int, ...] = ()
    """From 1; empty for all, evenly thinned to `most`."""
    most: int = 85
    as_model: bool = True
    window: tuple[float, float] | None = None
    span: tuple[float, float] | None = None
    over: str = "the volume"
    """What `span` was measured over, in words."""
    refuse_burned_in: bool = False


class _Told(msgspec.Struct, frozen=True):
    """A Rendered without its bytes, of which only the number is told."""

    size: int
    window: str
    frame: int
    burned_in: bool
    rows: int
    columns: int
    side: int


class _Reply(msgspec.Struct, frozen=True):
    pictures: tuple[_Told, ...] = ()
    header: Header | None = None
    span: tuple[float, float] | None = None
    text: str = ""


class Answered(NamedTuple):
    """What the child said. Only what was asked for is there."""

    pictures: tuple[Rendered, ...]
    header: Header | None
    span: tuple[float, float] | None
    text: str


def pack(
    pictures: Sequence[Rendered] = (),
    header: Header | None = None,
    span: tuple[float, float] | None = None,
    text: str = "",
) -> bytes:
    """Return a reply as bytes: its size, what is told, and the pictures one after the other."""
    told = tuple(
        _Told(len(one.png), one.window, one.frame, one.burned_in, one.rows, one.columns, one.side)
        for one in pictures
    )
    said = msgspec.json.encode(_Reply(told, header, span, text))
    return b"".join([_SIZE.pack(len(said)), said, *(one.png for one in pictures)])


def unpack(data: bytes) -> Answered:
    """Return what `pack` was given; raise ValueError on anything else."""
    try:
        (size,) = _SIZE.unpack_from(data)
        reply = msgspec.json.decode(data[_SIZE.size : _SIZE.size + size], type=_Reply)
    except (struct.error, msgspec.MsgspecError) as error:
        raise ValueError("not a reply") from error
    at, pictures = _SIZE.size + size, []
    for told in reply.pictures:
        pictures.append(_rendered(told, data[at : at + told.size], reply.header))
        at += told.size
    if at != len(data):
        raise ValueError("not a reply")
    return Answered(tuple(pictures), reply.header, reply.span, reply.text)


def _rendered(told: _Told, png: bytes, header: Header | None) -> Rendered:
    return Rendered(png, told.window, told.frame, told.burned_in, told.rows, told.columns, told.side, header)
