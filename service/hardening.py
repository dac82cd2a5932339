"""What of a crash leaves a process: no memory on a disk, and no text of an exception, which may quote charts.

Every process of ours calls `keep_memory_private` first; what it starts inherits two of the three bounds.
"""

from __future__ import annotations

import ctypes
import logging
import re
import resource
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

PR_SET_DUMPABLE: Final = 4
_FILTER: Final = Path("/proc/self/coredump_filter")
_REPR: Final = re.compile(r"[\n(<:]")

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def keep_memory_private() -> None:
    """Have the kernel write no core of this process, and let nobody else of this user read its memory.

    The limit is not asked where cores are piped to a program; the filter, which leaves every page out of a
    core, and the flag are. A new program resets the flag and keeps the other two. Not every system has them.
    """
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        _FILTER.write_text("0")
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def describe(kind: type[BaseException], trace: TracebackType | None) -> str:
    """Return where an exception was raised, and its kind; never its text, and no line of a source."""
    frames = traceback.extract_tb(trace)
    lines = [f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
    return "\n".join([*lines, f"{kind.__module__}.{kind.__qualname__}"])


class PlainTraces(logging.Formatter):
    """Writes log records; of an exception that comes with one, only where it was raised and its kind."""

    def format(self, record: logging.LogRecord) -> str:
        """Format without the text that another handler's formatter may have left in the record."""
        record.exc_text = None
        return super().format(record)

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802 - logging's own name
        """Describe an exception."""
        return describe(ei[0], ei[2]) if ei[0] is not None else ""


def silence_crashes() -> None:
    """Have an exception that nobody caught told without its text, in every thread.

    A hook that somebody else put in stays.
    """
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _tell
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = lambda args: _tell(args.exc_type, args.exc_value, args.exc_traceback)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = lambda args: _tell(args.exc_type, args.exc_value, args.exc_traceback)


def keep_short(record: logging.LogRecord) -> bool:
    """Leave of what asyncio says the sentence alone: it goes on with the reprs of tasks and arguments."""
    record.msg, record.args = _REPR.split(record.getMessage(), maxsplit=1)[0].rstrip(), ()
    return True


def _tell(kind: type[BaseException], _error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    with suppress(Exception):
        sys.stderr.write(f"This should not have happened:\n{describe(kind, trace)}\n")
        sys.stderr.flush()
