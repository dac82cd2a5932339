"""Claims of anyone about a patient, judged by what they cite: for audits, and for measuring the rules.

No citation is corrected here, and nothing is told apart by who wrote it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from service.grounding.check import Judge
from service.grounding.quotation import meant_passages
from service.grounding.reasons import Reason, reason_of
from service.grounding.summary import Verdict
from service.record.facts import Fact, PatientRecord

WORDS = {Verdict.SUPPORTED: "supported", Verdict.CONTRADICTED: "contradicted"}
"""What is said of a claim; of every other verdict it is REFUSED."""
REFUSED = "unsupported"


@dataclass(frozen=True, slots=True)
class CitedClaim:
    """A sentence and the resources that it cites: `Observation/7`, a version is passed over."""

    text: str
    cites: tuple[str, ...]

    @classmethod
    def of(cls, item: Any) -> CitedClaim:
        """Read a claim out of JSON; what is none has no text, and nothing can bear it out."""
        text, cites = (item.get("text"), item.get("cites")) if isinstance(item, dict) else (None, None)
        named = tuple(cite for cite in cites if isinstance(cite, str)) if isinstance(cites, list) else ()
        return cls(text if isinstance(text, str) else "", named)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of one claim: `supported`, `unsupported` or `contradicted`, and why."""

    verdict: str
    reasons: tuple[Reason, ...]


def judge_claims(record: PatientRecord, claims: Iterable[CitedClaim]) -> Iterator[Judgement]:
    """Judge each claim by the facts of the resources that it cites, in order."""
    facts: dict[str, list[Fact]] = defaultdict(list)
    for fact in record.facts:
        for source in fact.sources:
            facts[source.reference].append(fact)
    judge = Judge(record.identity.gender, record)
    for claim in claims:
        yield _judged(claim, [facts.get(_plain(cite), []) for cite in claim.cites], judge)


def _judged(claim: CitedClaim, behind: Sequence[Sequence[Fact]], judge: Judge) -> Judgement:
    if not any(character.isalnum() for character in claim.text):
        return Judgement(REFUSED, (reason_of("not_a_claim"),))
    if not all(behind):
        return Judgement(REFUSED, (reason_of("cites_unknown"),))
    cited = dict.fromkeys(fact for group in behind for fact in _meant(group, claim.text, judge))
    verdict, reasons = judge.verdict(claim.text, list(cited))
    return Judgement(WORDS.get(verdict, REFUSED), tuple(map(reason_of, reasons)))


def _meant(group: Sequence[Fact], text: str, judge: Judge) -> Sequence[Fact]:
    """Return which statements of one resource are meant; a note's own line where no sentence is quoted."""
    sentences = meant_passages([fact for fact in group if fact.span is not None], text)
    rest = [fact for fact in group if fact.span is None]
    return sentences or judge.meant(rest or group, text)


def _plain(cite: str) -> str:
    return cite.partition("/_history/")[0]
