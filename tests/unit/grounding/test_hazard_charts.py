"""The hazard charts end to end through the core: what must, and must never, be published of each."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import pytest

from connectors.fhir.pull import Gap, GapReason
from fixtures.answers import change_numbers, copy_lines
from fixtures.facts import NOW
from service.context.choose import choose_facts
from service.context.chosen import Context
from service.context.render import requests_for
from service.context.stay import find_stay
from service.engine.prompt import Prompt
from service.grounding.check import Checker
from service.grounding.claims import CitedClaim, judge_claims
from service.grounding.complete import complete_summary
from service.grounding.parse import parse_claims
from service.grounding.summary import Claim, Origin, Summary
from service.record.assemble import resources_of, stop_reason
from service.record.facts import PatientRecord
from service.record.required import call_previous, required_facts
from service.writeback.transaction import refusal
from tests.conftest import ROOT
from tests.unit.context.charts import FREE, HISTORY, count
from tests.unit.record.charts import hazard, hazard_bundle
from tests.unit.record.test_hazards import HAZARDS as AT_THE_RECORD

Hazard = Mapping[str, Any]
Model = Callable[[Prompt], str] | None

FOLDER = ROOT / "fixtures/hazards"
HAZARDS: list[Hazard] = tomllib.loads((FOLDER / "expected.toml").read_text())["hazard"]
MODELS: dict[str, Model] = {"no model": None, "parrot": copy_lines, "liar": change_numbers}
FIELDS = {"chart", "safety", "must", "never", "told", "gaps", "stop", "unfiled", "claims", "known_gap"}
REFUSED = {"unsupported", "contradicted"}
VERDICTS = {word: {word} for word in ("supported", *REFUSED)} | {"refused": REFUSED}
HOLDING = [entry for entry in HAZARDS if "known_gap" not in entry]
OPEN = [entry for entry in HAZARDS if "known_gap" in entry]
SUMMARISED = [entry for entry in HOLDING if "stop" not in entry]
JUDGED = [(entry, claim) for entry in HOLDING for claim in entry.get("claims", ())]
BUDGET_TOKENS = 8000


def name_of(value: object) -> str | None:
    """Name a case by its chart, or by its sentence."""
    if isinstance(value, Mapping):
        return str(value.get("chart") or value.get("text"))
    return None


@cache
def record_of(chart: str, gaps: tuple[str, ...]) -> PatientRecord:
    missing = [Gap(kind, GapReason.REFUSED) for kind in gaps]
    return hazard(chart, patient_id="1", gaps=missing, read_at=NOW)


def assembled(entry: Hazard) -> PatientRecord:
    return record_of(entry["chart"], tuple(entry.get("gaps", ())))


def chosen(record: PatientRecord) -> Context:
    """Choose as in a run: required facts of the encounter at hand, a free model, room for everything."""
    at_hand = find_stay(record)
    required = required_facts(record, encounter=at_hand.reference if at_hand else None)
    stay = find_stay(record, ended=True)
    return choose_facts(record, required, HISTORY, FREE, BUDGET_TOKENS, count, stay=stay)


def checked(context: Context, model: Model) -> Iterator[Claim]:
    """Yield the claims that a model writes, checked."""
    if model is None:
        return
    checker = Checker(context)
    for request in requests_for(context, HISTORY, FREE, seed=0):
        for draft in parse_claims(model(request.prompt), request.section):
            yield checker.check(draft)


def summary_of(entry: Hazard, model: Model) -> Summary:
    return _summary_of(entry["chart"], tuple(entry.get("gaps", ())), model)


@cache
def _summary_of(chart: str, gaps: tuple[str, ...], model: Model) -> Summary:
    record = record_of(chart, gaps)
    context = chosen(record)
    return complete_summary("history", record, context, HISTORY, list(checked(context, model)))


def plain(summary: Summary) -> str:
    """All that the sections say, one line a heading or sentence: `Title: state reason conflict`."""
    lines: list[str] = []
    for section in summary.sections:
        said = (str(section.state or ""), section.reason, section.conflict)
        lines.append(f"{section.title}: {' '.join(part for part in said if part)}")
        lines += [claim.text for claim in section.claims]
    return "\n".join(lines)


def stands(expected: str, text: str) -> bool:
    """Say whether a text, or a regular expression between slashes, is found; case never counts."""
    is_pattern = len(expected) > 2 and expected.startswith("/") and expected.endswith("/")
    pattern = expected[1:-1] if is_pattern else re.escape(expected)
    return re.search(pattern, text, re.IGNORECASE | re.MULTILINE) is not None


def wrong_in(text: str, entry: Hazard) -> dict[str, list[str]]:
    """Return what is missing from a text, and what should not stand there."""
    missing = [expected for expected in entry.get("must", ()) if not stands(expected, text)]
    forbidden = [expected for expected in entry.get("never", ()) if stands(expected, text)]
    return {"missing": missing, "forbidden": forbidden}


NOTHING: dict[str, list[str]] = {"missing": [], "forbidden": []}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("entry", SUMMARISED, ids=name_of)
def test_what_must_stand_in_a_summary_stands_there_and_what_must_not_does_not(
    entry: Hazard, model: Model
) -> None:
    assert wrong_in(plain(summary_of(entry, model)), entry) == NOTHING


@pytest.mark.parametrize("entry", [entry for entry in SUMMARISED if "told" in entry], ids=name_of)
def test_what_is_true_and_not_required_is_published_where_a_model_tells_it(entry: Hazard) -> None:
    copied, added = plain(summary_of(entry, copy_lines)), plain(summary_of(entry, None))
    assert [expected for expected in entry["told"] if not stands(expected, copied)] == []
    assert [expected for expected in entry["told"] if stands(expected, added)] == []


@pytest.mark.parametrize("entry", SUMMARISED, ids=name_of)
def test_no_changed_number_is_published(entry: Hazard) -> None:
    facts = assembled(entry).facts
    own = {fact.text for fact in facts} | {call_previous(fact) for fact in facts}
    liar = summary_of(entry, change_numbers)
    changed = [c.text for c in liar.published if re.search(r"\d", c.text) and c.text not in own]
    assert changed == []
    assert all(c.origin is Origin.RECORD for c in liar.published if re.search(r"\d", c.text))


@pytest.mark.parametrize(("entry", "claim"), JUDGED, ids=name_of)
def test_a_sentence_that_a_model_might_write_gets_its_verdict(entry: Hazard, claim: Hazard) -> None:
    cited = CitedClaim(claim["text"], (claim["cites"],))
    (judgement,) = judge_claims(assembled(entry), [cited])
    assert judgement.verdict in VERDICTS[claim["verdict"]], judgement.reasons
    assert bool(judgement.reasons) is (judgement.verdict != "supported")


@pytest.mark.parametrize("entry", [entry for entry in HOLDING if "stop" in entry], ids=name_of)
def test_a_patient_that_must_not_be_summarised_stops_the_run(entry: Hazard) -> None:
    reason = stop_reason(list(resources_of(hazard_bundle(entry["chart"]))), "1")
    assert stands(entry["stop"], reason or "")


@pytest.mark.parametrize("entry", SUMMARISED, ids=name_of)
def test_nothing_is_filed_by_itself_where_the_entry_says_so_and_only_there(entry: Hazard) -> None:
    reason = refusal(summary_of(entry, None)) or ""
    assert stands(entry["unfiled"], reason) if "unfiled" in entry else reason == ""
    assert stop_reason(list(resources_of(hazard_bundle(entry["chart"]))), "1") is None


def unmet(entry: Hazard) -> Iterator[str]:
    """Yield what an entry expects and does not get, with or without a model."""
    record = assembled(entry)
    for model in MODELS.values():
        wrong = wrong_in(plain(summary_of(entry, model)), entry)
        yield from (*wrong["missing"], *wrong["forbidden"])
    for claim in entry.get("claims", ()):
        (judgement,) = judge_claims(record, [CitedClaim(claim["text"], (claim["cites"],))])
        if judgement.verdict not in VERDICTS[claim["verdict"]]:
            yield claim["text"]


@pytest.mark.parametrize("entry", OPEN, ids=lambda entry: entry["known_gap"])
def test_a_known_gap_is_still_open(entry: Hazard) -> None:
    wanted = {*entry.get("must", ()), *entry.get("never", ()), *(c["text"] for c in entry.get("claims", ()))}
    assert wanted
    assert wanted <= set(unmet(entry)), "This holds now: move it to the chart's entry."


def test_every_chart_of_the_folder_is_expected_here_or_checked_at_the_record() -> None:
    charts = {path.stem for path in FOLDER.glob("*.json")}
    expected = {entry["chart"] for entry in HOLDING}
    assert charts == expected | set(AT_THE_RECORD)
    assert len(charts) > 40
    assert not expected & set(AT_THE_RECORD)


def test_the_entries_are_written_as_the_file_says() -> None:
    for entry in HAZARDS:
        assert set(entry) <= FIELDS
        assert all(rule in range(1, 27) for rule in entry["safety"])
        assert any(entry.get(key) for key in ("stop", "must", "never", "claims")), entry["chart"]
        assert all(claim["verdict"] in VERDICTS for claim in entry.get("claims", ()))
