"""How a call is refused: an OperationOutcome in words of our own, which repeats nothing of the call."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from fastapi.responses import Response

FHIR_JSON = "application/fhir+json"


class CallRefused(Exception):
    """A call that is not answered. `code` is of FHIR's issue types; `words` are safe to show."""

    def __init__(self, status: int, code: str, words: str) -> None:
        super().__init__()
        self.status = status
        self.code = code
        self.words = words


def not_understood(words: str) -> CallRefused:
    """Return the refusal of a call that breaks the specification (400)."""
    return CallRefused(400, "invalid", words)


def outcome(status: int, code: str, words: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an OperationOutcome."""
    issue = {"severity": "error", "code": code, "diagnostics": words}
    body = msgspec.json.encode({"resourceType": "OperationOutcome", "issue": [issue]})
    return Response(body, status, dict(headers or {}), media_type=FHIR_JSON)
