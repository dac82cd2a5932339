"""From a record's imaging studies to the few pictures that the model is shown, and what could not be seen.

Links, headers, identity, choice, pixels: in this order, and no pixel before the identity of its header agrees
with the patient (SAFETY 3). Whatever an archive does here, the text summary is made all the same.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from connectors.dicomweb.client import Fetched, StudyFound
from connectors.dicomweb.links import StudyLink, links_of, missing_endpoints
from connectors.errors import ConnectorError
from service.imaging.burned import is_burned_in
from service.imaging.choice import Chosen, Sight, choose, prompts_of, shortlist
from service.imaging.header import header_of
from service.imaging.index import Entry
from service.imaging.kinds import Kind as Instance
from service.imaging.kinds import kind_of
from service.imaging.offer import Problem, Study, name_of, series_of
from service.imaging.picture import ENCODER_SIDE, MODEL_SIDE, Header, Picture, Spot
from service.ports.images import Looked, Unseen, Wanted
from service.record.dates import parse_when, show_day
from service.record.facts import Fact, Kind

MOST_STUDIES = 12
"""More are not asked for: the newest are."""
LOOK_S = 90.0
"""How long looking may take in all; what is not there by then is not seen."""
TOO_LATE = "the image archive did not answer in time"
NO_ONE_SAYS_WHOSE = "a picture says no record number or no birth date, so nobody can say whose it is"
ANOTHER = "record number or birth date of a picture are not the patient's: none of the study is used"
UNKNOWN_ISSUER = "who gave out a picture's record number is not known here: none of the study is used"
NO_PICTURES = "the archive holds no pictures of it, only other objects"
ANOTHER_STUDY = "the archive sent another picture than was asked for"
NOT_ASKED = "not asked for: newer studies come first"


class Archive(Protocol):
    """One PACS."""

    async def study(self, study: str, *, series: Sequence[str] = ()) -> StudyFound: ...
    async def instances(self, study: str, series: str, wanted: Sequence[str]) -> Fetched: ...


class Archives(Protocol):
    """The archives of a site. `at` raises ConnectorError beyond the allowed origins."""

    pacs_url: str
    allowed_origins: tuple[str, ...]

    def at(self, base_url: str) -> Archive: ...


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as a reader renders it."""

    png: bytes = field(repr=False)
    window: str


class Pixels(Protocol):
    """Bytes of an instance → one frame as PNG. What cannot be read is a sentence instead. May block."""

    def read(self, data: bytes, spot: Spot, side: int) -> Frame | str: ...


class Eyes(Protocol):
    """An image encoder. It may keep what it saw of this patient."""

    def see(
        self, pngs: Mapping[Spot, bytes], prompts: Sequence[str], patient: str, about: Mapping[Spot, Entry]
    ) -> Sight | None:
        """Look at pictures and words; None where it does not work. May block."""
        ...


@dataclass(frozen=True, slots=True)
class _Listed:
    """One study whose headers are the patient's, with the archive that holds it."""

    link: StudyLink
    study: Study
    headers: Mapping[tuple[str, str], Header]
    """(series, instance) → header."""


class _Own(NamedTuple):
    """One frame of the patient, with the header of its own file."""

    header: Header
    frame: Frame


@dataclass
class Pictures:
    """The PictureSource of a site. `authorities` turn a DICOM issuer into the system of FHIR identifiers."""

    archives: Archives
    pixels: Pixels
    eyes: Eyes | None = None
    authorities: Mapping[str, str] = field(default_factory=dict)
    seconds: float = LOOK_S

    async def look(self, wanted: Wanted) -> Looked:
        """Return what is to be shown, and what could not be seen."""
        look = _Look(self, wanted)
        try:
            async with asyncio.timeout(self.seconds):
                return await look.all()
        except TimeoutError:
            return Looked((), look.late(), "")


class _Look:
    """One patient's pictures."""

    def __init__(self, site: Pictures, wanted: Wanted) -> None:
        self._site, self._wanted = site, wanted
        self._facts = {f.source.reference: f for f in wanted.record.facts if f.kind is Kind.IMAGING}
        self._unseen: list[Unseen] = []
        self._open: dict[str, StudyLink] = {}
        """Links of studies of which nothing was seen or said yet."""

    async def all(self) -> Looked:
        resources = list(self._wanted.resources)
        resources += await self._endpoints(resources)
        found = links_of(resources, self._site.archives.pacs_url, self._site.archives.allowed_origins)
        links = [link for link in found if link.source in self._facts]
        self._open = {_key(link): link for link in links}
        patient = next((one for one in resources if _is_patient(one, self._wanted)), {})
        listed = await self._listed(links, _Whose(patient, self._site.authorities))
        problem = Problem(self._wanted.words)
        files = _Files(self._site)
        sight = await self._sight(listed, problem, files, _Whose(patient, self._site.authorities))
        choice = choose([one.study for one in listed], problem, self._wanted.most, sight)
        pictures = [
            picture
            for chosen in choice.chosen
            if (
                picture := await self._picture(chosen, listed, files, _Whose(patient, self._site.authorities))
            )
        ]
        self._open.clear()
        left = [self._unseen_of(one.source, one.why, one.count) for one in choice.left_out]
        return Looked(tuple(pictures), (*self._unseen, *left), choice.how)

    def late(self) -> tuple[Unseen, ...]:
        """Return what is to be said once time is over."""
        return (*self._unseen, *(self._unseen_of(link.source, TOO_LATE) for link in self._open.values()))

    async def _endpoints(self, resources: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Read the Endpoints that studies name and that were not fetched with the chart."""
        found = []
        for reference in missing_endpoints(resources)[:MOST_STUDIES]:
            try:
                found.append(await self._wanted.read(reference))
            except ConnectorError:
                continue  # the configured archive is asked instead, or it is said that there is none
        return found

    async def _listed(self, links: Sequence[StudyLink], whose: _Whose) -> list[_Listed]:
        for link in (link for link in links if not link.base_url):
            self._miss(link, _as_reason(link.reason))
        ways = sorted((link for link in links if link.base_url), key=self._age)
        for link in ways[MOST_STUDIES:]:
            self._miss(link, NOT_ASKED)
        found = await asyncio.gather(*(self._one(link, whose) for link in ways[:MOST_STUDIES]))
        return [one for one in found if one is not None]

    def _age(self, link: StudyLink) -> tuple[float, str]:
        when = self._facts[link.source].when
        return (-when.earliest.timestamp() if when is not None else 0.0, link.source)

    async def _one(self, link: StudyLink, whose: _Whose) -> _Listed | None:
        try:
            answer = await self._site.archives.at(link.base_url).study(link.study, series=link.series)
        except ConnectorError as failure:
            self._miss(link, _as_reason(failure.message))
            return None
        headers = [header_of(item) for item in answer.instances]
        for gap in answer.gaps:
            self._unseen.append(self._unseen_of(link.source, _as_reason(gap.detail) or gap.reason.value))
        wrong = whose.fault(headers)
        if wrong:
            self._miss(link, wrong)
            return None
        shown = [one for one in headers if kind_of(one.sop_class, one.modality) is Instance.PICTURE]
        others = len(headers) - len(shown)
        if not shown:
            self._miss(link, NO_PICTURES, max(1, others))
            return None
        return _Listed(link, self._study(link, shown), {(h.spot.series, h.spot.instance): h for h in shown})

    def _study(self, link: StudyLink, headers: Sequence[Header]) -> Study:
        fact = self._facts[link.source]
        told = dict(fact.details)
        taken = max((one.taken for one in headers), default="")
        return Study(
            link.study, link.source, series_of(headers), taken=taken,
            description=fact.name, reason=told.get("reason", ""), body_site=told.get("body site", ""),
        )  # fmt: skip

    async def _sight(
        self, listed: Sequence[_Listed], problem: Problem, files: _Files, whose: _Whose
    ) -> Sight | None:
        """Have the encoder look at what may be shown; None where there is none, or it fails."""
        eyes, studies = self._site.eyes, [one.study for one in listed]
        if eyes is None or not studies:
            return None
        ways = {one.study.uid: one for one in listed}
        pngs: dict[Spot, bytes] = {}
        about: dict[Spot, Entry] = {}
        for spot in shortlist(studies, problem, self._wanted.most):
            found = await self._own(ways[spot.study].link, spot, files, whose, ENCODER_SIDE)
            if not isinstance(found, str):
                pngs[spot] = found.frame.png
                about[spot] = self._entry(ways[spot.study].link, spot, found.header)
        prompts = list(dict.fromkeys(text for study in studies for text in prompts_of(study, problem)))
        patient = self._wanted.record.identity.reference
        return await asyncio.to_thread(eyes.see, pngs, prompts, patient, about) if pngs else None

    def _entry(self, link: StudyLink, spot: Spot, header: Header) -> Entry:
        return Entry(
            spot.study, spot.series, spot.instance, spot.frame, link.source,
            modality=header.modality, taken=_day(header.taken), what=_what(header, self._facts[link.source]),
        )  # fmt: skip

    async def _picture(
        self, chosen: Chosen, listed: Sequence[_Listed], files: _Files, whose: _Whose
    ) -> Picture | None:
        spot = chosen.spot
        one = next(one for one in listed if one.link.source == chosen.source and one.study.uid == spot.study)
        found = await self._own(one.link, spot, files, whose, MODEL_SIDE)
        if isinstance(found, str):
            self._unseen.append(self._unseen_of(chosen.source, found))
            return None
        return _as_picture(chosen, found.header, found.frame, self._facts[chosen.source])

    async def _own(self, link: StudyLink, spot: Spot, files: _Files, whose: _Whose, side: int) -> _Own | str:
        """Return a frame whose own file says that it is this patient's and the one asked for, or why not."""
        own = await files.header(link, spot)
        if isinstance(own, str):
            return own
        same = (own.spot.study, own.spot.series, own.spot.instance) == (
            spot.study,
            spot.series,
            spot.instance,
        )
        wrong = whose.fault([own]) if same else ANOTHER_STUDY
        frame = wrong or await files.frame(link, spot, side)
        return frame if isinstance(frame, str) else _Own(own, frame)

    def _miss(self, link: StudyLink, why: str, count: int = 1) -> None:
        self._open.pop(_key(link), None)
        self._unseen.append(self._unseen_of(link.source, why, count))

    def _unseen_of(self, source: str, why: str, count: int = 1) -> Unseen:
        fact = self._facts[source]
        return Unseen(source, fact.name, why, count, show_day(fact.when) if fact.when else "")


class _Files:
    """Instances of one look: each fetched once, kept no longer than it is needed."""

    def __init__(self, site: Pictures) -> None:
        self._site = site
        self._last: tuple[Spot, bytes | str] | None = None

    async def header(self, link: StudyLink, spot: Spot) -> Header | str:
        data = await self._bytes(link, spot)
        return data if isinstance(data, str) else await asyncio.to_thread(header_of, data)

    async def frame(self, link: StudyLink, spot: Spot, side: int) -> Frame | str:
        data = await self._bytes(link, spot)
        if isinstance(data, str):
            return data
        return await asyncio.to_thread(self._site.pixels.read, data, spot, side)

    async def _bytes(self, link: StudyLink, spot: Spot) -> bytes | str:
        """Return an instance, or why it could not be had; the frames of one come one after the other."""
        whole = replace(spot, frame=1)
        if self._last is None or self._last[0] != whole:
            self._last = whole, await self._fetch(link, spot)
        return self._last[1]

    async def _fetch(self, link: StudyLink, spot: Spot) -> bytes | str:
        try:
            archive = self._site.archives.at(link.base_url)
            found = await archive.instances(spot.study, spot.series, [spot.instance])
        except ConnectorError as failure:
            return _as_reason(failure.message)
        if spot.instance in found.files:
            return found.files[spot.instance]
        failed = found.failures.get(spot.instance)
        return _as_reason(failed.message) if failed is not None else "the archive did not send it"


@dataclass(frozen=True)
class _Whose:
    """The patient's record numbers and birth date, against which every header is held (SAFETY 3)."""

    patient: Mapping[str, Any] = field(repr=False)
    authorities: Mapping[str, str] = field(default_factory=dict, repr=False)

    def fault(self, headers: Iterable[Header]) -> str:
        """Return why these headers are not surely this patient's; empty where all are."""
        faults = {fault for header in headers if (fault := self._fault(header))}
        return next((one for one in (ANOTHER, UNKNOWN_ISSUER, NO_ONE_SAYS_WHOSE) if one in faults), "")

    def _fault(self, header: Header) -> str:
        born = str(self.patient.get("birthDate") or "").replace("-", "")
        if not header.patient_id or len(header.birth_date) != 8 or len(born) != 8:
            return NO_ONE_SAYS_WHOSE
        same = [one for one in self._identifiers() if str(one.get("value", "")).strip() == header.patient_id]
        if header.birth_date != born or not same:
            return ANOTHER
        if header.issuer and not any(self._gives_out(one, header.issuer) for one in same):
            return UNKNOWN_ISSUER
        return ""

    def _identifiers(self) -> list[Mapping[str, Any]]:
        found = self.patient.get("identifier")
        return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []

    def _gives_out(self, identifier: Mapping[str, Any], issuer: str) -> bool:
        assigner = identifier.get("assigner")
        named = assigner.get("display") if isinstance(assigner, Mapping) else None
        return issuer in (identifier.get("system"), named) or (
            issuer in self.authorities and self.authorities[issuer] == identifier.get("system")
        )


def _as_picture(chosen: Chosen, header: Header, frame: Frame, fact: Fact) -> Picture:
    return Picture(
        spot=chosen.spot,
        source=chosen.source,
        source_version=fact.source.version or "",
        modality=header.modality,
        taken=_day(header.taken),
        what=_what(header, fact),
        window=frame.window,
        png=frame.png,
        digest=hashlib.sha256(frame.png).hexdigest(),
        burned_in=is_burned_in(header),
        why=chosen.why,
        score=chosen.score,
    )


def _what(header: Header, fact: Fact) -> str:
    """Return study and series in words, with place, side and view as the header has them."""
    study = header.study_description or fact.name or name_of(header.modality)
    series = header.series_description if header.series_description != study else ""
    side = {"L": "left", "R": "right", "B": "both sides"}.get(header.laterality.upper()[:1], "")
    parts = (study, f"series {series}" if series else "", header.body_part.lower(), side, header.view)
    return ", ".join(dict.fromkeys(part for part in parts if part))


def _day(taken: str) -> str:
    when = parse_when(f"{taken[:4]}-{taken[4:6]}-{taken[6:8]}", None) if len(taken) == 8 else None
    return show_day(when) if when else ""


def _as_reason(sentence: str) -> str:
    """Return a sentence as a reason within brackets: `the image archive cannot be reached`."""
    words = sentence.strip().rstrip(".")
    return words[:1].lower() + words[1:]


def _is_patient(resource: Mapping[str, Any], wanted: Wanted) -> bool:
    reference = f"Patient/{resource.get('id')}"
    return resource.get("resourceType") == "Patient" and reference == wanted.record.identity.reference


def _key(link: StudyLink) -> str:
    return f"{link.source} {link.base_url} {' '.join(link.series)}"


def reasons_of(unseen: Iterable[Unseen]) -> tuple[str, ...]:
    """Return each reason once, in order of the alphabet: what of it decides what a run may say."""
    counts: defaultdict[str, int] = defaultdict(int)
    for one in unseen:
        counts[f"{one.source}: {one.why}"] += one.count
    return tuple(f"{what} ({count})" for what, count in sorted(counts.items()))
