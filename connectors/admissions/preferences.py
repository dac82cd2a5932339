"""Who said no to being summarised, as far as the FHIR server records it in Flags and Consents.

Read once for the whole site, so that a patient costs no request; where the server does not answer that, once
for each patient. What could not be read is never taken for a yes: `is_known` says so.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from connectors.admissions.consents import (
    Kind,
    OptOut,
    PreferenceRules,
    Resource,
    local_reference,
    read_consent,
    read_flag,
)
from connectors.admissions.lookup import Lookup, read_many
from connectors.errors import (
    BrokenJson,
    ConnectorError,
    Forbidden,
    NotFhir,
    NotFoundError,
    RefusedError,
    RequestRejected,
)
from connectors.fhir.capabilities import Capabilities
from connectors.fhir.client import FHIR_JSON, FhirClient, Identity, Page, identity
from connectors.fhir.codec import decode, dicts, encode
from connectors.fhir.outcome import gap_of_outcome
from connectors.http import Params

MAX_PAGES = 40
"""Pages of one search for a whole site; with more, each patient is asked for."""
_BATCH = 20
"""Patients in one batch."""
_MAX_MERGES = 8
_MAX_SINGLY = 200
_READERS: Mapping[Kind, Callable[[Resource, PreferenceRules], tuple[OptOut, ...]]] = {
    Kind.FLAG: read_flag,
    Kind.CONSENT: read_consent,
}
_POST = {"Accept": FHIR_JSON, "Content-Type": FHIR_JSON}


@dataclass(frozen=True, slots=True)
class Choice:
    """What is known of one patient's wishes."""

    flagged: bool = False
    refused: bool = False
    """By a Consent."""
    ward_flagged: bool = False
    is_known: bool = True
    """False where a search failed, or hid something: then nobody may say that there is no no."""


class Preferences:
    """The opt-outs of a site, or of some patients. Holds references and identifiers, and shows none."""

    def __init__(
        self,
        opt_outs: Iterable[OptOut] = (),
        unknown: Iterable[Kind] = (),
        known_of: Mapping[Kind, frozenset[str]] | None = None,
        odd: Mapping[str, int] | None = None,
    ) -> None:
        self.opt_outs = tuple(opt_outs)
        self.unknown = frozenset(unknown)
        """What could not be read for all patients at once."""
        self.known_of = dict(known_of or {})
        """Of these patients it was read all the same, by reference."""
        self.odd = Counter(odd or {})
        """How many records were doubted, by reason, and why a search was given up (`Flag:timeout`, …)."""
        self._by_key: dict[_Key, list[OptOut]] = defaultdict(list)
        for one in self.opt_outs:
            for key in _keys(one.patients, one.identifiers, one.places):
                self._by_key[key].append(one)

    def __repr__(self) -> str:
        return f"Preferences({len(self.opt_outs)} opt-outs, unknown={sorted(self.unknown)})"

    def of(
        self,
        patient: Resource,
        *,
        now: datetime,
        encounter: Resource | None = None,
        places: Iterable[str] = (),
        retired: Iterable[str] = (),
    ) -> Choice:
        """Return what is known of one patient at this instant (aware).

        `places` are the stay's surroundings, `retired` further references of records that this one replaces.
        """
        references = (*references_of(patient), *retired)
        stay = f"Encounter/{encounter.get('id')}" if encounter else ""
        own = [
            one
            for key in _keys(references, _identifiers(patient))
            for one in self._by_key.get(key, ())
            if one.holds(now) and (not stay or one.encounter in ("", stay))
        ]
        wards = (one for place in places for one in self._by_key.get(place, ()))
        return Choice(
            any(one.kind is Kind.FLAG for one in own),
            any(one.kind is Kind.CONSENT for one in own),
            any(one.holds(now) for one in wards),
            all(set(references) <= self.known_of.get(kind, frozenset()) for kind in self.unknown),
        )


_Key = str | tuple[str, str]
"""A reference, or an identifier."""


def _keys(*groups: Iterable[str] | Iterable[tuple[str, str]]) -> Iterator[_Key]:
    for group in groups:
        yield from group


def references_of(patient: Resource) -> tuple[str, ...]:
    """Return a Patient's own reference, and those of every record that it is linked with: one person."""
    links = [_object(link.get("other")).get("reference") for link in dicts(patient.get("link"))]
    linked = map(local_reference, links)
    own = f"Patient/{patient.get('id')}"
    return tuple(dict.fromkeys((own, *(one for one in linked if one.startswith("Patient/")))))


async def read_preferences(client: FhirClient, rules: PreferenceRules) -> Preferences:
    """Return the opt-outs of the whole site: one search, paged to its end, for each kind.

    What the server does not offer is not there. Raises ConnectorError where no server answers at all.
    """
    capabilities = await client.capabilities()
    reading = _Reading(client, rules)
    for kind in _asked_kinds(rules, capabilities, reading.odd):
        if not await reading.read_site(kind, _filters(kind, rules, capabilities)):
            reading.unknown.add(kind)
    await reading.follow_merges()
    return reading.preferences()


async def read_preferences_of(
    client: FhirClient, rules: PreferenceRules, known: Preferences, patients: Sequence[Resource]
) -> Preferences:
    """Return the same with what these patients said, where `known` could not tell it of everybody.

    One batch for many patients; where the server takes none, a search for each and each kind. Raises
    ConnectorError where no server answers at all.
    """
    capabilities = await client.capabilities()
    reading = _Reading(client, rules, known)
    kinds = sorted(known.unknown & set(_asked_kinds(rules, capabilities, Counter())))
    asks_links = "link" in capabilities.of("Patient").search_params
    todo = [patient for patient in patients if kinds and not reading.is_known(references_of(patient))]
    for start in range(0, len(todo), _BATCH):
        await reading.read_patients(todo[start : start + _BATCH], kinds, asks_links=asks_links)
    return reading.preferences()


def _asked_kinds(rules: PreferenceRules, capabilities: Capabilities, odd: Counter[str]) -> list[Kind]:
    wanted = [Kind.CONSENT, *([Kind.FLAG] if rules.flags else [])]
    for kind in wanted:
        odd[f"not_offered:{kind}"] += not capabilities.offers_search(kind)
    return [kind for kind in wanted if capabilities.offers_search(kind)]


def _filters(kind: Kind, rules: PreferenceRules, capabilities: Capabilities) -> list[Params]:
    """Return one search, or two, that bring every opt-out. Only declared parameters, one value each.

    A parameter that is ignored brings too much, and is harmless; a value that is misread brings too little.
    So codes are not asked for: they are compared here.
    """
    if "status" not in capabilities.of(kind).search_params:
        return [()]
    statuses = ["active", *(["rejected"] if kind is Kind.CONSENT and rules.about_us else [])]
    return [(("status", status),) for status in statuses]


class _Ask(NamedTuple):
    """One search for one patient."""

    resource_type: str
    param: str
    reference: str

    @property
    def url(self) -> str:
        return f"{self.resource_type}?{self.param}={quote(self.reference, safe='/')}"


class _Reading:
    """One reading of opt-outs, beginning with what was known before."""

    def __init__(self, client: FhirClient, rules: PreferenceRules, before: Preferences | None = None) -> None:
        before = before or Preferences()
        self.client = client
        self.rules = rules
        self.found = dict.fromkeys(before.opt_outs)
        self.unknown = set(before.unknown)
        self.known_of = {kind: set(before.known_of.get(kind, ())) for kind in Kind}
        self.odd = Counter(before.odd)

    def preferences(self) -> Preferences:
        """Return what was read."""
        known_of = {kind: frozenset(references) for kind, references in self.known_of.items()}
        return Preferences(self.found, self.unknown, known_of, +self.odd)

    def is_known(self, references: Iterable[str]) -> bool:
        """Tell whether all was read of these patients."""
        return all(set(references) <= self.known_of[kind] for kind in self.unknown)

    async def read_site(self, kind: Kind, searches: Iterable[Params]) -> bool:
        """Tell whether all of a kind was read."""
        return all([await self._read_pages(kind, params) for params in searches])

    async def read_patients(
        self, patients: Sequence[Resource], kinds: list[Kind], *, asks_links: bool
    ) -> None:
        """Read what some patients said, and what was recorded of them under another number."""
        people = {references_of(patient)[0]: references_of(patient) for patient in patients}
        own = dict.fromkeys(one for references in people.values() for one in references)
        asks = [_Ask(kind, "patient", one) for one in own for kind in kinds]
        asks += [_Ask("Patient", "link", one) for one in people if asks_links]
        answers = await self._ask(asks)
        linked = {
            one: _linked(answers.get(_Ask("Patient", "link", one), []), one) - own.keys() for one in people
        }
        further = dict.fromkeys(other for others in linked.values() for other in others)
        answers |= await self._ask([_Ask(kind, "patient", one) for one in further for kind in kinds])
        for person, references in people.items():
            if asks_links and _Ask("Patient", "link", person) not in answers:
                continue
            self._keep(kinds, references, linked[person], answers)

    def _keep(
        self, kinds: list[Kind], own: Sequence[str], linked: set[str], answers: dict[_Ask, list[Resource]]
    ) -> None:
        for kind in kinds:
            asks = [_Ask(kind, "patient", one) for one in (*own, *linked)]
            for ask in asks:
                for resource in answers.get(ask, ()):
                    self._take(kind, resource, ask.reference, own)
            if all(ask in answers for ask in asks):
                self.known_of[kind].update(own)

    async def follow_merges(self) -> None:
        """Let a no follow its patient to the record that replaced the one on which it was said."""
        people: dict[str, set[str]] = {one: set() for opt_out in self.found for one in opt_out.patients}
        todo = set(people)
        for _ in range(_MAX_MERGES):
            ids = [one.partition("/")[2] for one in todo]
            lookup = await read_many(self.client, "Patient", ids, max_singly=_MAX_SINGLY)
            self._note_unread(lookup)
            for one, resource in lookup.found.items():
                people[f"Patient/{one}"] = set(references_of(resource))
            todo = {other for others in people.values() for other in others} - people.keys()
            people |= {one: set() for one in todo}
            if not todo:
                break
        self.found = dict.fromkeys(
            replace(opt_out, patients=_closure(opt_out.patients, people)) for opt_out in self.found
        )

    def _note_unread(self, lookup: Lookup) -> None:
        """One record that is closed to us stops no sweep; a failure, after which a no may be lost, does."""
        closed = sum(isinstance(error, Forbidden) for error in lookup.unread.values())
        self.odd["opted_out_patient_closed"] += closed
        if closed < len(lookup.unread):
            self.odd["merges_not_followed"] += len(lookup.unread) - closed
            self.unknown |= {opt_out.kind for opt_out in self.found}

    def _take(self, kind: Kind, resource: Resource, asked: str = "", own: Sequence[str] = ()) -> None:
        """Keep the opt-outs of a resource, which came when `asked` was asked for, one of a person's `own`."""
        if resource.get("resourceType") != kind:
            return
        for opt_out in _READERS[kind](resource, self.rules):
            is_theirs = asked in opt_out.patients or (not opt_out.patients and not opt_out.places)
            whose = opt_out.patients.union(own if is_theirs else ())
            if whose or opt_out:
                self.found[replace(opt_out, patients=whose)] = None
            else:
                self.odd["opt_out_of_nobody"] += 1

    async def _read_pages(self, kind: Kind, params: Params) -> bool:
        count = _Count(self.client.limits.page_size)
        sized = (*params, ("_count", str(self.client.limits.page_size)))
        try:
            async for page in self.client.pages(kind, sized):
                for resource in page.resources:
                    self._take(kind, resource)
                if any(gap_of_outcome(outcome, kind) for outcome in page.outcomes):
                    return self._give_up(kind, "hidden")
                count.add(page)
                if page.number >= MAX_PAGES and page.next_link:
                    return self._give_up(kind, "too_many")
        except ConnectorError as error:
            return self._give_up(kind, error.code)
        return not count.fell_short or self._give_up(kind, "paging")

    def _give_up(self, kind: Kind, why: str) -> bool:
        self.odd[f"{kind}:{why}"] += 1
        return False

    async def _ask(self, asks: Sequence[_Ask]) -> dict[_Ask, list[Resource]]:
        """Return the answers that came whole."""
        answers = await self._batch(asks) if len(asks) > 1 else {}
        left = [ask for ask in asks if ask not in answers]
        found = await asyncio.gather(*[self._ask_singly(ask) for ask in left])
        return answers | {ask: got for ask, got in zip(left, found, strict=True) if got is not None}

    async def _ask_singly(self, ask: _Ask) -> list[Resource] | None:
        count = _Count(self.client.limits.page_size)
        params = ((ask.param, ask.reference), ("_count", str(self.client.limits.page_size)))
        found: list[Resource] = []
        try:
            async for page in self.client.pages(ask.resource_type, params):
                if any(gap_of_outcome(outcome, ask.resource_type) for outcome in page.outcomes):
                    return None
                found += page.resources
                count.add(page)
        except ConnectorError as error:
            self.odd[f"{ask.resource_type}:{error.code}"] += 1
            return None
        return None if count.fell_short else found

    async def _batch(self, asks: Sequence[_Ask]) -> dict[_Ask, list[Resource]]:
        """Return what one batch Bundle answers whole (R4 http 3.1.0.11.1); nothing where none is taken."""
        try:
            if not await self.client.proven("batch of searches", lambda: self._takes_batches(asks[0])):
                return {}
            results = await self._post(asks)
        except ConnectorError:
            return {}
        answers = {ask: _whole(result, ask.resource_type) for ask, result in zip(asks, results, strict=False)}
        return {ask: got for ask, got in answers.items() if got is not None and len(results) == len(asks)}

    async def _takes_batches(self, ask: _Ask) -> bool:
        try:
            (result,) = await self._post([ask])
        except (RequestRejected, RefusedError, NotFoundError, NotFhir, BrokenJson, ValueError):
            return False
        return _whole(result, ask.resource_type) is not None

    async def _post(self, asks: Sequence[_Ask]) -> list[Resource]:
        entries = [{"request": {"method": "GET", "url": ask.url}} for ask in asks]
        bundle = {"resourceType": "Bundle", "type": "batch", "entry": entries}
        session = self.client.session
        answer = await session.send(
            "POST", session.base_url, headers=_POST, content=encode(bundle), repeatable=True
        )
        return dicts(_object(decode(answer.body)).get("entry"))


@dataclass(slots=True)
class _Count:
    """Whether as much came as the server counted: a `next` link that is missing must not go unnoticed."""

    page_size: int
    total: int | None = None
    matches: set[Identity] = field(default_factory=set)
    is_one_full_page: bool = False

    def add(self, page: Page) -> None:
        """Count one page."""
        self.total = page.total if page.number == 1 else self.total
        self.matches.update(map(identity, page.resources))
        self.is_one_full_page = page.number == 1 and len(page.resources) >= self.page_size

    @property
    def fell_short(self) -> bool:
        """Fewer than counted; or, uncounted, one full page without a link to the next."""
        return self.is_one_full_page if self.total is None else len(self.matches) < self.total


def _whole(result: Resource, resource_type: str) -> list[Resource] | None:
    """Return the matches of one searchset of a batch; None where it failed, hides something or goes on."""
    bundle, status = _object(result.get("resource")), _object(result.get("response")).get("status")
    if not isinstance(status, str) or not status.startswith("2") or bundle.get("type") != "searchset":
        return None
    resources = dicts([entry.get("resource") for entry in dicts(bundle.get("entry"))])
    outcomes = [one for one in resources if one.get("resourceType") == "OperationOutcome"]
    matches = [one for one in resources if one.get("resourceType") == resource_type]
    goes_on = any(link.get("relation") == "next" for link in dicts(bundle.get("link")))
    total = bundle.get("total")
    if goes_on or not isinstance(total, int) or len(matches) < total:
        return None
    return None if any(gap_of_outcome(one, resource_type) for one in outcomes) else matches


def _linked(patients: Iterable[Resource], reference: str) -> set[str]:
    """Return which of these Patients say that they are the same person as this one."""
    return {f"Patient/{one.get('id')}" for one in patients if reference in references_of(one)}


def _closure(references: frozenset[str], people: Mapping[str, set[str]]) -> frozenset[str]:
    todo, seen = list(references), set(references)
    while todo:
        new = people.get(todo.pop(), set()) - seen
        seen |= new
        todo += new
    return frozenset(seen)


def _identifiers(patient: Resource) -> Iterator[tuple[str, str]]:
    """Yield each identifier with its system, and without: a no may be recorded without one."""
    for one in dicts(patient.get("identifier")):
        system, value = one.get("system"), one.get("value")
        if isinstance(value, str):
            yield from {(system if isinstance(system, str) else "", value), ("", value)}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
