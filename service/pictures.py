"""From a record's imaging studies to the few pictures that the model is shown, and what could not be seen.

Links, headers, identity, choice, pixels: in this order, and no pixel before the identity of its header agrees
with the patient (SAFETY 3). Pictures that the record itself keeps have no header: `service.photographs` says
which are this patient's. Whatever an archive does here, the text summary is made all the same.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from connectors.dicomweb.client import Fetched, StudyFound
from connectors.dicomweb.keyobjects import marked_instances
from connectors.dicomweb.links import CANCELLED, NO_UID, StudyLink, links_of, missing_endpoints
from connectors.errors import ConnectorError, NotFoundError, UnreachableError
from connectors.fhir.pictures import PictureLink
from connectors.fhir.pull import GapReason
from service.errors import StoreError
from service.imaging.choice import Chosen, Sight, choose, prompts_of, shortlist
from service.imaging.header import header_of
from service.imaging.index import Entry
from service.imaging.kinds import Kind as Instance
from service.imaging.kinds import kind_of
from service.imaging.offer import Problem, Series, Study, name_of, series_of
from service.imaging.picture import ENCODER_SIDE, MODEL_SIDE, Header, Picture, Rendered, Spot, Unreadable
from service.imaging.reader import Measured, PictureReader, Span
from service.imaging.whose import whose
from service.photographs import ONE_OF_ENTRY, Photograph, photographs_of
from service.ports.images import Looked, Unseen, Wanted
from service.ports.pictures import PictureCache
from service.record.dates import parse_when, show_day
from service.record.facts import Fact, Kind
from service.scales import Scale, Scales

MOST_STUDIES = 12
"""More are not listed: the newest that the archive has are."""
MOST_ASKED = 40
"""Records name studies that no archive has any more. So many are asked for at most."""
ENCODER_SHARE = 0.5
"""Of the time for looking: without a GPU an encoder may take minutes, and rules then choose."""
ARCHIVE_SHARE = 1 / 3
"""Of the time for looking, for the lists of studies where the record keeps pictures of its own: an archive
that hangs must not cost those."""
RECORD_SHARE = 1 / 4
"""Of the time for looking, for fetching pictures of the record where there is an archive too: a chart that
hangs must not cost what the archive holds."""
MEASURE_SHARE = 1 / 4
"""Of the time for looking, for measuring how dark and bright whole series are."""
MOST_HELD = 64 * 1024 * 1024
"""Bytes of files that one look holds: a slice that was measured is not fetched again to be shown."""
LOOK_S = 90.0
"""How long looking may take in all; what is not there by then is not seen."""
TOO_LATE = "the image archive did not answer in time"
NO_TIME = "time was over before it was there"
NO_ARCHIVE = "no image archive is configured"
NOT_FETCHED = "pictures of the record are not fetched here"
NO_HEADER = "the file does not say whose it is"
NO_PICTURES = "the archive holds no pictures of it, only other objects"
NOT_READ = "{}: not read from an image archive"
_TELLING = frozenset(
    {Instance.REPORT, Instance.PAGES, Instance.WAVEFORM, Instance.VIDEO, Instance.SLIDE, Instance.MAP}
)
"""Objects of an archive that say something of the patient beside its pictures."""
NOT_ASKED = "not asked for: newer studies come first"
NOT_SENT = "the archive did not send it"
_PASSING_GAPS = (GapReason.TIMED_OUT, GapReason.FAILED)
BY_ARCHIVE = "as the archive renders it"
RENDERED_INSTEAD = frozenset(
    {
        "its transfer syntax is not known",
        "its pixels cannot be decoded",
        "its colours are not known",
        "pixels in floating point",
    }
)
"""Why we cannot decode a file that is whole, and the patient's: its archive may be able to."""


class Archive(Protocol):
    """One PACS."""

    async def study(self, study: str, *, series: Sequence[str] = ()) -> StudyFound:
        """Return what a study holds. Raises ConnectorError."""
        ...

    async def instances(self, study: str, series: str, wanted: Sequence[str]) -> Fetched:
        """Return those of these instances that could be had, and why others could not."""
        ...

    async def rendered(self, study: str, series: str, instance: str, frame: int = 1) -> bytes:
        """Return one frame as PNG or JPEG. Raises ConnectorError."""
        ...


class Archives(Protocol):
    """The archives of a site."""

    @property
    def pacs_url(self) -> str:
        """Of the configured one; empty where there is none."""
        ...

    @property
    def allowed_origins(self) -> Sequence[str]:
        """Of the others that a record may name."""
        ...

    def at(self, base_url: str, /) -> Archive:
        """Return the archive at a base URL. Raises ConnectorError."""
        ...


class Eyes(Protocol):
    """An image encoder. It may keep what it saw of this patient."""

    def see(
        self, pngs: Mapping[Spot, bytes], prompts: Sequence[str], patient: str, about: Mapping[Spot, Entry]
    ) -> Sight | None:
        """Look at pictures and words; None where it does not work. May block."""
        ...


FetchPicture = Callable[[PictureLink], Awaitable[bytes]]
"""Reads a picture that the record itself keeps, as the record was read. Raises ConnectorError."""


class _Listed(NamedTuple):
    """One study whose headers are the patient's, and the way to it."""

    link: StudyLink
    study: Study


class _Own(NamedTuple):
    """One frame of the patient, and what its own header, or else the record, says of it."""

    frame: Rendered
    modality: str
    taken: str
    """`04-May-2019`, partial or empty."""
    what: str
    more: int = 0
    """Further pages of the same file."""


class _Waiting(NamedTuple):
    """Something of which nothing was seen or said yet."""

    source: str
    study: str
    why: str
    """What is said of it when time is over."""


@dataclass
class Pictures:
    """The PictureSource of a site. `issuers` say which system of identifiers a DICOM issuer stands for.

    Without archives, the pictures that the record itself keeps are left.
    """

    archives: Archives | None
    reader: PictureReader
    eyes: Eyes | None = None
    issuers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = LOOK_S
    refuses_burned_in: bool = False
    kept: PictureCache | None = None
    """Files that were fetched before."""
    fetch: FetchPicture | None = None

    async def look(self, wanted: Wanted) -> Looked:
        """Return what is to be shown, and what could not be seen."""
        look = _Look(self, wanted)
        try:
            async with asyncio.timeout(self.seconds):
                return await look.all()
        except TimeoutError:
            return look.late()


class _Look:
    """One patient's pictures."""

    def __init__(self, site: Pictures, wanted: Wanted) -> None:
        self._site, self._wanted = site, wanted
        self._facts = {f.source.reference: f for f in wanted.record.facts if f.kind is Kind.IMAGING}
        self._files = _Files(site, wanted.record.identity.reference)
        self._patient: Mapping[str, Any] = {}
        self._kept: dict[str, Photograph] = {}
        """Pictures of the record itself, by their entry."""
        self._left_s = site.seconds * (RECORD_SHARE if site.archives is not None else 1)
        """For fetching those."""
        self._unseen: list[Unseen] = []
        self._shown: dict[Spot, Picture] = {}
        self._order: list[Spot] = []
        self._how = ""
        self._headers: dict[Spot, Header] = {}
        """Of every instance that is listed, once it is known to be the patient's."""
        self._series: dict[tuple[str, str], Series] = {}
        """By the UIDs of study and series."""
        self._scales = Scales(self._measured, site.seconds * MEASURE_SHARE)
        self._ways: Mapping[str, StudyLink] = {}
        """To each study that is listed."""
        self._absent = 0
        """Studies that the archive does not have."""
        self._open: dict[str, _Waiting] = {}
        """Studies and pictures of which nothing was seen or said yet."""

    async def all(self) -> Looked:
        """Look for everything, in order."""
        resources = [dict(one) for one in self._wanted.resources]
        self._patient = next((one for one in resources if _is_patient(one, self._wanted)), {})
        await self._keep(resources)
        links = await self._links(resources)
        self._open |= {_key(link): _Waiting(link.source, link.study, TOO_LATE) for link in links}
        listed = await self._listed(links)
        studies = [*(one.study for one in listed), *(one.study for one in self._kept.values())]
        self._ways = {one.study.uid: one.link for one in reversed(listed)}
        self._series = {(one.uid, series.uid): series for one in studies for series in one.series}
        problem = Problem(self._wanted.words)
        sight = await self._sight_in_time(studies, problem)
        choice = choose(studies, problem, self._wanted.most, sight)
        self._how, self._order = choice.how, [chosen.spot for chosen in choice.chosen]
        # Those of the record first: they wait for no archive. They are shown in the order of the choice.
        waiting = sorted(choice.chosen, key=lambda chosen: chosen.spot.study not in self._kept)
        for place, chosen in enumerate(waiting):
            self._close_all_but({one.spot.study for one in waiting[place:]})
            await self._picture(chosen)
        left = [self._unseen_of(one.source, one.why, one.count) for one in choice.left_out]
        return Looked(self._pictures(), (*self._unseen, *left), choice.how)

    def late(self) -> Looked:
        """Return what was seen before time was over, and that the rest of what was to be seen was not."""
        rest = (self._unseen_of(one.source, one.why) for one in self._open.values())
        return Looked(self._pictures(), (*self._unseen, *rest), self._how)

    def _pictures(self) -> tuple[Picture, ...]:
        return tuple(self._shown[spot] for spot in self._order if spot in self._shown)

    def _close_all_but(self, studies: Collection[str]) -> None:
        self._open = {key: one for key, one in self._open.items() if one.study in studies}

    async def _keep(self, resources: Sequence[Mapping[str, Any]]) -> None:
        """Find what the record itself keeps of pictures, and say what of it is passed over."""
        kept = await asyncio.to_thread(photographs_of, self._wanted.record, resources)
        for one in kept.passed:
            day = show_day(one.day) if one.day else ""
            self._unseen.append(Unseen(one.source, one.what, one.why, one.count, day))
        self._facts |= {one.link.source: one.fact for one in kept.found}
        if self._site.fetch is None:
            self._unseen += [self._unseen_of(one.link.source, NOT_FETCHED) for one in kept.found]
            return
        self._kept = {one.link.source: one for one in kept.found}
        self._open |= {source: _Waiting(source, source, NO_TIME) for source in self._kept}

    async def _links(self, resources: Sequence[Mapping[str, Any]]) -> list[StudyLink]:
        """Return the ways to the studies of the record; none that leads anywhere without an archive."""
        archives = self._site.archives
        if archives is None:
            found = links_of(resources)
            plain = [one if one.reason in (CANCELLED, NO_UID) else _without_way(one) for one in found]
            return [link for link in plain if link.source in self._facts]
        known = [*resources, *await self._endpoints(resources)]
        found = links_of(known, archives.pacs_url, archives.allowed_origins)
        return [link for link in found if link.source in self._facts]

    async def _endpoints(self, resources: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Read the Endpoints that studies name and that were not fetched with the chart."""
        found = []
        for reference in missing_endpoints(resources)[:MOST_STUDIES]:
            try:
                found.append(await self._wanted.read(reference))
            except ConnectorError:
                continue  # the configured archive is asked instead, or it is said that there is none
        return found

    async def _listed(self, links: Sequence[StudyLink]) -> list[_Listed]:
        for link in (link for link in links if not link.base_url):
            self._miss(link, _as_reason(link.reason))
        ways = sorted((link for link in links if link.base_url), key=self._age)
        found: list[_Listed | None] = []
        room, left = MOST_STUDIES, MOST_ASKED
        while ways and 0 < room <= left:
            some, ways = ways[:room], ways[room:]
            before = self._absent
            found += await asyncio.gather(*(self._one_in_time(link) for link in some))
            room, left = self._absent - before, left - len(some)  # what is not there makes room for others
        for link in ways:
            self._miss(link, NOT_ASKED)
        return [one for one in found if one is not None]

    def _age(self, link: StudyLink) -> tuple[float, str]:
        when = self._facts[link.source].when
        return (-when.earliest.timestamp() if when is not None else 0.0, link.source)

    async def _one_in_time(self, link: StudyLink) -> _Listed | None:
        try:
            async with asyncio.timeout(self._site.seconds * ARCHIVE_SHARE if self._kept else None):
                return await self._one(link)
        except TimeoutError:
            self._miss(link, TOO_LATE)
            return None

    async def _one(self, link: StudyLink) -> _Listed | None:
        """Return a study whose every header is this patient's; else say why nothing of it is used."""
        assert self._site.archives is not None
        try:
            answer = await self._site.archives.at(link.base_url).study(link.study, series=link.series)
        except ConnectorError as failure:
            self._absent += isinstance(failure, NotFoundError)
            self._miss(link, self._files.reason_of(failure))
            return None
        for gap in answer.gaps:
            why = _as_reason(gap.detail) or gap.reason.value
            self._files.passing |= {why} if gap.reason in _PASSING_GAPS else set()
            self._unseen.append(self._unseen_of(link.source, why))
        headers = await asyncio.to_thread(lambda: [header_of(item) for item in answer.instances])
        wrong = sorted({fault for header in headers if (fault := self._fault(header))})
        if wrong:
            self._miss(link, f"{_as_reason(wrong[0])}, nor is anything else of its study", len(headers))
            return None
        self._headers |= {header.spot: header for header in headers}
        kinds = [kind_of(one.sop_class, one.modality) for one in headers]
        told = self._tell_others(link, kinds)
        shown = [one for one, kind in zip(headers, kinds, strict=True) if kind is Instance.PICTURE]
        if not shown:
            self._open.pop(_key(link), None)
            if told < len(headers) or not headers:
                self._miss(link, NO_PICTURES, max(1, len(headers) - told))
            return None
        return _Listed(link, self._study(link, shown, marked_instances(answer.instances)))

    def _tell_others(self, link: StudyLink, kinds: Sequence[Instance]) -> int:
        """Say what lies beside the pictures, tells of the patient and is not read; return how much."""
        counts = Counter(kind for kind in kinds if kind in _TELLING)
        for kind, count in sorted(counts.items()):
            self._unseen.append(self._unseen_of(link.source, NOT_READ.format(kind), count))
        return counts.total()

    def _study(self, link: StudyLink, headers: Sequence[Header], marked: Sequence[str]) -> Study:
        fact = self._facts[link.source]
        told = dict(fact.details)
        return Study(
            link.study, link.source, series_of(headers), taken=max(one.taken for one in headers),
            description=fact.name, reason=told.get("reason", ""), body_site=told.get("body site", ""),
            key=frozenset(_middle(one) for one in headers if one.spot.instance in marked),
        )  # fmt: skip

    async def _sight_in_time(self, studies: Sequence[Study], problem: Problem) -> Sight | None:
        """Return what the encoder saw within its share of the time: a slow one must not cost the pictures.

        What it sees later it keeps, and knows the next time.
        """
        try:
            async with asyncio.timeout(self._site.seconds * ENCODER_SHARE):
                return await self._sight(studies, problem)
        except TimeoutError:
            return None

    async def _sight(self, studies: Sequence[Study], problem: Problem) -> Sight | None:
        """Have the encoder look at what may be shown; None where there is none, or it fails."""
        eyes = self._site.eyes
        if eyes is None or not studies:
            return None
        pngs: dict[Spot, bytes] = {}
        about: dict[Spot, Entry] = {}
        listed = shortlist(studies, problem, self._wanted.most)
        for spot in listed:
            found = await self._frame(spot, ENCODER_SIDE, listed)
            if not isinstance(found, str):
                pngs[spot] = found.frame.png
                source = self._ways[spot.study].source if spot.study in self._ways else spot.study
                about[spot] = _entry(spot, source, found)
        prompts = list(dict.fromkeys(text for study in studies for text in prompts_of(study, problem)))
        patient = self._wanted.record.identity.reference
        return await asyncio.to_thread(eyes.see, pngs, prompts, patient, about) if pngs else None

    async def _picture(self, chosen: Chosen) -> None:
        found = await self._frame(chosen.spot, MODEL_SIDE, self._order)
        if isinstance(found, str):
            self._unseen.append(self._unseen_of(chosen.source, found))
            return
        if found.more:
            self._unseen.append(self._unseen_of(chosen.source, ONE_OF_ENTRY, found.more))
        kept = self._kept.get(chosen.source)
        version = kept.version if kept is not None else self._facts[chosen.source].source
        self._shown[chosen.spot] = _as_picture(chosen, found, version.version or "")

    async def _frame(self, spot: Spot, side: int, shown: Sequence[Spot]) -> _Own | str:
        """Return a frame of a study or of the record itself, shown beside these, or why there is none."""
        kept = self._kept.get(spot.study)
        if kept is not None:
            return await self._of_record(kept, side)
        return await self._own(self._ways[spot.study], spot, side, await self._scale(spot, shown))

    async def _scale(self, spot: Spot, shown: Sequence[Spot]) -> Scale | None:
        """Return what is black and white in the series of a slice; None of a planning picture."""
        series = self._series[spot.study, spot.series]
        return await self._scales.of(series, set(shown)) if spot in series.frames else None

    async def _measured(self, spot: Spot, frames: Sequence[int]) -> Span | None:
        """Return the values in frames of a file that says itself that it is this patient's."""
        found = await self._files.measured(self._ways[spot.study], spot, frames)
        return None if isinstance(found, str) or self._fault(found.header) else found.span

    async def _of_record(self, kept: Photograph, side: int) -> _Own | str:
        """Return a picture that the record itself keeps: its first page, where it has pages."""
        data = await self._fetched(kept.link)
        if isinstance(data, str):
            return data
        found = await asyncio.to_thread(
            self._site.reader.read, data, Spot("", "", ""), side=side,
            refuse_burned_in=self._site.refuses_burned_in,
        )  # fmt: skip
        if isinstance(found, Unreadable):
            return found.reason
        day = show_day(kept.taken) if kept.taken else ""
        what = ", ".join(dict.fromkeys(filter(None, (kept.study.description, kept.study.body_site))))
        return _Own(found[0], "", day, what, len(found) - 1)

    async def _fetched(self, link: PictureLink) -> bytes | str:
        """Return the bytes of a picture of the record within what is left of their time, or why not."""
        assert self._site.fetch is not None
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(0.0, self._left_s)):
                return await self._site.fetch(link)
        except TimeoutError:
            return NO_TIME
        except ConnectorError as failure:
            return self._files.reason_of(failure)
        finally:
            self._left_s -= asyncio.get_running_loop().time() - started

    async def _own(self, link: StudyLink, spot: Spot, side: int, scale: Scale | None) -> _Own | str:
        """Return a frame whose own file says that it is this patient's, or why there is none."""
        frame = await self._files.frame(link, spot, side, scale)
        if isinstance(frame, str):
            return await self._as_rendered(link, spot, side) or frame if frame in RENDERED_INSTEAD else frame
        if frame.header is None:
            return NO_HEADER
        return _as_reason(self._fault(frame.header)) or self._as_own(frame.header, frame, link)

    async def _as_rendered(self, link: StudyLink, spot: Spot, side: int) -> _Own | None:
        """Return a frame as its archive renders it: what remains where only we cannot decode it.

        Its header is that of the listing, which is the patient's.
        """
        header = self._headers.get(replace(spot, frame=1))
        frame = await self._files.rendered(link, spot, side)
        return self._as_own(header, frame, link) if header is not None and frame is not None else None

    def _as_own(self, header: Header, frame: Rendered, link: StudyLink) -> _Own:
        return _Own(frame, header.modality, _day(header.taken), _what(header, self._facts[link.source]))

    def _fault(self, header: Header) -> str:
        return whose(header, self._patient, self._site.issuers)

    def _miss(self, link: StudyLink, why: str, count: int = 1) -> None:
        self._open.pop(_key(link), None)
        self._unseen.append(self._unseen_of(link.source, why, count))

    def _unseen_of(self, source: str, why: str, count: int = 1) -> Unseen:
        fact = self._facts[source]
        day = show_day(fact.when) if fact.when else ""
        return Unseen(source, fact.name, why, count, day, why in self._files.passing)


class _Files:
    """Instances of one look. The last ones are held, in `MOST_HELD` bytes, to be measured and then shown."""

    def __init__(self, site: Pictures, patient: str) -> None:
        self._site, self._patient = site, patient
        self._held: OrderedDict[Spot, bytes | str] = OrderedDict()
        self.passing = {TOO_LATE, NO_TIME}
        """Reasons that may be gone a moment later."""

    async def frame(self, link: StudyLink, spot: Spot, side: int, scale: Scale | None) -> Rendered | str:
        """Return one frame of an instance, or why there is none."""
        whole = replace(spot, frame=1)
        data = await self._file(link, whole)
        if isinstance(data, str):
            return data
        scaled = scale._asdict() if scale is not None else {}
        found = await asyncio.to_thread(
            self._site.reader.read, data, whole, side=side, frames=(spot.frame,),
            refuse_burned_in=self._site.refuses_burned_in, **scaled,
        )  # fmt: skip
        return found.reason if isinstance(found, Unreadable) else found[0]

    async def measured(self, link: StudyLink, spot: Spot, frames: Sequence[int]) -> Measured | str:
        """Return the values in frames of an instance, or why there are none."""
        data = await self._file(link, spot)
        if isinstance(data, str):
            return data
        found = await asyncio.to_thread(
            self._site.reader.measure, data, spot, frames, refuse_burned_in=self._site.refuses_burned_in
        )
        return found.reason if isinstance(found, Unreadable) else found

    async def _file(self, link: StudyLink, whole: Spot) -> bytes | str:
        """Return an instance, or why there is none. What was used for longest is let go first."""
        if whole not in self._held:
            self._held[whole] = await self._fetch(link, whole)
        self._held.move_to_end(whole)
        while len(self._held) > 1 and sum(map(_size, self._held.values())) > MOST_HELD:
            self._held.popitem(last=False)
        return self._held[whole]

    async def rendered(self, link: StudyLink, spot: Spot, side: int) -> Rendered | None:
        """Return one frame as the archive renders it, or None."""
        try:
            archive = self._archive(link)
            data = await archive.rendered(spot.study, spot.series, spot.instance, spot.frame)
        except ConnectorError:
            return None
        found = await asyncio.to_thread(
            self._site.reader.read, data, Spot("", "", ""), side=side,
            refuse_burned_in=self._site.refuses_burned_in,
        )  # fmt: skip
        return None if isinstance(found, Unreadable) else replace(found[0], window=BY_ARCHIVE)

    async def _fetch(self, link: StudyLink, spot: Spot) -> bytes | str:
        """Return an instance as it was kept, or as the archive sends it, or why there is none.

        What a UID names does not change (DICOM PS3.5, 9), and each use checks anew whose it is.
        """
        name = f"{link.base_url} {spot.study} {spot.series} {spot.instance}"
        found = await asyncio.to_thread(self._kept, name)
        if found is not None:
            return found
        data = await self._ask(link, spot)
        if isinstance(data, bytes):
            await asyncio.to_thread(self._keep, name, data)
        return data

    def _kept(self, name: str) -> bytes | None:
        with suppress(StoreError):
            return self._site.kept.get(self._patient, name) if self._site.kept is not None else None
        return None

    def _keep(self, name: str, data: bytes) -> None:
        with suppress(StoreError):
            if self._site.kept is not None:
                self._site.kept.put(self._patient, name, data)

    def _archive(self, link: StudyLink) -> Archive:
        assert self._site.archives is not None  # else no link leads anywhere
        return self._site.archives.at(link.base_url)

    async def _ask(self, link: StudyLink, spot: Spot) -> bytes | str:
        try:
            archive = self._archive(link)
            found = await archive.instances(spot.study, spot.series, [spot.instance])
        except ConnectorError as failure:
            return self.reason_of(failure)
        if spot.instance in found.files:
            return found.files[spot.instance]
        failed = found.failures.get(spot.instance)
        return self.reason_of(failed) if failed is not None else NOT_SENT

    def reason_of(self, failure: ConnectorError) -> str:
        """Return in words why something could not be had, and remember whether it may be had later."""
        why = _as_reason(failure.message)
        if isinstance(failure, UnreachableError):
            self.passing.add(why)
        return why


def _size(held: bytes | str) -> int:
    return len(held) if isinstance(held, bytes) else 0


def _middle(header: Header) -> Spot:
    """Return the frame that stands for an instance that was marked as a whole."""
    return replace(header.spot, frame=(max(1, header.frames) + 1) // 2)


def _entry(spot: Spot, source: str, own: _Own) -> Entry:
    return Entry(
        spot.study, spot.series, spot.instance, spot.frame, source,
        modality=own.modality, taken=own.taken, what=own.what,
    )  # fmt: skip


def _as_picture(chosen: Chosen, own: _Own, version: str) -> Picture:
    frame = own.frame
    return Picture(
        spot=chosen.spot,
        source=chosen.source,
        source_version=version,
        modality=own.modality,
        taken=own.taken,
        what=own.what,
        window=frame.window,
        png=frame.png,
        digest=hashlib.sha256(frame.png).hexdigest(),
        burned_in=frame.burned_in,
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


def _without_way(link: StudyLink) -> StudyLink:
    return replace(link, base_url="", reason=NO_ARCHIVE)


def _is_patient(resource: Mapping[str, Any], wanted: Wanted) -> bool:
    reference = f"Patient/{resource.get('id')}"
    return resource.get("resourceType") == "Patient" and reference == wanted.record.identity.reference


def _key(link: StudyLink) -> str:
    return f"{link.source} {link.base_url} {' '.join(link.series)}"
