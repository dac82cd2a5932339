"""The evidence of one citation: what was read then, and whether the chart still says it. Values only.

A quote is a part of the cited resource's own text, or it is not shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from connectors.errors import ConnectorError, NotFoundError, RefusedError, TokenRefused, Unauthorized
from connectors.fhir.sight import version_of
from service.api.pages import Source, SummaryPage
from service.record.assemble import Policy, assemble_record
from service.record.facts import Fact, Kind
from service.record.fhirjson import one_line

REVIEW_ACTIVITY: Final = "urn:epicrisis:activity:record-review"
"""SMART Web Messaging 1.0, activity catalog: what it has no word for is named by a full URI."""


class Now(StrEnum):
    """What a cited resource is in the chart now."""

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    GONE = "gone"
    REFUSED = "refused"
    FAILED = "failed"
    ENDED = "ended"
    """The user's token is not good any more."""

    @property
    def may_show(self) -> bool:
        """Tell whether this user could read it just now."""
        return self in (Now.UNCHANGED, Now.CHANGED)


_WORDS: Final = {
    Now.UNCHANGED: "Unchanged in the chart",
    Now.CHANGED: "Changed in the chart since the summary was made",
    Now.GONE: "No longer readable: it was deleted, or your account may not read it",
    Now.REFUSED: "Not shown: your account may not read this",
    Now.FAILED: "Not shown: it could not be read now. Check the chart",
    Now.ENDED: "Your session with the EHR is over. Open Epicrisis again from the patient's chart",
}


@dataclass(frozen=True, slots=True)
class Quoted:
    """A note's text, cut around the sentence that is cited."""

    before: str
    quote: str
    after: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """One citation, opened."""

    number: int
    now: Now
    words: str
    source: Source | None
    """None where the user cannot read it now."""
    quoted: Quoted | None
    reads_now: tuple[str, ...]
    """What the resource says now, where it changed."""
    reference: str
    """`Condition/7`: what the EHR is asked to open; empty where it cannot be read."""
    activity: tuple[str, str] = ("", "")
    """Type of a SMART Web Messaging activity, and the name of its parameter."""


def state_of(fact: Fact, live: dict[str, Any] | ConnectorError) -> Now:
    """Return what became of a fact's resource, given what reading it brought."""
    if isinstance(live, Unauthorized | TokenRefused):
        return Now.ENDED
    if isinstance(live, RefusedError):
        return Now.REFUSED
    if isinstance(live, NotFoundError):
        return Now.GONE
    if isinstance(live, ConnectorError):
        return Now.FAILED
    then = fact.source.version or fact.source.updated
    return Now.UNCHANGED if not then or version_of(live) == then else Now.CHANGED


def build_evidence(
    shown: SummaryPage,
    number: int,
    fact: Fact,
    facts: Iterable[Fact],
    live: dict[str, Any] | ConnectorError,
    policy: Policy,
) -> Evidence:
    """Show a fact as it was read, beside what its resource is now. What cannot be read now is not shown."""
    now = state_of(fact, live)
    if not now.may_show or isinstance(live, ConnectorError):
        return Evidence(number, now, _WORDS[now], None, None, (), "")
    current = _facts_of(live, policy)
    same = [one for one in current if one.source.reference == fact.source.reference]
    held = [one for one in facts if one.source.reference == fact.source.reference]
    return Evidence(
        number=number,
        now=now,
        words=_WORDS[now],
        source=shown.source(number),
        quoted=_quote(fact, [*held, *(same if now is Now.UNCHANGED else ())]),
        reads_now=tuple(one.text for one in same if one.span is None) if now is Now.CHANGED else (),
        reference=fact.source.reference,
        activity=_activity(fact),
    )


def _facts_of(resource: dict[str, Any], policy: Policy) -> tuple[Fact, ...]:
    """Read one resource by itself: about whom it is was settled when the summary was made."""
    subject = resource.get("subject") or resource.get("patient")
    reference = subject.get("reference") if isinstance(subject, dict) else None
    patient_id = reference.rpartition("/")[2] if isinstance(reference, str) else resource.get("id")
    patient = {"resourceType": "Patient", "id": patient_id}
    resources = [resource] if resource.get("resourceType") == "Patient" else [patient, resource]
    return assemble_record(resources, str(patient_id), policy=policy).facts


def _quote(fact: Fact, facts: Iterable[Fact]) -> Quoted | None:
    if fact.span is None:
        return None
    start, end = fact.span
    for other in facts:
        if other.body and fact.value and one_line(other.body[start:end]) == fact.value:
            return Quoted(other.body[:start], other.body[start:end], other.body[end:])
    return None


def _activity(fact: Fact) -> tuple[str, str]:
    if fact.kind is Kind.PROBLEM and fact.source.reference.startswith("Condition/"):
        return "problem-review", "problemLocation"
    return REVIEW_ACTIVITY, "recordLocation"
