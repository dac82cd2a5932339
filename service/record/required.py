"""Required facts (SAFETY 7): what no summary may leave out, and what may be said where there is nothing.

Absence is never inferred (SAFETY 5): "none recorded" needs a type that was fetched and read whole. Conflicts
are shown with the facts that they are between, and never resolved (SAFETY 12).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta

from connectors.fhir.pull import Gap, GapReason
from service.record.assemble import READER_FAILED, RESTRICTED, UNREADABLE, WITHOUT_SUBJECT
from service.record.conflicts import OVER, codes_of, find_conflicts, last_time, record_of, watched
from service.record.facts import (
    Absence,
    Fact,
    FactId,
    Kind,
    PatientRecord,
    Precision,
    RequiredKind,
    Status,
)
from service.record.identity import age_on
from service.record.rules import Limit, RequiredRules, Rule, default_rules

WITHHELD = "part of the record is withheld"
NOT_READ = "a resource of this kind could not be read"
_CRITICALITY = {"high": 0, "unable-to-assess": 1, "": 2, "low": 3}
_GIVEN = (Status.COMPLETED, Status.IN_PROGRESS, Status.STOPPED)
"""Of an administration: some of the drug was given."""


def required_facts(
    record: PatientRecord, *, encounter: str | None = None, rules: RequiredRules | None = None
) -> tuple[RequiredKind, ...]:
    """Return every required kind in the order in which it is shown, each in one of three states.

    `encounter` (`Encounter/9`) is the encounter at hand: it becomes a kind of its own, and its facts are
    always within every window. Windows count back from `record.as_of`. Weight is left out for adults.
    """
    found: list[RequiredKind] = []
    rules = rules or default_rules()
    for rule in rules.rules:
        if rule.under_age is not None and not _is_under(record, rule.under_age):
            continue
        found.append(_required(record, rule, rules, encounter))
        if rule.key == "identity" and encounter is not None:
            found.append(_encounter_kind(record, encounter))
    return tuple(found)


def _required(record: PatientRecord, rule: Rule, rules: RequiredRules, encounter: str | None) -> RequiredKind:
    matching = [f for f in record.facts if f.kind in rule.kinds and _counts(f, rule, record)]
    facts = _sorted([f for f in matching if _is_within(f, rule, record, encounter)], rule.sort)
    weighed = _weighed(record, rule, rules)
    conflicts = find_conflicts(facts, record, rule, rules, encounter, weighed)
    # No cap hides what was given last, or one side of a conflict.
    kept = {f.id: f for f in (*_last_given(record, rule), *(f for c in conflicts for f in c.facts))}
    others = [f for f in facts if f.id not in kept]
    listed = _sorted([*others[: max(0, rule.cap - len(kept))], *kept.values()], rule.sort)
    reason = missing_reason(record, rule.types, rule.also)
    state = Absence.NOT_RETRIEVED if reason else Absence.LISTED if listed else Absence.NONE_RECORDED
    if state is Absence.NONE_RECORDED and record.skipped.get(RESTRICTED):
        # Said of every empty kind alike, so that it does not tell which kind is withheld (SAFETY 20).
        state, reason = Absence.NOT_RETRIEVED, WITHHELD
    return RequiredKind(
        key=rule.key,
        title=rule.title,
        state=state,
        facts=tuple(f.id for f in listed),
        reason=reason,
        conflict=" ".join(conflict.sentence for conflict in conflicts),
        hidden=len(others) + len(kept) - len(listed),
        essential=rule.essential,
        previous=tuple(f.id for f in matching if is_previous(f, record, encounter)),
    )


def _encounter_kind(record: PatientRecord, encounter: str) -> RequiredKind:
    facts: tuple[FactId, ...] = tuple(
        f.id for f in record.facts if f.kind is Kind.ENCOUNTER and f.source.reference == encounter
    )
    reason = missing_reason(record, frozenset({"Encounter"}), frozenset())
    if not facts and not reason:
        reason = "the encounter at hand is not among what was read"
    state = Absence.NOT_RETRIEVED if reason else Absence.LISTED
    return RequiredKind("encounter", "This encounter", state, facts, reason, essential=True)


def missing_reason(record: PatientRecord, types: Iterable[str], also: Iterable[str]) -> str:
    """Return why absence may not be stated for these types; empty where all were fetched and read whole.

    A type of `also` that the server does not offer is no gap: another type holds such facts.
    """
    needed, helpful = frozenset(types), frozenset(also)
    reasons = [_gap_words(gap) for gap in record.gaps if _concerns(gap, needed, helpful)]
    for problem in record.problems:
        kind, _, what = problem.partition(": ")
        if kind in needed | helpful and what in (UNREADABLE, READER_FAILED, WITHOUT_SUBJECT):
            reasons.append(NOT_READ)
    return "; ".join(dict.fromkeys(reasons))


def _concerns(gap: Gap, needed: frozenset[str], helpful: frozenset[str]) -> bool:
    if gap.resource_type is None or gap.resource_type in needed:
        return True
    return gap.resource_type in helpful and gap.reason is not GapReason.NOT_SUPPORTED


def _gap_words(gap: Gap) -> str:
    what = gap.resource_type or "the whole record"
    return f"{what}: {gap.reason.value}{f' ({gap.detail})' if gap.detail else ''}"


def _is_under(record: PatientRecord, years: int) -> bool:
    """Tell whether the patient was younger than this at the record's newest time; True where unknown."""
    if record.as_of is None:
        return True
    age = age_on(record.identity.birth_date, record.as_of.day)
    return age is None or age < years


def _counts(fact: Fact, rule: Rule, record: PatientRecord) -> bool:
    """Tell whether a fact is of the required kind: by flags and limits, or by status, codes and words."""
    if fact.span is not None:  # the note itself counts, not each of its sentences
        return False
    if fact.person.role != "patient":
        # A critical finding in a fetus belongs before the reader's eyes; its text says whose it is.
        return _is_flagged(fact, rule)
    if rule.flags or rule.limits:
        return fact.status in rule.statuses or _is_critical(fact, rule, record)
    if rule.statuses and fact.status not in rule.statuses and not _forbids(fact, rule):
        return False
    if not rule.match or fact.kind in rule.whole_kinds:
        return True
    return fact.kind is Kind.DIRECTIVE or rule.match.marks(fact.codes, fact.name)


def _forbids(fact: Fact, rule: Rule) -> bool:
    record = dict(fact.details).get("record", "")
    return fact.status is Status.NOT_DONE and record in rule.not_done


def _is_critical(fact: Fact, rule: Rule, record: PatientRecord) -> bool:
    if fact.status is Status.CANCELLED:
        return False
    return _is_flagged(fact, rule) or any(_is_beyond(fact, limit, record) for limit in rule.limits)


def _is_flagged(fact: Fact, rule: Rule) -> bool:
    return any(flag.lower() in rule.flags for flag in fact.flags)


def _is_beyond(fact: Fact, limit: Limit, record: PatientRecord) -> bool:
    quantity = fact.quantity
    if quantity is None or quantity.number is None or quantity.unit not in limit.units:
        return False
    if not any((code.system, code.code) in limit.codes for code in fact.codes):
        return False
    day = fact.when.day if fact.when else record.as_of.day if record.as_of else None
    age = age_on(record.identity.birth_date, day) if day else None
    if age is not None and age < limit.age_from:
        return False
    too_low = limit.low is not None and (
        quantity.number < limit.low or (quantity.number <= limit.low and "<" in quantity.comparator)
    )
    too_high = limit.high is not None and (
        quantity.number > limit.high or (quantity.number >= limit.high and ">" in quantity.comparator)
    )
    return too_low or too_high


def _is_within(fact: Fact, rule: Rule, record: PatientRecord, encounter: str | None) -> bool:
    if rule.window_days is None or fact.when is None or record.as_of is None:
        return True
    if encounter is not None and fact.encounter == encounter:
        return True
    return fact.when.latest >= record.as_of.earliest - timedelta(days=rule.window_days)


def _sorted(facts: list[Fact], sort: str) -> list[Fact]:
    """Newest first; undated ones before all, since their age is unknown. Allergies: high criticality."""
    ranked = sorted(facts, key=lambda f: f.id)
    ranked.sort(key=lambda f: f.when.earliest.timestamp() if f.when else float("inf"), reverse=True)
    if sort == "criticality":
        ranked.sort(key=lambda f: _CRITICALITY.get(dict(f.details).get("criticality", ""), 2))
        ranked.sort(key=lambda f: f.status in OVER)
    return ranked


def _last_given(record: PatientRecord, rule: Rule) -> Iterator[Fact]:
    """Yield the newest administration of each product that is watched in this kind."""
    for table in watched().last_given:
        if table.key != rule.key:
            continue
        newest: dict[str, Fact] = {}
        for fact in record.facts:
            if _was_given(fact) and table.match.marks(fact.codes, fact.name):
                other = newest.get(fact.name.casefold())
                if other is None or (last_time(fact), fact.id) > (last_time(other), other.id):
                    newest[fact.name.casefold()] = fact
        yield from (f for f in newest.values() if _is_recent(f, table.window_days, record))


def _was_given(fact: Fact) -> bool:
    return record_of(fact) == "administration" and fact.status in _GIVEN


def _is_recent(fact: Fact, days: int, record: PatientRecord) -> bool:
    if record.as_of is None or (fact.until or fact.when) is None:
        return True
    return last_time(fact) >= (record.as_of.earliest - timedelta(days=days)).timestamp()


def _weighed(record: PatientRecord, rule: Rule, rules: RequiredRules) -> list[Fact]:
    """Return the weights that this kind compares; none where they are told with the weight itself."""
    weight = next((r for r in rules.rules if r.key == "weight"), None)
    if rule.conflict != "weights" or weight is None:
        return []
    if rule is not weight and (weight.under_age is None or _is_under(record, weight.under_age)):
        return []
    return [f for f in record.facts if _is_weight(f, weight, record) and _is_within(f, rule, record, None)]


def _is_weight(fact: Fact, rule: Rule, record: PatientRecord) -> bool:
    if (
        fact.kind not in rule.kinds
        or not _counts(fact, rule, record)
        or codes_of(fact) & watched().weights_apart
    ):
        return False
    has_day = fact.when is not None and fact.when.precision in (Precision.DAY, Precision.TIME)
    return has_day and fact.quantity is not None and fact.quantity.number is not None


def is_previous(fact: Fact, record: PatientRecord, encounter: str | None) -> bool:
    """Tell whether a directive is of a time before the encounter at hand: of another one, or known older.

    One that names no encounter and has no date, or one of this stay, is not said to be previous.
    """
    if fact.kind is not Kind.DIRECTIVE or encounter is None:
        return False
    if fact.encounter is not None:
        return fact.encounter != encounter
    starts = [
        f.when.earliest
        for f in record.facts
        if f.kind is Kind.ENCOUNTER and f.when and encounter in (f.encounter, f.source.reference)
    ]
    return bool(starts) and fact.when is not None and fact.when.latest < min(starts)


def call_previous(fact: Fact) -> str:
    """Return the line of a directive that is previous, with the words that say so (SAFETY 7)."""
    return f"Previous, not of this encounter: {fact.text}"
