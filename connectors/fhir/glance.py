"""One batch of reads that asks whether anything changed (R4 http 3.1.0.11: batch), not forty requests.

For each type it asks what a refresh asks, and calls a type unchanged only where every answer about it is
there, is whole, and names what is held. Changes that came along whole are handed on. Nothing else is
concluded: a type of which an answer is missing, refused or odd is refreshed in the ordinary way, which judges
it again. A server that takes no batch is asked once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from connectors.errors import ConnectorError, NoSuchHost, NotFhir, NothingListens, TimedOut, UntrustedTls
from connectors.fhir.capabilities import Capabilities
from connectors.fhir.client import FhirClient, Page, parse_page
from connectors.fhir.codec import dicts
from connectors.fhir.compartment import COMPARTMENT, VITAL, search_param, searched_types
from connectors.fhir.pull import Pull
from connectors.fhir.reference import parse_reference
from connectors.fhir.stamp import Held, Stamp, key_of, parse_instant, stamp_of, write_instant

NEVER = "2999-01-01T00:00:00Z"
"""No resource was changed after it: a search from there on must find nothing."""
HONOURS_LAST_UPDATED = "_lastUpdated"
"""What `FhirClient.proven` knows: a search from NEVER on found nothing."""
_TAKES_BATCH = "batch"
_PROOF = "proof"
"""In the place of a type: the question is about the server."""
_ANSWER_BYTES = 4 * 1024 * 1024
"""An answer that grows longer lists too much to be a glance: counts are 300 bytes each."""
_DEAD = (NoSuchHost, NothingListens, UntrustedTls)
"""Nothing that is asked afterwards would be answered either."""
_MAY_PASS = frozenset({401, 408, 429, 502, 503, 504})
"""Statuses that say nothing about batches."""

_NOTHING = ("information", "informational")
"""Severity and code of an issue that says "All OK"."""

Said = dict[str, Any]
"""One entry of a batch-response."""


class Changes(NamedTuple):
    """What a search for changes brought, every one of it, and how many there are of the type by now."""

    resources: list[dict[str, Any]]
    total: int


@dataclass(frozen=True, slots=True)
class Glance:
    """What a glance found. It must never name a type as unchanged of which it did not see everything."""

    unchanged: frozenset[str] = frozenset()
    """Types of which the known resources are all there is, in their newest version; `Patient` among them."""
    changes: Mapping[str, Changes] = field(default_factory=dict)
    """Types that changed, and how."""
    capabilities: Capabilities | None = None
    """What the server offers, where that could be had."""


class _Told(NamedTuple):
    """What one answer says about a type."""

    same: bool
    """Whether it is what is expected of an unchanged type."""
    resources: list[dict[str, Any]]
    total: int | None


class _Question(NamedTuple):
    """One entry of the batch: a GET about one type."""

    kind: str
    url: str
    etag: str
    """Empty for a search, and where no version is known."""
    read: Callable[[Said], _Told | None]
    """What an answer tells; None for one that tells nothing for sure."""


async def glance_at(client: FhirClient, known: Pull, held: Held, since: datetime) -> Glance:
    """Ask about everything that is known at once. Raises ConnectorError only where nothing answers at all."""
    try:
        capabilities = await client.capabilities()
    except ConnectorError:
        return Glance()
    questions = _Questions(client, known, held, since, capabilities)
    if not capabilities.offers_batch or questions.needs_everything:
        return Glance(capabilities=capabilities)
    try:
        answers = await _answers(client, questions)
    except _DEAD:
        raise
    except ConnectorError:
        answers = []
    return _conclude(questions, answers)


async def _answers(client: FhirClient, questions: _Questions) -> list[Said]:
    """Return the answers in the order of the questions; none where they cannot be had or relied on."""
    first: list[list[Said]] = []

    async def prove() -> bool:
        answers = await _ask(client, questions.all)
        first.append(answers or [])
        return answers is not None and not (questions.proof and _finds_something(answers[0]))

    if client.proof(HONOURS_LAST_UPDATED) is False or not await client.proven(_TAKES_BATCH, prove):
        return []
    answers = first[0] if first else await _ask(client, questions.all) or []
    if answers and questions.proof and _finds_nothing(answers[0]):
        await client.proven(HONOURS_LAST_UPDATED, _yes)
    return answers


def _conclude(questions: _Questions, answers: list[Said]) -> Glance:
    told: dict[str, list[_Told | None]] = defaultdict(list)
    for question, said in zip(questions.all, answers, strict=False):
        told[question.kind].append(question.read(said))
    unsure = questions.known_by_search if None in told.pop(_PROOF, ()) else set[str]()
    unchanged, changes = set[str](), dict[str, Changes]()
    for kind in told.keys() - unsure:
        known = [one for one in told[kind] if one is not None]
        if len(known) < len(told[kind]):
            continue
        if all(one.same for one in known):
            unchanged.add(kind)
        elif kind in questions.whole:
            found, counted = known
            if counted.total is not None:
                changes[kind] = Changes(found.resources, counted.total)
    return Glance(frozenset(unchanged), changes, questions.capabilities)


async def _yes() -> bool:
    return True


async def _ask(client: FhirClient, questions: list[_Question]) -> list[Said] | None:
    """Return the answers in the order of the questions, or None where the server takes no such batch.

    Raises ConnectorError for what may be otherwise another time.
    """
    answers: list[Said] = []
    size = client.limits.batch_entries
    for start in range(0, len(questions), size):
        part = questions[start : start + size]
        try:
            response = await client.batch(list(map(_entry, part)), max_bytes=_ANSWER_BYTES)
        except ConnectorError as error:
            if _refuses_batches(error):
                return None
            raise
        entries = dicts(response.get("entry"))
        if response.get("type") != "batch-response" or len(entries) != len(part):
            return None
        answers += entries
    return answers


def _refuses_batches(error: ConnectorError) -> bool:
    if error.status is None:
        return isinstance(error, NotFhir | TimedOut)
    return error.status not in _MAY_PASS


def _entry(question: _Question) -> dict[str, Any]:
    condition = {"ifNoneMatch": f'W/"{question.etag}"'} if question.etag else {}
    return {"request": {"method": "GET", "url": question.url, **condition}}


@dataclass(slots=True)
class _Questions:
    """What is to be asked about one known record."""

    client: FhirClient
    known: Pull
    held: Held
    since: datetime
    capabilities: Capabilities
    known_by_search: set[str] = field(init=False)
    """The types of which something is known and a search tells what changed, those with a gap left out."""
    whole: set[str] = field(init=False)
    """Of these, the ones of which nothing is expected: what comes is new, and is wanted whole."""
    proof: _Question | None = field(init=False)
    """The search that must find nothing; None where that is known, or nothing is held that it could find."""
    all: list[_Question] = field(init=False)

    def __post_init__(self) -> None:
        recent = {
            kind for (kind, _), stamp in self.held.versions.items() if not _is_before(stamp, self.since)
        }
        self.known_by_search = {kind for kind in self._searched if kind in self.held.ids}
        self.whole = self.known_by_search - recent
        self.proof = self._proof()
        self.all = [*([self.proof] if self.proof else []), *self._questions()]

    def _questions(self) -> Iterator[_Question]:
        if ("Patient", self.known.patient_id) in self.held.versions:
            yield self._read("Patient", self.known.patient_id)
        for kind in self._searched:
            if kind in self.known_by_search:
                yield self._changes(kind)
                yield self._count(kind)
            else:
                yield self._anything(kind) if kind in VITAL else self._count(kind)
        asked = 0
        for kind in self._unsearchable:
            ids = sorted(self.held.ids[kind])
            asked += len(ids)
            are_legal = all(parse_reference(f"{kind}/{resource_id}") for resource_id in ids)
            if are_legal and asked <= self.client.limits.max_rereads:
                yield from (self._read(kind, resource_id) for resource_id in ids)

    @property
    def needs_everything(self) -> bool:
        """Tell whether a vital type came that no search brings: single reads could hide a new one."""
        return bool(VITAL & set(self._unsearchable))

    @property
    def _searched(self) -> list[str]:
        return [kind for kind in searched_types(self.capabilities) if kind not in self.known.broken]

    @property
    def _unsearchable(self) -> list[str]:
        searched = searched_types(self.capabilities)
        return [kind for kind in COMPARTMENT if kind in self.held.ids and kind not in searched]

    def _proof(self) -> _Question | None:
        if not self.known_by_search or self.client.proof(HONOURS_LAST_UPDATED):
            return None
        most = max(sorted(self.known_by_search), key=lambda kind: len(self.held.ids[kind]))
        url = self._url(most, ("_lastUpdated", f"ge{NEVER}"), ("_count", "1"))
        return _Question(_PROOF, url, "", lambda said: _NONE if _finds_nothing(said) else None)

    def _changes(self, kind: str) -> _Question:
        """Ask for what changed: whole, or only for versions where the overlap brings what is held."""
        size = self.client.limits.page_size
        elements = () if kind in self.whole else (("_elements", "id,meta"),)

        def read(page: Page) -> _Told | None:
            came = {key_of(resource) for resource in page.resources}
            is_whole = page.total == len(came) or (page.total is None and len(came) < size)
            if not is_whole or not all(self._was_asked_for(kind, resource) for resource in page.resources):
                return None
            return _Told(all(map(self.held.holds, page.resources)), page.resources, page.total)

        start = ("_lastUpdated", f"ge{write_instant(self.since)}")
        return self._search(kind, start, *elements, ("_count", str(size)), read=read)

    def _was_asked_for(self, kind: str, resource: dict[str, Any]) -> bool:
        stamp = stamp_of(resource)
        is_dated = parse_instant(stamp[1]) is not None
        return resource.get("resourceType") == kind and is_dated and not _is_before(stamp, self.since)

    def _count(self, kind: str) -> _Question:
        count = len(self.held.ids.get(kind, ()))

        def read(page: Page) -> _Told | None:
            return None if page.total is None else _Told(page.total == count, [], page.total)

        return self._search(kind, ("_summary", "count"), read=read)

    def _anything(self, kind: str) -> _Question:
        """Ask whether there is anything, by a search: what a count hides would go unnoticed."""

        def read(page: Page) -> _Told | None:
            return _NONE if not page.resources and page.total == 0 else None

        return self._search(kind, ("_count", "1"), read=read)

    def _search(self, kind: str, *more: tuple[str, str], read: Callable[[Page], _Told | None]) -> _Question:
        def read_page(said: Said) -> _Told | None:
            page = _page(said)
            return None if page is None else read(page)

        return _Question(kind, self._url(kind, *more), "", read_page)

    def _url(self, kind: str, *more: tuple[str, str]) -> str:
        subject = (search_param(kind, self.capabilities), f"Patient/{self.known.patient_id}")
        return f"{kind}?{urlencode([subject, *more], safe='/:', quote_via=quote)}"

    def _read(self, kind: str, resource_id: str) -> _Question:
        key = (kind, resource_id)
        version = self.held.versions[key][0]

        def read(said: Said) -> _Told | None:
            status, resource = _status(said), said.get("resource")
            if status == "304":
                return _NONE if version else None
            same = isinstance(resource, dict) and key_of(resource) == key and self.held.holds(resource)
            return _NONE if status == "200" and same and not _has_outcome(said) else None

        return _Question(kind, "/".join(key), version, read)


def _is_before(stamp: Stamp, since: datetime) -> bool:
    changed_at = parse_instant(stamp[1])
    return changed_at is not None and changed_at < since


def _status(said: Said) -> str:
    """Return the three digits of `response.status`: "200", "200 OK"."""
    response = said.get("response")
    status = str(response.get("status", "")) if isinstance(response, dict) else ""
    return status.split(" ")[0]


def _has_outcome(said: Said) -> bool:
    """Tell whether an outcome stands beside the answer; some servers write "All OK" beside each."""
    response = said.get("response")
    outcome = response.get("outcome") if isinstance(response, dict) else None
    issues = outcome.get("issue") if isinstance(outcome, dict) else None
    return outcome is not None and (not isinstance(issues, list) or not all(map(_says_nothing, issues)))


def _says_nothing(issue: Any) -> bool:
    return isinstance(issue, dict) and (issue.get("severity"), issue.get("code")) == _NOTHING


def _page(said: Said) -> Page | None:
    """Return what a search answered, or None where it is not all there is, or says more than results."""
    bundle = said.get("resource")
    if _status(said) != "200" or _has_outcome(said) or not isinstance(bundle, dict):
        return None
    entries = bundle.get("entry") or []
    if (bundle.get("resourceType"), bundle.get("type")) != ("Bundle", "searchset"):
        return None
    page = parse_page(bundle)
    is_odd = not isinstance(entries, list) or ("total" in bundle and page.total is None)
    is_whole = page.next_link is None and not page.included and len(entries) == len(page.resources)
    return page if is_whole and not is_odd else None


def _finds_nothing(said: Said) -> bool:
    page = _page(said)
    return page is not None and not page.resources and not page.total


def _finds_something(said: Said) -> bool:
    page = _page(said)
    return page is not None and bool(page.resources or page.total)


_NONE = _Told(True, [], None)
"""An answer that tells of no change."""
