"""What the model read from pictures: judged for what it must not say, and never for whether it is so.

No rule can look at a picture. A reading is therefore `not_verifiable` at best, stands in a section of its
own, and every sentence begins as an observation (SAFETY 26). What would need another source is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from unicodedata import normalize

from service.context.chosen import Label, LeftOut
from service.context.pictures import SECTION, Sees, spot_of
from service.grounding.disagree import Disagreement, disagreement, reports_among
from service.grounding.parse import objects_of
from service.grounding.summary import Claim, Origin, Summary, SummarySection, Verdict
from service.grounding.wording import lexicon
from service.grounding.words import RELATIVE_DATE, take_apart, words_of
from service.record.facts import Fact, Kind, PatientRecord

TITLE = "What the model reads from the images"
DISAGREEMENTS = "image_disagreements"
DISAGREEMENTS_TITLE = "Picture and report disagree"
NOT_CHECKED = "Read from the pictures by the model. Not checked."
"""What stands over the section, wherever it is shown."""
READ = "read_from_a_picture"
MAX_CHARACTERS = 400

_SEVERAL = {Sees.SHOWS: "show", Sees.MAY_SHOW: "may show", Sees.NOT: "do not show"}
_REPORT = frozenset(
    "report reported radiologist impression dictated chart record recorded documented diagnosed history "
    "known".split()
)
_COMPARES = frozenset(
    "unchanged increased decreased improved worsened worse progressed stable interval previous previously "
    "prior compared comparison larger smaller new newly resolved since".split()
)
_ADVICE = frozenset(
    "recommend recommended advise advised should consider suggest follow-up treat therapy".split()
)
_PRODUCT = frozenset(
    "tablet capsule oral solution injection injectable release extended hour suspension cream ointment spray "
    "patch pack powder medical device product drug topical prefilled syringe inhaler actuation sodium "
    "chloride day dose unit acid water".split()
)
_PLAIN = re.compile("[ -~–—“”„’…°µ≤≥×]")


@dataclass(frozen=True, slots=True)
class Reading:
    """One answer of the model about pictures, as it wrote it."""

    sees: str
    text: str
    labels: tuple[Label, ...]

    @property
    def sentence(self) -> str:
        """The reading as an observation from its pictures."""
        text = self.text.rstrip(" .")
        if len(self.labels) > 1:
            return f"The pictures {_SEVERAL[Sees(self.sees)]} {text}."
        return f"The picture {self.sees} {text}."


@dataclass(frozen=True, slots=True)
class Read:
    """Every reading with its verdict, and the reports that some of them contradict."""

    claims: tuple[Claim, ...]
    against: Mapping[int, Disagreement]
    """Place of a claim → what it disagrees with."""


def parse_readings(answer: str) -> tuple[Reading, ...]:
    """Return the readings of an answer, in order. What is none is passed over."""
    found = []
    for item in objects_of(answer):
        text, sees, cites = item.get("text"), item.get("sees"), item.get("cites")
        if not isinstance(text, str) or not text.strip() or sees not in set(Sees):
            continue
        labels = [Label(one) for one in cites if isinstance(one, str)] if isinstance(cites, list) else []
        found.append(Reading(str(sees), " ".join(text.split()), tuple(dict.fromkeys(labels))))
    return tuple(found)


def judge_readings(
    readings: Iterable[Reading], pictures: Mapping[Label, Fact], record: PatientRecord
) -> Read:
    """Return each reading as a claim, and what a report of the same day says otherwise."""
    drugs, reports = _drugs_of(record), reports_among(record.facts)
    claims: list[Claim] = []
    against: dict[int, Disagreement] = {}
    for reading in readings:
        facts = [pictures[label] for label in reading.labels if label in pictures]
        reasons = tuple(dict.fromkeys(_faults(reading, facts, drugs)))
        if not reasons and any(claim.text == reading.sentence for claim in claims):
            reasons = ("said_before",)
        verdict = Verdict.UNSUPPORTED if reasons else Verdict.NOT_VERIFIABLE
        ids = tuple(fact.id for fact in facts)
        found = None if reasons else disagreement(reading.sentence, facts, reports)
        if found is not None:
            against[len(claims)] = found
        claims.append(Claim(SECTION, reading.sentence, ids, Origin.MODEL, verdict, reasons or (READ,)))
    return Read(tuple(claims), against)


def _faults(reading: Reading, facts: Sequence[Fact], drugs: frozenset[str]) -> Iterator[str]:
    """Yield why a reading may not stand: what it says that no picture can show, or that no caption bears."""
    if not reading.labels:
        yield "cites_nothing"
    elif len(facts) < len(reading.labels):
        yield "cites_unknown_label"
    if len(reading.text) > MAX_CHARACTERS:
        yield "too_long"
    yield from _values(reading.text, facts)
    words = frozenset(words_of(reading.text))
    if words & drugs:
        yield "names_a_drug"
    if words & _REPORT:
        yield "speaks_of_a_report"
    if words & _COMPARES and len(facts) < 2:
        yield "compares_one_picture"
    if words & _ADVICE:
        yield "gives_advice"
    if any(not _is_plain(character) for character in reading.text):
        yield "sign_not_in_source"


def _values(text: str, facts: Sequence[Fact]) -> Iterator[str]:
    """A picture holds no measured value and no day but those of its caption."""
    if RELATIVE_DATE.search(text):
        yield "relative_date"
    said = take_apart(text)
    captions = [take_apart(fact.text) for fact in facts]
    if any(not any(day.within(own) for one in captions for own in one.dates) for day in said.dates):
        yield "date_not_in_source"
    if said.numbers:  # not those of the caption either: window and frame are no findings
        yield "number_not_in_source"


def _is_plain(character: str) -> bool:
    return bool(_PLAIN.match(character)) or (
        character.isalpha() and normalize("NFKC", character) == character
    )


def _drugs_of(record: PatientRecord) -> frozenset[str]:
    """Return the words by which drugs are named, here and in this record."""
    taken = (fact.name for fact in record.facts if fact.kind is Kind.MEDICATION)
    own = {word for name in taken for word in words_of(name) if len(word) > 4 and word.isalpha()}
    return _known_drugs() | (own - _PRODUCT)


@cache
def _known_drugs() -> frozenset[str]:
    return (
        frozenset(word for forms in lexicon().drugs for form in forms for word in words_of(form)) - _PRODUCT
    )


def with_readings(
    summary: Summary,
    read: Read,
    pictures: Iterable[Fact],
    unseen: Sequence[LeftOut],
    record: PatientRecord,
) -> Summary:
    """Return the summary with what was read from pictures apart from it, and what could not be seen."""
    kept = [(n, claim) for n, claim in enumerate(read.claims) if claim.verdict is Verdict.NOT_VERIFIABLE]
    plain = tuple(claim for n, claim in kept if n not in read.against)
    apart = [(claim, read.against[n]) for n, claim in kept if n in read.against]
    sections = [*_disagreements(apart)]
    if plain:
        sections.append(SummarySection(SECTION, TITLE, plain, reason=NOT_CHECKED))
    known = {fact.id for fact in summary.facts}
    reports = {found.report.id for _, found in apart} - known
    return replace(
        summary,
        sections=(*summary.sections, *sections),
        refused=(
            *summary.refused,
            *(claim for claim in read.claims if claim.verdict is not Verdict.NOT_VERIFIABLE),
        ),
        facts=(*summary.facts, *(fact for fact in record.facts if fact.id in reports), *pictures),
        left_out=(*summary.left_out, *unseen),
    )


def _disagreements(apart: Sequence[tuple[Claim, Disagreement]]) -> Iterator[SummarySection]:
    """Yield the section of what a person has to look at: each reading, and the report's own line."""
    if not apart:
        return
    claims: list[Claim] = []
    for claim, found in apart:
        claims.append(replace(claim, section=DISAGREEMENTS))
        report = found.report
        own = Claim(DISAGREEMENTS, report.text, (report.id,), Origin.RECORD, Verdict.SUPPORTED)
        claims += [own] if own not in claims else []
    differ = dict.fromkeys(
        f"{found.finding}: the report tells {'another side' if found.what == 'side' else 'it otherwise'}"
        for _, found in apart
    )
    conflict = f"{'; '.join(differ)}. Look at the picture yourself; nothing here decides which is right."
    told = tuple(claims)
    yield SummarySection(DISAGREEMENTS, DISAGREEMENTS_TITLE, told, reason=NOT_CHECKED, conflict=conflict)


def without_readings(summary: Summary) -> Summary:
    """Return the summary without anything that was read from pictures."""
    sections = tuple(one for one in summary.sections if one.key not in (SECTION, DISAGREEMENTS))
    return replace(
        summary,
        sections=sections,
        refused=tuple(claim for claim in summary.refused if claim.section != SECTION),
        facts=tuple(fact for fact in summary.facts if spot_of(fact) is None),
    )
