"""Whether a run is stopped: halted before it is filed, and hidden where it is stored (SAFETY 24)."""

from __future__ import annotations

from collections.abc import Iterable

from service.ports import Stop, StopScope, StoredRun
from service.record.facts import Kind, Status


def find_stop(run: StoredRun, stops: Iterable[Stop]) -> Stop | None:
    """Return the stop that this run falls under, or None."""
    return next((stop for stop in stops if _concerns(stop, run)), None)


def is_stopped(run: StoredRun, stops: Iterable[Stop]) -> bool:
    """Tell whether a stored run must be hidden. `stops`: of the DocumentStore, read anew each time."""
    return find_stop(run, stops) is not None


def _concerns(stop: Stop, run: StoredRun) -> bool:
    inputs, value = run.inputs, stop.value
    match stop.scope:
        case StopScope.ALL:
            return True
        case StopScope.MODEL:
            return value in (inputs.model_digest, inputs.model)
        case StopScope.PROMPT:
            return value in (inputs.prompt_id, f"{inputs.prompt_id}@{inputs.prompt_version}")
        case StopScope.RUN:
            return value == run.run_id
        case StopScope.WARD:
            wanted = value.casefold()
            return any(wanted == ward.casefold() for ward in wards_of(run))


def wards_of(run: StoredRun) -> tuple[str, ...]:
    """Return the places of the encounter at hand, or of every stay that lasts, as the record names them."""
    at_hand = run.inputs.encounter
    return tuple(
        dict.fromkeys(
            place.strip()
            for fact in run.summary.facts
            if fact.kind is Kind.ENCOUNTER
            and (fact.source.reference == at_hand if at_hand else fact.status is Status.IN_PROGRESS)
            for label, text in fact.details
            if label in ("location", "service")
            for place in text.split(",")
        )
    )
