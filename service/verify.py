"""Verifying a draft: the rules, one round of repair, then the second pass by the engine, which only lowers.

Nothing that the engine does here fails a run: what it does not answer stands as the rules left it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from service.context.chosen import Context
from service.context.digests import BLOCK as DIGESTS
from service.context.render import Request
from service.context.templates import TemplateSet
from service.engine.prompt import Completion, Engine, EngineInfo, Prompt
from service.entailment import NOT_MEASURED, OFF, Asker, SecondPass, pass_again, shared_beginning
from service.errors import EpicrisisError
from service.grounding.check import Checker
from service.grounding.complete import complete_summary
from service.grounding.parse import parse_claims
from service.grounding.since import Earlier
from service.grounding.summary import Claim, DraftClaim, Summary
from service.record.facts import PatientRecord
from service.repair import ROUNDS, Answered, Checked, mended, repair_requests

IN_FLIGHT = 32

Stage = Callable[[str], AbstractContextManager[None]]
"""Times what runs within it under a stage's name."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Every claim with its verdict, and what the engine was asked on the way."""

    claims: tuple[Claim, ...]
    second_pass: str = ""
    prompts: tuple[Prompt, ...] = ()
    completions: tuple[Completion, ...] = ()


def verifying_inputs(second_pass: SecondPass | None) -> dict[str, object]:
    """Return what of verifying decides what a run writes, for its key."""
    return {"repair": ROUNDS, "second_pass": second_pass.identity if second_pass else "off"}


@dataclass(frozen=True)
class Verifier:
    """Verifies the answers about one Context with one engine. Without `second_pass` there is none."""

    engine: Engine
    info: EngineInfo
    templates: TemplateSet
    record: PatientRecord
    context: Context
    second_pass: SecondPass | None
    stage: Stage
    tell: Callable[[str, str], None]
    seed: int = 0

    async def verify(self, requests: Sequence[Request], completions: Sequence[Completion]) -> Verified:
        """Return the claims of all answers, in order, then those that came back from repair."""
        checker = Checker(self.context, self.record)
        with self.stage("verify"):
            answered = await asyncio.to_thread(check_answers, checker, requests, completions)
            claims = await asyncio.to_thread(claims_of, checker, self.context, answered)
        repaired = await self._repair(checker, answered)
        passed = await self._pass_again((*claims, *repaired.claims))
        return replace(
            passed,
            prompts=repaired.prompts + passed.prompts,
            completions=repaired.completions + passed.completions,
        )

    async def _repair(self, checker: Checker, answered: Sequence[Answered]) -> Verified:
        """Give what was refused back once, and judge what returns by the same rules."""
        requests = repair_requests(answered, self.context, self.templates, self.info.profile)
        if not requests:
            return Verified(())
        with self.stage("generate"):
            given = await self._generate(requests)
        self.tell("generate", f"{len(given)} of {len(requests)} requests to repair answered")

        def check() -> tuple[Claim, ...]:
            drafts = [d for request, answer in given for d in parse_claims(answer.text, request.section)]
            return tuple(replace(checker.check(draft), repaired=True) for draft in mended(drafts, answered))

        with self.stage("verify"):
            claims = await asyncio.to_thread(check)
        return Verified(
            claims,
            prompts=tuple(request.prompt for request, _ in given),
            completions=tuple(answer for _, answer in given),
        )

    async def _generate(self, requests: Sequence[Request]) -> list[tuple[Request, Completion]]:
        """Return what was answered; a request that fails is as if nothing had come back."""
        seats = asyncio.Semaphore(IN_FLIGHT)

        async def ask(request: Request) -> Completion | None:
            async with seats:
                try:
                    return await self.engine.generate(request.prompt)
                except EpicrisisError:
                    return None

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(request)) for request in requests]
        answers = ((request, task.result()) for request, task in zip(requests, tasks, strict=True))
        return [(request, answer) for request, answer in answers if answer is not None]

    async def _pass_again(self, claims: tuple[Claim, ...]) -> Verified:
        """Have the engine say what of the claims that rules cannot settle their sources bear out."""
        if self.second_pass is None:
            return Verified(claims, OFF)
        with self.stage("generate"):
            score = await self.second_pass.score(self.engine, self.info, self.templates)
            if score is None or not score.passes:
                return Verified(claims, score.said if score else NOT_MEASURED)
            profile = self.info.profile
            beginning = shared_beginning(self.context, self.templates, profile)
            asker = Asker(self.engine, self.templates, profile, beginning, self.seed)
            passed = await pass_again(claims, self.record, asker)
        answered = sum(bool(claim.entailed) for claim in passed.claims)
        said = f"{answered} of {passed.questions} claims answered"
        self.tell("verify", f"second pass: {said}")
        return Verified(
            passed.claims, f"{score.said}; {said}", passed.asked.prompts, passed.asked.completions
        )


def verify_completions(
    kind: str,
    record: PatientRecord,
    context: Context,
    templates: TemplateSet,
    requests: Sequence[Request],
    completions: Sequence[Completion],
    earlier: Earlier | None = None,
) -> Summary:
    """Check every claim of every answer by the rules alone, and complete what is missing. Asks no engine."""
    checker = Checker(context, record)
    claims = claims_of(checker, context, check_answers(checker, requests, completions))
    return complete_summary(kind, record, context, templates, claims, earlier)


def check_answers(
    checker: Checker, requests: Sequence[Request], completions: Sequence[Completion]
) -> list[Answered]:
    """Return each request with the sentences of its answer, each checked against what it cites."""
    return [
        Answered(
            request,
            tuple(
                Checked(draft, checker.check(draft))
                for draft in parse_claims(completion.text, request.section)
            ),
        )
        for request, completion in zip(requests, completions, strict=True)
    ]


def claims_of(checker: Checker, context: Context, answered: Sequence[Answered]) -> list[Claim]:
    """Return all claims in order.

    A guided model was asked about single facts: what it told of whole windows is added as it is.
    """
    claims = [checked.claim for one in answered for checked in one.checked]
    if all(one.request.section is not None for one in answered):
        claims += [checker.check(draft) for draft in told_by_digests(context)]
    return claims


def told_by_digests(context: Context) -> Iterator[DraftClaim]:
    """Yield each sentence of the digests that a Context shows, citing the label that stands for its facts."""
    for block in context.blocks:
        if block.key == DIGESTS:
            for line in block.lines:
                if line.label is not None:
                    yield DraftClaim("", line.text, (line.label,))
