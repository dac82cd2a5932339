"""The statements of a document, judged anew by the sources that were read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from service.grounding.check import Judge
from service.grounding.claims import CitedClaim, judge_claims
from service.grounding.summary import RULES_VERSION, Verdict
from service.proof.evidence import Evidence, cited_versions
from service.proof.report import Finding
from service.record.facts import Fact, PatientRecord
from service.writeback.clean import one_line
from service.writeback.rules import lexicon_digest


def check_citations(
    statements: Sequence[Mapping[str, Any]], sources: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    """Yield every statement that cites nothing or what is not listed, and every verdict that forbids it."""
    numbers = [source.get("number") for source in sources]
    for number in sorted({str(number) for number in numbers if numbers.count(number) > 1}):
        yield Finding("duplicate_source", f"source {number}")
    for place, statement in enumerate(statements, 1):
        cited = _cited(statement)
        if not cited or not all(number in numbers for number in cited):
            yield Finding("citation_missing", f"statement {place}")
        if statement.get("verdict") != Verdict.SUPPORTED and not _is_of_pictures(statement, sources):
            yield Finding("verdict_not_supported", f"statement {place}")


def check_sources(
    record: PatientRecord, sources: Sequence[Mapping[str, Any]], evidence: Evidence
) -> Iterator[Finding]:
    """Yield every source whose shown line or place in a note is not what is read from it now.

    Only sources all of whose versions were read are looked at; of the others is said why they were not.
    """
    facts = {one_line(fact.id): fact for fact in record.facts}
    for source in sources:
        if not _is_read(source, evidence) or _is_picture(source):
            continue  # of a picture the record says that there is one, and nothing that could be compared
        where = f"source {source.get('number')}"
        fact = facts.get(str(source.get("fact")))
        span = source.get("span")
        code = ""
        if fact is None or list(fact.span or ()) != (span or []):
            code = "span_not_in_note" if span else "source_says_otherwise"
        elif one_line(fact.text) != source.get("text"):
            code = "source_says_otherwise"
        if code:
            yield Finding("leans_on_a_change" if _leans(source, evidence) else code, where)


def judge_again(
    record: PatientRecord,
    statements: Sequence[Mapping[str, Any]],
    sources: Sequence[Mapping[str, Any]],
    evidence: Evidence,
) -> Iterator[Finding]:
    """Yield every statement that the present rules do not find borne out by the versions it cites."""
    listed = {source.get("number"): source for source in sources}
    judge, facts = Judge(record.identity.gender, record), {one_line(fact.id): fact for fact in record.facts}
    for place, statement in enumerate(statements, 1):
        behind = [listed[number] for number in _cited(statement) if number in listed]
        if not behind or _is_of_pictures(statement, sources):
            continue  # said by `check_citations`, or read from pictures and said to be unchecked
        if not all(_is_read(source, evidence) for source in behind):
            yield Finding("verdict_not_judged", f"statement {place}")
            continue
        text = str(statement.get("text"))
        meant = [facts[name] for source in behind if (name := str(source.get("fact"))) in facts]
        if _is_a_line(text, meant) or judge.verdict(text, meant)[0] is Verdict.SUPPORTED:
            continue
        # A fact's id may be another one by now: then any statement of the cited resources may bear it out.
        claim = CitedClaim(text, tuple(str(source.get("reference")) for source in behind))
        (judged,) = judge_claims(record, [claim])
        if judged.verdict != Verdict.SUPPORTED:
            why = " ".join(reason.code for reason in judged.reasons)
            leans = any(_leans(source, evidence) for source in behind)
            code = "leans_on_a_change" if leans else "verdict_does_not_follow"
            yield Finding(code, f"statement {place}", why)


def _is_a_line(text: str, facts: Sequence[Fact]) -> bool:
    """Tell whether a statement is the line of what it cites, word for word: as our own code writes them."""
    return len(facts) == 1 and one_line(facts[0].text) == text


def check_rules(proof: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield whether the statements were judged by other rules than the present ones."""
    rules = proof.get("rules")
    then = rules if isinstance(rules, dict) else {}
    if then.get("version") != RULES_VERSION:
        yield Finding("rules_differ", "document", f"{then.get('version')} then, {RULES_VERSION} now")
    elif then.get("lexicon_sha256") != lexicon_digest():
        yield Finding("rules_differ", "document", "lexicon")


def _is_of_pictures(statement: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether a statement says of itself that it is not checked, and rests on pictures alone."""
    cited = [source for source in sources if source.get("number") in _cited(statement)]
    says_so = statement.get("verdict") == Verdict.NOT_VERIFIABLE
    return says_so and bool(cited) and all(map(_is_picture, cited))


def _is_picture(source: Mapping[str, Any]) -> bool:
    return isinstance(source.get("picture"), dict)


def _cited(statement: Mapping[str, Any]) -> list[Any]:
    numbers = statement.get("sources")
    return numbers if isinstance(numbers, list) else []


def _is_read(source: Mapping[str, Any], evidence: Evidence) -> bool:
    return all(one.reference in evidence.resources for one in cited_versions([source]))


def _leans(source: Mapping[str, Any], evidence: Evidence) -> bool:
    """Tell whether a source's line rests on what the server no longer has as it was then."""
    return any(one.reference in evidence.leaning for one in cited_versions([source]))
