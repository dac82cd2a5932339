"""Required facts (SAFETY 7): what no summary may leave out, and what may be said where there is nothing.

Absence is never inferred (SAFETY 5): "none recorded" needs a type that was fetched and read whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta

from connectors.fhir.pull import Gap, GapReason
from service.record.allergies import NONE_KNOWN
from service.record.assemble import READER_FAILED, RESTRICTED, UNREADABLE, WITHOUT_SUBJECT
from service.record.dates import on_day
from service.record.facts import Absence, Fact, FactId, Kind, PatientRecord, RequiredKind, Status
from service.record.identity import age_on
from service.record.rules import Limit, RequiredRules, Rule, default_rules

WITHHELD = "part of the record is withheld"
NOT_READ = "a resource of this kind could not be read"
_OVER = (Status.REFUTED, Status.RESOLVED, Status.CANCELLED, Status.STOPPED, Status.COMPLETED, Status.INACTIVE)
_CRITICALITY = {"high": 0, "unable-to-assess": 1, "": 2, "low": 3}


def required_facts(
    record: PatientRecord, *, encounter: str | None = None, rules: RequiredRules | None = None
) -> tuple[RequiredKind, ...]:
    """Return every required kind in the order in which it is shown, each in one of three states.

    `encounter` (`Encounter/9`) is the encounter at hand: it becomes a kind of its own, and its facts are
    always within every window. Windows count back from `record.as_of`. Weight is left out for adults.
    """
    found: list[RequiredKind] = []
    for rule in (rules or default_rules()).rules:
        if rule.under_age is not None and not _is_under(record, rule.under_age):
            continue
        found.append(_required(record, rule, encounter))
        if rule.key == "identity" and encounter is not None:
            found.append(_encounter_kind(record, encounter))
    return tuple(found)


def _required(record: PatientRecord, rule: Rule, encounter: str | None) -> RequiredKind:
    matching = [f for f in record.facts if f.kind in rule.kinds and _counts(f, rule, record)]
    facts = _sorted([f for f in matching if _is_within(f, rule, record, encounter)], rule.sort)
    listed = facts[: rule.cap]
    reason = missing_reason(record, rule.types, rule.also)
    state = Absence.NOT_RETRIEVED if reason else Absence.LISTED if facts else Absence.NONE_RECORDED
    if state is Absence.NONE_RECORDED and record.skipped.get(RESTRICTED):
        # Said of every empty kind alike, so that it does not tell which kind is withheld (SAFETY 20).
        state, reason = Absence.NOT_RETRIEVED, WITHHELD
    return RequiredKind(
        key=rule.key,
        title=rule.title,
        state=state,
        facts=tuple(f.id for f in listed),
        reason=reason,
        conflict=_conflict(facts, rule, encounter),
        hidden=len(facts) - len(listed),
        essential=rule.essential,
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
        ranked.sort(key=lambda f: f.status in _OVER)
    return ranked


def _conflict(facts: Sequence[Fact], rule: Rule, encounter: str | None) -> str:
    if rule.conflict == "none_known":
        return _none_known_conflict(facts, rule)
    if rule.conflict == "differing":
        return _differing_conflict(facts, encounter)
    return ""


def _none_known_conflict(facts: Sequence[Fact], rule: Rule) -> str:
    """An explicit "none known" beside something that is listed as present."""
    current = [f for f in facts if f.status not in _OVER]
    none = [f for f in current if f.category == NONE_KNOWN or rule.none_known.marks(f.codes, f.name)]
    listed = [f for f in current if f not in none]
    if not none or not listed:
        return ""
    return f'"{none[0].name}" is recorded beside {len(listed)} listed; the record does not say which holds.'


def _differing_conflict(facts: Sequence[Fact], encounter: str | None) -> str:
    """Current directives that say different things; every one of them is shown."""
    standing = [f for f in facts if f.kind is Kind.DIRECTIVE and f.status not in _OVER]
    current = [f for f in standing if f.category != "preference"]
    if encounter is not None:
        current = [f for f in current if f.encounter == encounter] or current
    said: dict[str, list[Fact]] = defaultdict(list)
    for fact in current:
        said[_statement(fact)].append(fact)
    if len(said) < 2:
        return ""
    shown = "; ".join(_dated(group[0]) for group in said.values())
    return f"Different statements are recorded: {shown}. The record does not say which holds."


def _statement(fact: Fact) -> str:
    forbids = "not " if fact.status is Status.NOT_DONE else ""
    return f"{forbids}{fact.value or fact.name}".lower()


def _dated(fact: Fact) -> str:
    when = on_day(fact.when) or "undated"
    forbids = "NOT " if fact.status is Status.NOT_DONE else ""
    return f"{forbids}{fact.value or fact.name} ({when})"


def is_previous(fact: Fact, encounter: str | None) -> bool:
    """Tell whether a directive is to be shown as "previous": it is not an order of the encounter at hand."""
    return fact.kind is Kind.DIRECTIVE and encounter is not None and fact.encounter != encounter
