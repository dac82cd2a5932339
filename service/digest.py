"""Charts beyond the budget: window by window the engine says what matters, and each sentence is checked.

A digest is kept under the digest of all that it was made from, so that a refresh makes anew only the window
that changed. A window that fails is reported and sinks nothing else. What is told of a window is never
evidence itself: its sentences carry the facts of the record that bear them out.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec

from service.context.choose import TokenCount, choose_facts
from service.context.chosen import Context
from service.context.digests import SHARE, Digest, Told, digest_block, digest_tokens
from service.context.render import DIGEST, Request, requests_for, whole_chat
from service.context.templates import TemplateSet
from service.context.windows import Window, cut_windows
from service.engine.prompt import Completion, Engine, EngineInfo, Profile
from service.errors import EpicrisisError, StoreError
from service.grounding.check import Checker
from service.grounding.parse import parse_claims
from service.grounding.summary import RULES_VERSION, Verdict
from service.ports import Vault
from service.record.facts import Fact, FactId, PatientRecord

AREA = "digest"
MAX_DEPTH = 3
"""Digests of digests of digests: beyond that a chart is cut, and says so."""
MAX_CLAIMS = 12
"""Sentences a digest may hold."""
IN_FLIGHT = 8
"""Requests under way at once: fewer than an engine has seats, so that a clinician's request finds one."""
PRIORITY = 1
"""Behind what a clinician waits for, before what nobody waits for."""

Progress = Callable[[str, str], None]


@dataclass(frozen=True)
class Digester:
    """Digests one record with one engine. `most` is how many windows one run may ask for.

    `access_profile` says as whom the record was read: no reader is served another one's digests (SAFETY 21).
    """

    engine: Engine
    info: EngineInfo
    templates: TemplateSet
    budget_tokens: int
    most: int
    vault: Vault | None
    tell: Progress
    seed: int = 0
    access_profile: str = ""
    rules_version: str = RULES_VERSION
    _seats: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(IN_FLIGHT), repr=False)
    _desk: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1), repr=False)
    # One choosing thread a run: choosing is work for one core, and each waits for counts made elsewhere.

    async def digest(self, record: PatientRecord, shown: Context, count: TokenCount) -> tuple[Digest, ...]:
        """Return the digests of what a Context leaves out, oldest first; none where nothing is left out.

        Where there are more windows than `most`, the newest are digested and the others stay left out. No
        error of the engine is raised: the digest of a window that failed tells nothing and names its facts.
        """
        if self.most < 1:
            return ()
        seen = {fact.id for fact in shown.facts.values()}
        windows = cut_windows(record, seen, self._room)[-self.most :]
        if self._profile.mode == "guided":
            # Asked fact by fact, such a model needs no surroundings: what is shown anyway is not asked again.
            windows = tuple(
                replace(one, facts=tuple(fact for fact in one.facts if fact.id not in seen))
                for one in windows
            )
        digests = await self._together([partial(self._window, record, one, count) for one in windows])
        return await self._folded(record, digests, count, depth=1)

    @property
    def _room(self) -> int:
        """Tokens of a window's facts: what the instructions, the task and the manifest leave."""
        return max(self.budget_tokens // 2, 200)

    @property
    def _profile(self) -> Profile:
        return self.info.profile

    async def _together(
        self, work: Sequence[Callable[[], Awaitable[Digest]]], level: str = ""
    ) -> tuple[Digest, ...]:
        done = 0

        async def one(make: Callable[[], Awaitable[Digest]]) -> Digest:
            nonlocal done
            digest = await make()
            done += 1
            self.tell("digest", f"{level}{done} of {len(work)} parts")
            return digest

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(make)) for make in work]
        return tuple(task.result() for task in tasks)

    async def _window(self, record: PatientRecord, window: Window, count: TokenCount) -> Digest:
        async def make() -> tuple[Told, ...]:
            return await self._ask(await self._evidence(record, window.facts, count))

        try:
            told = await self._told(self._window_key(record, window), window.facts, make)
        except EpicrisisError:
            return Digest(window.title, (), tuple(fact.id for fact in window.facts))
        return Digest(window.title, told)

    async def _told(
        self, key: str, facts: Sequence[Fact], make: Callable[[], Awaitable[tuple[Told, ...]]]
    ) -> tuple[Told, ...]:
        """Return what was told of these facts before, else what is made now, kept for the next time."""
        kept = await self._kept(key, {fact.id: fact for fact in facts})
        if kept is not None:
            return kept
        told = await make()
        await self._keep(key, told)
        return told

    async def _evidence(self, record: PatientRecord, facts: Sequence[Fact], count: TokenCount) -> Context:
        """Choose from these facts alone, as if nothing else were recorded: the rest must not show through."""
        dated = [fact.when for fact in facts if fact.when]
        newest = max(dated, key=lambda when: when.latest, default=None)
        part = replace(record, facts=tuple(facts), gaps=(), as_of=newest, _by_id={})

        def choose() -> Context:
            budget = self.budget_tokens
            context = choose_facts(part, (), self.templates, self._profile, budget, count)
            over = count(whole_chat(context, self.templates, self._profile, DIGEST)) - budget
            if over <= 0:  # the budget was counted with the summary's own task, which may be shorter
                return context
            return choose_facts(part, (), self.templates, self._profile, budget - over, count)

        async with self._desk:
            return await asyncio.to_thread(choose)

    async def _ask(self, context: Context) -> tuple[Told, ...]:
        """Ask for a digest of this Context, and return the sentences that their sources bear out."""
        requests: Sequence[Request] = requests_for(
            context, self.templates, self._profile, task=DIGEST, seed=self.seed, priority=PRIORITY
        )
        if self._profile.mode == "guided":
            requests = _newest(requests, max(1, MAX_CLAIMS // self._profile.facts_per_request))
        completions = await self._generate(requests)
        checker, told = Checker(context), []
        for request, completion in zip(requests, completions, strict=True):
            for draft in parse_claims(completion.text, request.section):
                claim = checker.check(draft)
                # JSON can escape what is no text: half of a surrogate pair could not be written anywhere
                if claim.verdict is Verdict.SUPPORTED and claim.text.isprintable():
                    told.append(Told(claim.text, _cited(claim.citations, checker.facts)))
        return tuple(told[:MAX_CLAIMS])

    async def _generate(self, requests: Sequence[Request]) -> tuple[Completion, ...]:
        async def answer(request: Request) -> Completion:
            async with self._seats:
                return await self.engine.generate(request.prompt)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(answer(request)) for request in requests]
        except* EpicrisisError as errors:
            raise errors.exceptions[0] from None
        return tuple(task.result() for task in tasks)

    async def _folded(
        self, record: PatientRecord, digests: tuple[Digest, ...], count: TokenCount, depth: int
    ) -> tuple[Digest, ...]:
        """Digest the digests while they are too long for the last prompt, at most `MAX_DEPTH` deep."""
        if depth >= MAX_DEPTH or digest_tokens(digests) <= int(self.budget_tokens * SHARE):
            return digests
        groups = _groups(digests, self._room)
        if len(groups) >= len(digests):
            return digests
        work = [partial(self._fold, record, group, count) for group in groups]
        folded = await self._together(work, f"level {depth + 1}: ")
        return await self._folded(record, folded, count, depth + 1)

    async def _fold(self, record: PatientRecord, group: Sequence[Digest], count: TokenCount) -> Digest:
        """Return one digest of several; what they told as it is, where nothing better comes of it."""
        if len(group) == 1:
            return group[0]
        title = f"{group[0].title.split(' to ')[0]} to {group[-1].title.split(' to ')[-1]}"
        before = tuple(told for digest in group for told in digest.told)
        facts = list({fact.id: fact for told in before for fact in told.facts}.values())

        async def make() -> tuple[Told, ...]:
            return await self._ask(_of_digests(await self._evidence(record, facts, count), group))

        try:
            told = await self._told(self._fold_key(record, group), facts, make) if facts else ()
        except EpicrisisError:
            told = ()
        return Digest(title, told or before)

    def _window_key(self, record: PatientRecord, window: Window) -> str:
        sources = [
            (fact.id, fact.text, fact.author, [source.digest for source in fact.sources])
            for fact in window.facts
        ]
        return self._key(record, ["window", sources])

    def _fold_key(self, record: PatientRecord, group: Sequence[Digest]) -> str:
        parts = [(one.title, [(told.text, _ids(told)) for told in one.told]) for one in group]
        return self._key(record, ["fold", parts])

    def _key(self, record: PatientRecord, of: Sequence[object]) -> str:
        """Digest all that decides what is told: reader, patient, model, how it is asked, rules, `of` what.

        The engine's version is left out: each sentence was checked, whichever version wrote it.
        """
        profile, patient = self._profile, record.identity
        made_by = [
            self.access_profile, patient.reference, patient.gender, patient.birth_date,
            self.templates.digest, self.templates.schema_digest, self.info.model, self.info.digest,
            profile.name, profile.mode, profile.facts_per_request, profile.max_output_tokens,
            profile.temperature, self.rules_version, self.budget_tokens, self.seed,
        ]  # fmt: skip
        digest = hashlib.sha256(msgspec.json.encode([made_by, of])).hexdigest()
        return f"{digest} {patient.reference}"  # whose it is: the vault seals it so

    async def _kept(self, key: str, facts: Mapping[FactId, Fact]) -> tuple[Told, ...] | None:
        if self.vault is None:
            return None
        try:
            data = await asyncio.to_thread(self.vault.get, AREA, key)
            told = _DECODER.decode(data) if data is not None else None
        except (StoreError, msgspec.MsgspecError, ValueError):
            return None
        if told is None or not all(one.facts and facts.keys() >= set(one.facts) for one in told):
            return None
        return tuple(Told(one.text, tuple(facts[fact_id] for fact_id in one.facts)) for one in told)

    async def _keep(self, key: str, told: Sequence[Told]) -> None:
        if self.vault is None:
            return
        data = msgspec.json.encode([_KeptClaim(one.text, _ids(one)) for one in told])
        try:
            await asyncio.to_thread(self.vault.put, AREA, key, data)
        except StoreError:
            self.tell("digest", "not kept for the next run")


class _KeptClaim(msgspec.Struct, frozen=True):
    """One sentence of a digest as it is kept."""

    text: str
    facts: tuple[FactId, ...]


_DECODER = msgspec.json.Decoder(list[_KeptClaim])


def _ids(told: Told) -> tuple[FactId, ...]:
    return tuple(fact.id for fact in told.facts)


def _cited(citations: Sequence[FactId], facts: Sequence[Fact]) -> tuple[Fact, ...]:
    by_id = {fact.id: fact for fact in facts}
    return tuple(by_id[fact_id] for fact_id in citations)


def _newest(requests: Sequence[Request], most: int) -> list[Request]:
    """Return the last request of every heading, then those before them, at most `most`, in their order."""
    places: dict[str | None, list[int]] = defaultdict(list)
    for place, request in enumerate(requests):
        places[request.section].append(place)
    ranked = sorted((back, place) for held in places.values() for back, place in enumerate(reversed(held)))
    return [requests[place] for place in sorted(place for _, place in ranked[:most])]


def _groups(digests: Sequence[Digest], room: int) -> list[list[Digest]]:
    """Group neighbouring digests that fit one prompt together; one that failed stays alone, and says so."""
    groups: list[list[Digest]] = []
    for digest in digests:
        joins = groups and not (digest.lost or groups[-1][-1].lost)
        if joins and digest_tokens((*groups[-1], digest)) <= room:
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
