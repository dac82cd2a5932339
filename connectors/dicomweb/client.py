"""The DICOMweb services that Epicrisis needs from one PACS: what a study holds, instances, rendered frames.

Nothing is ever sent to a PACS. UIDs are checked before they become a URL, and an answer about another study
or instance than was asked for is refused. Part of a study that could not be had is a gap, not a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from connectors.auth import Auth, NoAuth
from connectors.dicomweb import part10
from connectors.dicomweb.attributes import (
    INSTANCE,
    SERIES,
    STUDY,
    count,
    is_uid,
    read_items,
    uid,
)
from connectors.dicomweb.multipart import FirstPart
from connectors.errors import (
    BadUrl,
    ConnectorError,
    InvalidId,
    NoSuchHost,
    NotDicom,
    NotFoundError,
    NothingListens,
    RequestRejected,
    ServerFailed,
    UntrustedTls,
)
from connectors.fhir.outcome import reason_of_error
from connectors.fhir.pull import Gap, GapReason
from connectors.http import Params, Patience, Reading, Session, read_whole
from connectors.limits import ImagingLimits, Limits

_JSON = {"Accept": "application/dicom+json"}
_INSTANCE_FORMS = (
    'multipart/related; type="application/dicom"; transfer-syntax=*',
    'multipart/related; type="application/dicom"',
)
"""As stored first: without it a PACS has to decompress, and not each can (Orthanc without GDCM: 500)."""
_SIZE = "00201209"
"""Number of Series Related Instances."""
_SERIES_FIELDS = (("includefield", _SIZE),)
_OF_ANOTHER = "The PACS lists what belongs to another study or series, which was left out."
_ONLY = "Only {:,} images are listed."
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
"""How PNG and JPEG begin."""
_RENDERED_FORMS = ("image/png", "image/jpeg")
_NOT_OFFERED = frozenset({400, 404, 405, 406, 415, 500, 501})
"""What servers answer to a form or a search that they do not have. Orthanc writes 400 and 500."""
_FATAL = (BadUrl, NoSuchHost, NothingListens, UntrustedTls)
"""Failures of one request that no other request of the same study would survive."""


@dataclass(frozen=True, slots=True)
class StudyFound:
    """What a PACS says that a study holds: metadata of its instances, and what it could not say."""

    study: str
    instances: tuple[dict[str, Any], ...] = field(repr=False)
    """DICOM JSON, reduced to `attributes.KEPT`, series by series as the PACS lists them; no pixels."""
    gaps: tuple[Gap, ...] = ()

    @property
    def is_partial(self) -> bool:
        """True where instances may be missing."""
        return bool(self.gaps)


@dataclass(frozen=True, slots=True)
class Fetched:
    """Instances of a series by their UID, and why others could not be had."""

    files: dict[str, bytes] = field(repr=False)
    failures: dict[str, ConnectorError]


class Pacs:
    """One PACS, by its DICOMweb base URL. Use as an async context manager, or call `aclose`."""

    def __init__(
        self,
        base_url: str,
        *,
        auth: Auth | None = None,
        limits: Limits | None = None,
        imaging: ImagingLimits | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        ca_file: Path | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.session = Session(
            base_url,
            auth=auth or NoAuth(),
            limits=limits or Limits(read_s=30.0, total_s=120.0, retries=2, concurrency=4),
            transport=transport,
            ca_file=ca_file,
            patience=patience or Patience(),
        )
        self.imaging = imaging or ImagingLimits()

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
        """The DICOMweb base URL, without a trailing slash."""
        return self.session.base_url

    async def study(self, study: str, *, series: Sequence[str] = ()) -> StudyFound:
        """Return the metadata of a study's instances, or of these series. Raises ConnectorError.

        It raises where nothing of the study could be had; a series that fails is a gap.
        """
        _check(study, *series)
        wanted = dict.fromkeys(series) or await self._series_of(study)
        if not wanted:
            return await self._study_at_once(study)
        most = self.imaging.max_series
        answers = await asyncio.gather(
            *(self._one_series(study, one, wanted[one]) for one in list(wanted)[:most])
        )
        failures = [one for one in answers if isinstance(one, ConnectorError)]
        listed = [one for one in answers if isinstance(one, StudyFound)]
        if failures and not any(one.instances for one in listed):
            raise failures[0]
        gaps = [_gap(reason_of_error(failure), failure.message) for failure in failures]
        if len(wanted) > most:
            gaps.append(_gap(GapReason.TOO_LARGE, f"Only {most} series are listed."))
        return self._joined(study, listed, gaps)

    async def instance(self, study: str, series: str, instance: str) -> bytes:
        """Return one instance as a DICOM file (PS3.10), in the transfer syntax in which it is stored.

        Raises ConnectorError: TooLarge beyond the limit, NotDicom for anything that is not this instance.
        """
        _check(study, series, instance)
        url = self.session.url(f"studies/{study}/series/{series}/instances/{instance}")
        limit = self.imaging.max_instance_bytes
        data = await self._in_a_form(
            url, _INSTANCE_FORMS, limit, FirstPart("application/dicom", limit, self.imaging)
        )
        if not part10.is_file(data):
            raise NotDicom("The PACS answered with something that is no DICOM file.")
        if part10.instance_of(data) != instance:
            raise NotDicom("The PACS answered with another instance than was asked for.")
        return data

    async def instances(self, study: str, series: str, wanted: Sequence[str]) -> Fetched:
        """Return those of these instances that could be had, few at a time. Never raises ConnectorError.

        After a failure that the others would share (no such host, refused connection) none is asked for.
        """
        files: dict[str, bytes] = {}
        failures: dict[str, ConnectorError] = {}
        seats = asyncio.Semaphore(self.session.limits.concurrency)
        fatal: list[ConnectorError] = []

        async def take(one: str) -> None:
            async with seats:
                try:
                    if fatal:
                        raise fatal[0]
                    files[one] = await self.instance(study, series, one)
                except ConnectorError as failure:
                    failures[one] = failure
                    fatal.extend([failure] if isinstance(failure, _FATAL) else [])

        await asyncio.gather(*map(take, dict.fromkeys(wanted)))
        return Fetched(files, failures)

    async def rendered(
        self,
        study: str,
        series: str,
        instance: str,
        frame: int = 1,
        *,
        window: tuple[float, float] | None = None,
    ) -> bytes:
        """Return one frame as the PACS renders it, PNG or JPEG. `window` is centre and width.

        It is what remains for an image that we cannot decode. Raises ConnectorError.
        """
        _check(study, series, instance)
        frames = f"/frames/{frame}" if frame > 1 else ""
        url = self.session.url(f"studies/{study}/series/{series}/instances/{instance}{frames}/rendered")
        params = (("window", f"{window[0]:g},{window[1]:g},linear"),) if window else ()
        limit = self.imaging.max_rendered_bytes
        data = await self._in_a_form(url, _RENDERED_FORMS, limit, read_whole, params)
        if not data.startswith(_MAGIC):
            raise NotDicom("The PACS answered with something that is no picture.")
        return data

    async def _series_of(self, study: str) -> dict[str, int | None]:
        """Return a study's series with the size of each by QIDO-RS; none where there is no such search."""
        most = self.imaging.max_series + 1
        try:
            items = await self._search(f"studies/{study}/series", _SERIES_FIELDS, most)
        except (NotFoundError, RequestRejected, ServerFailed) as failure:
            if failure.status not in _NOT_OFFERED:
                raise
            return {}
        except NotDicom:
            return {}
        return {uid(item, SERIES): count(item, _SIZE) for item in items if uid(item, SERIES)}

    async def _study_at_once(self, study: str) -> StudyFound:
        """Ask for all metadata in one: a study without a search, or one that the PACS does not have."""
        found = await self._listed(study, f"studies/{study}/metadata")
        if not found.instances:
            raise NotFoundError("The PACS has no images of this study.", "They may be in another archive.")
        return found

    async def _one_series(self, study: str, series: str, size: int | None) -> StudyFound | ConnectorError:
        try:
            found = await self._listed(study, f"studies/{study}/series/{series}/metadata")
        except ConnectorError as failure:
            return failure
        own = tuple(item for item in found.instances if uid(item, SERIES) == series)
        gaps = found.gaps
        if len(own) < len(found.instances):
            gaps += (_gap(GapReason.FAILED, _OF_ANOTHER),)
        if size is not None and len(own) < size and not gaps:
            gaps += (_gap(GapReason.FAILED, "The PACS lists fewer images of a series than it counts."),)
        return StudyFound(study, own, gaps)

    async def _listed(self, study: str, path: str) -> StudyFound:
        """Return what one answer lists, without what is not of this study."""
        most = self.imaging.max_instances
        items, is_more = await self._metadata(path)
        own = tuple(item for item in items if uid(item, STUDY) == study and uid(item, INSTANCE))
        gaps = [_gap(GapReason.FAILED, _OF_ANOTHER)] if len(own) < len(items) else []
        if is_more:
            gaps.append(_gap(GapReason.TOO_LARGE, _ONLY.format(most)))
        return StudyFound(study, own, tuple(gaps))

    def _joined(self, study: str, listed: Sequence[StudyFound], gaps: list[Gap]) -> StudyFound:
        most = self.imaging.max_instances
        instances = tuple(item for one in listed for item in one.instances)
        gaps += [gap for one in listed for gap in one.gaps]
        if len(instances) > most:
            gaps.append(_gap(GapReason.TOO_LARGE, _ONLY.format(most)))
        return StudyFound(study, instances[:most], tuple(dict.fromkeys(gaps)))

    async def _metadata(self, path: str) -> tuple[list[dict[str, Any]], bool]:
        answer = await self.session.send(
            "GET",
            self.session.url(path),
            headers=_JSON,
            repeatable=True,
            max_bytes=self.imaging.max_metadata_bytes,
        )
        return read_items(answer.body, self.imaging.max_instances)

    async def _search(self, path: str, params: Params, most: int) -> list[dict[str, Any]]:
        """Return what a search finds, page by page; a page that brings nothing new is the last."""
        found: dict[tuple[str, str, str], dict[str, Any]] = {}
        url, size = self.session.url(path), self.imaging.page_size
        while len(found) < most:
            page = (*params, ("limit", str(size)), ("offset", str(len(found))))
            answer = await self.session.send("GET", url, params=page, headers=_JSON, repeatable=True)
            items, _ = read_items(answer.body, most)
            before = len(found)
            found |= {_key(item): item for item in items}
            if len(items) < size or len(found) == before:
                break
        return list(found.values())[:most]

    async def _in_a_form(
        self, url: str, forms: Sequence[str], max_bytes: int, reading: Reading, params: Params = ()
    ) -> bytes:
        """Ask for one form after the other; the last failure counts."""
        for form in forms[:-1]:
            try:
                return await self._take(url, form, max_bytes, reading, params)
            except (RequestRejected, ServerFailed) as failure:
                if failure.status not in _NOT_OFFERED:
                    raise
        return await self._take(url, forms[-1], max_bytes, reading, params)

    async def _take(self, url: str, form: str, max_bytes: int, reading: Reading, params: Params) -> bytes:
        answer = await self.session.send(
            "GET",
            url,
            params=params or None,
            headers={"Accept": form},
            repeatable=True,
            max_bytes=max_bytes + 2 * self.imaging.max_part_head_bytes,
            reading=reading,
        )
        return answer.body


def _check(*uids: str) -> None:
    """Raise InvalidId, without repeating what was given, before anything becomes part of a URL."""
    if not all(map(is_uid, uids)):
        raise InvalidId(
            "This is not a legal DICOM UID.", "A UID has digits and dots, and at most 64 of them."
        )


def _gap(reason: GapReason, detail: str) -> Gap:
    return Gap("ImagingStudy", reason, detail)


def _key(item: dict[str, Any]) -> tuple[str, str, str]:
    return uid(item, STUDY), uid(item, SERIES), uid(item, INSTANCE)
