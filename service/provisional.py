"""Claims told while the engine still writes: each one whole, and after its rules passed.

They are told to whoever waits and decide nothing: the whole answer is verified afterwards as if nobody had
listened, and what the second pass or a heading without room takes away is then not in the summary.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from service.context.chosen import Context
from service.context.render import Request
from service.context.templates import TemplateSet
from service.engine.prompt import Completion
from service.grounding.check import Checker
from service.grounding.complete import heading_of
from service.grounding.parse import parse_claims, parse_whole
from service.grounding.summary import Claim, DraftClaim, Verdict
from service.record.facts import PatientRecord

_log = logging.getLogger("epicrisis.ondemand")

Listen = Callable[[Claim], None]
"""Told each claim once, in the event loop. Its section is the heading under which it will stand."""


@dataclass
class _Answer:
    """One free answer while it comes: the text so far, and how far it was read for claims."""

    strip: tuple[str, ...]
    take: Callable[[Iterable[DraftClaim]], None]
    _pieces: list[str] = field(default_factory=list)
    _read: int = 0

    def hear(self, piece: str) -> None:
        """Take one piece; an empty one says that the answer begins again."""
        if not piece:
            self._pieces, self._read = [], 0
            return
        self._pieces.append(piece)
        if "}" in piece:
            text = "".join(self._pieces)
            for pattern in self.strip:  # what a model thinks is no answer, also while it is thinking
                text = re.sub(pattern, "", text, flags=re.DOTALL)
            claims, self._read = parse_whole(text, None, min(self._read, len(text)))
            self.take(claims)


class Provisional:
    """Judges what is written so far about one Context, and tells what is supported, never twice."""

    def __init__(
        self,
        context: Context,
        record: PatientRecord,
        templates: TemplateSet,
        strip: tuple[str, ...],
        listen: Listen | None,
    ) -> None:
        self._context, self._record, self._templates = context, record, templates
        self._strip = strip
        self._listen = listen
        self._seen: set[DraftClaim] = set()
        self._has_told = False
        self.judging: asyncio.Task[None] | None = None
        self._drafts: asyncio.Queue[tuple[DraftClaim, ...]] = asyncio.Queue()

    @property
    def waits(self) -> bool:
        """Tell whether somebody waits for a claim, and none could be told yet."""
        return self._listen is not None and not self._has_told

    def listener(self, request: Request) -> Callable[[str], None] | None:
        """Return what the engine tells the pieces of an answer; None where nobody listens to pieces.

        A guided answer is about a few facts, and heard when it is whole.
        """
        if self._listen is None or request.section is not None:
            return None
        return _Answer(self._strip, self._take).hear

    def answered(self, request: Request, completion: Completion) -> None:
        """Take an answer that is whole; what was heard of it before is not told again."""
        if self._listen is not None:
            self._take(parse_claims(completion.text, request.section))

    def _take(self, claims: Iterable[DraftClaim]) -> None:
        new = tuple(claim for claim in dict.fromkeys(claims) if claim not in self._seen)
        self._seen.update(new)
        if new:
            self._drafts.put_nowait(new)

    async def judge(self) -> None:
        """Judge what is heard, apart from the event loop, until cancelled."""
        checker = await asyncio.to_thread(Checker, self._context, self._record)
        while True:
            drafts = await self._drafts.get()
            try:
                for claim in await asyncio.to_thread(self._supported, checker, drafts):
                    assert self._listen is not None
                    self._has_told = True
                    self._listen(claim)
            finally:
                self._drafts.task_done()

    async def heard(self) -> None:
        """Wait until all that was heard is judged, or judging has failed."""
        waiting = asyncio.create_task(self._drafts.join())
        await asyncio.wait({waiting, *filter(None, [self.judging])}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    def _supported(self, checker: Checker, drafts: Iterable[DraftClaim]) -> list[Claim]:
        """Return those that will be published as things stand, each under its heading."""
        previous = {fact_id for kind in self._context.required for fact_id in kind.previous}
        found = []
        for claim in map(checker.check, drafts):
            if claim.verdict is Verdict.SUPPORTED and previous.isdisjoint(claim.citations):
                heading = heading_of(claim, self._record, self._context, self._templates)
                found += [replace(claim, section=heading)] if heading else []
        return found


@asynccontextmanager
async def provisional(
    context: Context,
    record: PatientRecord,
    templates: TemplateSet,
    strip: tuple[str, ...],
    listen: Listen | None,
) -> AsyncIterator[Provisional]:
    """Judge what is written while the block runs; when it ends well, all that was heard is told."""
    one = Provisional(context, record, templates, strip, listen)
    if listen is None:
        yield one
        return
    one.judging = judging = asyncio.create_task(one.judge())
    try:
        yield one
        await one.heard()
    finally:
        judging.cancel()
        await asyncio.wait({judging})
    if not judging.cancelled() and (error := judging.exception()) is not None:
        _log.error("Claims could not be told while they were written: %s", type(error).__name__)
