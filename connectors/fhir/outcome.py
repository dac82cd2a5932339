"""What an OperationOutcome says, reduced to codes of the specification: its texts can hold patient data."""

from __future__ import annotations

from typing import Any

from connectors.errors import (
    BadUrl,
    BrokenJson,
    ConnectorError,
    ForeignLink,
    NoFhirHere,
    RefusedError,
    TimedOut,
    TooLarge,
    error_of_status,
)
from connectors.fhir.codec import decode, dicts
from connectors.fhir.pull import Gap, GapReason

ISSUE_CODES = frozenset(
    {"invalid", "structure", "required", "value", "invariant", "security", "login", "unknown", "expired",
     "forbidden", "suppressed", "processing", "not-supported", "duplicate", "multiple-matches", "not-found",
     "deleted", "too-long", "code-invalid", "extension", "too-costly", "business-rule", "conflict",
     "transient", "lock-error", "no-store", "exception", "timeout", "incomplete", "throttled",
     "informational"}
)  # fmt: skip
"""http://hl7.org/fhir/issue-type, R4."""
_HIDDEN = frozenset({"suppressed", "security", "login", "unknown", "expired", "forbidden"})
"""Results were left out because of who asks."""
_PARTIAL = frozenset(
    {"incomplete", "too-costly", "timeout", "throttled", "transient", "exception", "lock-error"}
)
"""Results were left out because something failed."""


def issue_codes(outcome: Any) -> tuple[str, ...]:
    """Return the known issue codes of an OperationOutcome, in order, each once."""
    codes = (issue.get("code") for issue in _issues(outcome))
    return tuple(dict.fromkeys(c for c in codes if isinstance(c, str) and c in ISSUE_CODES))


def gap_of_outcome(outcome: Any, resource_type: str | None) -> Gap | None:
    """Return the gap that an outcome among 200 OK results admits (SAFETY 6), or None where none is hidden."""
    codes = issue_codes(outcome)
    hidden = [c for c in codes if c in _HIDDEN]
    if hidden:
        detail = f"The server left results out: {', '.join(hidden)}."
        return Gap(resource_type, GapReason.SUPPRESSED, detail)
    partial = [c for c in codes if c in _PARTIAL]
    if partial or any(issue.get("severity") in ("fatal", "error") for issue in _issues(outcome)):
        named = f": {', '.join(partial or codes)}" if partial or codes else ""
        return Gap(resource_type, GapReason.FAILED, f"The server reports an error among its results{named}.")
    return None


def reason_of_error(error: ConnectorError) -> GapReason:
    """Return why a part of the record is missing, given the error that kept it."""
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return GapReason.FAILED


_REASONS: tuple[tuple[type[ConnectorError], GapReason], ...] = (
    (RefusedError, GapReason.REFUSED),
    (TimedOut, GapReason.TIMED_OUT),
    (TooLarge, GapReason.TOO_LARGE),
    (ForeignLink, GapReason.NOT_ALLOWED),
    (BadUrl, GapReason.NOT_ALLOWED),
)


def explain_answer(status: int, body: bytes, content_type: str, origin: str) -> ConnectorError:
    """Return the error of an unsuccessful FHIR answer. A 404 that is no FHIR means the URL is wrong."""
    resource = _resource(body, content_type)
    if status == 404 and body.strip() and resource is None:
        return NoFhirHere(f"There is no FHIR server at this path of {origin} (HTTP 404).", status=404)
    return error_of_status(status, origin, issue_codes(resource))


def _resource(body: bytes, content_type: str) -> dict[str, Any] | None:
    if "xml" in content_type and b"http://hl7.org/fhir" in body:
        return {}
    try:
        value = decode(body)
    except BrokenJson:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("resourceType"), str) else None


def _issues(outcome: Any) -> list[dict[str, Any]]:
    return dicts(outcome.get("issue")) if isinstance(outcome, dict) else []
