"""The one use case, with doubles at its edges: what is filed, what is kept, what decides the run key."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from connectors.errors import NotFoundError, ServerFailed
from connectors.fhir.packed import Packed
from connectors.fhir.pull import Gap, GapReason, Pull
from fixtures.answers import answer_pairs, change_numbers, copy_lines, pairs_in
from fixtures.charts import canary_resources
from fixtures.facts import NOW
from service.engine.prompt import Prompt
from service.engine.scripted import ScriptedEngine
from service.entailment import NOT_MEASURED, OFF, SecondPass, probe
from service.errors import EngineError, RecordError
from service.grounding.summary import Origin
from service.ports import Action, RunState
from service.record.assemble import Policy
from service.snapshot import AREA, Snapshot
from service.summarize import STAGES, Outcome, Summarizer, with_key
from service.texts.frames import Limits
from service.texts.worker import TextReader
from tests.conftest import CANARY
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.in_memory_vault import InMemoryVault


@dataclass(frozen=True)
class Filed:
    document: str
    created: bool
    references: tuple[str, ...] = ()


@dataclass
class EhrDouble:
    """An EHR that holds one chart in memory, and can refuse a write."""

    gaps: tuple[Gap, ...] = ()
    base_url: str = "http://127.0.0.1:1/fhir"
    access_profile: str = "system:none"
    failures: list[Exception] = field(default_factory=list)
    written: list[bytes] = field(default_factory=list)
    documents: dict[str, str] = field(default_factory=dict)
    more: list[dict[str, Any]] = field(default_factory=list)
    """Further resources of the chart."""
    inactive: bool = False
    known: list[Pull | None] = field(default_factory=list)
    """What each pull was told to be known."""

    async def pull(
        self,
        patient_id: str,
        on_progress: Callable[[str, int], None] | None = None,
        known: Pull | None = None,
    ) -> Pull:
        self.known.append(known)
        bare = patient_id.removeprefix("Patient/")
        resources = [*canary_resources(bare), *self.more]
        if self.inactive:
            resources[0] = {**resources[0], "active": False}
        if on_progress is not None:
            on_progress("resources", len(resources))
        return Pull(bare, Packed(resources), self.gaps, NOW)

    async def find_document(self, system: str, value: str) -> str | None:
        return self.documents.get(value)

    async def read(self, reference: str) -> dict[str, Any]:
        raise NotFoundError("The server has no such resource.")

    async def search(self, resource_type: str, params: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        return []

    async def file(self, bundle: dict[str, Any]) -> Filed:
        self.written.append(msgspec.json.encode(bundle))
        if self.failures:
            raise self.failures.pop()
        document = next(e["resource"] for e in bundle["entry"] if "docStatus" in e["resource"])
        self.documents[document["identifier"][0]["value"]] = "DocumentReference/1/_history/1"
        return Filed("DocumentReference/1/_history/1", True)


class Bench:
    """A Summarizer with its doubles in reach."""

    def __init__(
        self, ehr: EhrDouble | None = None, engine: ScriptedEngine | None = None, **more: Any
    ) -> None:
        self.ehr = ehr or EhrDouble()
        self.engine = engine or ScriptedEngine(copy_lines)
        self.store = InMemoryStore()
        self.audit = InMemoryAudit()
        self.said: list[str] = []
        self.summarizer = Summarizer(
            ehr=self.ehr,
            engine=self.engine,
            store=self.store,
            audit=self.audit,
            clock=lambda: NOW,
            software_version="0",
            **more,
        )

    async def run(self, **more: Any) -> Outcome:
        """Summarise patient 1, and note what is said on the way."""
        return await self.summarizer.summarize(
            "1", tell=lambda stage, detail: self.said.append(f"{stage} {detail}"), **more
        )


async def test_a_chart_is_read_written_filed_and_every_act_is_recorded() -> None:
    bench = Bench()
    outcome = await bench.summarizer.summarize("1")
    assert outcome.state is RunState.FILED
    assert outcome.claims_from_model >= 5
    assert [entry.action for entry in bench.audit.entries] == [Action.READ, Action.GENERATE, Action.WRITE]
    assert set(outcome.seconds) == {"fetch", "assemble", "choose", "generate", "verify", "publish"}
    assert bench.store.runs[0].document == outcome.document


async def test_wrong_values_are_all_refused_and_required_facts_stand_all_the_same() -> None:
    bench = Bench(engine=ScriptedEngine(change_numbers))
    outcome = await bench.summarizer.summarize("1")
    summary = bench.store.runs[0].summary
    assert outcome.claims_dropped > 0
    texts = {claim.text for claim in summary.published}
    assert "Gout: active, since 04-Mar-2011" in texts
    assert any(text.startswith("allopurinol 100 MG Oral Tablet: active order") for text in texts)
    assert not any("9.3" in text for text in texts)  # the urate is 8.2


async def test_a_write_that_failed_is_filed_as_it_was_stored_without_generating_again() -> None:
    bench = Bench(EhrDouble(failures=[ServerFailed("The server failed.")]))
    with pytest.raises(ServerFailed):
        await bench.summarizer.summarize("1")
    asked = len(bench.engine.prompts)
    outcome = await bench.summarizer.summarize("1")
    assert outcome.state is RunState.FILED
    assert len(bench.engine.prompts) == asked
    assert bench.ehr.written[0] == bench.ehr.written[1]
    assert len(bench.store.runs) == 1


async def test_an_engine_that_fails_leaves_nothing_stored_and_nothing_written() -> None:
    bench = Bench(engine=ScriptedEngine(copy_lines, failures=[EngineError("The engine died.")]))
    with pytest.raises(EngineError):
        await bench.summarizer.summarize("1")
    assert (bench.store.runs, bench.ehr.written) == ([], [])
    assert [entry.outcome for entry in bench.audit.entries] == ["ok", "engine"]


async def test_what_cannot_be_recorded_does_not_happen() -> None:
    bench = Bench()
    bench.audit.break_down()
    with pytest.raises(Exception, match="audit"):
        await bench.summarizer.summarize("1")
    assert bench.ehr.written == []


async def test_a_gap_that_closes_leads_to_a_new_run() -> None:
    bench = Bench(EhrDouble(gaps=(Gap("AllergyIntolerance", GapReason.TIMED_OUT),)))
    first = await bench.summarizer.summarize("1")
    bench.ehr.gaps = ()
    second = await bench.summarizer.summarize("1")
    assert (first.state, second.state) == (RunState.INCOMPLETE, RunState.FILED)
    assert first.run_id != second.run_id


async def test_how_the_site_reads_is_part_of_the_run_key() -> None:
    keys = set()
    for policy in (
        Policy(),
        Policy(time_zone="Europe/Berlin"),
        Policy(departments=frozenset({"Location/1"})),
    ):
        bench = Bench(policy=policy)
        await bench.summarizer.summarize("1")
        keys.add(bench.store.runs[0].inputs.key)
    assert len(keys) == 3


async def test_every_input_but_the_servers_address_decides_the_run_key() -> None:
    bench = Bench()
    await bench.summarizer.summarize("1")
    inputs = bench.store.runs[0].inputs
    assert with_key(replace(inputs, server="http://127.0.0.1:2/fhir")).key == inputs.key
    for name in ("patient", "kind", "prompt_version", "template_digest", "schema_digest", "model_digest",
                 "engine_version", "record_digest", "rules_version", "access_profile"):  # fmt: skip
        other: dict[str, Any] = {name: "other"}
        assert with_key(replace(inputs, **other)).key != inputs.key
    assert with_key(replace(inputs, attempt=2)).key != inputs.key
    assert with_key(replace(inputs, budget_tokens=1)).key != inputs.key


async def test_a_runs_id_can_stand_in_a_url_and_on_a_command_line() -> None:
    for _ in range(40):
        bench = Bench()
        outcome = await bench.summarizer.summarize("1", dry_run=True)
        assert outcome.run_id.isalnum()


ASTHMA: dict[str, Any] = {
    "resourceType": "Condition", "id": "1-asthma", "subject": {"reference": "Patient/1"},
    "code": {"text": "Asthma"}, "onsetDateTime": "2026-11-23",
    "clinicalStatus": {"coding": [{
        "system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]},
}  # fmt: skip


def stay(number: int) -> dict[str, Any]:
    return {
        "resourceType": "Encounter", "id": f"stay-{number}", "subject": {"reference": "Patient/1"},
        "status": "finished", "period": {"start": f"202{number}-01-02", "end": f"202{number}-01-09"},
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
        "type": [{"text": "Admission"}],
    }  # fmt: skip


def note(text: bytes, content_type: str) -> dict[str, Any]:
    content = {"attachment": {"contentType": content_type, "data": b64encode(text).decode()}}
    return {
        "resourceType": "DocumentReference", "id": "note-1", "subject": {"reference": "Patient/1"},
        "status": "current", "type": {"text": "Progress note"}, "date": "2026-11-01T10:00:00Z",
        "content": [content],
    }  # fmt: skip


def snapshot_of(bench: Bench) -> Pull | None:
    kept = Snapshot(bench.summarizer._vault, bench.ehr.base_url, bench.ehr.access_profile, "Patient/1")
    return kept.load()


async def test_the_second_run_begins_from_what_the_first_one_fetched() -> None:
    bench = Bench(vault=InMemoryVault())
    await bench.run()
    bench.ehr.more.append(ASTHMA)
    await bench.run()
    first, second = bench.ehr.known
    assert first is None
    assert second is not None
    assert [one["id"] for one in second.resources] == [one["id"] for one in canary_resources("1")]
    assert (second.patient_id, second.read_at) == ("1", NOW)
    kept = snapshot_of(bench)
    assert kept is not None
    assert [one["id"] for one in kept.resources][-1] == "1-asthma"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pull",
        Pull("1", Packed(canary_resources("1")), (), NOW).dump()[:-1],
        Pull("2", Packed(canary_resources("2")), (), NOW).dump(),
    ],
    ids=["empty", "not ours", "cut", "another patient's"],
)
async def test_a_damaged_or_foreign_snapshot_is_ignored_and_replaced(content: bytes) -> None:
    vault = InMemoryVault()
    bench = Bench(vault=vault)
    vault.put(AREA, Snapshot(vault, bench.ehr.base_url, bench.ehr.access_profile, "Patient/1").key, content)
    assert (await bench.run()).state is RunState.FILED
    assert bench.ehr.known == [None]
    assert snapshot_of(bench) is not None


async def test_a_vault_that_fails_does_not_fail_the_run() -> None:
    for attribute in ("is_full", "is_broken"):
        vault = InMemoryVault()
        setattr(vault, attribute, True)
        bench = Bench(vault=vault)
        assert (await bench.run()).state is RunState.FILED
        assert vault.kept == {}
        assert "fetch not kept for the next run" in bench.said


async def test_without_a_vault_nothing_is_kept_and_nothing_is_known() -> None:
    bench = Bench()
    await bench.run()
    await bench.run()
    assert bench.ehr.known == [None, None]
    assert "fetch not kept for the next run" not in bench.said


async def test_a_patient_who_is_no_longer_current_is_forgotten() -> None:
    vault = InMemoryVault()
    bench = Bench(vault=vault)
    await bench.run()
    assert vault.area(AREA)
    bench.ehr.inactive = True
    with pytest.raises(RecordError):
        await bench.run()
    assert vault.area(AREA) == {}


async def test_no_server_reader_or_patient_is_served_the_snapshot_of_another() -> None:
    vault = InMemoryVault()
    await Bench(vault=vault).run()
    for ehr in (EhrDouble(base_url="http://127.0.0.1:2/fhir"), EhrDouble(access_profile="user:other")):
        other = Bench(ehr, vault=vault)
        await other.run()
        assert other.ehr.known == [None]
    another = Bench(vault=vault)
    await another.summarizer.summarize("2")
    assert another.ehr.known == [None]
    assert len(vault.area(AREA)) == 4
    same = Bench(vault=vault)
    await same.summarizer.summarize("Patient/1")
    assert same.ehr.known[0] is not None


async def test_a_text_that_could_not_be_read_is_part_of_the_run_key() -> None:
    html = b"<html><body><p>Wound is clean and dry.</p></body></html>"
    keys = set()
    for limits in (Limits(), Limits(max_bytes=1)):
        bench = Bench(EhrDouble(more=[note(html, "text/html")]), texts=TextReader(limits))
        await bench.run()
        keys.add(bench.store.runs[0].inputs.key)
        read = any("Wound is clean and dry" in fact.text for fact in bench.store.runs[0].summary.facts)
        assert read is (limits == Limits())
    assert len(keys) == 2


async def test_an_unknown_encounter_is_refused_before_the_engine_is_asked() -> None:
    bench = Bench(EhrDouble(more=[stay(4)]))
    with pytest.raises(RecordError, match="encounter is not in the patient's record"):
        await bench.run(encounter="Encounter/none")
    assert (bench.engine.prompts, bench.store.runs, bench.ehr.written) == ([], [], [])


async def test_the_encounter_at_hand_is_part_of_the_run_key() -> None:
    bench = Bench(EhrDouble(more=[stay(4), stay(5)]))
    runs = [await bench.run(encounter=named) for named in (None, "Encounter/stay-4", "Encounter/stay-5")]
    assert len({outcome.run_id for outcome in runs}) == 3
    assert [run.inputs.encounter for run in bench.store.runs] == ["", "Encounter/stay-4", "Encounter/stay-5"]
    again = await bench.run(encounter="Encounter/stay-5")
    assert again.state is RunState.UNCHANGED


async def test_what_is_new_is_told_first_after_the_chart_changed_and_only_then() -> None:
    bench = Bench(vault=InMemoryVault())
    await bench.run()
    await bench.run(attempt=2)
    bench.ehr.more.append(ASTHMA)
    await bench.run()
    first, same, grown = (run.summary for run in bench.store.runs)
    assert not any(section.key == "since" for section in (*first.sections, *same.sections))
    assert grown.sections[0].key == "since"
    assert grown.sections[0].title == "New since the summary read up to 24-Nov-2026 14:05 UTC"
    assert [claim.citations for claim in grown.sections[0].claims] == [("Condition/1-asthma",)]


async def test_another_person_under_the_same_id_is_not_compared_with() -> None:
    bench = Bench()
    await bench.run()
    stored = bench.store.runs[0]
    someone = replace(stored.summary.identity, record_number="another")
    bench.store.runs = [replace(stored, summary=replace(stored.summary, identity=someone))]
    bench.ehr.more.append(ASTHMA)
    await bench.run()
    assert not any(section.key == "since" for section in bench.store.runs[-1].summary.sections)


async def test_a_retry_files_what_was_new_when_it_was_written() -> None:
    bench = Bench()
    await bench.run()
    bench.ehr.more.append(ASTHMA)
    bench.ehr.failures.append(ServerFailed("The server failed."))
    with pytest.raises(ServerFailed):
        await bench.run()
    await bench.run()
    _, failed, retried = bench.ehr.written
    assert failed == retried
    assert bench.store.runs[-1].summary.sections[0].key == "since"
    assert len(bench.store.runs) == 2


def long_chart(procedures: int = 150) -> list[dict[str, Any]]:
    return [
        {
            "resourceType": "Procedure", "id": f"dressing-{n}", "subject": {"reference": "Patient/1"},
            "status": "completed", "code": {"text": f"Dressing of burn {n} on the left forearm"},
            "performedDateTime": f"{2001 + n // 12}-{n % 12 + 1:02}-05",
        }
        for n in range(procedures)
    ]  # fmt: skip


async def test_a_chart_beyond_the_budget_is_digested_and_what_is_told_can_be_published() -> None:
    def copy_digests(prompt: Prompt) -> str:
        answer = json.loads(copy_lines(prompt))
        told = [claim for claim in answer["claims"] if claim["cites"][0].startswith("Z")]
        return json.dumps({"claims": told or answer["claims"][:2]})

    bench = Bench(
        EhrDouble(more=long_chart()), ScriptedEngine(copy_digests), budget_tokens=2000, digest_windows=48,
        vault=InMemoryVault(),
    )  # fmt: skip
    outcome = await bench.run()
    assert "digest" in outcome.seconds
    run = bench.store.runs[0]
    assert "[Z1]" in run.prompts[0].messages[-1].content
    told = [claim for claim in run.summary.published if claim.origin is Origin.MODEL]
    assert len(told) >= 2
    for claim in told:
        assert [run.summary.fact(cited).text for cited in claim.citations] == [claim.text]
    assert {item.reason for item in run.summary.left_out} >= {"told by a digest"}
    asked = len(bench.engine.prompts)
    await bench.run(attempt=2)
    assert len(bench.engine.prompts) == asked + 1


async def test_an_engine_that_may_not_digest_lists_what_did_not_fit() -> None:
    bench = Bench(EhrDouble(more=long_chart()), budget_tokens=2000)
    outcome = await bench.run()
    assert "digest" not in outcome.seconds
    assert {item.reason for item in bench.store.runs[0].summary.left_out} == {"did not fit"}


async def test_the_patients_name_is_not_in_what_is_said_on_the_way() -> None:
    bench = Bench(EhrDouble(more=long_chart()), budget_tokens=2000, digest_windows=48, vault=InMemoryVault())
    await bench.run()
    assert {line.split()[0] for line in bench.said} == set(STAGES)
    assert CANARY not in " ".join(bench.said)


REPAIR = "TASK: These sentences were refused"


def mend_numbers(prompt: Prompt) -> str:
    """Write wrong values, and the lines as they are once they come back."""
    return copy_lines(prompt) if REPAIR in prompt.messages[-1].content else change_numbers(prompt)


async def test_what_is_refused_goes_back_once_and_what_comes_back_right_is_published() -> None:
    bench = Bench(engine=ScriptedEngine(mend_numbers))
    outcome = await bench.run()
    run = bench.store.runs[0]
    assert len(bench.engine.prompts) == len(run.prompts) == len(run.completions) >= 2
    assert outcome.claims_repaired > 3
    published = run.summary.published
    assert outcome.claims_repaired == sum(claim.repaired for claim in published)
    assert all(claim.origin is Origin.MODEL for claim in published if claim.repaired)
    assert not any(claim.repaired for claim in published if claim.origin is Origin.RECORD)
    assert outcome.claims_dropped == len(run.summary.refused) > 0
    assert not any(claim.repaired for claim in run.summary.refused if "9.3" in claim.text)
    generated = [entry.counts for entry in bench.audit.entries if entry.action is Action.GENERATE]
    assert generated == [{"requests": 1}, {"requests": len(run.prompts) - 1}]


async def test_what_is_right_at_once_is_not_asked_again() -> None:
    bench = Bench()
    outcome = await bench.run()
    assert outcome.claims_repaired == outcome.claims_lowered == 0
    assert not any(REPAIR in prompt.messages[-1].content for prompt in bench.engine.prompts)


async def test_what_fails_again_is_left_out_and_listed() -> None:
    bench = Bench(engine=ScriptedEngine(change_numbers))
    outcome = await bench.run()
    assert outcome.claims_repaired == 0
    refused = bench.store.runs[0].summary.refused
    assert any(claim.repaired for claim in refused) is False  # it said the same again, which is listed once
    assert len({(claim.text, claim.citations) for claim in refused}) == len(refused)
    assert sum(REPAIR in prompt.messages[-1].content for prompt in bench.engine.prompts) >= 1


async def test_an_engine_that_dies_in_repair_leaves_a_summary_all_the_same() -> None:
    def die_in_repair(prompt: Prompt) -> str:
        if REPAIR in prompt.messages[-1].content:
            raise EngineError("The engine died.")
        return change_numbers(prompt)

    bench = Bench(engine=ScriptedEngine(die_in_repair))
    outcome = await bench.run()
    assert outcome.state is RunState.FILED
    assert outcome.claims_repaired == 0
    assert len(bench.store.runs[0].completions) == 1


async def test_cancelling_a_repair_stops_the_engine_and_stores_nothing() -> None:
    asked = asyncio.Event()

    class Slow(ScriptedEngine):
        async def generate(self, prompt: Prompt, on_text: Any = None) -> Any:
            if REPAIR in prompt.messages[-1].content:
                asked.set()
                self.running += 1
                try:
                    await asyncio.sleep(60)
                finally:
                    self.running -= 1
            return await super().generate(prompt, on_text)

    bench = Bench(engine=Slow(change_numbers))
    task = asyncio.create_task(bench.run())
    async with asyncio.timeout(10):
        await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.engine.running == 0
    assert (bench.store.runs, bench.ehr.written) == ([], [])


NOTE = note(b"Wound is clean and dry. She sleeps well.", "text/plain")


def quote_notes(prompt: Prompt) -> str:
    """Copy the lines, each sentence of the note as a quotation with the day of the note."""
    answer = json.loads(copy_lines(prompt))
    for claim in answer["claims"]:
        if claim["text"] in ("Wound is clean and dry.", "She sleeps well."):
            claim["text"] = f"Progress note of 01-Nov-2026: “{claim['text']}”"
    return json.dumps(answer)


def doubting(doubted: str, answer: str) -> ScriptedEngine:
    """An engine that copies its lines, and denies what the source of these words says."""
    return ScriptedEngine(
        answer_pairs(lambda source, text: answer if doubted in source else "yes", quote_notes)
    )


@pytest.mark.parametrize("answer", ["no", "not stated"])
async def test_a_claim_that_the_second_pass_denies_is_refused_and_counted(answer: str) -> None:
    bench = Bench(EhrDouble(more=[NOTE]), doubting("Wound", answer), second_pass=SecondPass())
    outcome = await bench.run()
    summary = bench.store.runs[0].summary
    assert outcome.claims_lowered == 1
    assert outcome.state is RunState.FILED
    (lowered,) = (claim for claim in summary.refused if claim.is_lowered)
    assert "Wound is clean and dry" in lowered.text
    assert (lowered.entailed, lowered.reasons) == (answer, (f"second_pass_{answer.replace(' ', '_')}",))
    assert not any("Wound" in claim.text and claim.origin is Origin.MODEL for claim in summary.published)
    assert any("sleeps well" in claim.text and claim.entailed == "yes" for claim in summary.published)
    assert summary.second_pass.startswith("on: 24 of 24 right, 0 false yes; ")
    # what is on coded facts alone is settled by the rules, and not asked about
    gout = [claim.entailed for claim in summary.published if claim.text.startswith("Gout")]
    assert gout == [""] * len(gout)
    assert gout


async def test_a_yes_leaves_what_is_published_as_it_was() -> None:
    texts = []
    for second_pass in (None, SecondPass()):
        bench = Bench(EhrDouble(more=[NOTE]), doubting("nothing", "no"), second_pass=second_pass)
        outcome = await bench.run()
        assert outcome.claims_lowered == 0
        texts.append([claim.text for claim in bench.store.runs[0].summary.published])
    assert texts[0] == texts[1]


async def test_a_model_that_fails_the_probe_is_not_asked_about_a_patient() -> None:
    bench = Bench(EhrDouble(more=[NOTE]), ScriptedEngine(quote_notes), second_pass=SecondPass())
    outcome = await bench.run()
    summary = bench.store.runs[0].summary
    assert outcome.state is RunState.FILED
    assert summary.second_pass.startswith("off: 0 of 24 right")
    assert not any(claim.entailed for claim in (*summary.published, *summary.refused))
    asked = [pair for prompt in bench.engine.prompts for pair in pairs_in(prompt)]
    assert sorted(asked) == sorted((one.source, one.claim) for one in probe().pairs)


async def test_a_second_pass_that_cannot_be_asked_fails_no_run() -> None:
    def die_when_asked(prompt: Prompt) -> str:
        if pairs_in(prompt):
            raise EngineError("The engine died.")
        return quote_notes(prompt)

    bench = Bench(EhrDouble(more=[NOTE]), ScriptedEngine(die_when_asked), second_pass=SecondPass())
    assert (await bench.run()).state is RunState.FILED
    assert bench.store.runs[0].summary.second_pass == NOT_MEASURED


async def test_questions_that_fail_after_the_probe_are_recorded_as_not_asked() -> None:
    def die_on_the_patient(source: str, text: str) -> str:
        raise EngineError("The engine died.")

    engine = ScriptedEngine(answer_pairs(die_on_the_patient, quote_notes))
    bench = Bench(EhrDouble(more=[NOTE]), engine, second_pass=SecondPass())
    outcome = await bench.run()
    summary = bench.store.runs[0].summary
    assert (outcome.state, outcome.claims_lowered) == (RunState.FILED, 0)
    assert any("Wound" in claim.text and claim.entailed == "" for claim in summary.published)
    assert "; 0 of " in summary.second_pass


async def test_the_model_is_measured_once_for_all_runs() -> None:
    bench = Bench(EhrDouble(more=[NOTE]), doubting("nothing", "no"), second_pass=SecondPass())
    await bench.run()
    first = len(bench.engine.prompts)
    await bench.run(attempt=2)
    assert len(bench.engine.prompts) - first == first - 3


async def test_repair_and_the_second_pass_are_part_of_the_run_key_and_how_a_model_did_is_not() -> None:
    strong, weak = doubting("nothing", "no"), ScriptedEngine(copy_lines)
    keys = []
    for engine, second_pass in ((strong, SecondPass()), (weak, SecondPass()), (strong, None)):
        bench = Bench(engine=engine, second_pass=second_pass)
        await bench.run()
        keys.append(bench.store.runs[0].inputs.key)
        assert bench.store.runs[0].inputs.sampling["repair"] == 1
    assert keys[0] == keys[1] != keys[2]
    assert bench.store.runs[0].inputs.sampling["second_pass"] == "off"
    assert bench.store.runs[0].summary.second_pass == OFF


async def test_what_is_said_on_the_way_of_repair_and_second_pass_names_no_patient() -> None:
    engine = ScriptedEngine(answer_pairs(lambda source, text: "no", mend_numbers))
    bench = Bench(EhrDouble(more=[NOTE]), engine, second_pass=SecondPass())
    await bench.run()
    said = " ".join(bench.said)
    assert "requests to repair answered" in said
    assert "second pass: " in said
    assert CANARY not in said
