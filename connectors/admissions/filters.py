"""Which filters of an Encounter search a server honours, found out by asking, not by its statement.

A filter that is refused or ignored is left out of the search and applied here. A server may ignore parameters
that it does not know, and says in `link[self]` which ones it used (R4 search 3.1.1.7 and 3.1.1.1.2).
"""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from connectors.admissions.encounter import Ward
from connectors.errors import RequestRejected
from connectors.fhir.client import FHIR_JSON, FhirClient
from connectors.fhir.codec import decode, dicts
from connectors.fhir.outcome import issue_codes
from connectors.http import Params

_NEVER = "2999-01-01T00:00:00Z"
"""Nothing was changed after it: a search from there on must find nothing."""
_ASKED_STRICTLY = {"Accept": FHIR_JSON, "Prefer": "handling=strict"}


class Offer(NamedTuple):
    """What a server makes of the filters: the ones to send, and the names of those that are applied here."""

    params: tuple[tuple[str, str], ...]
    refused: tuple[str, ...]


async def offered_filters(client: FhirClient, ward: Ward) -> Offer:
    """Return which of the ward's filters the server honours; asks once for all, or once for each.

    Raises ConnectorError where the server cannot be asked at all.
    """
    wanted = ward.params()
    if not wanted or await _honours(client, wanted):
        return Offer(wanted, ())
    verdicts = [(param, await _honours(client, (param,))) for param in wanted]
    accepted = tuple(param for param, is_honoured in verdicts if is_honoured)
    return Offer(accepted, tuple(param[0] for param, is_honoured in verdicts if not is_honoured))


async def honours_last_updated(client: FhirClient) -> bool:
    """Tell whether `_lastUpdated` narrows an Encounter search: from the far future on, nothing is found."""

    async def prove() -> bool:
        params = (("_lastUpdated", f"ge{_NEVER}"), ("_count", "1"))
        try:
            page = await anext(client.pages("Encounter", params))
        except RequestRejected:
            return False
        return not page.resources and not page.next_link

    return await client.proven("Encounter?_lastUpdated", prove)


async def _honours(client: FhirClient, params: tuple[tuple[str, str], ...]) -> bool:
    try:
        bundle = await _ask(client, (*params, ("_count", "1")))
    except RequestRejected:
        return False
    used = _used(bundle)
    if used is not None and not {name for name, _ in params} <= used:
        return False
    return not any("not-supported" in issue_codes(outcome) for outcome in _outcomes(bundle))


async def _ask(client: FhirClient, params: Params) -> dict[str, Any]:
    session = client.session
    answer = await session.send(
        "GET", session.url("Encounter"), params=params, headers=_ASKED_STRICTLY, repeatable=True
    )
    bundle = decode(answer.body)
    return bundle if isinstance(bundle, dict) else {}


def _used(bundle: dict[str, Any]) -> set[str] | None:
    """Return the names of the parameters in `link[self]`; None where it names none at all."""
    for link in dicts(bundle.get("link")):
        url = link.get("url")
        if link.get("relation") == "self" and isinstance(url, str):
            try:
                query = parse_qsl(urlsplit(url).query, keep_blank_values=True)
            except ValueError:
                return None
            return {name.partition(":")[0] for name, _ in query} or None
    return None


def _outcomes(bundle: dict[str, Any]) -> list[dict[str, Any]]:
    resources = dicts([entry.get("resource") for entry in dicts(bundle.get("entry"))])
    return [resource for resource in resources if resource.get("resourceType") == "OperationOutcome"]
