"""The manifest: what the record holds, what of it is shown, what was left out and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator

from service.context.chosen import Context, LeftOut
from service.context.templates import TemplateSet
from service.record.assemble import OWN_OUTPUT
from service.record.dates import show_day
from service.record.facts import Absence, Fact, FactId, Kind, PatientRecord

NO_ROOM = "did not fit"
CARRIED = "told by a digest"
LOST = "the digest of their time failed"
OLDER = "older than the days that are shown"
NO_EVIDENCE = "what an AI wrote is no evidence"


def left_out(
    record: PatientRecord,
    shown: Collection[FactId],
    carried: Collection[FactId],
    lost: Collection[FactId],
    older: Collection[FactId],
    templates: TemplateSet,
) -> tuple[LeftOut, ...]:
    """Count the facts that are not shown, by kind and reason, with the period that they cover."""
    rest: dict[tuple[Kind, str], list[Fact]] = defaultdict(list)
    for fact in record.facts:
        if fact.id not in shown and fact.kind is not Kind.PATIENT:
            reason = templates.unshown.get(fact.kind, NO_ROOM)
            if fact.id in carried or fact.id in lost:
                reason = CARRIED if fact.id in carried else LOST
            elif fact.id in older:
                reason = OLDER
            rest[fact.kind, reason].append(fact)
    found = [_left_out(kind, reason, rest[kind, reason], templates) for kind, reason in sorted(rest)]
    return (*found, *_not_evidence(record))


def _not_evidence(record: PatientRecord) -> Iterator[LeftOut]:
    """Count what an AI wrote: whole documents, and passages that a person pasted into notes (SAFETY 25)."""
    documents = [
        skip
        for skip in record.skips
        if skip.reason == OWN_OUTPUT and not skip.reference.startswith("Device/")
    ]
    for kind, title, count in (
        ("ai_document", "Entries written by an AI", len(documents)),
        ("ai_passage", "Passages of an AI pasted into notes", record.pasted),
    ):
        if count:
            yield LeftOut(kind, title, count, "", "", NO_EVIDENCE)


def _left_out(kind: Kind, reason: str, facts: Collection[Fact], templates: TemplateSet) -> LeftOut:
    dated = sorted((fact.when for fact in facts if fact.when is not None), key=lambda when: when.earliest)
    return LeftOut(
        kind=kind.value,
        title=templates.kind_titles[kind],
        count=len(facts),
        earliest=show_day(dated[0]) if dated else "",
        latest=show_day(dated[-1]) if dated else "",
        reason=reason,
    )


def shown_kinds(
    record: PatientRecord, shown: Collection[FactId], templates: TemplateSet
) -> tuple[tuple[str, int, int], ...]:
    """Return (title, held, shown) of every kind of fact that the record holds."""
    facts = [fact for fact in record.facts if fact.kind is not Kind.PATIENT]
    held = Counter(fact.kind for fact in facts)
    told = Counter(fact.kind for fact in facts if fact.id in shown)
    return tuple((templates.kind_titles[kind], held[kind], told[kind]) for kind in sorted(held))


def manifest_of(context: Context) -> list[str]:
    """Return the manifest as sentences: what was read, what may be said of empty kinds, what is not shown."""
    day = show_day(context.as_of) if context.as_of else "an unknown date"
    lines = [f"The record holds {context.searched} statements, the newest of {day}."]
    lines += [
        f"NOT RETRIEVED: {gap.resource_type or 'part of the record'} ({gap.reason})" for gap in context.gaps
    ]
    for kind in context.required:
        if kind.state is Absence.NOT_RETRIEVED:
            lines.append(f"{kind.title}: {kind.state.value}{f' ({kind.reason})' if kind.reason else ''}")
    none = "; ".join(kind.title for kind in context.required if kind.state is Absence.NONE_RECORDED)
    if none:
        lines.append(f"None recorded, search complete: {none}.")
    held = {title: held for title, held, _ in context.kinds}
    whole = ", ".join(title for title, held, shown in context.kinds if shown == held)
    if whole:
        lines.append(f"All are shown: {whole}.")
    return lines + [describe_left_out(item, held.get(item.title, 0)) for item in context.left_out]


def describe_left_out(item: LeftOut, held: int = 0) -> str:
    """Return for example `Results: 812 of 900, 2009 to 2026 (did not fit)`.

    `held` is how many of the kind the record holds; 0 leaves it unsaid. Years are enough for a model.
    """
    ends = [year for year in dict.fromkeys((item.earliest[-4:], item.latest[-4:])) if year]
    period = f", {' to '.join(ends)}" if ends else ""
    reason = f" ({item.reason})" if item.reason else ""
    return f"{item.title}: {item.count}{f' of {held}' if held else ''}{period}{reason}"
