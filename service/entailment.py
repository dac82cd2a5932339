"""The second pass: the engine is asked whether the cited text bears a claim out. It can only lower a verdict.

What rules cannot settle, a note told in other words, is put to the engine as a question of yes, no or not
stated. A model that fails a built-in probe is not asked. Whatever goes wrong here fails no run: a claim that
got no answer stands as the rules left it, and counts as not asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from service.context.chosen import Context
from service.context.render import defused, whole_chat
from service.context.templates import TemplateSet
from service.engine.prompt import Completion, Engine, EngineInfo, Message, Profile, Prompt, Sampling
from service.errors import EpicrisisError, StoreError
from service.grounding.summary import Claim, Verdict
from service.ports import Vault
from service.record.facts import PatientRecord

YES, NO, NOT_STATED = ANSWERS = ("yes", "no", "not stated")
AREA = "probe"
ENTAILMENT = "entailment.j2"
PAIRS_A_REQUEST = 8
TOKENS_AN_ANSWER = 16
"""Enough for a number, the longest answer and the signs between them."""
MOST_SOURCE_CHARACTERS = 4000
"""A claim that cites more is not asked about: cut short, its source might not say what it says."""
MOST_PAIRS = 160
"""Claims that one run may ask about."""
IN_FLIGHT = 8
LONGEST_S = 300.0
"""After so many seconds what is not answered stays not asked."""
ASKED_BEFORE = "said_before"


@dataclass(frozen=True, slots=True)
class Pair:
    """A claim and the text that it cites, as they stand in the record and the draft."""

    source: str
    claim: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking: an answer a pair, in order, empty where there is none; and what it took."""

    answers: tuple[str, ...]
    prompts: tuple[Prompt, ...] = ()
    completions: tuple[Completion, ...] = ()
    unanswered: int = 0
    """Requests that the engine did not answer."""


def answer_schema(pairs: int) -> dict[str, Any]:
    """Return the grammar of an answer: each pair's number from 1, and yes, no or not stated."""
    names = [str(number) for number in range(1, pairs + 1)]
    return {
        "type": "object",
        "properties": {name: {"type": "string", "enum": list(ANSWERS)} for name in names},
        "required": names,
        "additionalProperties": False,
    }


def read_answers(text: str, pairs: int) -> tuple[str, ...]:
    """Return the answer to each pair, empty for whatever is none of the three words."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    given = found if isinstance(found, dict) else {}
    answers = [given.get(str(number)) for number in range(1, pairs + 1)]
    return tuple(answer if isinstance(answer, str) and answer in ANSWERS else "" for answer in answers)


def shared_beginning(
    context: Context | None, templates: TemplateSet, profile: Profile
) -> tuple[Message, ...]:
    """Return what the question is put behind: for a free model all that its tasks on this patient share.

    A guided one is shown no whole chart, and gets the instructions alone.
    """
    if context is None or profile.mode == "guided":
        return (Message("system", templates.render("system.j2")),)
    return whole_chat(context, templates, profile, task="")


@dataclass(frozen=True)
class Asker:
    """Puts pairs to one engine, behind the beginning that its requests share."""

    engine: Engine
    templates: TemplateSet
    profile: Profile
    beginning: tuple[Message, ...]
    seed: int = 0
    longest_s: float = LONGEST_S
    _seats: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(IN_FLIGHT), repr=False)

    async def ask(self, pairs: Sequence[Pair]) -> Asked:
        """Return the engine's answers. Never raises for what the engine does; cancelling stops it."""
        groups = list(_groups(pairs, self.profile.max_output_tokens * 2))
        prompts = [self.prompt(group) for group in groups]
        given: dict[int, Completion] = {}

        async def one(place: int) -> None:
            async with self._seats:
                try:
                    given[place] = await self.engine.generate(prompts[place])
                except EpicrisisError:
                    return

        try:
            async with asyncio.timeout(self.longest_s), asyncio.TaskGroup() as tasks:
                for place in range(len(prompts)):
                    tasks.create_task(one(place))
        except TimeoutError:
            pass  # what was answered in time counts
        answers = [
            read_answers(given[place].text, len(group)) if place in given else ("",) * len(group)
            for place, group in enumerate(groups)
        ]
        answered = sorted(given)
        return Asked(
            tuple(answer for group in answers for answer in group),
            tuple(prompts[place] for place in answered),
            tuple(given[place] for place in answered),
            len(prompts) - len(answered),
        )

    def prompt(self, pairs: Sequence[Pair]) -> Prompt:
        """Return the question about these pairs; the record's and the model's words stand as quotations."""
        shown = [
            {"number": number, "source": quoted(pair.source), "claim": quoted(pair.claim)}
            for number, pair in enumerate(pairs, 1)
        ]
        sampling = Sampling(TOKENS_AN_ANSWER * (len(pairs) + 1), self.profile.temperature, self.seed)
        task = self.templates.render(ENTAILMENT, pairs=shown)
        return Prompt(put_last(self.beginning, task), sampling, answer_schema(len(pairs)))


def quoted(text: str) -> str:
    """Return a stranger's text as one quotation on one line, which nothing in it can end."""
    return json.dumps(defused(text), ensure_ascii=False)


def put_last(beginning: tuple[Message, ...], task: str) -> tuple[Message, ...]:
    """Return a chat that ends in a task, in the user's turn that is open or in a new one."""
    last = beginning[-1] if beginning else None
    if last is None or last.role != "user":
        return (*beginning, Message("user", task))
    return (*beginning[:-1], Message("user", last.content + task))


def _groups(pairs: Sequence[Pair], most_characters: int) -> Iterator[list[Pair]]:
    group: list[Pair] = []
    size = 0
    for pair in pairs:
        length = len(pair.source) + len(pair.claim)
        if group and (len(group) == PAIRS_A_REQUEST or size + length > most_characters):
            yield group
            group, size = [], 0
        group.append(pair)
        size += length
    if group:
        yield group


def pair_of(claim: Claim, record: PatientRecord) -> Pair | None:
    """Return the question about a claim; None where rules settled it, or its source is too long to show.

    Asked are claims that cite a note's sentence, and those that no rule understood.
    """
    if claim.verdict not in (Verdict.SUPPORTED, Verdict.NOT_CHECKED) or ASKED_BEFORE in claim.reasons:
        return None
    facts = [record.fact(fact_id) for fact_id in claim.citations]
    if not any(fact.span is not None for fact in facts) and claim.verdict is not Verdict.NOT_CHECKED:
        return None
    source = " ".join(fact.text for fact in facts)
    if not source or len(source) + len(claim.text) > MOST_SOURCE_CHARACTERS:
        return None
    return Pair(source, claim.text)


def lowered(claim: Claim, answer: str) -> Claim:
    """Return a claim with the engine's answer beside it, its verdict lowered where it said no."""
    if answer in (NO, NOT_STATED) and claim.verdict is Verdict.SUPPORTED:
        reason = f"second_pass_{answer.replace(' ', '_')}"
        return replace(claim, verdict=Verdict.UNSUPPORTED, reasons=(reason,), entailed=answer)
    return replace(claim, entailed=answer)


@dataclass(frozen=True, slots=True)
class Passed:
    """All claims after the second pass, in order, and what it took."""

    claims: tuple[Claim, ...]
    asked: Asked
    questions: int = 0
    """Claims that were to be asked about."""


async def pass_again(claims: Sequence[Claim], record: PatientRecord, asker: Asker) -> Passed:
    """Ask about every claim that rules cannot settle, and lower what the engine does not bear out."""
    found = [(place, pair) for place, claim in enumerate(claims) if (pair := pair_of(claim, record))]
    # What may be published comes first, should there be more than one run may ask.
    found.sort(key=lambda one: claims[one[0]].verdict is not Verdict.SUPPORTED)
    put = found[:MOST_PAIRS]
    asked = await asker.ask([pair for _, pair in put])
    after = list(claims)
    for (place, _), answer in zip(put, asked.answers, strict=True):
        after[place] = lowered(after[place], answer)
    return Passed(tuple(after), asked, len(found))


@dataclass(frozen=True, slots=True)
class Known:
    """One pair of the probe and what is true of it."""

    source: str
    claim: str
    borne_out: bool


@dataclass(frozen=True, slots=True)
class Probe:
    """Pairs with known answers, and how many of them a model must get right."""

    pairs: tuple[Known, ...]
    least_right: int
    most_false_yes: int
    digest: str
    """SHA-256 (hex) of the file."""


@cache
def probe() -> Probe:
    """Return the built-in probe."""
    data = (files("service") / "entailment.toml").read_bytes()
    found = tomllib.loads(data.decode())
    pairs = tuple(Known(**pair) for pair in found["pairs"])
    digest = hashlib.sha256(data).hexdigest()
    return Probe(pairs, found["least_right"], found["most_false_yes"], digest)


@dataclass(frozen=True, slots=True)
class Score:
    """How a model did in the probe. `false_yes`: claims that it took for borne out, and are not."""

    right: int
    of: int
    false_yes: int

    @property
    def passes(self) -> bool:
        """True where the model may be asked about a patient's claims."""
        return self.right >= probe().least_right and self.false_yes <= probe().most_false_yes

    @property
    def said(self) -> str:
        """For people: `off: 11 of 24 right, 5 false yes; …`."""
        known = probe()
        did = f"{self.right} of {self.of} right, {self.false_yes} false yes"
        if self.passes:
            return f"on: {did}"
        return f"off: {did}; needed are {known.least_right}, and at most {known.most_false_yes} false yes"


def score_of(answers: Sequence[str]) -> Score:
    """Count the answers to the probe; no answer is a wrong one."""
    pairs = probe().pairs
    right = sum(
        answer == YES if pair.borne_out else answer in (NO, NOT_STATED)
        for pair, answer in zip(pairs, answers, strict=True)
    )
    false_yes = sum(answer == YES and not pair.borne_out for pair, answer in zip(pairs, answers, strict=True))
    return Score(right, len(pairs), false_yes)


UNKNOWN = "unknown:"
"""How the digest of a model begins that cannot be told from another of its name: its score is not kept."""
OFF = "off: it is switched off"
NOT_MEASURED = "off: the probe was not answered"


class SecondPass:
    """Whether a model may be asked, measured once a model and kept where a vault is given."""

    def __init__(self, vault: Vault | None = None) -> None:
        self._vault = vault
        self._scores: dict[str, Score] = {}
        self._desk = asyncio.Lock()

    @property
    def identity(self) -> str:
        """What of the second pass is an input of a run: never how a model did, which is generated."""
        return f"auto {probe().digest[:16]}"

    async def score(self, engine: Engine, info: EngineInfo, templates: TemplateSet) -> Score | None:
        """Return how this model does in the probe; None where it did not answer all of it."""
        key = probe_key(info.digest, info.profile, templates)
        async with self._desk:  # of many runs that start at once, one measures
            known = self._scores.get(key) or await self.kept(info.digest, info.profile, templates)
            if known is None:
                beginning = shared_beginning(None, templates, info.profile)
                asker = Asker(engine, templates, info.profile, beginning)
                asked = await asker.ask([Pair(pair.source, pair.claim) for pair in probe().pairs])
                if asked.unanswered:
                    return None
                known = score_of(asked.answers)
                if not info.digest.startswith(UNKNOWN):
                    await self._keep(key, known)
            self._scores[key] = known
            return known

    async def kept(self, digest: str, profile: Profile, templates: TemplateSet) -> Score | None:
        """Return how a model of this digest did before; None where that is not known."""
        if self._vault is None or digest.startswith(UNKNOWN):
            return None
        try:
            data = await asyncio.to_thread(self._vault.get, AREA, probe_key(digest, profile, templates))
            return msgspec.json.decode(data, type=Score) if data is not None else None
        except (StoreError, msgspec.MsgspecError, ValueError):
            return None

    async def _keep(self, key: str, score: Score) -> None:
        if self._vault is None:
            return
        try:
            await asyncio.to_thread(self._vault.put, AREA, key, msgspec.json.encode(score))
        except StoreError:
            return  # it is measured again


def probe_key(digest: str, profile: Profile, templates: TemplateSet) -> str:
    """Return the SHA-256 (hex) over all that a score depends on: the model, and how the probe is put."""
    example = {"number": 1, "source": quoted("x"), "claim": quoted("y")}
    parts: Mapping[str, Any] = {
        "model": digest,
        "profile": [profile.name, profile.mode, profile.temperature, profile.max_output_tokens],
        "templates": [templates.render("system.j2"), templates.render(ENTAILMENT, pairs=[example])],
        "probe": probe().digest,
    }
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()
