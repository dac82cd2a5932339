"""Reads pictures in a child process: a file that breaks its decoder costs only itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias

import msgspec

from service.apart.frames import BROKE, NOT_STARTED, TOO_LARGE, TOO_LONG, Bounds, Said
from service.apart.process import Ended, Process, TookTooLong
from service.imaging.order import Answered, Order, unpack
from service.imaging.picture import MODEL_SIDE, Header, Rendered, Spot, Unreadable
from service.imaging.volume import MOST_SLICES

Span: TypeAlias = tuple[float, float]
"""Lowest and highest value."""
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Every thread of a numeric library takes address space, of which the child has little."""
_MODULE = "service.imaging.child"
_LEAST_SIDE, _MOST_SIDE = 16, 2048
_LONGEST_REASON = 120


class Limits(NamedTuple):
    """What reading one file may cost."""

    seconds_per_file: float = 30.0
    memory_bytes: int = 2 * 1024 * 1024 * 1024
    """Address space of the child: libraries, the file, a large frame, and what is made of it."""
    max_bytes: int = 256 * 1024 * 1024
    """Size of one file."""
    max_reply_bytes: int = 256 * 1024 * 1024
    seconds_to_start: float = 60.0
    """A machine under load takes its time to import the libraries."""

    @property
    def bounds(self) -> Bounds:
        """The same in the words of any child."""
        return Bounds(self.seconds_per_file, self.memory_bytes, self.max_reply_bytes, self.seconds_to_start)


LIMITS = Limits()


class Measured(NamedTuple):
    """The values of some frames of one file, and what it is."""

    header: Header
    span: Span | None
    """None of what is no MR, and of colours."""


class PictureReader:
    """Reads pictures within limits, one at a time. Threads may share it; whoever makes one closes it.

    Its child is started when first needed, and anew after it broke, from a thread of its own: Linux ends a
    child with the thread that started it, and threads that serve requests come and go.
    """

    def __init__(self, limits: Limits = LIMITS, module: str = _MODULE) -> None:
        self._limits = limits
        self._module = module
        self._desk = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._process: Process | None = None
        self._does_start = True
        """A child that does not even start is not tried again and again."""
        self._closing = threading.Lock()
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """Process id of the child; None where there is none."""
        return self._process.pid if self._process is not None else None

    def read(
        self,
        data: bytes,
        spot: Spot,
        *,
        side: int = MODEL_SIDE,
        frames: Sequence[int] = (),
        most: int = MOST_SLICES,
        window: tuple[float, float] | None = None,
        as_model: bool = True,
        span: Span | None = None,
        over: str = "the volume",
        refuse_burned_in: bool = False,
    ) -> tuple[Rendered, ...] | Unreadable:
        """Return the frames of one file as squares, or why there are none.

        A DICOM file must be the one that `spot` names, where it names one. Without `frames`, from 1, all are
        read, evenly thinned to `most`. `window` is centre and width, in grey; `as_model` shows a CT as
        MedGemma knows it and an MR over the `span` of its volume (of the frame itself without one), else as
        the file says. `over` says in words what the span was measured over.
        """
        side = min(max(side, _LEAST_SIDE), _MOST_SIDE)
        order = Order("read", spot, side, tuple(frames), most, as_model, window, span, over, refuse_burned_in)
        found = self._ask(data, order)
        return found if isinstance(found, Unreadable) else found.pictures

    def measure(
        self, data: bytes, spot: Spot, frames: Sequence[int], *, refuse_burned_in: bool = False
    ) -> Measured | Unreadable:
        """Return what these frames of one file hold, as if they were to be read, or why that is not known."""
        order = Order("measure", spot, frames=tuple(frames), refuse_burned_in=refuse_burned_in)
        found = self._ask(data, order)
        if isinstance(found, Unreadable):
            return found
        return Measured(found.header, found.span) if found.header is not None else Unreadable(BROKE)

    def header(self, data: bytes) -> Header | Unreadable:
        """Return the header of one file, parsed in the child, or why there is none."""
        found = self._ask(data, Order("header"))
        if isinstance(found, Unreadable):
            return found
        return found.header or Unreadable(BROKE)

    def report(self, data: bytes) -> str | Unreadable:
        """Return the lines of a Structured Report, or why there are none."""
        found = self._ask(data, Order("report"))
        return found if isinstance(found, Unreadable) else found.text

    def close(self) -> None:
        """End the child. What is being read is read to its end first."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
        self._desk.submit(self._stop).result()
        self._desk.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, data: bytes, order: Order) -> Answered | Unreadable:
        if len(data) > self._limits.max_bytes:
            return Unreadable(TOO_LARGE)
        return self._desk.submit(self._ask_here, data, msgspec.json.encode(order).decode()).result()

    def _ask_here(self, data: bytes, order: str) -> Answered | Unreadable:
        try:
            process = self._seated()
        except (Ended, OSError):
            self._stop()
            self._does_start = False
            return Unreadable(NOT_STARTED)
        try:
            said, reply = process.ask_bytes(data, order)
            if said is Said.UNREADABLE:
                return Unreadable(reply.decode("utf-8", "replace")[:_LONGEST_REASON])
            return unpack(reply)
        except TookTooLong:
            self._stop()
            return Unreadable(TOO_LONG)
        except (Ended, ValueError):
            self._stop()
            return Unreadable(BROKE)

    def _seated(self) -> Process:
        if not self._does_start:
            raise Ended
        if self._process is None:
            bounds = (self._limits.seconds_per_file, self._limits.memory_bytes, self._limits.max_reply_bytes)
            arguments = [str(os.getpid()), *map(str, bounds)]
            self._process = Process(self._module, arguments, self._limits.bounds, _ONE_THREAD)
            self._process.wait_until_ready()
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None
