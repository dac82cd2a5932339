"""CarePlan and Goal → what is planned and aimed at; an activity says its own status."""

from __future__ import annotations

from collections.abc import Iterator

from service.record.dates import labelled, show_day, span
from service.record.dosage import show_timing
from service.record.facts import Fact, Kind, Status
from service.record.fhirjson import Element
from service.record.reading import Reading, kept, line, tell, words
from service.record.statuses import ACTIVITY, GOAL, REQUEST, read_status
from service.record.values import read_value


def read_care_plan(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield the plan, and one fact for each of its activities."""
    categories = [c.name for c in resource.concepts("category")]
    specific = [n for n in categories if n.lower() not in ("assess-plan", "assessment and plan of treatment")]
    name = resource.text("title") or ", ".join(specific) or resource.text("description")
    name = name or ", ".join(categories) or "Care plan"
    standing = read_status(resource, "status", REQUEST)
    period = resource.child("period")
    start, end = reading.when(period, "start"), reading.when(period, "end")
    details = kept(
        ("description", resource.text("description") if resource.text("description") != name else ""),
        ("for", reading.reasons(resource, "addressesReference") or reading.names_of(resource, "addresses")),
        ("goals", reading.names_of(resource, "goal")),
        ("note", resource.notes_text()),
    )
    intent = resource.text("intent")
    text = line(
        name,
        words("care plan,", standing.words, f"({intent})" if intent else "", span(start, end)),
        *tell(details),
    )
    yield reading.fact(
        Kind.PLAN, name, text, status=standing.status, recorded_status=standing.recorded, when=start,
        until=end,
        details=details, category=", ".join(categories), author=reading.name_of(resource.child("author")),
    )  # fmt: skip
    for activity in resource.children("activity"):
        yield from _activity(activity, name, reading)


def _activity(activity: Element, plan: str, reading: Reading) -> Iterator[Fact]:
    detail = activity.child("detail")
    concept = detail.concept("code")
    reference = activity.child("reference") or activity.child("plannedActivityReference")
    name = concept.name or detail.text("description") or reading.name_of(reference)
    if not name:
        return
    standing = read_status(detail, "status", ACTIVITY)
    status, said = standing.status, standing.words
    if not detail:
        said = "status in the activity's own record"
    if detail.flag("doNotPerform") or detail.flag("prohibited"):
        status, said = Status.NOT_DONE, f"NOT to be done ({said})"
    scheduled = show_timing(detail.child("scheduledTiming"), reading) or detail.text("scheduledString")
    start, end = reading.occurred(detail, "scheduled", past=False)
    details = kept(
        ("plan", plan),
        ("status reason", detail.concept("statusReason").name),
        ("reason", reading.reasons(detail)),
        ("description", detail.text("description") if detail.text("description") != name else ""),
        ("scheduled", scheduled or span(start, end)),
        ("progress", activity.notes_text("progress")),
    )
    text = line(name, f"care plan activity, {said}", *tell(details))
    yield reading.fact(
        Kind.PLAN, name, text, codes=concept.codes, status=status, recorded_status=standing.recorded,
        when=start,
        until=end, details=details,
    )  # fmt: skip


def read_goal(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield the one statement of a Goal, with how far it was reached."""
    concept = resource.concept("description")
    name = reading.name_or_narrative(concept.name)
    if not name:
        return
    key = "lifecycleStatus" if "lifecycleStatus" in resource.raw else "status"
    standing = read_status(resource, key, GOAL)
    start = reading.when(resource, "startDate")
    details = kept(
        ("achievement", resource.concept("achievementStatus").name),
        ("target", ", ".join(t for target in resource.children("target") if (t := _target(target, reading)))),
        ("status reason", resource.concept("statusReason").name),
        ("for", reading.names_of(resource, "addresses")),
        ("outcome", ", ".join(c.name for c in resource.concepts("outcomeCode"))),
        ("priority", resource.concept("priority").name),
        ("note", resource.notes_text()),
    )
    text = line(
        name,
        words("goal,", standing.words, labelled("from", start)),
        *tell(details),
    )
    yield reading.fact(
        Kind.GOAL, name, text, codes=concept.codes, status=standing.status, recorded_status=standing.recorded,
        when=start, details=details, author=reading.name_of(resource.child("expressedBy")),
    )  # fmt: skip


def _target(target: Element, reading: Reading) -> str:
    value = read_value(target, "detail", reading.chart.date).text
    due = reading.when(target, "dueDate")
    return words(target.concept("measure").name, value, f"by {show_day(due)}" if due else "")
