"""What a Flag or a Consent (R4) says about being summarised by a machine. Pure; reads leniently.

A no is believed wherever it may be meant: what cannot be read, has no scope or has no end counts. Only what
is known to be about something else (research, an advance directive, a named person's access) does not.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from connectors.fhir.codec import dicts

Code = tuple[str, str]
"""System and code; an empty system stands for any."""
Resource = dict[str, Any]

ACT_REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
_SCOPE = "http://terminology.hl7.org/CodeSystem/consentscope"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/consentcategorycodes"
_ACTION = "http://terminology.hl7.org/CodeSystem/consentaction"

REFUSALS = frozenset({("", "OPTOUT"), ("", "OPTOUTE")})
"""Opt-out, and opt-out with exceptions: dissent to the terms (v3-ActCode, ActConsentDirective). The system
has had three names, and is often left out."""
UNRELATED = frozenset(
    [(_SCOPE, code) for code in ("research", "adr", "treatment")]
    + [
        (_CATEGORY, code)
        for code in ("acd", "dnr", "emrgonly", "hcd", "polst", "research", "rsdid", "rsreid")
    ]
    + [(_ACTION, code) for code in ("collect", "correct", "disclose")]
    + [(ACT_REASON, code) for code in ("HRESCH", "CLINTRCH", "HMARKT", "HPAYMT", "PUBHLTH")]
)
"""Other matters than the use of a record for the patient's own care: research, advance directives, consent to
one treatment, handing data to third parties, marketing, payment, public health."""
_SOMEONE_ELSE = frozenset({"Practitioner", "PractitionerRole", "RelatedPerson", "Patient"})
"""A provision whose actors are all of these denies a person; what reads for a sweep is none."""
_NOT_IN_FORCE = frozenset({"draft", "proposed", "inactive", "entered-in-error"})


class Kind(StrEnum):
    """Which resource an opt-out was read from."""

    FLAG = "Flag"
    CONSENT = "Consent"


@dataclass(frozen=True, slots=True)
class PreferenceRules:
    """Which codes of a site mean no."""

    flags: frozenset[Code] = frozenset()
    """Codes of `Flag.code` or `Flag.category`; none: Flags are not asked for. R4 defines none for this."""
    about_us: frozenset[Code] = frozenset()
    """Codes by which the Consents name summaries by a machine: scope, category, purpose, class, code."""
    refusals: frozenset[Code] = REFUSALS
    """Codes of `policyRule` or `category` that refuse by themselves."""
    unrelated: frozenset[Code] = UNRELATED
    """Codes of scope, category, action, purpose, class or code that are about something else."""


def parse_codes(texts: Iterable[str]) -> frozenset[Code]:
    """Return `system|code` as pairs; a code alone is of any system. Raises ValueError for an empty one."""
    found = [(system, code) for system, _, code in (text.strip().rpartition("|") for text in texts)]
    if not all(code for _, code in found):
        raise ValueError("a code is written as system|code")
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class OptOut:
    """One no: whose, and from when to when."""

    kind: Kind
    patients: frozenset[str] = field(default=frozenset(), repr=False)
    """`Patient/1`"""
    identifiers: frozenset[Code] = field(default=frozenset(), repr=False)
    """Where the subject is named by identifier."""
    places: frozenset[str] = field(default=frozenset(), repr=False)
    """`Location/1`, `Organization/1`: a Flag on a whole ward."""
    encounter: str = field(default="", repr=False)
    """The one stay that it is about; empty for all."""
    starts: datetime | None = field(default=None, repr=False)
    ends: datetime | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        return bool(self.patients or self.identifiers or self.places)

    def holds(self, now: datetime) -> bool:
        """Tell whether it is in force at this instant (aware)."""
        return (self.starts is None or self.starts <= now) and (self.ends is None or now <= self.ends)


def read_flag(flag: Resource, rules: PreferenceRules) -> tuple[OptOut, ...]:
    """Return the opt-out that a Flag states; none for one that is over, or says something else."""
    if flag.get("status") in ("inactive", "entered-in-error"):
        return ()
    stated = [*_codes(flag.get("code")), *_codes(flag.get("category"))]
    if not _any_in(stated, rules.flags):
        return ()
    encounter = local_reference(_object(flag.get("encounter")).get("reference"))
    starts, ends = read_period(flag.get("period"))
    return (_opt_out(Kind.FLAG, flag.get("subject"), encounter, starts, ends),)


def read_consent(consent: Resource, rules: PreferenceRules) -> tuple[OptOut, ...]:
    """Return the opt-outs that a Consent states: one for each provision that denies, and for its policy."""
    status = str(consent.get("status"))
    named = _names_us(consent, rules)
    if status in _NOT_IN_FORCE or (status == "rejected" and not named):
        return ()
    root = _object(consent.get("provision"))
    period = read_period(root.get("period"))
    if status == "rejected":
        return (_opt_out(Kind.CONSENT, consent.get("patient"), "", None, None),)
    policy = [*_codes(consent.get("policyRule")), *_codes(consent.get("category"))]
    is_unrelated = not named and any(
        _all_in(_codes(consent.get(key)), rules.unrelated) for key in ("scope", "category")
    )
    spans = [period] if _any_in(policy, rules.refusals) and not is_unrelated else []
    spans += [span for provision, span in _denials(root) if _covers(provision, rules, is_unrelated)]
    return tuple(_opt_out(Kind.CONSENT, consent.get("patient"), "", *span) for span in dict.fromkeys(spans))


Span = tuple[datetime | None, datetime | None]


def _denials(root: Resource) -> Iterator[tuple[Resource, Span]]:
    """Yield every provision that denies, with the span in which it and all around it hold (R4 Consent)."""
    todo: list[tuple[Resource, Span]] = [(root, (None, None))]
    while todo:
        provision, within = todo.pop()
        starts, ends = read_period(provision.get("period"))
        span = (_latest(within[0], starts), _earliest(within[1], ends))
        if provision.get("type") == "deny":
            yield provision, span
        todo += [(nested, span) for nested in dicts(provision.get("provision"))]


def _covers(provision: Resource, rules: PreferenceRules, is_unrelated: bool) -> bool:
    """Tell whether what a provision denies may be a summary for those who treat the patient.

    A denial of a part of the record counts: a summary by a machine cannot leave that part out.
    """
    if _names_us(provision, rules):
        return True
    if is_unrelated or _is_about_someone_else(provision):
        return False
    limits = ("action", "purpose", "class", "code")
    return not any(_all_in(_codes(provision.get(key)), rules.unrelated) for key in limits)


def _is_about_someone_else(provision: Resource) -> bool:
    actors = [_object(actor.get("reference")).get("reference") for actor in dicts(provision.get("actor"))]
    return bool(actors) and all(local_reference(actor).partition("/")[0] in _SOMEONE_ELSE for actor in actors)


def _names_us(holder: Resource, rules: PreferenceRules) -> bool:
    keys = ("scope", "category", "purpose", "class", "code")
    return any(_any_in(_codes(holder.get(key)), rules.about_us) for key in keys)


def _opt_out(
    kind: Kind, subject: Any, encounter: str, starts: datetime | None, ends: datetime | None
) -> OptOut:
    subject = _object(subject)
    reference = local_reference(subject.get("reference"))
    identifier = _object(subject.get("identifier"))
    value = identifier.get("value")
    system = identifier.get("system")
    named = (
        {(system if isinstance(system, str) else "", value)} if isinstance(value, str) and value else set()
    )
    return OptOut(
        kind,
        frozenset({reference} if reference.startswith("Patient/") else ()),
        frozenset(named),
        frozenset({reference} if reference.startswith(("Location/", "Organization/")) else ()),
        encounter,
        starts,
        ends,
    )


def local_reference(value: Any) -> str:
    """Return `Type/id` of a reference, of whatever server and version; empty for what is none.

    Another server's patient 1 is then taken for ours: a no too many, never one too few.
    """
    if not isinstance(value, str):
        return ""
    return "/".join(value.partition("/_history/")[0].rstrip("/").split("/")[-2:])


_WHEN = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?)?)?", re.ASCII
)
_EASTERNMOST, _WESTERNMOST = timedelta(hours=14), timedelta(hours=12)


def read_period(value: Any) -> Span:
    """Return from when to when a Period may hold, anywhere on earth; None for what is open or unreadable."""
    period = _object(value)
    start, end = _bounds(period.get("start")), _bounds(period.get("end"))
    return start[0], end[1]


def _bounds(value: Any) -> Span:
    found = _WHEN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None, None
    year, month, day = int(found[1]), found[2], found[3]
    try:
        first = datetime(year, int(month or 1), int(day or 1), tzinfo=UTC)
        if found[4]:
            return _instant(found, value)
        last_month = int(month or 12)
        last = first.replace(month=last_month, day=int(day or monthrange(year, last_month)[1]))
        return first - _EASTERNMOST, last + timedelta(days=1) + _WESTERNMOST
    except (ValueError, OverflowError):
        return None, None


def _instant(found: re.Match[str], value: str) -> Span:
    when = datetime.fromisoformat(value)
    last = when if found[6] else when + timedelta(minutes=1)
    if when.tzinfo is not None:
        return when, last
    return when.replace(tzinfo=UTC) - _EASTERNMOST, last.replace(tzinfo=UTC) + _WESTERNMOST


def _latest(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((when for when in (one, other) if when is not None), default=None)


def _earliest(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((when for when in (one, other) if when is not None), default=None)


def _codes(value: Any) -> list[Code]:
    """Return the codings of a CodeableConcept, a Coding, or a list of either."""
    found: list[Code] = []
    for item in value if isinstance(value, list) else [value]:
        holder = _object(item)
        for coding in dicts(holder.get("coding")) or [holder]:
            code, system = coding.get("code"), coding.get("system")
            if isinstance(code, str) and code:
                found.append((system if isinstance(system, str) else "", code))
    return found


def _any_in(codes: Iterable[Code], wanted: frozenset[Code]) -> bool:
    """Tell whether one of the codes is wanted; one that is recorded without a system may be any."""
    names = {code for _, code in wanted}
    return any(
        (system, code) in wanted or ("", code) in wanted or (not system and code in names)
        for system, code in codes
    )


def _all_in(codes: list[Code], known: frozenset[Code]) -> bool:
    """Tell whether there are codes, and all are known: by system and code, for this takes a no away."""
    return bool(codes) and all((system, code) in known or ("", code) in known for system, code in codes)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
