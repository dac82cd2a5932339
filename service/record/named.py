"""Whom only our own documents name: the clinician who attested one, and the role through which.

A server sends such a resource with the chart because of our document alone. To count it as an input would
make the chart look changed by what we filed.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Set
from typing import Any

from service.record.facts import ResourceVersion
from service.record.references import own_reference, plain

_WITNESSES = ("AuditEvent", "Provenance")
"""They tell of acts: one that tells of a document of ours came with it."""


def without_ours_alone(
    given: Iterable[Any],
    places: Container[int],
    ours: Set[int],
    supporting: Mapping[int, ResourceVersion],
    resolve: Callable[[str], str],
) -> dict[int, ResourceVersion]:
    """Return the supporting resources without those that nothing in the chart names but what is ours.

    `given` is walked at most twice; of it, `places` counts, and `ours` is what we wrote. What nothing names
    at all stays.
    """
    if not ours or not supporting:
        return dict(supporting)
    own, lent, told = _names(given, places, ours, supporting, resolve)
    suspects = _reached(own, lent, lent.keys())
    others = _names_of_others(given, places, ours | told | supporting.keys(), resolve)
    alone = suspects - _reached(others, lent, suspects)
    return {place: version for place, version in supporting.items() if version.reference not in alone}


def references_in(raw: Any) -> Iterator[str]:
    """Yield every `reference` of a resource, however deep."""
    waiting = [raw]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            reference = value.get("reference")
            if isinstance(reference, str):
                yield reference
            waiting += [held for held in value.values() if isinstance(held, dict | list)]
        elif isinstance(value, list):
            waiting += value


def _names(
    given: Iterable[Any],
    places: Container[int],
    ours: Set[int],
    supporting: Mapping[int, ResourceVersion],
    resolve: Callable[[str], str],
) -> tuple[set[str], dict[str, set[str]], set[int]]:
    """Return whom ours name, whom each supporting resource names, and the places of what tells of ours."""
    own: set[str] = set()
    lent: dict[str, set[str]] = {}
    witnesses: dict[int, set[str]] = {}
    documents: set[str] = set()
    for place, raw in enumerate(given):
        if place not in places:
            continue
        if place in ours:
            own |= _resolved(raw, resolve)
            documents.add(own_reference(raw))
        elif place in supporting:
            lent[supporting[place].reference] = _resolved(raw, resolve)
        elif raw.get("resourceType") in _WITNESSES:
            witnesses[place] = _resolved(raw, resolve)
    told = {place for place, named in witnesses.items() if named & documents}
    return own.union(*(witnesses[place] for place in told)), lent, told


def _names_of_others(
    given: Iterable[Any], places: Container[int], left_out: Set[int], resolve: Callable[[str], str]
) -> Iterator[str]:
    for place, raw in enumerate(given):
        if place in places and place not in left_out:
            yield from _resolved(raw, resolve)


def _resolved(raw: Any, resolve: Callable[[str], str]) -> set[str]:
    return {resolve(plain(reference)) for reference in references_in(raw)}


def _reached(named: Iterable[str], lent: Mapping[str, set[str]], wanted: Set[str]) -> set[str]:
    """Return whom these name, through one another too; stops when all that are wanted are among them."""
    found: set[str] = set()
    for reference in named:
        if wanted <= found:
            break
        waiting = [reference]
        while waiting:
            one = waiting.pop()
            if one in lent and one not in found:
                found.add(one)
                waiting += lent[one]
    return found
