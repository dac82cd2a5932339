"""Charts beyond the budget: window by window the engine says what matters, and each sentence is checked.

A digest is kept under the digest of all that it was made from, so that a refresh makes anew only the window
that changed. A window that fails is reported and sinks nothing else. What is told of a window is never
evidence itself: its sentences carry the facts of the record that bear them out.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from service.context.choose import TokenCount, choose_facts
from service.context.chosen import Context
from service.context.digests import Digest, Told, digest_block, digest_tokens
from service.context.render import DIGEST, Request, requests_for
from service.context.templates import TemplateSet
from service.context.windows import Window, cut_windows
from service.engine.prompt import Completion, Engine, EngineInfo, Profile
from service.errors import EngineError, StoreError
from service.grounding.check import Checker
from service.grounding.parse import parse_claims
from service.grounding.summary import RULES_VERSION, Verdict
from service.ports import Vault
from service.record.facts import FactId, PatientRecord

AREA = "digest"
MAX_DEPTH = 3
"""Digests of digests of digests: beyond that a chart is cut, and says so."""
MAX_CLAIMS = 12
"""Sentences a digest may hold."""
SHARE = 0.35
"""Of the budget that all digests together may take in the last prompt."""
IN_FLIGHT = 8
"""Windows under way at once: fewer than an engine has seats, so that a clinician's request finds one."""

Progress = Callable[[str, str], None]


@dataclass(frozen=True)
class Digester:
    """Digests one record with one engine. `most` is how many windows one run may ask for."""

    engine: Engine
    info: EngineInfo
    templates: TemplateSet
    budget_tokens: int
    most: int
    vault: Vault | None
    tell: Progress
    seed: int = 0

    async def digest(self, record: PatientRecord, shown: Context, count: TokenCount) -> tuple[Digest, ...]:
        """Return the digests of what a Context leaves out, oldest first; none where nothing is left out.

        Where there are more windows than `most`, the newest are digested and the others stay left out.
        """
        windows = cut_windows(record, {fact.id for fact in shown.facts.values()}, self._room)[-self.most :]
        seats = asyncio.Semaphore(IN_FLIGHT)
        done = 0

        async def take(window: Window) -> Digest:
            nonlocal done
            async with seats:
                found = await self._window(record, window, count)
            done += 1
            self.tell("digest", f"{done} of {len(windows)} parts")
            return found

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(take(window)) for window in windows]
        digests = tuple(task.result() for task in tasks)
        return await self._folded(record, digests, count, depth=1)

    @property
    def _room(self) -> int:
        """Tokens of a window's facts: what the instructions, the task and the manifest leave."""
        return max(self.budget_tokens // 2, 200)

    async def _window(self, record: PatientRecord, window: Window, count: TokenCount) -> Digest:
        key = self._key(window)
        kept = await self._kept(key, window)
        if kept is not None:
            return kept
        part = replace(record, facts=window.facts, gaps=(), _by_id={})
        try:
            context = await asyncio.to_thread(
                choose_facts, part, (), self.templates, self._profile, self.budget_tokens, count
            )
            told = await self._ask(context)
        except EngineError:
            return Digest(window.title, (), tuple(fact.id for fact in window.facts))
        await self._keep(key, told)
        return Digest(window.title, told)

    @property
    def _profile(self) -> Profile:
        return self.info.profile

    async def _ask(self, context: Context) -> tuple[Told, ...]:
        """Ask for a digest of this Context, and return the sentences that their sources bear out."""
        requests = requests_for(
            context, self.templates, self._profile, task=DIGEST, seed=self.seed, priority=1
        )
        if self._profile.mode == "guided":
            requests = requests[-MAX_CLAIMS:]
        checker, told = Checker(context), []
        for request, completion in await self._generate(requests):
            for draft in parse_claims(completion.text, request.section)[:MAX_CLAIMS]:
                claim = checker.check(draft)
                if claim.verdict is Verdict.SUPPORTED:
                    facts = tuple(fact for fact in checker.facts if fact.id in set(claim.citations))
                    told.append(Told(claim.text, facts))
        return tuple(told)

    async def _generate(self, requests: Sequence[Request]) -> list[tuple[Request, Completion]]:
        return [(request, await self.engine.generate(request.prompt)) for request in requests]

    async def _folded(
        self, record: PatientRecord, digests: tuple[Digest, ...], count: TokenCount, depth: int
    ) -> tuple[Digest, ...]:
        """Digest the digests while they are too long for the last prompt, at most `MAX_DEPTH` deep."""
        limit = int(self.budget_tokens * SHARE)
        if depth >= MAX_DEPTH or len(digests) < 2 or digest_tokens(digests) <= limit:
            return digests
        groups = _groups(digests, self._room)
        if len(groups) >= len(digests):
            return digests
        self.tell("digest", f"level {depth + 1}: {len(groups)} parts")
        folded = [await self._fold(record, group, count) for group in groups]
        return await self._folded(record, tuple(folded), count, depth + 1)

    async def _fold(self, record: PatientRecord, group: Sequence[Digest], count: TokenCount) -> Digest:
        title = f"{group[0].title.split(' to ')[0]} to {group[-1].title.split(' to ')[-1]}"
        lost = tuple(fact_id for digest in group for fact_id in digest.lost)
        facts = {fact.id: fact for digest in group for told in digest.told for fact in told.facts}
        if len(group) == 1 or not facts:
            return replace(group[0], title=title, lost=lost)
        part = replace(record, facts=tuple(facts.values()), gaps=(), _by_id={})
        try:
            base = await asyncio.to_thread(
                choose_facts, part, (), self.templates, self._profile, self.budget_tokens, count,
            )  # fmt: skip
            told = await self._ask(_of_digests(base, group))
        except EngineError:
            return Digest(title, tuple(told for digest in group for told in digest.told), lost)
        return Digest(title, told, lost)

    def _key(self, window: Window) -> str:
        """Digest all that decides what is told of a window; nothing that was generated."""
        sources = [(fact.id, fact.text, [source.digest for source in fact.sources]) for fact in window.facts]
        made_by = [
            self.templates.digest,
            self.info.model,
            self.info.digest,
            self._profile.name,
            RULES_VERSION,
        ]
        data = msgspec.json.encode([made_by, self.budget_tokens, self.seed, sources])
        return hashlib.sha256(data).hexdigest()

    async def _kept(self, key: str, window: Window) -> Digest | None:
        if self.vault is None:
            return None
        try:
            data = await asyncio.to_thread(self.vault.get, AREA, key)
            told = _DECODER.decode(data) if data is not None else None
        except (StoreError, msgspec.MsgspecError):
            return None
        facts = {fact.id: fact for fact in window.facts}
        if told is None or not all(fact_id in facts for one in told for fact_id in one.facts):
            return None
        return Digest(window.title, tuple(Told(one.text, tuple(facts[i] for i in one.facts)) for one in told))

    async def _keep(self, key: str, told: Sequence[Told]) -> None:
        if self.vault is None:
            return
        data = msgspec.json.encode(
            [_KeptClaim(one.text, tuple(fact.id for fact in one.facts)) for one in told]
        )
        try:
            await asyncio.to_thread(self.vault.put, AREA, key, data)
        except StoreError:
            self.tell("digest", "not kept for the next run")


class _KeptClaim(msgspec.Struct, frozen=True):
    """One sentence of a digest as it is kept."""

    text: str
    facts: tuple[FactId, ...]


_DECODER = msgspec.json.Decoder(list[_KeptClaim])


def _groups(digests: Sequence[Digest], room: int) -> list[list[Digest]]:
    """Group neighbouring digests that fit one prompt together."""
    groups: list[list[Digest]] = []
    for digest in digests:
        if groups and digest_tokens((*groups[-1], digest)) <= room:
            groups[-1].append(digest)
        else:
            groups.append([digest])
    return groups


def _of_digests(base: Context, group: Sequence[Digest]) -> Context:
    """Return a Context whose evidence is what the digests told, cited through to the record."""
    block = digest_block(group)
    assert block is not None
    cites = {line.label: line.facts for line in block.lines if line.label is not None}
    return replace(base, blocks=(block,), index=(), focus=(), cites=cites, left_out=())
