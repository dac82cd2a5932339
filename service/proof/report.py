"""What checking a document came to: a state, and every finding by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What may be said of a document."""

    VALID = "valid"
    ALTERED = "altered"
    UNSIGNED = "unsigned"
    CANNOT_CHECK = "cannot check"


EXIT_CODES = {State.VALID: 0, State.ALTERED: 14, State.UNSIGNED: 15, State.CANNOT_CHECK: 16}


class Weight(StrEnum):
    """What a finding does to the state."""

    FAULT = "fault"
    """Something is not what was filed, or does not follow from it: altered."""
    UNSIGNED = "unsigned"
    """Nothing proves who filed it."""
    UNCHECKED = "unchecked"
    """Something could not be looked at."""
    NOTE = "note"
    """Worth knowing; nothing is wrong with the document."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found. It holds no patient data, so it may be logged."""

    code: str
    """`claim_differs`, `source_digest_differs`… as listed in `WEIGHTS`."""
    where: str
    """`statement 3`, `source 2`, `text/plain`, `document`."""
    detail: str = ""
    """Machine-readable: a digest's beginning, a reason of the rules, a field's name."""

    @property
    def weight(self) -> Weight:
        """What it does to the state."""
        return WEIGHTS[self.code]


WEIGHTS = {
    # of the document's forms
    "no_proof": Weight.UNCHECKED,  # the document has no JSON form that can be read
    "unknown_format": Weight.UNCHECKED,  # the JSON form is of a format that this version does not know
    "attachment_size_differs": Weight.FAULT,
    "attachment_hash_differs": Weight.FAULT,
    "attachment_not_readable": Weight.FAULT,
    "form_differs": Weight.FAULT,  # another form than the one that was signed
    "form_missing": Weight.NOTE,  # not every server keeps every form
    "claim_differs": Weight.FAULT,  # a statement is not told so in this form
    "document_differs": Weight.FAULT,  # identifier, patient or date of the resource and of its JSON form
    "label_missing": Weight.FAULT,  # it no longer carries a security label of its sources
    "duplicate_source": Weight.FAULT,
    # of the signature
    "not_signed": Weight.UNSIGNED,
    "wrong_signature": Weight.FAULT,
    "unknown_key": Weight.UNCHECKED,  # no key was given that the signature names
    # of the sources
    "citation_missing": Weight.FAULT,  # a statement cites nothing, or a number that is no source
    "source_not_found": Weight.FAULT,  # the server has no such resource
    "source_not_on_server": Weight.UNCHECKED,  # it never had an id there
    "version_not_kept": Weight.UNCHECKED,  # no `_history`, and the source has changed since
    "source_not_readable": Weight.UNCHECKED,  # the server refused or did not answer
    "source_digest_differs": Weight.FAULT,  # the version that is cited has other content
    "source_says_otherwise": Weight.FAULT,  # another line than the one shown is read from it
    "span_not_in_note": Weight.FAULT,  # the sentence does not stand at its place in the note
    "source_changed_since": Weight.NOTE,  # a newer version says something else
    "source_deleted_since": Weight.NOTE,
    "leans_on_a_change": Weight.UNCHECKED,  # its line names another resource, which has changed since
    # of the verdicts
    "verdict_not_supported": Weight.FAULT,  # the document itself says so
    "verdict_does_not_follow": Weight.FAULT,
    "verdict_not_judged": Weight.UNCHECKED,  # one of its sources could not be read
    "rules_differ": Weight.NOTE,  # judged anew by other rules than then
}


@dataclass(frozen=True, slots=True)
class Report:
    """What was found in one document."""

    document: str
    findings: tuple[Finding, ...]
    statements: int
    sources: int

    @property
    def state(self) -> State:
        """The worst that was found: altered, then cannot check, then unsigned."""
        return state_of(self.findings)


def state_of(findings: Iterable[Finding]) -> State:
    """Return what may be said of a document with these findings."""
    weights = {finding.weight for finding in findings}
    if Weight.FAULT in weights:
        return State.ALTERED
    if Weight.UNCHECKED in weights:
        return State.CANNOT_CHECK
    return State.UNSIGNED if Weight.UNSIGNED in weights else State.VALID
