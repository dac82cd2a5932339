"""The one use case: a patient's record in, a checked and filed summary out.

This is the only place that knows the order. Read it top to bottom and you have understood the product:
fetch, assemble, choose (digesting what does not fit), render, generate, verify, store, publish.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import msgspec

from connectors.errors import ConnectorError
from connectors.fhir.pull import Pull
from service.alike import is_same_chart
from service.context.choose import TokenCount, choose_facts
from service.context.chosen import Context
from service.context.digests import Digest
from service.context.render import Request, requests_for
from service.context.stay import Stay, find_stay
from service.context.templates import Library, TemplateSet, open_library
from service.digest import Digester
from service.edition import code_digest
from service.engine.prompt import Completion, Engine, EngineInfo, Message, Profile
from service.entailment import SecondPass
from service.errors import EpicrisisError, RecordError, StoreError
from service.filing.desk import Desk, Manner
from service.filing.publish import Published, publish
from service.grounding.complete import complete_summary
from service.grounding.since import Earlier
from service.grounding.summary import RULES_VERSION, Origin, Summary
from service.ports import (
    DOCUMENT_SYSTEM,
    Action,
    AuditEntry,
    AuditLog,
    Clock,
    Ehr,
    FilingStore,
    RunId,
    RunInputs,
    RunState,
    StoredRun,
    Vault,
)
from service.ports.images import ImageUse, Looked
from service.ports.inputs import Decided, InputStore, KeptClaim, KeptDigest, Made
from service.prefix import beginnings
from service.provisional import Listen, Provisional, provisional
from service.readings import Asked, Images, Reader, look_for
from service.record.assemble import Policy, assemble_record, stop_reason
from service.record.facts import Extracted, PatientRecord
from service.record.required import required_facts
from service.snapshot import Snapshot
from service.texts.worker import TextReader, read_texts
from service.verify import Verifier, verifying_inputs
from service.writeback.moment import show_instant

Progress = Callable[[str, str], None]
"""`(stage, detail)`: the detail is safe to show on a terminal; it never names a patient."""

Keep = Callable[[StoredRun], None]
"""What takes a run that was made."""

STAGES = ("fetch", "assemble", "choose", "digest", "generate", "verify", "publish")
REQUESTS_IN_FLIGHT = 32
MOST_AHEAD = 4
"""Answers that are waited for at a time while nothing could be told yet: first one, then two, then four."""
SEED = 0
GUIDED_BUDGET_TOKENS = 2500
ANSWER_MARGIN_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to: counts, seconds by stage, and the document if one was filed."""

    patient: str
    run_id: str
    state: RunState
    document: str
    resources: int
    facts: int
    skipped: int
    prompt_tokens: int
    claims_published: int
    claims_dropped: int
    seconds: Mapping[str, float]
    claims_from_model: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    claims_repaired: int = 0
    """Published, and written anew after the rules had refused an earlier sentence."""
    claims_corrected: int = 0
    """Published under another citation than the model's (SAFETY 14)."""
    claims_lowered: int = 0
    """Borne out by the rules, and refused by the second pass."""
    resources_changed: int | None = None
    """How many resources a refresh brought; None where the record was read whole."""
    reason: str = ""
    """Why nothing was filed; empty when something was."""
    is_stopped: bool = False
    """True where nothing was filed because publishing is stopped."""


@dataclass
class Stopwatch:
    """Seconds by stage, and the voice that says which stage runs."""

    tell: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage; a stage entered twice adds up."""
        self.tell(name, "")
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)


@dataclass(frozen=True, slots=True)
class Ready:
    """A record that was read, and the inputs that name its run."""

    pull: Pull = field(repr=False)
    record: PatientRecord = field(repr=False)
    templates: TemplateSet
    info: EngineInfo
    inputs: RunInputs = field(repr=False)
    actor: str
    watch: Stopwatch = field(repr=False)
    texts: Mapping[str, Extracted] = field(default_factory=dict, repr=False)
    looked: Looked = field(default_factory=Looked, repr=False)


class Chosen(NamedTuple):
    """What fits one run's budget, and what its choice rested on beside record and templates."""

    context: Context
    counts: Mapping[str, int] = {}
    """Name of a rendered chat → its tokens: what the engine was asked on the way."""
    digests: Sequence[Digest] = ()


class Summarizer:
    """The use case with its edges plugged in. One instance serves many patients."""

    def __init__(
        self,
        *,
        ehr: Ehr,
        engine: Engine,
        store: FilingStore,
        audit: AuditLog,
        clock: Clock,
        software_version: str,
        budget_tokens: int | None = None,
        digest_windows: int | None = None,
        policy: Policy | None = None,
        library: Library | None = None,
        vault: Vault | None = None,
        texts: TextReader | None = None,
        second_pass: SecondPass | None = None,
        manner: Callable[[], Awaitable[Manner]] | None = None,
        count: Keep | None = None,
        inputs: InputStore | None = None,
        images: Images | None = None,
    ) -> None:
        self._ehr = ehr
        self._engine = engine
        self._store = store
        self._audit = audit
        self._clock = clock
        self._budget = budget_tokens
        self._windows = digest_windows
        self._policy = policy or Policy()
        self._library = library or open_library()
        self._vault = vault
        self._texts = texts or TextReader()
        self._second_pass = second_pass
        self._version = software_version
        self._manner = manner
        self._count = count
        self._kept_inputs = inputs
        self._images = images

    @property
    def engine(self) -> Engine:
        """The engine that this asks, with whatever stands before it."""
        return self._engine

    @property
    def server(self) -> str:
        """Base URL of the server that is read, without a trailing slash."""
        return self._ehr.base_url

    async def summarize(
        self,
        patient_id: str,
        *,
        kind: str = "history",
        encounter: str | None = None,
        dry_run: bool = False,
        attempt: int = 1,
        actor: str = "system:cli",
        tell: Progress = lambda stage, detail: None,
    ) -> Outcome:
        """Summarise one patient and file the draft, exactly once for the same inputs.

        `encounter` (`Encounter/9`) is the encounter at hand; without it, an admission that lasts. An
        incomplete record is stored and reported, not filed (SAFETY 6). Raises ConnectorError, RecordError,
        EngineError, StoreError or FilingError.
        """
        ready = await self.prepare(
            patient_id, kind=kind, encounter=encounter, attempt=attempt, actor=actor, tell=tell
        )
        earlier = None if dry_run else await self.find_earlier(ready)
        if isinstance(earlier, Outcome):
            return earlier
        return await self.file(ready, earlier or await self.draft(ready), dry_run=dry_run)

    async def prepare(
        self,
        patient_id: str,
        *,
        kind: str = "history",
        encounter: str | None = None,
        attempt: int = 1,
        actor: str = "system:cli",
        tell: Progress = lambda stage, detail: None,
        as_kept: bool = False,
        looks: bool = True,
    ) -> Ready:
        """Fetch and assemble a record, and name its run key. Nothing is generated, nothing is written.

        With `as_kept`, the chart is taken as the last fetch left it in the vault, without a request. Without
        `looks` no picture is looked for: it is for what no summary is made of. Raises ConnectorError,
        RecordError, EngineError or StoreError.
        """
        watch = Stopwatch(tell)
        templates = self._library.load(kind)
        with watch.stage("fetch"):
            pull = await (self._kept(patient_id) if as_kept else self._fetch(patient_id, actor, tell))
        with watch.stage("assemble"):
            texts = await asyncio.to_thread(read_texts, pull.resources, pull.binaries, self._texts)
            record = await asyncio.to_thread(self._assemble, pull, texts)
        if encounter is not None and find_stay(record, encounter) is None:
            raise RecordError("This encounter is not in the patient's record.", "Give it as Encounter/<id>.")
        info = await self._engine.describe()
        inputs = self._inputs(record, texts, templates, info, encounter or "", attempt)
        looked = Looked()
        if looks:
            looked = await self._look(pull, record, info, inputs.budget_tokens, actor, watch)
        return Ready(
            pull, record, templates, info, self._with_images(inputs, looked), actor, watch, texts, looked
        )

    async def _look(
        self, pull: Pull, record: PatientRecord, info: EngineInfo, budget: int, actor: str, watch: Stopwatch
    ) -> Looked:
        """Look for pictures where this site wants them. Whatever an archive does, the text goes on."""
        if self._images is None or self._images.use is ImageUse.OFF:
            return Looked()
        with watch.stage("images"):
            looked = await look_for(self._images, record, pull.resources, self._ehr.read, info, budget)
        if looked.pictures:
            counts = {"pictures": len(looked.pictures)}
            self._record(Action.READ, actor, record.identity.reference, counts=counts)
        return looked

    def _with_images(self, inputs: RunInputs, looked: Looked) -> RunInputs:
        """Return the inputs with what is shown and not; as they were where there is nothing of either."""
        if not looked.pictures and not looked.unseen:
            return inputs
        files = self._images is not None and self._images.use is ImageUse.FILE
        digests = tuple(picture.digest for picture in looked.pictures)
        why = tuple(sorted({f"{one.source} {one.why} {one.count}" for one in looked.unseen}))
        return with_key(replace(inputs, images=digests, unseen=why, files_images=files and bool(digests)))

    async def find_earlier(self, ready: Ready) -> StoredRun | Outcome | None:
        """Return what these inputs already led to: a document (Outcome), or a stored run to file as it is.

        While pictures of an unchanged chart are away, that is the document that was made when they were not.
        """
        if ready.looked.is_for_now and (stands := await self._stands(ready)):
            return stands
        document = await self._ehr.find_document(DOCUMENT_SYSTEM, ready.inputs.key)
        stored = await asyncio.to_thread(self._store.find_by_key, ready.inputs.key)
        if document and (stored is None or stored.state is not RunState.GENERATED):
            return _unchanged(ready, stored, document)
        return stored  # one that is GENERATED was interrupted: filing it again completes what is there

    async def _stands(self, ready: Ready) -> Outcome | None:
        """Return the document of this chart for which as many pictures were seen, or more."""
        inputs = ready.inputs
        latest = await asyncio.to_thread(self._store.find_latest, inputs.patient, inputs.kind)
        if latest is None or not is_same_chart(latest.inputs, inputs, ready.looked):
            return None
        document = await self._ehr.find_document(DOCUMENT_SYSTEM, latest.inputs.key)
        return _unchanged(ready, latest, document) if document else None

    async def file(self, ready: Ready, run: StoredRun, *, dry_run: bool = False) -> Outcome:
        """File a stored run, or say why not. What is written depends on the stored run alone."""
        done = await self.file_stored(run, ready.actor, ready.watch, dry_run=dry_run)
        return replace(
            _outcome(run, ready.record, done.state, done.document, done.reason, ready.watch.seconds),
            resources_changed=ready.pull.changed,
            is_stopped=done.is_stopped,
        )

    async def file_stored(
        self, run: StoredRun, actor: str, watch: Stopwatch | None = None, *, dry_run: bool = False
    ) -> Published:
        """File a run that another process may have made, and keep what became of it."""
        watch = watch or Stopwatch(lambda stage, detail: None, dict(run.seconds))
        with watch.stage("publish"):
            done = await self._publish(run, dry_run, actor)
        await asyncio.to_thread(self._store.finish, run.run_id, done.state, done.document, "", watch.seconds)
        return done

    async def _kept(self, patient_id: str) -> Pull:
        patient = f"Patient/{patient_id.removeprefix('Patient/')}"
        pull = await asyncio.to_thread(self._snapshot(patient).load)
        if pull is None:
            raise StoreError("The chart is not kept any more.", "Fetch it again.")
        return pull

    async def _fetch(self, patient_id: str, actor: str, tell: Progress) -> Pull:
        patient = f"Patient/{patient_id.removeprefix('Patient/')}"
        snapshot = self._snapshot(patient)
        known = await asyncio.to_thread(snapshot.load)
        try:
            pull = await self._ehr.pull(patient_id, lambda what, n: tell("fetch", f"{n} {what}"), known)
        except ConnectorError as error:
            self._record(Action.READ, actor, patient, outcome=error.code)
            raise
        self._record(Action.READ, actor, patient, counts={"resources": len(pull.resources)})
        reason = stop_reason(pull.resources, pull.patient_id)
        if reason:
            await asyncio.to_thread(snapshot.forget)
            raise RecordError(reason, "Look the patient up in the EHR and use the current record.")
        if not await asyncio.to_thread(snapshot.keep, pull):
            tell("fetch", "not kept for the next run")
        return pull

    def _snapshot(self, patient: str) -> Snapshot:
        return Snapshot(self._vault, self._ehr.base_url, self._ehr.access_profile, patient)

    def _assemble(self, pull: Pull, texts: Mapping[str, Extracted]) -> PatientRecord:
        return assemble_record(
            pull.resources,
            pull.patient_id,
            gaps=pull.gaps,
            policy=self._policy,
            binaries=pull.binaries,
            texts=texts,
            base_url=self._ehr.base_url,
            read_at=pull.read_at,
        )

    def _inputs(
        self,
        record: PatientRecord,
        texts: Mapping[str, Extracted],
        templates: TemplateSet,
        info: EngineInfo,
        encounter: str,
        attempt: int,
    ) -> RunInputs:
        profile = info.profile
        return with_key(
            RunInputs(
                key="",
                patient=record.identity.reference,
                server=self._ehr.base_url,
                kind=templates.id,
                prompt_id=templates.id,
                prompt_version=templates.version,
                template_digest=templates.digest,
                schema_digest=templates.schema_digest,
                model=info.model,
                model_digest=info.digest,
                engine_version=info.version,
                sampling={
                    "mode": profile.mode,
                    "facts_per_request": profile.facts_per_request,
                    "max_tokens": profile.max_output_tokens,
                    "temperature": profile.temperature,
                    "seed": SEED,
                    "digest_windows": self._most_windows(info),
                    **verifying_inputs(self._second_pass),
                },
                record_digest=_record_digest(record, self._policy, texts),
                rules_version=RULES_VERSION,
                access_profile=self._ehr.access_profile,
                budget_tokens=self._budget or default_budget(info),
                encounter=encounter,
                attempt=attempt,
            )
        )

    def _most_windows(self, info: EngineInfo) -> int:
        return info.profile.digest_windows if self._windows is None else self._windows

    async def draft(
        self, ready: Ready, listen: Listen | None = None, *, shadow: Keep | None = None
    ) -> StoredRun:
        """Choose, render, generate and verify; store all of it before anything is written anywhere.

        `listen` is told claims while the engine writes, after their rules passed. What is stored does not
        depend on it. With `shadow` the run is made to compare: it is handed there, our store does not have
        it, and it says nothing of what is new since an earlier one.
        """
        pull, record, templates, info, inputs, actor, watch = (
            ready.pull, ready.record, ready.templates, ready.info, ready.inputs, ready.actor, ready.watch,
        )  # fmt: skip
        with watch.stage("choose"):
            chosen = await self._choose(record, templates, info, inputs, watch)
            context = chosen.context
            requests = requests_for(context, templates, info.profile, seed=SEED)
        with watch.stage("generate"):
            async with provisional(context, record, templates, info.profile.strip, listen) as heard:
                completions = await self._generate(requests, actor, inputs.patient, watch.tell, heard)
        verified = await Verifier(
            self._engine, info, templates, record, context, self._second_pass, watch.stage, watch.tell, SEED
        ).verify(requests, completions)
        if verified.completions:
            counts = {"requests": len(verified.completions)}
            self._record(Action.GENERATE, actor, inputs.patient, counts=counts)
        with watch.stage("verify"):
            before = None
            if shadow is None:
                before = await asyncio.to_thread(self._store.find_latest, inputs.patient, inputs.kind)
            summary = await asyncio.to_thread(
                complete_summary, inputs.kind, record, context, templates, verified.claims,
                earlier_of(before, record),
            )  # fmt: skip
        asked = await self._read_pictures(ready, context, replace(summary, second_pass=verified.second_pass))
        run = StoredRun(
            run_id=RunId(secrets.token_hex(10)),
            inputs=inputs,
            state=RunState.GENERATED,
            created_at=self._clock(),
            read_at=pull.read_at,
            prompts=(*(request.prompt for request in requests), *verified.prompts, *asked.prompts),
            completions=(*completions, *verified.completions, *asked.completions),
            summary=asked.summary,
        )
        run = replace(run, seconds=dict(watch.seconds)) if shadow is not None else run
        await asyncio.to_thread(shadow or partial(self._save, ready, chosen, before), run)
        if shadow is None and self._count is not None:
            await asyncio.to_thread(self._count, replace(run, seconds=dict(watch.seconds)))
        return run

    async def _read_pictures(self, ready: Ready, context: Context, summary: Summary) -> Asked:
        """Have the engine say what pictures show, apart from the text, where there are any."""
        looked = ready.looked
        if not looked.pictures and not looked.unseen:
            return Asked(summary)
        reader = Reader(self._engine, ready.info, ready.templates, ready.record, context, SEED)
        with ready.watch.stage("images"):
            asked = await reader.read(looked, summary)
        if asked.completions:
            self._record(Action.GENERATE, ready.actor, ready.inputs.patient, counts={"requests": 1})
        return asked

    def _save(self, ready: Ready, chosen: Chosen, before: StoredRun | None, run: StoredRun) -> None:
        """Store a run, with all that it was made of where this site keeps that."""
        if self._kept_inputs is None:
            self._store.save(run)
        elif not self._kept_inputs.save(run, self._made(ready, chosen, before)):
            ready.watch.tell("verify", "what it was made of is not kept: it cannot be replayed")

    def _made(self, ready: Ready, chosen: Chosen, before: StoredRun | None) -> Made:
        pull = ready.pull
        decided = Decided(
            patient_id=pull.patient_id,
            gaps=pull.gaps,
            read_at=pull.read_at,
            base_url=self._ehr.base_url,
            policy=self._policy,
            profile=ready.info.profile,
            seed=SEED,
            counts=chosen.counts,
            digests=tuple(_kept_digest(digest) for digest in chosen.digests),
            earlier=before.run_id if before is not None else "",
            software=self._version,
            code=code_digest(),
        )
        return Made(decided, pull.resources, pull.binaries, ready.texts, ready.templates.sources)

    async def warm(self, ready: Ready) -> bool:
        """Have the engine read what every task on this chart begins with, before anybody asks for one.

        False for a chart that is told by digests: what it begins with is known once they are written.
        Raises EngineError. Nothing is stored.
        """
        templates, info = ready.templates, ready.info
        context, *_ = await self._choose(
            ready.record, templates, info, ready.inputs, ready.watch, may_digest=False
        )
        if context.left_out and self._most_windows(info):
            return False
        for prompt in beginnings(context, templates, info.profile):
            await self._engine.generate(prompt)
        return True

    async def _choose(
        self,
        record: PatientRecord,
        templates: TemplateSet,
        info: EngineInfo,
        inputs: RunInputs,
        watch: Stopwatch,
        *,
        may_digest: bool = True,
    ) -> Chosen:
        """Choose what fits; where the engine may digest, have what does not fit told by digests."""
        loop = asyncio.get_running_loop()

        def count(chat: tuple[Message, ...]) -> int:
            return asyncio.run_coroutine_threadsafe(self._engine.count_tokens(chat), loop).result()

        def choose(digests: Sequence[Digest] = ()) -> Chosen:
            counts: dict[str, int] = {}
            counted = _noting(count, counts)
            context = choose_context(record, templates, info.profile, inputs, counted, digests)
            return Chosen(context, counts, digests)

        chosen = await asyncio.to_thread(choose)
        most = self._most_windows(info) if may_digest else 0
        if not most or not chosen.context.left_out:
            return chosen
        with watch.stage("digest"):
            digester = Digester(
                self._engine, info, templates, inputs.budget_tokens, most, self._vault, watch.tell, SEED,
                inputs.access_profile,
            )  # fmt: skip
            digests = await digester.digest(record, chosen.context, count)
        return await asyncio.to_thread(choose, digests) if digests else chosen

    async def _generate(
        self, requests: tuple[Request, ...], actor: str, patient: str, tell: Progress, heard: Provisional
    ) -> tuple[Completion, ...]:
        seats = asyncio.Semaphore(REQUESTS_IN_FLIGHT)
        done = 0

        async def ask(request: Request) -> Completion:
            nonlocal done
            async with seats:
                completion = await self._engine.generate(request.prompt, heard.listener(request))
            heard.answered(request, completion)
            done += 1
            tell("generate", f"{done} of {len(requests)} requests")
            return completion

        try:
            async with asyncio.TaskGroup() as group:
                tasks: list[asyncio.Task[Completion]] = []
                for part in _parts(requests, heard):
                    tasks += [group.create_task(ask(request)) for request in part]
                    if len(tasks) < len(requests):
                        await asyncio.wait(tasks)
                        await heard.heard()
        except* EpicrisisError as errors:
            error = errors.exceptions[0]
            assert isinstance(error, EpicrisisError)
            self._record(Action.GENERATE, actor, patient, outcome=error.code)
            raise error from None
        self._record(Action.GENERATE, actor, patient, counts={"requests": len(requests)})
        return tuple(task.result() for task in tasks)

    async def _publish(self, run: StoredRun, dry_run: bool, actor: str) -> Published:
        """File the stored run, or say why not. What is written depends on the stored run alone."""
        if dry_run:
            return Published(RunState.DRY, "", "Dry run: nothing was written to the EHR.")
        manner = await self._manner() if self._manner else Manner(self._version)
        desk = Desk(self._ehr, self._store, self._store, self._audit, self._clock, manner)
        return await publish(desk, run, actor)

    def _record(self, action: Action, actor: str, patient: str, **more: Any) -> None:
        entry = AuditEntry(action, actor, patient, self._clock(), server=self._ehr.base_url, **more)
        self._audit.append(entry)


def _parts(requests: Sequence[Request], heard: Provisional) -> Iterator[Sequence[Request]]:
    """Yield the requests in parts, each to be answered before the next is taken; mostly all as one.

    Beside all others the first answer comes as late as theirs, because an engine reads before it writes.
    While somebody waits, the first few are therefore asked before the others, until a claim could be told.
    """
    start, size = 0, 1
    while heard.waits and size <= MOST_AHEAD and start + size < len(requests):
        yield requests[start : start + size]
        start, size = start + size, 2 * size
    yield requests[start:]


def _unchanged(ready: Ready, stored: StoredRun | None, document: str) -> Outcome:
    reason = "This record is already summarised; no new document was written."
    record, seconds = ready.record, ready.watch.seconds
    if stored is not None:
        return _outcome(stored, record, RunState.UNCHANGED, document, reason, seconds)
    # Filed by another installation, or our store was lost: the EHR is the truth.
    return Outcome(
        patient=ready.inputs.patient, run_id="", state=RunState.UNCHANGED, document=document,
        resources=record.seen, facts=len(record.facts), skipped=record.seen - record.kept,
        prompt_tokens=0, claims_published=0, claims_dropped=0, seconds=seconds, reason=reason,
    )  # fmt: skip


def with_key(inputs: RunInputs) -> RunInputs:
    """Return the inputs with their key: SHA-256 (hex) over the other fields, never over generated text.

    The server's address is left out: it may change, and nothing that is written depends on it.
    """
    fields = {
        name: value
        for name, value in msgspec.to_builtins(inputs).items()
        if name not in ("key", "server") and (value or name not in ("images", "unseen", "files_images"))
    }
    digest = hashlib.sha256(msgspec.json.encode(fields, order="sorted")).hexdigest()
    return replace(inputs, key=digest)


def _record_digest(record: PatientRecord, policy: Policy, texts: Mapping[str, Extracted]) -> str:
    """Digest what was read, what could not be, and how the site reads: each changes what may be said."""
    gaps = sorted((gap.resource_type or "", gap.reason.value) for gap in record.gaps)
    unread = sorted((key, text.unread) for key, text in texts.items() if text.unread)
    read = [record.digest, gaps, policy, unread]
    if record.identity.security:  # its labels go on the document, and a restricted Patient is no input itself
        read.append(record.identity.security)
    return hashlib.sha256(msgspec.json.encode(read, order="sorted")).hexdigest()


def choose_context(
    record: PatientRecord,
    templates: TemplateSet,
    profile: Profile,
    inputs: RunInputs,
    count: TokenCount,
    digests: Sequence[Digest] = (),
) -> Context:
    """Choose what of a record fits a run's budget: the same for the same arguments. Raises BudgetTooSmall."""
    named = inputs.encounter or None
    stay = find_stay(record, named, ended=True)
    required = required_facts(record, encounter=_at_hand(find_stay(record, named)))
    return choose_facts(
        record, required, templates, profile, inputs.budget_tokens, count, stay=stay, digests=digests
    )


def name_of_chat(chat: tuple[Message, ...]) -> str:
    """Return by which the count of a chat's tokens is kept: the beginning of its SHA-256 (hex)."""
    return hashlib.sha256(msgspec.json.encode([[turn.role, turn.content] for turn in chat])).hexdigest()[:16]


def _noting(count: TokenCount, counts: dict[str, int]) -> TokenCount:
    """Return a counter that notes what it was told."""

    def counted(chat: tuple[Message, ...]) -> int:
        tokens = counts[name_of_chat(chat)] = count(chat)
        return tokens

    return counted


def _kept_digest(digest: Digest) -> KeptDigest:
    told = tuple(KeptClaim(one.text, tuple(fact.id for fact in one.facts)) for one in digest.told)
    return KeptDigest(digest.title, told, digest.lost)


def _at_hand(stay: Stay | None) -> str | None:
    return stay.reference if stay is not None else None


def earlier_of(run: StoredRun | None, record: PatientRecord) -> Earlier | None:
    """Return what a filed run knew of this person; None where it is another's, or did not keep it.

    Servers give the same ids to different people: record number and birth date must agree (SAFETY 1).
    """
    if run is None or not run.summary.known:
        return None
    then, now = run.summary.identity, record.identity
    if (then.record_number, then.birth_date) != (now.record_number, now.birth_date):
        return None
    return Earlier(show_instant(run.read_at), frozenset(run.summary.known))


def default_budget(info: EngineInfo) -> int:
    """Return the token budget that leaves room for the answer in the model's window."""
    room = info.context_tokens - info.profile.max_output_tokens - ANSWER_MARGIN_TOKENS
    return max(200, min(room, GUIDED_BUDGET_TOKENS) if info.profile.mode == "guided" else room)


def _outcome(
    run: StoredRun,
    record: PatientRecord,
    state: RunState,
    document: str,
    reason: str,
    seconds: Mapping[str, float],
) -> Outcome:
    published = run.summary.published
    return Outcome(
        patient=run.inputs.patient,
        run_id=run.run_id,
        state=state,
        document=document,
        resources=record.seen,
        facts=len(record.facts),
        skipped=record.seen - record.kept,
        prompt_tokens=sum(completion.usage.prompt_tokens for completion in run.completions),
        claims_published=len(published),
        claims_dropped=len(run.summary.refused),
        seconds=dict(seconds),
        claims_from_model=sum(claim.origin is Origin.MODEL for claim in published),
        cached_tokens=sum(completion.usage.cached_tokens for completion in run.completions),
        completion_tokens=sum(completion.usage.completion_tokens for completion in run.completions),
        claims_repaired=sum(claim.repaired for claim in published),
        claims_corrected=sum(claim.corrected for claim in published),
        claims_lowered=sum(claim.is_lowered for claim in run.summary.refused),
        reason=reason,
    )
