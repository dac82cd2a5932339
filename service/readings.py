"""What the model reads from pictures: a request of its own, beside the text, and never in its place.

Nothing that happens here fails a run: without an archive, a picture or an answer the summary is what the text
alone leads to, and says what could not be seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.context.chosen import Context, Label, LeftOut
from service.context.pictures import (
    UNSEEN,
    labelled,
    picture_facts,
    picture_prompt,
    room_for_pictures,
    spot_of,
)
from service.context.templates import TemplateSet
from service.engine.prompt import Completion, Engine, EngineInfo, Prompt
from service.errors import EpicrisisError
from service.grounding.readings import judge_readings, parse_readings, with_readings
from service.grounding.summary import Summary
from service.photographs import photographs_of
from service.ports.images import ImageUse, Looked, PictureSource, ReadOne, Unseen, Wanted
from service.record.facts import Fact, Kind, PatientRecord, Status

SEES_NONE = "the model reads no pictures"
NO_ROOM = "no picture fits the model's window beside the text"
NO_ANSWER = "the model did not answer about them"
_MOST_WORDS = 8


@dataclass(frozen=True, slots=True)
class Images:
    """A site's pictures: where they come from, what becomes of what is read from them, how many at most."""

    source: PictureSource
    use: ImageUse
    most: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A summary with what was read from pictures, and what the engine was asked for it."""

    summary: Summary
    prompts: tuple[Prompt, ...] = ()
    """Without their pixels: each picture by its digest."""
    completions: tuple[Completion, ...] = ()


@dataclass(frozen=True, slots=True)
class Reader:
    """Asks one engine about pictures of one chart."""

    engine: Engine
    info: EngineInfo
    templates: TemplateSet
    record: PatientRecord = field(repr=False)
    context: Context = field(repr=False)
    seed: int = 0

    async def read(self, looked: Looked, summary: Summary) -> Asked:
        """Return the summary with a section of its own for what is read from these pictures."""
        facts = picture_facts(looked.pictures, self.record.facts, looked.how)
        pngs = {picture.digest: picture.png for picture in looked.pictures}
        return await self._ask(summary, facts, pngs, [left_out_of(one) for one in looked.unseen])

    async def read_again(self, then: Summary, summary: Summary) -> Asked:
        """Return the summary with what an engine says now of the pictures of a stored one.

        Their bytes are not at hand: the engine is one that answers by what a prompt names.
        """
        unseen = [one for one in then.left_out if one.kind == UNSEEN]
        return await self._ask(summary, facts_shown(then), {}, unseen)

    async def _ask(
        self,
        summary: Summary,
        facts: Mapping[Label, Fact],
        pngs: Mapping[str, bytes],
        unseen: Sequence[LeftOut],
    ) -> Asked:
        if not facts:
            return Asked(self._with(summary, {}, "", unseen))
        profile = self.info.profile
        prompt = picture_prompt(self.context, self.templates, profile, facts, pngs, seed=self.seed)
        try:
            completion = await self.engine.generate(prompt)
        except EpicrisisError:
            silent = [left_out_of(one) for one in unanswered(facts.values())]
            return Asked(self._with(summary, {}, "", [*unseen, *silent]))
        told = self._with(summary, facts, completion.text, unseen)
        return Asked(told, (prompt.without_pixels(),), (completion,))

    def _with(
        self, summary: Summary, facts: Mapping[Label, Fact], answer: str, unseen: Sequence[LeftOut]
    ) -> Summary:
        read = judge_readings(parse_readings(answer), facts, self.record)
        return with_readings(summary, read, facts.values(), unseen, self.record)


async def look_for(
    images: Images,
    record: PatientRecord,
    resources: Iterable[Mapping[str, Any]],
    read: ReadOne,
    info: EngineInfo,
    budget_tokens: int,
) -> Looked:
    """Return the pictures that the model is to be shown. A record without imaging asks nobody."""
    studies = [fact for fact in record.facts if fact.kind is Kind.IMAGING]
    if not studies and not await asyncio.to_thread(photographs_of, record, resources):
        return Looked()
    room = room_for_pictures(info.profile, info.context_tokens, budget_tokens)
    if not room:
        why = NO_ROOM if info.profile.image_tokens else SEES_NONE
        return Looked((), (Unseen("", "imaging studies", why, max(1, len(studies))),))
    most = min(images.most, room)
    return await images.source.look(Wanted(record, resources, read, most, problem_words(record)))


def problem_words(record: PatientRecord) -> tuple[str, ...]:
    """Return by what pictures are chosen, as far as the record says it: the newest active problems."""
    active = [fact for fact in record.facts if fact.kind is Kind.PROBLEM and fact.status is Status.ACTIVE]
    return tuple(dict.fromkeys(fact.name for fact in reversed(active)))[:_MOST_WORDS]


def facts_shown(summary: Summary) -> dict[Label, Fact]:
    """Return the pictures that a stored summary was made with, by the labels that they had."""
    return labelled(fact for fact in summary.facts if spot_of(fact) is not None)


def unanswered(facts: Iterable[Fact]) -> list[Unseen]:
    """Return that pictures were at hand and nothing was said of them."""
    return [Unseen(fact.source.reference, fact.name, NO_ANSWER) for fact in facts]


def left_out_of(unseen: Unseen) -> LeftOut:
    """Return what could not be seen as a line of the summary's account."""
    why = f"not seen: {unseen.why}"
    return LeftOut(UNSEEN, f"Pictures of {unseen.what}", unseen.count, unseen.day, unseen.day, why)
