"""Replay: a stored run rebuilt from what it was made of, verified again, and on request generated again.

Nothing is taken from what the run stored but its answers: the prompts are rendered anew from the kept chart
and the kept templates, and compared byte for byte; the verdicts are found anew, along the same way that they
were found first. What differs between then and now in code, rules, templates, model or engine is named.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import zip_longest
from typing import Any

import msgspec

from service.context.choose import TokenCount
from service.context.chosen import Context
from service.context.digests import Digest, Told
from service.context.render import Request, requests_for
from service.context.templates import Library, TemplateError, TemplateSet, rebuild
from service.edition import code_digest
from service.engine.prompt import Completion, Engine, EngineInfo, Message, Prompt
from service.entailment import Score, SecondPass, probe
from service.errors import EpicrisisError, ShreddedError, StoreError
from service.grounding.complete import complete_summary
from service.grounding.summary import RULES_VERSION, Claim, Summary
from service.ports import Action, AuditEntry, AuditLog, Clock, RunId, Store, StoredRun
from service.ports.inputs import Decided, InputStore, KeptDigest, Made
from service.readings import Reader as PictureReading
from service.record.assemble import assemble_record
from service.record.facts import PatientRecord
from service.repair import ROUNDS
from service.summarize import choose_context, earlier_of, name_of_chat
from service.verify import Verifier

NOT_KEPT = "What this run was made of is not kept."
_SCORE = re.compile(r"(\d+) of (\d+) right, (\d+) false yes")
_PROBE = "auto "


@dataclass(frozen=True, slots=True)
class Version:
    """Something of another version now than then."""

    what: str
    then: str
    now: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where two texts differ first, without a word of them: which turn, line and character, from 1."""

    turn: int
    line: int
    character: int
    what: str = "text"
    """`text`, `grammar`, `sampling`, `pictures` or `turns`."""


@dataclass(frozen=True, slots=True)
class RebuiltPrompt:
    """One prompt as stored and as rebuilt, each by its SHA-256 (hex); empty where there is none."""

    stored: str
    rebuilt: str
    differs_at: Place | None = None
    then: Prompt | None = field(default=None, repr=False)
    now: Prompt | None = field(default=None, repr=False)

    @property
    def identical(self) -> bool:
        """True where both are the same bytes."""
        return self.stored == self.rebuilt


@dataclass(frozen=True, slots=True)
class Changed:
    """One claim that came out otherwise, by its place: published ones first, then refused ones."""

    ordinal: int
    then: str
    now: str


@dataclass(frozen=True, slots=True)
class Verdicts:
    """How the claims came out again."""

    changed: tuple[Changed, ...] = ()
    rest: tuple[str, ...] = ()
    """What else of the summary came out otherwise: `left_out`, `second_pass`…"""

    @property
    def identical(self) -> bool:
        """True where the whole summary came out the same."""
        return not self.changed and not self.rest


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as stored and as given now, by length; where they differ first, by line and character."""

    identical: bool
    characters_then: int
    characters_now: int
    differs_at: Place | None = None
    then: str = field(default="", repr=False)
    now: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Generated:
    """What the engine of now makes of the same prompts."""

    model: str
    answers: tuple[Answer, ...]
    verdicts: Verdicts
    published_then: int
    published_now: int


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of a replay."""

    run_id: RunId
    reason: str = ""
    """Why it could not be replayed, or not whole; empty otherwise."""
    prompts: tuple[RebuiltPrompt, ...] = ()
    verdicts: Verdicts | None = None
    versions: tuple[Version, ...] = ()
    generated: Generated | None = None

    @property
    def is_replayable(self) -> bool:
        """True where prompts were rebuilt and claims verified again."""
        return self.verdicts is not None

    @property
    def is_identical(self) -> bool:
        """True where the run came out as it was stored: every prompt and every verdict."""
        same = all(prompt.identical for prompt in self.prompts)
        return self.verdicts is not None and self.verdicts.identical and same


class Irreproducible(Exception):
    """What is kept does not lead to prompts any more, told in words that are safe to show."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass
class StoredAnswers:
    """An Engine that answers from a stored run; a prompt that it does not know is not answered."""

    info: EngineInfo
    counts: Mapping[str, int]
    held: dict[str, deque[Completion]]
    asked: list[Prompt] = field(default_factory=list)

    @classmethod
    def of(cls, run: StoredRun, decided: Decided) -> StoredAnswers:
        """Return an engine that knows what this run was answered."""
        held: dict[str, deque[Completion]] = {}
        for prompt, completion in zip(run.prompts, run.completions, strict=False):
            held.setdefault(digest_of(prompt), deque()).append(completion)
        inputs, profile = run.inputs, decided.profile
        version = inputs.engine_version
        info = EngineInfo(inputs.model, inputs.model_digest, version, profile, profile.context_tokens)
        return cls(info, decided.counts, held)

    async def describe(self) -> EngineInfo:
        """Say which model served then."""
        return self.info

    async def count_tokens(self, messages: tuple[Message, ...]) -> int:
        """Return the tokens as they were counted then. Raises Irreproducible."""
        return self.count(messages)

    def count(self, messages: tuple[Message, ...]) -> int:
        """Return the tokens as they were counted then. Raises Irreproducible."""
        try:
            return self.counts[name_of_chat(messages)]
        except KeyError:
            raise Irreproducible(
                "The prompts are rendered otherwise now, so that what fits the budget is not known."
            ) from None

    async def generate(self, prompt: Prompt, on_text: Callable[[str], None] | None = None) -> Completion:
        """Answer as then. Raises EpicrisisError for a prompt that was not answered then."""
        self.asked.append(prompt)
        kept = self.held.get(digest_of(prompt))
        if not kept:
            raise EpicrisisError("This was not answered then.")
        return kept.popleft()


class StoredScore(SecondPass):
    """The second pass as it was measured for a stored run: it asks no probe."""

    def __init__(self, said: str) -> None:
        super().__init__()
        found = _SCORE.search(said)
        self._known = Score(*(int(number) for number in found.groups())) if found else None

    async def score(self, engine: Engine, info: EngineInfo, templates: TemplateSet) -> Score | None:
        """Return how the model did then."""
        return self._known


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A run's chart, templates, choice and requests, rendered anew."""

    made: Made
    templates: TemplateSet
    record: PatientRecord
    context: Context
    requests: tuple[Request, ...]


@dataclass(frozen=True)
class Replayer:
    """Replays the runs of one store. `software` is the version of this installation."""

    store: Store
    inputs: InputStore
    audit: AuditLog
    clock: Clock
    software: str
    library: Library

    async def replay(
        self, run_id: RunId, actor: str, engine: Engine | None = None, second_pass: SecondPass | None = None
    ) -> Replay | None:
        """Replay one run; with an `engine`, generate again too. None where there is no such run.

        Raises StoreError; ShreddedError where the run was destroyed; EngineError where the engine fails.
        """
        run = await asyncio.to_thread(self.store.get, run_id)
        if run is None:
            return None
        self._record(Action.VIEW, run, actor)
        try:
            made = await asyncio.to_thread(self.inputs.inputs_of, run)
        except ShreddedError:
            raise
        except StoreError as error:
            return Replay(run_id, error.message, versions=self._versions(run, None))
        if made is None:
            return Replay(run_id, NOT_KEPT, versions=self._versions(run, None))
        return await self._replay(run, made, actor, engine, second_pass)

    async def _replay(
        self, run: StoredRun, made: Made, actor: str, engine: Engine | None, second_pass: SecondPass | None
    ) -> Replay:
        info = await engine.describe() if engine is not None else None
        versions = self._versions(run, made.decided, info)
        then = StoredAnswers.of(run, made.decided)
        try:
            rebuilt = await asyncio.to_thread(rebuild_run, run, made, then.count)
        except (Irreproducible, TemplateError) as error:
            lost = tuple(RebuiltPrompt(digest_of(prompt), "") for prompt in run.prompts)
            return Replay(run.run_id, error.message, lost, None, versions)
        before = await self._earlier(made.decided)
        if isinstance(before, str):
            return Replay(run.run_id, before, versions=versions)
        completions = run.completions[: len(rebuilt.requests)]
        said = run.summary.second_pass
        passing = StoredScore(said) if run.inputs.sampling.get("second_pass", "off") != "off" else None
        summary = await self._verified(run, rebuilt, then, passing, completions, before)
        prompts = tuple(compared(run.prompts, _asked(rebuilt.requests, then, run.prompts)))
        verdicts = verdicts_of(run.summary, summary)
        generated = None
        if engine is not None and info is not None:
            generated = await self._generated(run, rebuilt, actor, engine, info, second_pass, before)
        return Replay(run.run_id, "", prompts, verdicts, versions, generated)

    async def _earlier(self, decided: Decided) -> StoredRun | str | None:
        """Return the run with whose summary this one was compared, or why that cannot be had."""
        if not decided.earlier:
            return None
        found = await asyncio.to_thread(self.store.get, RunId(decided.earlier))
        return found or "The summary that this one was compared with is not stored any more."

    async def _verified(
        self,
        run: StoredRun,
        rebuilt: Rebuilt,
        engine: StoredAnswers | _Live,
        second_pass: SecondPass | None,
        completions: Sequence[Completion],
        before: StoredRun | None,
    ) -> Summary:
        requests = rebuilt.requests[: len(completions)]
        verified = await Verifier(
            engine, engine.info, rebuilt.templates, rebuilt.record, rebuilt.context, second_pass,
            lambda stage: nullcontext(), lambda stage, detail: None, rebuilt.made.decided.seed,
        ).verify(requests, completions)  # fmt: skip
        summary = await asyncio.to_thread(
            complete_summary, run.inputs.kind, rebuilt.record, rebuilt.context, rebuilt.templates,
            verified.claims, earlier_of(before, rebuilt.record),
        )  # fmt: skip
        reader = PictureReading(
            engine, engine.info, rebuilt.templates, rebuilt.record, rebuilt.context,
            rebuilt.made.decided.seed,
        )  # fmt: skip
        summary = replace(summary, second_pass=verified.second_pass)
        return (await reader.read_again(run.summary, summary)).summary

    async def _generated(
        self,
        run: StoredRun,
        rebuilt: Rebuilt,
        actor: str,
        engine: Engine,
        info: EngineInfo,
        second_pass: SecondPass | None,
        before: StoredRun | None,
    ) -> Generated:
        """Have the engine answer the rebuilt prompts, and verify what it says by the rules of now."""
        live = _Live(engine, info)
        completions = [await engine.generate(request.prompt) for request in rebuilt.requests]
        summary = await self._verified(run, rebuilt, live, second_pass, completions, before)
        self._record(Action.GENERATE, run, actor, counts={"requests": len(completions)})
        return Generated(
            info.model,
            tuple(
                answer_of(old.text, new.text) for old, new in zip(run.completions, completions, strict=False)
            ),
            verdicts_of(run.summary, summary),
            len(run.summary.published),
            len(summary.published),
        )

    def _versions(
        self, run: StoredRun, decided: Decided | None, info: EngineInfo | None = None
    ) -> tuple[Version, ...]:
        """Return what is of another version now."""
        inputs = run.inputs
        pairs = [("rules", inputs.rules_version, RULES_VERSION)]
        if decided is not None:
            pairs = [
                ("software", decided.software, self.software),
                ("code", decided.code, code_digest()),
                *pairs,
            ]
        pairs += self._templates(run)
        pairs += list(_verifying(inputs.sampling))
        if info is not None:
            pairs += [("model", _named(inputs.model, inputs.model_digest), _named(info.model, info.digest)),
                      ("engine", inputs.engine_version, info.version)]  # fmt: skip
            if decided is not None:
                shape_then, shape_now = _shaping(decided.profile), _shaping(info.profile)
                pairs.append(("profile", shape_then, shape_now))
        return tuple(Version(*pair) for pair in pairs if pair[1] != pair[2])

    def _templates(self, run: StoredRun) -> list[tuple[str, str, str]]:
        inputs = run.inputs
        try:
            now = self.library.load(inputs.prompt_id)
        except KeyError:
            return [("templates", f"{inputs.prompt_id} {inputs.prompt_version}", "not there any more")]
        then_digest, now_digest = inputs.template_digest[:12], now.digest[:12]
        return [
            ("templates", f"{inputs.prompt_id} {inputs.prompt_version} ({then_digest})",
             f"{now.id} {now.version} ({now_digest})"),
            ("grammar", inputs.schema_digest[:12], now.schema_digest[:12]),
        ]  # fmt: skip

    def _record(self, action: Action, run: StoredRun, actor: str, **more: Any) -> None:
        about = {"run_id": run.run_id, "target": "replay", "server": run.inputs.server, **more}
        self.audit.append(AuditEntry(action, actor, run.inputs.patient, self.clock(), **about))


@dataclass(frozen=True)
class _Live:
    """The engine of now, with what it says of itself."""

    engine: Engine
    info: EngineInfo

    async def describe(self) -> EngineInfo:
        return self.info

    async def count_tokens(self, messages: tuple[Message, ...]) -> int:
        return await self.engine.count_tokens(messages)

    async def generate(self, prompt: Prompt, on_text: Callable[[str], None] | None = None) -> Completion:
        return await self.engine.generate(prompt, on_text)


def rebuild_run(run: StoredRun, made: Made, count: TokenCount) -> Rebuilt:
    """Assemble, choose and render as then, from what is kept. Raises Irreproducible and TemplateError."""
    decided = made.decided
    templates = rebuild(made.templates)
    if (templates.digest, templates.schema_digest) != (run.inputs.template_digest, run.inputs.schema_digest):
        raise Irreproducible("The kept templates are not those of the run.")
    record = assemble_record(
        made.resources, decided.patient_id, gaps=decided.gaps, policy=decided.policy,
        binaries=made.binaries, texts=made.texts, base_url=decided.base_url, read_at=decided.read_at,
    )  # fmt: skip
    digests = digests_of(decided.digests, record)
    context = choose_context(record, templates, decided.profile, run.inputs, count, digests)
    requests = requests_for(context, templates, decided.profile, seed=decided.seed)
    return Rebuilt(made, templates, record, context, requests)


def digests_of(kept: Sequence[KeptDigest], record: PatientRecord) -> tuple[Digest, ...]:
    """Return the digests as they were told, with the facts of the record. Raises Irreproducible."""
    try:
        return tuple(
            Digest(
                one.title,
                tuple(Told(told.text, tuple(map(record.fact, told.facts))) for told in one.told),
                one.lost,
            )
            for one in kept
        )
    except KeyError:
        raise Irreproducible("A digest rests on a fact that the record does not hold any more.") from None


def digest_of(prompt: Prompt) -> str:
    """Return the SHA-256 (hex) of a prompt: its turns, its grammar and how tokens are drawn."""
    return hashlib.sha256(msgspec.json.encode(_plain(prompt), order="sorted")).hexdigest()


def _plain(prompt: Prompt) -> dict[str, Any]:
    return asdict(prompt.without_pixels())


def _asked(requests: Sequence[Request], then: StoredAnswers, stored: Sequence[Prompt]) -> list[Prompt]:
    """Return the prompts that are asked now, in the order in which they are stored.

    A request that the engine failed to answer then has left nothing behind: of those that are asked beyond
    the summary's own and are not stored, so many stand as there are stored ones that nobody asked now.
    """
    own = [request.prompt for request in requests]
    held = [digest_of(prompt) for prompt in stored[len(own) :]]
    asked: dict[str, deque[Prompt]] = {}
    for prompt in then.asked:
        asked.setdefault(digest_of(prompt), deque()).append(prompt)
    placed = [asked[name].popleft() if asked.get(name) else None for name in held]
    others = iter([prompt for kept in asked.values() for prompt in kept])
    filled = (prompt if prompt is not None else next(others, None) for prompt in placed)
    return [*own, *(prompt for prompt in filled if prompt is not None)]


def compared(stored: Sequence[Prompt], rebuilt: Sequence[Prompt]) -> Iterator[RebuiltPrompt]:
    """Yield each stored prompt with the one in its place now."""
    for then, now in zip_longest(stored, rebuilt):
        digests = (digest_of(then) if then else "", digest_of(now) if now else "")
        same = digests[0] == digests[1]
        place = first_difference(then, now) if then and now and not same else None
        yield RebuiltPrompt(*digests, place, then, now)


def first_difference(then: Prompt, now: Prompt) -> Place:
    """Return where two prompts differ first, without a word of them."""
    for turn, (old, new) in enumerate(zip(then.messages, now.messages, strict=False), 1):
        if old.content != new.content:
            return _place(old.content, new.content, turn)
        if old.role != new.role or old != new:
            return Place(turn, 1, 1, "pictures" if old.role == new.role else "turns")
    if len(then.messages) != len(now.messages):
        return Place(min(len(then.messages), len(now.messages)) + 1, 1, 1, "turns")
    return Place(0, 0, 0, "grammar" if then.schema != now.schema else "sampling")


def _place(old: str, new: str, turn: int) -> Place:
    same = next(
        (at for at, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]),
        min(len(old), len(new)),
    )
    before = old[:same]
    return Place(turn, before.count("\n") + 1, same - (before.rfind("\n") + 1) + 1)


def answer_of(then: str, now: str) -> Answer:
    """Compare two answers."""
    place = None if then == now else _place(then, now, 1)
    return Answer(then == now, len(then), len(now), place, then, now)


def verdicts_of(then: Summary, now: Summary) -> Verdicts:
    """Compare two summaries claim by claim, and what else they say."""
    pairs = zip_longest((*then.published, *then.refused), (*now.published, *now.refused))
    changed = tuple(
        Changed(ordinal, _said(old), _said(new)) for ordinal, (old, new) in enumerate(pairs) if old != new
    )
    rest = tuple(
        one.name
        for one in fields(Summary)
        if one.name not in ("sections", "refused") and getattr(then, one.name) != getattr(now, one.name)
    )
    headed = [[replace(section, claims=()) for section in one.sections] for one in (then, now)]
    return Verdicts(changed, (*rest, *(["sections"] if headed[0] != headed[1] else [])))


def _said(claim: Claim | None) -> str:
    """Return a claim's verdict with its reasons by kind: what stands behind a colon is the record's."""
    if claim is None:
        return "none"
    reasons = " ".join(reason.partition(":")[0] for reason in claim.reasons)
    return f"{claim.verdict.value} ({reasons})" if reasons else claim.verdict.value


def _verifying(sampling: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    if "repair" in sampling:
        yield "repair", str(sampling["repair"]), str(ROUNDS)
    measured = str(sampling.get("second_pass", "off"))
    if measured.startswith(_PROBE):
        yield "probe", measured.removeprefix(_PROBE), probe().digest[:16]


def _named(model: str, digest: str) -> str:
    return f"{model} ({digest[:20]})"


def _shaping(profile: Any) -> str:
    """Return what of a profile shapes a prompt or an answer."""
    shown = replace(profile, tokenizer="")
    return f"{shown.name} {hashlib.sha256(msgspec.json.encode(shown)).hexdigest()[:12]}"


def shape_of(found: Replay) -> dict[str, Any]:
    """Return a replay as `--json` prints it: digests, places, verdicts and versions, and no text."""
    generated = found.generated
    return {
        "run": found.run_id,
        "prompts": [
            {"stored": one.stored, "rebuilt": one.rebuilt, "identical": one.identical,
             "differs_at": one.differs_at and asdict(one.differs_at)}
            for one in found.prompts
        ],
        "verdicts": found.verdicts and _shape_of_verdicts(found.verdicts),
        "versions": [asdict(one) for one in found.versions],
        "generated": generated
        and {
            "model": generated.model,
            "answers": [
                {"identical": one.identical,
                 "characters_then": one.characters_then, "characters_now": one.characters_now,
                 "differs_at": one.differs_at and asdict(one.differs_at)}
                for one in generated.answers
            ],
            "verdicts": _shape_of_verdicts(generated.verdicts),
            "published_then": generated.published_then,
            "published_now": generated.published_now,
        },
        "replayable": found.is_replayable,
        "reason": found.reason,
    }  # fmt: skip


def _shape_of_verdicts(verdicts: Verdicts) -> dict[str, Any]:
    return {
        "identical": verdicts.identical,
        "changed": [asdict(one) for one in verdicts.changed],
        "rest": list(verdicts.rest),
    }
