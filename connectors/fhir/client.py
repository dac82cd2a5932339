"""The FHIR R4 REST interactions that Epicrisis needs, on one server: read, search by pages, create, update,
transaction. Answers are JSON as received; what is no FHIR becomes a typed error (`connectors.errors`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from connectors.auth import Auth, NoAuth
from connectors.errors import (
    BadUrl,
    BrokenJson,
    ConnectorError,
    InvalidId,
    NoSuchHost,
    NotFhir,
    NothingListens,
    PagingLoop,
    UntrustedTls,
    WrongRelease,
)
from connectors.fhir.capabilities import UNDECLARED, Capabilities, parse_capabilities
from connectors.fhir.codec import decode, encode
from connectors.fhir.outcome import explain_answer
from connectors.fhir.reference import Reference, parse_reference, reference_of, reference_of_write
from connectors.http import Answer, Params, Patience, Session
from connectors.limits import Limits
from connectors.origin import follow

FHIR_JSON = "application/fhir+json"
_READ = {"Accept": FHIR_JSON}
_WRITE = {"Accept": FHIR_JSON, "Content-Type": FHIR_JSON, "Prefer": "return=minimal"}
_ASK = {"Accept": FHIR_JSON, "Content-Type": FHIR_JSON}
NOT_MODIFIED = 304
_CLOCK_GRAIN_S = 2.0
_FATAL = (BadUrl, NoSuchHost, NothingListens, UntrustedTls, WrongRelease)
"""Failures of the first request that no other request would survive."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a search: resources as received (included ones too), and the outcomes among them."""

    number: int
    """From 1."""
    resources: list[dict[str, Any]]
    outcomes: list[dict[str, Any]]
    """OperationOutcomes, with `search.mode = outcome` or without: what the server says it left out."""
    total: int | None
    """How many matches the server counted, where it says so."""
    next_link: str | None
    """As the server wrote it; None on the last page."""
    included: int = 0
    """How many of the resources were not matches but came along (`search.mode = include`)."""
    size: int = 0
    """Length of the page's JSON, in bytes."""


@dataclass(frozen=True, slots=True)
class Written:
    """Where one write ended up. `created` is False when a conditional create found the resource."""

    reference: Reference
    created: bool


class FhirClient:
    """One FHIR server. Use as an async context manager.

    `amend_capabilities` is for what a site knows better than the server's CapabilityStatement.
    """

    def __init__(
        self,
        base_url: str,
        *,
        auth: Auth | None = None,
        limits: Limits | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        allowed_origins: tuple[str, ...] = (),
        ca_file: Path | None = None,
        patience: Patience | None = None,
        amend_capabilities: Callable[[Capabilities], Capabilities] = lambda declared: declared,
    ) -> None:
        self.session = Session(
            base_url,
            auth=auth or NoAuth(),
            limits=limits or Limits(),
            transport=transport,
            allowed_origins=allowed_origins,
            ca_file=ca_file,
            patience=patience or Patience(),
            explain=explain_answer,
        )
        self._amend = amend_capabilities
        self._own = frozenset({self.session.origin})
        self._capabilities: Capabilities | None = None
        self._has_adopted = False
        self._asking = asyncio.Lock()
        self._proofs: dict[str, bool] = {}
        self._proving = asyncio.Lock()
        self.clock_lag_s = 0.0
        """How far the server's clock was behind ours at its last answer to a read (RFC 9110 6.6.1: Date)."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self.session.aclose()

    @property
    def base_url(self) -> str:
        """The FHIR base URL, without a trailing slash."""
        return self.session.base_url

    @property
    def limits(self) -> Limits:
        """The limits of this connection."""
        return self.session.limits

    async def capabilities(self, *, own: bool = False) -> Capabilities:
        """Return what the server offers; read once. Raises WrongRelease, and where nothing answers.

        With `own`, what was adopted from an earlier client is read again.
        """
        async with self._asking:
            if self._capabilities is None or (own and self._has_adopted):
                self._has_adopted = False
                try:
                    statement = await self._get(self.session.url("metadata"))
                except _FATAL:
                    raise
                except ConnectorError:
                    return self._amend(UNDECLARED)
                self._capabilities = self._amend(parse_capabilities(statement))
            return self._capabilities

    async def read(self, reference: str, *, if_none_match: str = "") -> dict[str, Any]:
        """Return the resource at `Type/id` or `Type/id/_history/v`. Raises InvalidId, NotFoundError, …"""
        target = parse_reference(reference, self.base_url)
        if target is None:
            raise InvalidId("This is not a legal FHIR reference.")
        resource = await self._get(self.session.url(str(target)), if_none_match)
        if resource.get("resourceType") != target.resource_type:
            raise NotFhir(f"The server {self.session.origin} answered with another kind of resource.")
        return resource

    async def read_if_changed(self, reference: str, version: str) -> dict[str, Any] | None:
        """Return the resource, or None where it still has this version id (R4 http 3.1.0.2.1)."""
        try:
            return await self.read(reference, if_none_match=version)
        except ConnectorError as error:
            if error.status == NOT_MODIFIED:
                return None
            raise

    async def pages(
        self, path: str, params: Params = (), *, max_bytes: int | None = None
    ) -> AsyncIterator[Page]:
        """Yield every page of a search below the base URL, following `link[next]` to the end.

        `max_bytes` bounds each page more tightly than the limits do.
        Raises PagingLoop for pages that repeat or do not end, ForeignLink for a link to another origin.
        """
        url: str | None = self.session.url(path)
        query: Params | None = params
        loop = _LoopGuard(self.session.origin, self.limits.max_pages)
        while url is not None:
            loop.check_url(url)
            answer = await self.session.send(
                "GET", url, params=query, headers=_READ, repeatable=True, max_bytes=max_bytes
            )
            page = self._page(answer, loop.count)
            loop.check_page(answer.url, page)
            yield page
            url, query = page.next_link and follow(page.next_link, answer.url, self._own), None

    async def search(self, resource_type: str, params: Params = ()) -> list[dict[str, Any]]:
        """Return every resource of this type that matches."""
        return [
            resource
            async for page in self.pages(resource_type, params)
            for resource in page.resources
            if resource.get("resourceType") == resource_type
        ]

    async def create(self, resource: dict[str, Any], *, if_none_exist: str | None = None) -> Written:
        """Create a resource; with `if_none_exist` only where that search finds none (and repeatable)."""
        headers = _WRITE if if_none_exist is None else {**_WRITE, "If-None-Exist": if_none_exist}
        url = self.session.url(str(resource["resourceType"]))
        answer = await self.session.send(
            "POST", url, headers=headers, content=encode(resource), repeatable=if_none_exist is not None
        )
        return self._written(answer)

    async def update(self, resource: dict[str, Any], *, if_match: str | None = None) -> Written:
        """Write a resource at its own id. With `if_match` (a version id) it may be repeated.

        After a lost answer the repetition can end in PreconditionFailed although the first one was written.
        """
        target = reference_of(resource)
        if target is None:
            raise InvalidId("A resource without a legal id cannot be updated.")
        target = target._replace(version="")
        headers = _WRITE if if_match is None else {**_WRITE, "If-Match": f'W/"{if_match}"'}
        answer = await self.session.send(
            "PUT",
            self.session.url(str(target)),
            headers=headers,
            content=encode(resource),
            repeatable=if_match is not None,
        )
        return self._written(answer)

    async def transaction(self, bundle: dict[str, Any]) -> dict[str, Any]:
        """Post a transaction Bundle once, never repeated, and return the transaction-response."""
        answer = await self.session.send(
            "POST", self.base_url, headers=_WRITE, content=encode(bundle), repeatable=False
        )
        return self._resource(answer)

    async def batch(self, reads: list[dict[str, Any]], *, max_bytes: int | None = None) -> dict[str, Any]:
        """Post a batch of GET entries, which may be repeated, and return the batch-response."""
        bundle = {"resourceType": "Bundle", "type": "batch", "entry": reads}
        answer = await self.session.send(
            "POST", self.base_url, headers=_ASK, content=encode(bundle), repeatable=True, max_bytes=max_bytes
        )
        self._note_clock(answer)
        return self._resource(answer)

    def adopt(self, capabilities: Capabilities) -> None:
        """Take what an earlier client of the same server read, unless this one has asked itself."""
        if self._capabilities is None and capabilities.declared:
            self._capabilities, self._has_adopted = capabilities, True

    async def proven(self, what: str, prove: Callable[[], Awaitable[bool]]) -> bool:
        """Return what `prove` finds out about this server, once for each `what`. Errors are not kept."""
        async with self._proving:
            if what not in self._proofs:
                self._proofs[what] = await prove()
            return self._proofs[what]

    def proof(self, what: str) -> bool | None:
        """Return what `proven` found out before, None where nothing was asked yet."""
        return self._proofs.get(what)

    async def _get(self, url: str, if_none_match: str = "") -> dict[str, Any]:
        headers = {**_READ, "If-None-Match": f'W/"{if_none_match}"'} if if_none_match else _READ
        answer = await self.session.send("GET", url, headers=headers, repeatable=True)
        self._note_clock(answer)
        return self._resource(answer)

    def _note_clock(self, answer: Answer) -> None:
        """Date has whole seconds: less than two are no difference."""
        try:
            date = parsedate_to_datetime(answer.headers.get("date", ""))
            lag_s = self.session.patience.now() - date.timestamp()
        except (TypeError, ValueError, IndexError, OverflowError):
            return
        self.clock_lag_s = lag_s if lag_s >= _CLOCK_GRAIN_S else 0.0

    def _resource(self, answer: Answer) -> dict[str, Any]:
        value = self._decoded(answer)
        if not isinstance(value, dict) or not isinstance(value.get("resourceType"), str):
            raise NotFhir(f"The answer of {self.session.origin} is JSON, but no FHIR resource.")
        return value

    def _decoded(self, answer: Answer) -> Any:
        try:
            return decode(answer.body)
        except BrokenJson:
            if answer.body.lstrip()[:1] == b"<":
                raise NotFhir(f"The server {self.session.origin} answered with a page, not JSON.") from None
            raise

    def _page(self, answer: Answer, number: int) -> Page:
        bundle = self._resource(answer)
        if bundle["resourceType"] != "Bundle":
            raise NotFhir(f"The server {self.session.origin} answered a search without a Bundle.")
        return parse_page(bundle, number, len(answer.body))

    def _written(self, answer: Answer) -> Written:
        try:
            resource = decode(answer.body) if answer.body else None
        except BrokenJson:
            resource = None
        headers = answer.headers
        where = reference_of_write(headers.get("location", ""), headers.get("etag", ""), resource)
        if where is None:
            raise NotFhir(f"The server {self.session.origin} does not say where it put what was written.")
        return Written(where, created=answer.status == 201)


def parse_page(bundle: dict[str, Any], number: int = 1, size: int = 0) -> Page:
    """Return what a searchset Bundle holds; entries without a resource are left out."""
    resources, outcomes, included = _entries(bundle)
    total = bundle.get("total")
    return Page(
        number=number,
        resources=resources,
        outcomes=outcomes,
        total=total if isinstance(total, int) and not isinstance(total, bool) else None,
        next_link=_next_link(bundle),
        included=included,
        size=size,
    )


class _LoopGuard:
    """Notices a search that does not end: the same URL, the same content, or too many pages."""

    def __init__(self, origin: str, max_pages: int) -> None:
        self._origin = origin
        self._max_pages = max_pages
        self._urls: set[str] = set()
        self._contents: set[int] = set()
        self.count = 0

    def check_url(self, url: str) -> None:
        self.count += 1
        if url in self._urls:
            raise PagingLoop(f"A page of {self._origin} links to one that was already read.")
        if self.count > self._max_pages:
            raise PagingLoop(f"A search on {self._origin} does not end after {self._max_pages} pages.")
        self._urls.add(url)

    def check_page(self, url: str, page: Page) -> None:
        self._urls.add(url)
        if not page.resources or (page.number == 1 and page.next_link is None):
            return
        content = hash(tuple(map(identity, page.resources)))
        if content in self._contents:
            raise PagingLoop(f"A page of {self._origin} repeats one that was already read.")
        self._contents.add(content)


Identity = tuple[str, str, str]


def identity(resource: dict[str, Any]) -> Identity:
    """Return (type, id, version) as text: equal for the same version of the same resource."""
    meta = resource.get("meta")
    version = meta.get("versionId") or meta.get("lastUpdated") if isinstance(meta, dict) else None
    return (str(resource.get("resourceType")), str(resource.get("id")), str(version))


Entries = tuple[list[dict[str, Any]], list[dict[str, Any]], int]


def _entries(bundle: dict[str, Any]) -> Entries:
    resources: list[dict[str, Any]] = []
    outcomes: list[dict[str, Any]] = []
    included = 0
    entries = bundle.get("entry")
    for entry in entries if isinstance(entries, list) else ():
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if not isinstance(resource, dict):
            continue
        search = entry.get("search")
        mode = search.get("mode") if isinstance(search, dict) else None
        if resource.get("resourceType") == "OperationOutcome":
            outcomes.append(resource)
        else:
            resources.append(resource)
            included += mode == "include"
    return resources, outcomes, included


def _next_link(bundle: dict[str, Any]) -> str | None:
    links = bundle.get("link")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("relation") == "next" and isinstance(link.get("url"), str):
            return str(link["url"])
    return None


Progress = Callable[[str, int], None]
"""(what is being read, how many so far): a resource type, `record` for `$everything`, or `attachments`."""
