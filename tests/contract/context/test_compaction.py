"""What is compacted away must not be lost.

Every status, unit, comparator, author, side, person, date and digit that a chart holds is counted in, by code
that knows nothing of our readers, and counted out of the rendered evidence.

What is legitimately said once: identical statements, whose other sources a line accounts for (`recorded 45
times` of an order, the same note in a report, the same sentence in a later note); and three or more values of
one vital sign on one day, told as their range and number. A final result, a confirmed problem and a confirmed
allergy go without saying so.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pytest

from connectors.fhir.codec import decode, encode
from fixtures.engines import model_cache
from service.context.choose import choose_facts
from service.context.chosen import Context
from service.context.render import defused, whole_chat
from service.context.templates import load
from service.engine.profiles import profile_for
from service.engine.prompt import Message, Profile
from service.engine.tokens import FolderTokenizer
from service.engine.weights import DEMONSTRATION_MODEL
from service.record.assemble import assemble_record, resources_of
from service.record.required import required_facts
from tests.bench.compaction import EVERY, LABS, PIVOTED, Cost, costs_of, token_counter
from tests.conftest import SHARED, missing

pytestmark = pytest.mark.shared
FREE = Profile("test", "free", 8192, 1024, 0.0)
UNBOUNDED = 10**9
HISTORY = load("history")
TEMPLATES = replace(HISTORY, limits=replace(HISTORY.limits, vitals_days=UNBOUNDED))
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
ENCOUNTER_CLASSES = {
    "AMB": "ambulatory",
    "EMER": "emergency",
    "IMP": "inpatient",
    "VR": "virtual",
    "HH": "home",
}
RANGE = re.compile(r"\((\d+) values\)")
TAG = re.compile(r" \((?:finding|disorder|qualifier value|body structure|procedure|situation)\)$")
TIMES = re.compile(r"recorded (\d+) times")


class Digits(str):
    """A number of a chart, as it was written."""


class Wanted(NamedTuple):
    """One thing a chart says: what, whose, how a line must say it, and the names of its column in a table."""

    what: str
    reference: str
    pattern: str
    names: tuple[str, ...] = ()
    number: str = ""


class Told(NamedTuple):
    """One line of the evidence that a resource stands behind, with the head of its table."""

    text: str
    head: str
    behind: int
    """How many resources say this."""


@dataclass(frozen=True)
class Chart:
    """One chart as it came, and what the model is shown of it."""

    data: bytes

    @cached_property
    def raw(self) -> list[dict[str, Any]]:
        """The resources, read by nothing of ours; every number as its digits."""
        bundle = json.loads(self.data, parse_float=Digits, parse_int=Digits)
        return [entry["resource"] for entry in bundle["entry"]]

    @cached_property
    def context(self) -> Context:
        record = assemble_record(resources_of(decode(self.data)))
        return choose_facts(record, required_facts(record), TEMPLATES, FREE, UNBOUNDED, characters)

    @cached_property
    def evidence(self) -> str:
        return whole_chat(self.context, TEMPLATES, FREE)[1].content

    @cached_property
    def told(self) -> dict[str, list[Told]]:
        """Reference → the lines that it stands behind, as they are written in the evidence."""
        written = set(self.evidence.split("\n"))
        found: dict[str, list[Told]] = {}
        for block in self.context.blocks:
            head = ""
            for line in block.lines if block.key != "trends" else ():
                text = f"[{line.label}] {defused(line.text)}" if line.label else defused(line.text)
                assert text in written, "a line of the context is not in the prompt"
                head = text if line.label is None else head
                is_row = line.label is not None and "@" in line.label
                sources = {source.reference for fact in line.facts for source in fact.sources}
                for reference in sources:
                    found.setdefault(reference, []).append(Told(text, head if is_row else "", len(sources)))
        return found


def characters(chat: Sequence[Message]) -> int:
    return sum(len(message.content) for message in chat) // 4


def charts(folder: Path) -> Iterator[tuple[str, bytes]]:
    files = sorted((folder / "synthea").glob("*.json.gz"), key=lambda path: path.stat().st_size)
    return ((p.name, gzip.decompress(p.read_bytes())) for p in files if not p.name.startswith("0-"))


def names_of(concept: Any) -> tuple[str, ...]:
    concept = concept or {}
    return tuple(
        n for n in (concept.get("text"), *(c.get("display") for c in concept.get("coding", ()))) if n
    )


def word(text: str) -> str:
    """Return the pattern of a text, without the tag in which SNOMED CT says what kind of concept it is."""
    bare = TAG.sub("", " ".join(text.split()))
    return rf"(?<!\w){re.escape(bare)}(?!\w)"


def day(recorded: str) -> str:
    """Return the pattern of a date in exactly its precision: `04-May-2019`, `May-2019`, `2019`."""
    year, month, date = [*recorded[:10].split("-"), "", ""][:3]
    shown = "-".join(part for part in (date, MONTHS[int(month) - 1] if month else "", year) if part)
    return rf"(?<![\w.-]){re.escape(shown)}(?![\w-])"


def statuses(resource: dict[str, Any], reference: str) -> Iterator[Wanted]:
    kind, said = resource["resourceType"], str(resource.get("status", "")).replace("-", " ")
    if kind in ("Condition", "AllergyIntolerance"):
        for coding in resource["clinicalStatus"]["coding"]:
            yield Wanted("status", reference, word(coding["code"]))
        certainty = resource["verificationStatus"]["coding"][0]["code"]
        if certainty != "confirmed":
            yield Wanted("certainty", reference, word(certainty))
    elif kind == "MedicationRequest":
        yield Wanted("status", reference, rf"{word(said)} {word(resource['intent'])}")
    elif kind == "Encounter":
        yield Wanted("status", reference, word(said))
        yield Wanted("class", reference, word(ENCOUNTER_CLASSES[resource["class"]["code"]]))
    elif kind in (
        "Procedure",
        "Immunization",
        "MedicationAdministration",
        "DocumentReference",
        "ImagingStudy",
    ) or (kind == "DiagnosticReport" and not resource.get("presentedForm")):
        yield Wanted("status", reference, word(said))
    elif kind == "Observation" and said != "final":
        yield Wanted("status", reference, word(said), names_of(resource["code"]))


def values(resource: dict[str, Any], reference: str) -> Iterator[Wanted]:
    if resource["resourceType"] != "Observation":
        return
    names = names_of(resource["code"])
    for holder in (resource, *resource.get("component", ())):
        quantity = holder.get("valueQuantity")
        if quantity:
            digits = re.escape(quantity["value"])
            comparator = re.escape(quantity.get("comparator", ""))
            yield Wanted("digits", reference, rf"(?<![\d.]){digits}(?!\.?\d)", names, quantity["value"])
            unit = quantity.get("unit") or quantity.get("code", "")
            if unit:
                yield Wanted("unit", reference, rf"(?<!\w){re.escape(unit)}(?!\w)", names)
            if comparator:
                yield Wanted("comparator", reference, rf"{comparator} ?{digits}(?!\.?\d)", names)
        for text in (*names_of(holder.get("valueCodeableConcept"))[:1], holder.get("valueString", "")):
            if text:
                yield Wanted("coded value", reference, word(text), names)


def authors(resource: dict[str, Any], reference: str) -> Iterator[Wanted]:
    holders = [resource.get("requester"), *resource.get("author", ()), *resource.get("performer", ())]
    holders += [participant.get("individual") for participant in resource.get("participant", ())]
    for holder in holders:
        if isinstance(holder, dict) and holder.get("display") and resource["resourceType"] != "CareTeam":
            yield Wanted("author", reference, word(holder["display"]))


def sides(resource: dict[str, Any], reference: str) -> Iterator[Wanted]:
    found = resource.get("bodySite", [])
    for site in found if isinstance(found, list) else [found]:
        yield Wanted("side", reference, word(names_of(site)[0]), names_of(resource.get("code")))
    for series in resource.get("series", ()):
        for key in ("bodySite", "laterality"):
            if series.get(key, {}).get("display"):
                yield Wanted("side", reference, word(series[key]["display"]))


def persons(resource: dict[str, Any], reference: str) -> Iterator[Wanted]:
    for focus in resource.get("focus", ()):
        yield Wanted("person", reference, word(focus["display"]), names_of(resource.get("code")))


DATES = {
    "Condition": ("onsetDateTime", "abatementDateTime"), "MedicationRequest": ("authoredOn",),
    "Immunization": ("occurrenceDateTime",), "Observation": ("effectiveDateTime",),
    "DiagnosticReport": ("effectiveDateTime",), "DocumentReference": ("date",), "ImagingStudy": ("started",),
    "AllergyIntolerance": ("recordedDate",), "MedicationAdministration": ("effectiveDateTime",),
}  # fmt: skip


def dates(resource: dict[str, Any], reference: str) -> Iterator[Wanted]:
    found = [resource.get(key) for key in DATES.get(resource["resourceType"], ())]
    for key in ("period", "performedPeriod"):
        if resource["resourceType"] in ("Encounter", "Procedure"):
            found += [resource.get(key, {}).get("start"), resource.get(key, {}).get("end")]
    yield from (Wanted("date", reference, day(text)) for text in found if text)


READERS: tuple[Callable[[dict[str, Any], str], Iterator[Wanted]], ...] = (
    statuses, values, authors, sides, persons, dates,
)  # fmt: skip


def wanted_of(chart: Chart) -> list[Wanted]:
    found = []
    for resource in chart.raw:
        reference = f"{resource['resourceType']}/{resource['id']}"
        if resource["resourceType"] in SHOWN:
            found += [item for reader in READERS for item in reader(resource, reference)]
    return found


SHOWN = {
    "Condition", "AllergyIntolerance", "MedicationRequest", "MedicationAdministration", "Procedure",
    "Encounter", "Immunization", "DiagnosticReport", "DocumentReference", "Observation", "ImagingStudy",
}  # fmt: skip


def is_out(item: Wanted, lines: Iterable[Told]) -> bool:
    return any(is_said(item, told) for told in lines)


def is_said(item: Wanted, told: Told) -> bool:
    if not told.head or item.what in ("date", "author"):
        times = TIMES.search(told.text)
        is_merged = item.what == "date" and times is not None and int(times[1]) == told.behind
        return is_merged or re.search(item.pattern, told.text) is not None
    return any(
        re.search(item.pattern, cell) or (item.number != "" and is_in_range(item.number, cell))
        for cell in cells_of(told, item.names)
    )


def cells_of(told: Told, names: Iterable[str]) -> Iterator[str]:
    """Yield the column's head and the row's cell, of every column that bears one of the names."""
    bare = {" ".join(re.sub(r"\[[^\]]*\]", " ", name).split()) for name in names} | set(names)
    cells = [cell.strip() for cell in told.text.partition("] ")[2].split("|")]
    for place, head in enumerate(told.head.split(" | ")[1:]):
        if place < len(cells) and any(head == name or head.startswith(f"{name} (") for name in bare):
            yield f"{head} | {cells[place]}"


def is_in_range(number: str, cell: str) -> bool:
    """Tell whether a value is one of three or more that a cell tells by their ends and their number."""
    ends = re.findall(r"(-?[\d.]+)–(-?[\d.]+)", cell)
    return bool(RANGE.search(cell)) and any(float(low) <= float(number) <= float(high) for low, high in ends)


def lost_of(chart: Chart) -> tuple[Counter[str], list[str]]:
    """Return how many of each thing went in, and a sentence for each that did not come out."""
    counted: Counter[str] = Counter()
    lost = []
    for item in wanted_of(chart):
        counted[item.what] += 1
        lines = chart.told.get(item.reference, [])
        if not is_out(item, lines):
            lost.append(f"{item.what} {item.pattern} of {item.reference}: {[t.text[:300] for t in lines]}")
    return counted, lost


@pytest.fixture(scope="module")
def real() -> tuple[Counter[str], list[str]]:
    """What all real charts hold, and what of it the evidence does not say."""
    folder = SHARED / "data"
    counted: Counter[str] = Counter()
    lost: list[str] = []
    for _, data in charts(folder):
        found, gone = lost_of(Chart(data))
        counted += found
        lost += gone
    return counted, lost


def test_what_42_real_charts_say_goes_into_the_evidence(
    shared_data: Path, real: tuple[Counter[str], list[str]]
) -> None:
    counted, lost = real
    assert lost == []
    assert counted["digits"] > 10_000
    assert counted["unit"] > 10_000
    assert counted["date"] > 20_000
    assert counted["status"] > 6_000
    assert counted["author"] > 5_000
    assert counted["side"] > 90


STATUSES = {
    "MedicationRequest": ("on-hold", "cancelled", "completed", "active"),
    "Procedure": ("not-done", "in-progress", "completed", "stopped"),
    "Immunization": ("not-done", "completed"),
    "Encounter": ("in-progress", "finished"),
    "Observation": ("final", "preliminary", "final", "corrected", "final", "amended"),
}
SITES = ("Left knee", "Right lung", "Left breast", "Right eye")
COMPARATORS = ("<", ">", "<=", ">=")


def seeded(data: bytes) -> bytes:
    """Return a real chart in which is written what the generator never writes, by turns of each type."""
    bundle = decode(data)
    turns: Counter[str] = Counter()
    for entry in bundle["entry"]:
        resource = entry["resource"]
        kind = resource["resourceType"]
        turn = turns[kind]
        turns[kind] += 1
        if kind in STATUSES:
            resource["status"] = STATUSES[kind][turn % len(STATUSES[kind])]
        if kind in ("Procedure", "Condition"):
            resource["bodySite"] = [{"text": SITES[turn % len(SITES)]}]
        if kind == "DiagnosticReport" and "presentedForm" not in resource:
            resource["status"] = ("preliminary", "final", "amended")[turn % 3]
        seed_dates(resource, turn)
        if kind == "Condition":
            code = ("confirmed", "provisional", "differential")[turn % 3]
            resource["verificationStatus"] = {"coding": [{"code": code}]}
        if kind == "Observation":
            seed_observation(resource, turn)
    return encode(bundle)


def seed_observation(resource: dict[str, Any], turn: int) -> None:
    if turn % 4 == 1:
        resource["bodySite"] = {"text": SITES[turn % len(SITES)]}
    if turn % 9 == 2:
        resource["focus"] = [{"display": "Fetus A"}]
    if turn % 3 == 0:
        resource["performer"] = [{"display": f"Nurse {'ABCDE'[turn % 5]}dams"}]
    if "valueQuantity" in resource:
        value = resource["valueQuantity"]
        value["value"] = Decimal(f"{turn % 90 + 1}.{turn % 10}0")
        if turn % 5 == 0:
            value["comparator"] = COMPARATORS[turn % len(COMPARATORS)]


def seed_dates(resource: dict[str, Any], turn: int) -> None:
    """Cut dates to the month or the year."""
    keep = (4, 7, 10)[turn % 3]
    for key in ("onsetDateTime", "abatementDateTime", "occurrenceDateTime"):
        if key in resource:
            resource[key] = resource[key][:keep]
    if resource["resourceType"] == "Procedure":
        period = resource.pop("performedPeriod")
        resource["performedDateTime"] = period["start"][:keep]
    if resource["resourceType"] == "Observation" and turn % 7 == 3:
        resource["effectiveDateTime"] = resource["effectiveDateTime"][:keep]


@pytest.mark.parametrize("place", [8, 20, 33])
def test_what_real_charts_seldom_say_goes_into_the_evidence(shared_data: Path, place: int) -> None:
    data = [data for _, data in charts(shared_data)][place]
    counted, lost = lost_of(Chart(seeded(data)))
    assert lost == []
    assert min(counted[what] for what in ("comparator", "side", "person", "certainty")) >= 5


@pytest.mark.parametrize("what", ["status", "author", "date", "digits", "unit", "class"])
def test_the_check_notices_what_is_missing(shared_data: Path, what: str) -> None:
    """The check itself: one thing taken out of every line, and of the head of its table, is reported lost."""
    _, data = next(iter(charts(shared_data)))
    chart = Chart(data)
    wanted = [item for item in wanted_of(chart) if item.what == what]
    assert wanted
    for item in wanted:
        told = [
            Told(re.sub(item.pattern, "…", t.text), re.sub(item.pattern, "…", t.head), t.behind)
            for t in chart.told[item.reference]
        ]
        assert not is_out(item, told)


def test_a_preliminary_report_with_the_text_of_a_note_is_said_to_be_preliminary(shared_data: Path) -> None:
    _, data = next(iter(charts(shared_data)))
    bundle = decode(data)
    reports = [e["resource"] for e in bundle["entry"] if "presentedForm" in e["resource"]]
    for report in reports:
        report["status"] = "preliminary"
    told = Chart(encode(bundle)).told
    for report in reports:
        lines = told[f"DiagnosticReport/{report['id']}"]
        assert any("preliminary" in line.text for line in lines)


@pytest.fixture(scope="module")
def ratios() -> dict[tuple[str, str], float]:
    """Type and form → tokens of the JSON for one token of the evidence, medians over all charts (40 s)."""
    folder = model_cache() / DEMONSTRATION_MODEL
    if not (folder / "tokenizer.json").is_file() or find_spec("transformers") is None:
        missing("the prepared demonstration model, for its tokenizer")
    count = token_counter(FolderTokenizer(folder, profile_for(DEMONSTRATION_MODEL)))
    costs: dict[tuple[str, str], list[Cost]] = {}
    for _, data in charts(SHARED / "data"):
        for cost in costs_of(data, count):
            for form in {"", cost.form}:
                costs.setdefault((cost.kind, form), []).append(cost)
    return {
        key: median(cost.json for cost in found) / median(cost.evidence for cost in found)
        for key, found in costs.items()
    }


@pytest.mark.parametrize("kind", sorted(SHOWN))
def test_a_resource_costs_ten_times_fewer_tokens_than_as_json(
    shared_data: Path, ratios: dict[tuple[str, str], float], kind: str
) -> None:
    assert ratios[kind, ""] >= EVERY


def test_results_in_a_table_cost_twenty_times_fewer_tokens(
    shared_data: Path, ratios: dict[tuple[str, str], float]
) -> None:
    assert ratios["Observation", LABS] >= PIVOTED
