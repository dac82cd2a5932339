"""The images of one study as somebody may look at them: listed, held against the patient, fetched, rendered.

Not a pixel is read before the header's record number, issuer and birth date are the patient's (SAFETY 3); one
image of somebody else keeps the whole study closed. What is fetched stays in memory for minutes, bounded in
bytes; nothing is written down, and no UID leaves this module but for the site's own viewer.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeVar

from connectors.dicomweb.archives import Archives
from connectors.dicomweb.client import Pacs, StudyFound
from connectors.dicomweb.keyobjects import marked_instances
from connectors.dicomweb.links import CANCELLED, NO_UID, StudyLink, links_of, missing_endpoints
from connectors.errors import ConnectorError, ForeignLink, NotFoundError, RefusedError
from connectors.fhir.client import FhirClient
from connectors.fhir.pictures import fetch_picture, pictures_of
from service.api.presets import Preset
from service.api.shelf import Shelf
from service.imaging.burned import is_burned_in
from service.imaging.header import header_of
from service.imaging.kinds import Kind, kind_of
from service.imaging.picture import Header, Rendered, Spot, Unreadable
from service.imaging.reader import PictureReader
from service.imaging.volume import stack_of
from service.imaging.whose import whose

Resource = Mapping[str, Any]
Result = TypeVar("Result")
SIDE: Final = 896
THUMB_SIDE: Final = 192
PAGES: Final = 60
"""Pages of a scanned document that can be looked at."""
LIMIT_S: Final = 25.0
"""How long somebody who looks waits for the list of a study, and again for one image."""
_KEPT_S: Final = 180.0
_MIB: Final = 1024 * 1024
_WHOLE: Final = Spot("", "", "")


class Why(StrEnum):
    """Why there is nothing to look at."""

    NOT_CONFIGURED = "not_configured"
    FOREIGN = "foreign"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    ABSENT = "absent"
    ANOTHER = "another"
    NO_PICTURES = "no_pictures"
    UNREADABLE = "unreadable"


class NoPictureError(Exception):
    """There is nothing to look at. `detail` is safe to show."""

    def __init__(self, why: Why, detail: str = "") -> None:
        super().__init__(why.value)
        self.why = why
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame that can be looked at; of a photograph or a scanned page there is no header."""

    number: int
    """Within its instance, from 1."""
    header: Header | None = None
    base_url: str = ""
    is_marked: bool = False
    """True where somebody marked the instance as a key image."""


@dataclass(frozen=True, slots=True)
class Look:
    """What can be looked at of one resource, in order; places count from 1."""

    source: str
    frames: tuple[Frame, ...]
    notes: tuple[str, ...] = ()
    """What is missing."""
    study: str = ""
    """Study instance UID, for the site's own viewer alone."""
    photograph: bytes = field(default=b"", repr=False)

    def at(self, place: int) -> Frame:
        """Return the frame at a place. Raises NoPictureError beyond the last."""
        if not 0 < place <= len(self.frames):
            raise NoPictureError(Why.ABSENT)
        return self.frames[place - 1]

    def place_of(self, instance: str, number: int) -> int:
        """Return the place of a frame of an instance. Raises NoPictureError where it is not there.

        A picture of the chart itself is of no instance.
        """
        for place, frame in enumerate(self.frames, 1):
            own = frame.header.spot.instance if frame.header is not None else ""
            if (own, frame.number) == (instance, number):
                return place
        raise NoPictureError(Why.ABSENT, "The image that this source names is not in the study now.")

    @property
    def middle(self) -> int:
        """The place that stands for the whole: a marked one, else the middle."""
        marked = (place for place, frame in enumerate(self.frames, 1) if frame.is_marked)
        return next(marked, (len(self.frames) + 1) // 2)


class Gallery:
    """Looks at studies and pictures. `archives` is None where no image archive is configured."""

    def __init__(
        self,
        archives: Archives | None,
        reader: PictureReader,
        issuers: Mapping[str, str] | None = None,
        *,
        limit_s: float = LIMIT_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._archives = archives
        self._reader = reader
        self._issuers = issuers or {}
        self._limit_s = limit_s
        self._studies: Shelf[StudyFound] = Shelf(_KEPT_S, 64 * _MIB, now)
        self._files: Shelf[bytes] = Shelf(_KEPT_S, 192 * _MIB, now)
        self._shown: Shelf[Rendered] = Shelf(_KEPT_S, 64 * _MIB, now)

    async def aclose(self) -> None:
        """End the reader's process and close every connection."""
        await asyncio.to_thread(self._reader.close)
        if self._archives is not None:
            await self._archives.aclose()

    async def look(self, client: FhirClient, resource: Resource, patient: Resource) -> Look:
        """Return what can be looked at of an ImagingStudy, a Media or a DocumentReference of a patient.

        `client` reads as whoever looks; it has just read `resource` and `patient`. Raises NoPictureError.
        """
        if subject_of(resource) != f"Patient/{patient.get('id')}":
            raise NoPictureError(Why.ANOTHER)
        if resource.get("resourceType") == "ImagingStudy":
            return await self._in_time(self._study(client, resource, patient))
        return await self._in_time(self._photograph(client, resource))

    async def show(
        self, look: Look, place: int, preset: Preset, patient: Resource, side: int = SIDE
    ) -> Rendered:
        """Return one frame as a square PNG. Raises NoPictureError."""
        frame = look.at(place)
        digest = hashlib.sha256(look.photograph).digest()
        key = (look.source, *_key(frame), frame.number, preset.key, side, digest)
        shown = self._shown.get(key)
        if shown is None:
            shown = await self._in_time(self._render(look, frame, preset, side))
            self._shown.put(key, shown, len(shown.png))
        if frame.header is not None and (shown.header is None or whose(shown.header, patient, self._issuers)):
            raise NoPictureError(Why.ANOTHER)
        return shown

    async def _in_time(self, work: Awaitable[Result]) -> Result:
        try:
            async with asyncio.timeout(self._limit_s):
                return await work
        except TimeoutError:
            raise NoPictureError(Why.UNREACHABLE) from None
        except ConnectorError as error:
            raise _explained(error) from None

    async def _study(self, client: FhirClient, resource: Resource, patient: Resource) -> Look:
        archives = self._archives
        if archives is None:
            raise NoPictureError(Why.NOT_CONFIGURED)
        endpoints = await _endpoints(client, resource)
        links = links_of([resource, *endpoints], archives.pacs_url, archives.allowed_origins)
        ways = [link for link in links if link.base_url]
        if not ways:
            raise _no_way(links)
        found = [(link, await self._listed(archives.at(link.base_url), link)) for link in ways]
        frames = tuple(frame for link, one in found for frame in _frames(link, one))
        headers = [frame.header for frame in frames if frame.header is not None]
        if any(whose(header, patient, self._issuers) for header in headers):
            raise NoPictureError(Why.ANOTHER)
        if not frames:
            raise NoPictureError(Why.NO_PICTURES)
        notes = dict.fromkeys(gap.detail for _, one in found for gap in one.gaps)
        missed = dict.fromkeys(link.reason for link in links if not link.base_url)
        return Look(links[0].source, frames, (*notes, *missed), links[0].study)

    async def _listed(self, pacs: Pacs, link: StudyLink) -> StudyFound:
        key = (pacs.base_url, link.study, *link.series)
        kept = self._studies.get(key)
        if kept is not None:
            return kept
        found = await pacs.study(link.study, series=link.series)
        if not found.is_partial:
            self._studies.put(key, found, 1024 * len(found.instances))
        return found

    async def _photograph(self, client: FhirClient, resource: Resource) -> Look:
        links = pictures_of([resource])
        if not links:
            raise NoPictureError(Why.NO_PICTURES)
        data = await fetch_picture(client, links[0])
        pages = await asyncio.to_thread(self._reader.read, data, _WHOLE, side=16, most=PAGES)
        if isinstance(pages, Unreadable):
            raise NoPictureError(Why.UNREADABLE, pages.reason)
        more = f"{len(links) - 1} more pictures of this entry are in the chart." if len(links) > 1 else ""
        frames = tuple(Frame(page.frame) for page in pages)
        return Look(links[0].source, frames, tuple(filter(None, [more])), photograph=data)

    async def _render(self, look: Look, frame: Frame, preset: Preset, side: int) -> Rendered:
        if frame.header is None:
            return _one(await self._read(look.photograph, _WHOLE, frame.number, preset, side))
        spot = frame.header.spot
        pacs = self._archive(frame.base_url)
        data = await self._file(pacs, spot)
        read = await self._read(data, spot, frame.number, preset, side)
        if isinstance(read, Unreadable):
            return await self._as_archive_shows(pacs, frame, side, read)
        return _one(read)

    async def _as_archive_shows(self, pacs: Pacs, frame: Frame, side: int, why: Unreadable) -> Rendered:
        """Return the archive's own rendering of what could not be read here."""
        assert frame.header is not None
        spot = frame.header.spot
        try:
            data = await pacs.rendered(spot.study, spot.series, spot.instance, frame.number)
        except ConnectorError:
            raise NoPictureError(Why.UNREADABLE, why.reason) from None
        read = await asyncio.to_thread(self._reader.read, data, _WHOLE, side=side)
        if isinstance(read, Unreadable):
            raise NoPictureError(Why.UNREADABLE, why.reason)
        one = read[0]
        return Rendered(
            one.png, "as the image archive renders it", frame.number, is_burned_in(frame.header),
            one.rows, one.columns, one.side, frame.header,
        )  # fmt: skip

    async def _read(
        self, data: bytes, spot: Spot, number: int, preset: Preset, side: int
    ) -> tuple[Rendered, ...] | Unreadable:
        return await asyncio.to_thread(
            self._reader.read, data, spot, side=side, frames=(number,), window=preset.window,
            as_model=preset.as_model,
        )  # fmt: skip

    async def _file(self, pacs: Pacs, spot: Spot) -> bytes:
        key = (pacs.base_url, spot.study, spot.series, spot.instance)
        kept = self._files.get(key)
        if kept is None:
            kept = await pacs.instance(spot.study, spot.series, spot.instance)
            self._files.put(key, kept, len(kept))
        return kept

    def _archive(self, base_url: str) -> Pacs:
        if self._archives is None:
            raise NoPictureError(Why.NOT_CONFIGURED)
        return self._archives.at(base_url)


async def _endpoints(client: FhirClient, study: Resource) -> list[dict[str, Any]]:
    """Read the Endpoints that a study refers to; one that cannot be read is none."""

    async def read(reference: str) -> dict[str, Any] | None:
        try:
            return await client.read(reference)
        except ConnectorError:
            return None

    found = await asyncio.gather(*map(read, missing_endpoints([study])[:10]))
    return [one for one in found if one is not None]


def _frames(link: StudyLink, found: StudyFound) -> list[Frame]:
    """Return a study's pictures, series by series, slices by their place in the patient, localizers last."""
    marked = frozenset(marked_instances(found.instances))
    series: dict[str, list[Header]] = {}
    for item in found.instances:
        header = header_of(item)
        if kind_of(header.sop_class, header.modality) is Kind.PICTURE and header.spot.instance:
            series.setdefault(header.spot.series, []).append(header)
    return [
        Frame(number, header, link.base_url, header.spot.instance in marked)
        for headers in series.values()
        for header in stack_of(headers).all
        for number in range(1, header.frames + 1)
    ]


def _key(frame: Frame) -> tuple[str, ...]:
    spot = frame.header.spot if frame.header is not None else _WHOLE
    return frame.base_url, spot.study, spot.series, spot.instance


def _one(read: tuple[Rendered, ...] | Unreadable) -> Rendered:
    if isinstance(read, Unreadable):
        raise NoPictureError(Why.UNREADABLE, read.reason)
    if not read:
        raise NoPictureError(Why.ABSENT)
    return read[0]


def subject_of(resource: Resource) -> str:
    """Return whom a resource says that it is about: `Patient/1`, or an empty string."""
    subject = resource.get("subject")
    reference = subject.get("reference") if isinstance(subject, dict) else None
    plain = reference.partition("/_history/")[0] if isinstance(reference, str) else ""
    return "/".join(plain.rsplit("/", 2)[-2:])


def _no_way(links: tuple[StudyLink, ...]) -> NoPictureError:
    reasons = {link.reason for link in links}
    why = Why.ABSENT if reasons <= {NO_UID, CANCELLED} else Why.FOREIGN
    return NoPictureError(why, " ".join(sorted(reasons)))


def _explained(error: ConnectorError) -> NoPictureError:
    if isinstance(error, ForeignLink):
        return NoPictureError(Why.FOREIGN)
    if isinstance(error, RefusedError):
        return NoPictureError(Why.REFUSED)
    if isinstance(error, NotFoundError):
        return NoPictureError(Why.ABSENT)
    return NoPictureError(Why.UNREACHABLE)
