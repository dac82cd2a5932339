"""From checked claims to a Summary: published claims under their headings, and what is missing added.

Required facts that no published sentence covers are added by code and marked as such; nothing is said of
what is not there beyond the three states of SAFETY 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from service.context.chosen import Context
from service.context.templates import SectionRule, TemplateSet
from service.grounding.since import Earlier, known_by, since_section
from service.grounding.source import content
from service.grounding.summary import Claim, Origin, Summary, SummarySection, Verdict
from service.grounding.words import take_apart, units_of
from service.record.facts import Absence, Fact, FactId, PatientRecord, RequiredKind
from service.record.required import call_previous

RESTRICTED = "restricted"
"""The reason under which the record counts resources left out by their security label."""


def complete_summary(
    kind: str,
    record: PatientRecord,
    context: Context,
    templates: TemplateSet,
    claims: Sequence[Claim],
    earlier: Earlier | None = None,
) -> Summary:
    """Build the Summary: every published claim, every required fact, and the account of the rest.

    With an `earlier` summary of this kind it opens with what is new since then.
    """
    previous = {fact_id for kind in context.required for fact_id in kind.previous}
    # What a former encounter ordered is told by its own line alone, which says so (SAFETY 7).
    supported = [
        claim
        for claim in claims
        if claim.verdict is Verdict.SUPPORTED and previous.isdisjoint(claim.citations)
    ]
    sections = tuple(_sections(record, context, templates, supported))
    if earlier is not None:
        sections = (*since_section(record, context.required, earlier), *sections)
    shown = {claim.text for section in sections for claim in section.claims}
    cited = {fact_id for section in sections for claim in section.claims for fact_id in claim.citations}
    given = {fact.id for fact in context.facts.values()}
    return Summary(
        kind=kind,
        identity=record.identity,
        sections=sections,
        refused=tuple(
            _refused(claim, record, context, templates) for claim in claims if not _is_shown(claim, shown)
        ),
        facts=tuple(fact for fact in record.facts if fact.id in cited | given),
        left_out=context.left_out,
        gaps=context.gaps,
        incomplete=tuple(
            required.title
            for required in context.required
            if required.essential and required.state is Absence.NOT_RETRIEVED
        ),
        as_of=context.as_of,
        searched=context.searched,
        restricted=bool(record.skipped.get(RESTRICTED)),
        known=known_by(record),
        security=record.security,
    )


def _is_shown(claim: Claim, shown: set[str]) -> bool:
    return claim.verdict is Verdict.SUPPORTED and claim.text in shown


def _refused(claim: Claim, record: PatientRecord, context: Context, templates: TemplateSet) -> Claim:
    """Give a supported sentence its reason: no heading here, or the record's own line beside it says more."""
    if claim.verdict is not Verdict.SUPPORTED:
        return claim
    has_heading = heading_of(claim, record, context, templates)
    reason = "the_record_says_more" if has_heading else "no_heading_for_it"
    return replace(claim, verdict=Verdict.NOT_CHECKED, reasons=(reason,))


def covers(text: str, fact: Fact) -> bool:
    """Say whether a sentence carries everything that the fact's own line carries: words, numbers, dates."""
    units = units_of(fact.text)
    source, said = take_apart(fact.text, units), take_apart(text, units)
    return (
        content(source.words) <= content(said.words)
        and set(source.numbers) <= set(said.numbers)
        and set(source.dates) <= set(said.dates)
    )


def _sections(
    record: PatientRecord, context: Context, templates: TemplateSet, published: Sequence[Claim]
) -> Iterator[SummarySection]:
    required = {kind.key: kind for kind in context.required}
    known = {key for rule in templates.sections for key in rule.required}
    # A site's own required kind, which no template knows, gets a heading of its own at the end.
    own = [
        SectionRule(kind.key, kind.title, (), (kind.key,))
        for kind in context.required
        if kind.key not in known
    ]
    told: set[str] = set()
    for rule in (*templates.sections, *own):
        wanted = [required[key] for key in rule.required if key in required]
        here = [claim for claim in published if heading_of(claim, record, context, templates) == rule.key]
        claims = _claims(rule, record, wanted, published, here, told)
        told.update(claim.text for claim in claims)
        if wanted or claims:
            yield _section(rule, wanted, claims)


def _claims(
    rule: SectionRule,
    record: PatientRecord,
    required: Sequence[RequiredKind],
    published: Sequence[Claim],
    here: Sequence[Claim],
    told: set[str],
) -> tuple[Claim, ...]:
    """Required facts first, in their order, each by the sentence that covers it or by its own line.

    A sentence about nothing but facts whose own lines stand there is left out: the lines say more. A fact
    that two headings require stands under both; any other sentence is told once.
    """
    ordered: dict[str, Claim] = {}
    added: set[FactId] = set()
    previous = {fact_id for kind in required for fact_id in kind.previous}
    for fact_id in (fact_id for kind in required for fact_id in kind.facts):
        claim = _covering(record.fact(fact_id), published)
        if claim is None:
            claim = _added(rule.key, record.fact(fact_id), fact_id in previous)
            added.add(fact_id)
        ordered[claim.text] = claim
    for claim in here:
        if claim.text not in told and not added.issuperset(claim.citations):
            ordered.setdefault(claim.text, claim)
    return tuple(ordered.values())


def heading_of(claim: Claim, record: PatientRecord, context: Context, templates: TemplateSet) -> str:
    """Return the key of the heading under which a claim stands: that of the first fact it cites."""
    fact = record.fact(claim.citations[0])
    rule = templates.heading_of(fact, context.stay is not None and context.stay.holds(fact))
    return rule.key if rule else ""


def _section(
    rule: SectionRule, required: Sequence[RequiredKind], claims: tuple[Claim, ...]
) -> SummarySection:
    return SummarySection(
        key=rule.key,
        title=rule.title,
        claims=claims,
        state=_worst(kind.state for kind in required),
        reason="; ".join(kind.reason for kind in required if kind.reason),
        conflict=" ".join(kind.conflict for kind in required if kind.conflict),
        hidden=sum(kind.hidden for kind in required),
    )


def _covering(fact: Fact, claims: Sequence[Claim]) -> Claim | None:
    return next((claim for claim in claims if fact.id in claim.citations and covers(claim.text, fact)), None)


def _added(section: str, fact: Fact, is_previous: bool) -> Claim:
    text = call_previous(fact) if is_previous else fact.text
    return Claim(section, text, (fact.id,), Origin.RECORD, Verdict.SUPPORTED)


def _worst(states: Iterable[Absence]) -> Absence | None:
    found = set(states)
    order = (Absence.NOT_RETRIEVED, Absence.LISTED, Absence.NONE_RECORDED)
    return next((state for state in order if state in found), None)
