"""Reads many attachments in a child process: a content that breaks its reader costs only itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

from service.record.attachments import PLAIN, READABLE, AttachedContent, attached_contents, decode_text
from service.record.facts import Extracted
from service.record.fhirjson import one_line
from service.texts.frames import BROKE, NOT_STARTED, TOO_LARGE, TOO_LONG, Limits, Said
from service.texts.process import Ended, Process, TookTooLong
from service.texts.unreadable import Partial, Unreadable

Job = AttachedContent
"""One content to read: key, content, media type, declared type."""

ENTRY = "service.texts.formats:text_of"
LIMITS = Limits()
_LONGEST_REASON = 120


class TextReader:
    """Reads texts within limits. Holds no process between calls, so it may be shared by threads.

    `entry` names the function that the child calls: `module:function`, with the signature of `text_of`.
    """

    def __init__(self, limits: Limits = LIMITS, entry: str = ENTRY) -> None:
        self._limits = limits
        self._entry = entry

    def read(self, jobs: Iterable[Job]) -> dict[str, Extracted]:
        """Return what was read, by key: for every job either its text or why there is none."""
        found: dict[str, Extracted] = {}
        with closing(_Desk(self._entry, self._limits)) as desk:
            for job in jobs:
                if job.key not in found:
                    found[job.key] = self._read_one(job, desk)
        return found

    def _read_one(self, job: Job, desk: _Desk) -> Extracted:
        if job.media_type not in READABLE:
            return _unread(f"format {one_line(job.media_type)[:_LONGEST_REASON]}")
        if len(job.content) > self._limits.max_bytes:
            return _unread(TOO_LARGE)
        if job.media_type not in PLAIN:
            return desk.read(job)
        text = decode_text(job.content, job.declared)
        return Extracted(text) if len(text) <= self._limits.max_text_characters else _unread(TOO_LARGE)


class _Desk:
    """The one child of a call: started when first needed, and anew after it broke."""

    def __init__(self, entry: str, limits: Limits) -> None:
        self._entry = entry
        self._limits = limits
        self._process: Process | None = None
        self._is_closed = False
        """A child that does not even start is not tried again and again."""

    def read(self, job: Job) -> Extracted:
        process = self._seated()
        if process is None:
            return _unread(NOT_STARTED)
        try:
            said, text = process.ask(job.content, job.media_type, job.declared)
        except TookTooLong:
            self.close()
            return _unread(TOO_LONG)
        except Ended:
            self.close()
            return _unread(BROKE)
        return _extracted(said, text)

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def _seated(self) -> Process | None:
        if self._process is None and not self._is_closed:
            try:
                self._process = Process(self._entry, self._limits)
                self._process.wait_until_ready()
            except (Ended, OSError):
                self.close()
                self._is_closed = True
        return self._process


def _extracted(said: Said, reply: str) -> Extracted:
    if said is Said.TEXT:
        return Extracted(reply)
    reason, _, text = reply.partition("\n") if said is Said.PARTLY else (reply, "", "")
    shown = one_line(reason)[:_LONGEST_REASON]
    return Extracted(text, Partial(shown, text).sentence if text else Unreadable(shown).sentence)


def _unread(reason: str) -> Extracted:
    return Extracted("", Unreadable(reason).sentence)


def read_texts(
    resources: Iterable[Any], binaries: Mapping[str, bytes], reader: TextReader
) -> dict[str, Extracted]:
    """Read every attachment of a chart whose format can be read: what `assemble_record` takes as texts."""
    contents = attached_contents(resources, binaries)
    return reader.read(content for content in contents if content.media_type in READABLE)
