"""One audit entry as a line of JSON (NDJSON), for a SIEM or whatever else collects the logs of many systems.

It says nothing out of a chart. Without `references` a patient is a keyed hash, and a document the kind of
resource that it is.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from connectors.fhir.reference import parse_reference
from service.ports.trail import Recorded

FORMAT: Final = "epicrisis-audit/1"
_PLAIN = re.compile(r"[a-z][a-z0-9:_-]{0,63}")
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}/")


def line_of(recorded: Recorded, *, references: bool = False) -> bytes:
    """Return the line of an entry, with its end. Who chooses `references` also gets whom it is about."""
    entry = recorded.entry
    told: dict[str, Any] = {
        "format": FORMAT,
        "number": recorded.number,
        "hash": recorded.hash,
        "at": entry.at,
        "action": entry.action.value,
        "outcome": entry.outcome,
        "actor": entry.actor,
        "run_id": entry.run_id,
        "patient_hash": recorded.patient_hash,
        "target": entry.target if references else _kind_of(entry.target),
        "counts": dict(sorted(entry.counts.items())),
        "server": entry.server,
    }
    if references:
        told |= {"patient": entry.patient, "by": entry.by}
    return msgspec.json.encode(told) + b"\n"


def _kind_of(target: str) -> str:
    """Return what an act was done to without saying to which: a word of ours, or a type of resource."""
    if _PLAIN.fullmatch(target):
        return target
    found = _TYPE.match(target)
    return found[0][:-1] if found and parse_reference(target) is not None else ""
