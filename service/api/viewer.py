"""Looking at the images behind a source: a page that works without a script, and the pictures on it.

Sources are named by their number and images by their place, so that no UID stands in an address. Everything
is read anew as whoever looks: in the sidebar with the user's own token, on the page of a run with our own
connection.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

from fastapi import FastAPI, HTTPException, Path, Query, Request
from fastapi.responses import RedirectResponse, Response

from connectors.errors import ConnectorError, NotFoundError, RefusedError
from connectors.fhir.client import FhirClient
from connectors.fhir.partial import ENDED
from connectors.fhir.patient import read_patient
from service.api.app import AuditFailedError
from service.api.gallery import SIDE, THUMB_SIDE, Frame, Gallery, Look, NoPictureError, Why, subject_of
from service.api.gate import launch_of, visitor_of
from service.api.pages import build_banner, number_sources
from service.api.presets import MODEL, Preset, preset_named, presets_for
from service.api.render import page
from service.api.show import show_frame
from service.context.pictures import spot_of
from service.filing.stopped import is_stopped
from service.imaging.picture import Rendered
from service.ports import Action, AuditEntry, AuditLog, Clock, FilingStore, RunId, StoredRun
from service.ports.launches import Charts
from service.record.assemble import Policy, assemble_record
from service.record.facts import Fact, Identity
from service.record.fhirjson import Element
from service.record.identity import read_identity, stop_reason

PICTURED: Final = ("ImagingStudy/", "Media/", "DocumentReference/")
"""Sources that may have images."""
NO_PICTURE: Final = "/static/nopicture.svg"
_LAST_NUMBER: Final = 1_000_000
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_STATUS: Final = {Why.UNREACHABLE: 503, Why.REFUSED: 403, Why.ANOTHER: 403, Why.UNREADABLE: 422}

Number = Annotated[int, Path(ge=1, le=_LAST_NUMBER)]
Place = Annotated[int, Query(ge=0, le=_LAST_NUMBER)]
Opener = Callable[[StoredRun], AbstractAsyncContextManager[FhirClient] | None]
"""The record of a run as our own connection reads it; None where the run is of another server."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What somebody asks to see, and how they may read it."""

    run: StoredRun
    fact: Fact
    number: int
    place: int
    """From 1; 0 for the one that the source names, else for the one that stands for the whole."""
    window: str
    client: AbstractAsyncContextManager[FhirClient] | None
    actor: str
    by: str
    links: Links
    as_user: bool
    """Read with the user's own token: the record system decides what of restricted data they may see."""

    @property
    def reference(self) -> str:
        """`ImagingStudy/7`"""
        return self.fact.source.reference


@dataclass(frozen=True, slots=True)
class Links:
    """Addresses on the page of one source."""

    viewer: str
    pictures: str
    back: str
    fixed: tuple[tuple[str, str], ...] = ()
    """Parameters that every address keeps."""

    def page(self, place: int, window: str) -> str:
        """Return the address of the page of one place."""
        return f"{self.viewer}?{urlencode([*self.fixed, ('place', place), ('window', window)])}#picture"

    def picture(self, place: int, window: str) -> str:
        """Return the address of a picture."""
        return f"{self.pictures}?{urlencode([*self.fixed, ('place', place), ('window', window)])}"


@dataclass(frozen=True, slots=True)
class _Opened:
    """What reading brought: the patient, and what there is to look at."""

    patient: Mapping[str, Any]
    identity: Identity
    look: Look


class Viewer:
    """The routes. `ours` opens the record for who signed in, `charts` for who was launched, if anybody is."""

    def __init__(
        self,
        gallery: Gallery,
        store: FilingStore,
        audit: AuditLog,
        clock: Clock,
        ours: Opener,
        charts: Charts | None = None,
        ohif_url: str = "",
        policy: Policy | None = None,
    ) -> None:
        self._gallery = gallery
        self._store = store
        self._audit = audit
        self._clock = clock
        self._ours = ours
        self._charts = charts
        self._ohif_url = ohif_url.rstrip("/")
        self._policy = policy or Policy()

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        for path, endpoint in (
            ("/runs/{run_id}/viewer/{n}", self.page_of_run),
            ("/runs/{run_id}/pictures/{n}", self.picture_of_run),
            *(
                (
                    ("/sidebar/viewer/{n}", self.page_of_launch),
                    ("/sidebar/pictures/{n}", self.picture_of_launch),
                )
                if self._charts is not None
                else ()
            ),
        ):
            app.add_api_route(path, endpoint, methods=["GET"], response_model=None)

    async def page_of_launch(
        self, request: Request, n: Number, run: str, place: Place = 0, window: str = ""
    ) -> Response:
        """Show one image of a source to who was launched."""
        return await self._page(await self._of_launch(request, n, run, place, window))

    async def picture_of_launch(
        self, request: Request, n: Number, run: str, place: Place = 0, window: str = "", thumb: bool = False
    ) -> Response:
        """Return one image of a source to who was launched."""
        return await self._picture(await self._of_launch(request, n, run, place, window), thumb)

    async def page_of_run(
        self, request: Request, run_id: str, n: Number, place: Place = 0, window: str = ""
    ) -> Response:
        """Show one image of a source to who signed in."""
        return await self._page(await self._of_run(request, run_id, n, place, window))

    async def picture_of_run(
        self,
        request: Request,
        run_id: str,
        n: Number,
        place: Place = 0,
        window: str = "",
        thumb: bool = False,
    ) -> Response:
        """Return one image of a source to who signed in."""
        return await self._picture(await self._of_run(request, run_id, n, place, window), thumb)

    async def _of_launch(self, request: Request, n: int, run_id: str, place: int, window: str) -> _Asked:
        launch = launch_of(request)
        run = await asyncio.to_thread(self._run, run_id)
        if (run.inputs.server.rstrip("/"), run.inputs.patient) != (launch.server, launch.patient):
            raise HTTPException(404)
        assert self._charts is not None
        links = Links(
            f"/sidebar/viewer/{n}", f"/sidebar/pictures/{n}", f"/sidebar?visit={quote(launch.visit)}",
            (("visit", launch.visit), ("run", run_id)),
        )  # fmt: skip
        return _Asked(
            run, _fact(run, n), n, place, window, self._charts.open(launch), launch.actor,
            launch.fhir_user, links, as_user=True,
        )  # fmt: skip

    async def _of_run(self, request: Request, run_id: str, n: int, place: int, window: str) -> _Asked:
        visitor = visitor_of(request)
        run = await asyncio.to_thread(self._run, run_id)
        path = f"/runs/{run_id}"
        links = Links(f"{path}/viewer/{n}", f"{path}/pictures/{n}", f"{path}#source-{n}")
        return _Asked(
            run, _fact(run, n), n, place, window, self._ours(run), visitor.actor, visitor.fhir_user, links,
            as_user=False,
        )  # fmt: skip

    def _run(self, run_id: str) -> StoredRun:
        """Return a run that is not stopped. Raises HTTPException (404, 423), ShreddedError."""
        run = self._store.get(RunId(run_id)) if _ID.fullmatch(run_id) else None
        if run is None:
            raise HTTPException(404)
        if is_stopped(run, self._store.stops()):
            raise HTTPException(423)
        return run

    async def _page(self, asked: _Asked) -> Response:
        try:
            opened, place, preset, rendered = await self._seen(asked, SIDE)
        except NoPictureError as none:
            return _state(asked, none)
        except ConnectorError as error:
            if isinstance(error, ENDED):
                return page("sidebar/over.html", 401)
            return _state(asked, _of_chart(error))
        shown = show_frame(opened.look, place, rendered, preset)
        return page(
            "viewer.html",
            banner=build_banner(opened.identity, self._clock().date()),
            links=asked.links, number=asked.number, shown=shown, preset=preset, state=None,
            presets=presets_for(shown.modality), ohif=self._ohif(opened.look), reference=asked.reference,
        )  # fmt: skip

    async def _picture(self, asked: _Asked, thumb: bool) -> Response:
        try:
            _, _, _, rendered = await self._seen(asked, THUMB_SIDE if thumb else SIDE)
        except (NoPictureError, ConnectorError) as error:
            if thumb:
                return RedirectResponse(NO_PICTURE, status_code=303)
            none = error if isinstance(error, NoPictureError) else _of_chart(error)
            return Response(status_code=_STATUS.get(none.why, 404))
        return Response(rendered.png, media_type="image/png")

    async def _seen(self, asked: _Asked, side: int) -> tuple[_Opened, int, Preset, Rendered]:
        """Return what is asked for, once that is on record. Raises NoPictureError, ConnectorError."""
        try:
            opened = await self._open(asked)
            place = _place(asked, opened.look)
            preset = _preset(asked, opened.look.at(place))
            rendered = await self._gallery.show(opened.look, place, preset, opened.patient, side)
        except (NoPictureError, ConnectorError) as error:
            await self._note(asked, error.why.value if isinstance(error, NoPictureError) else error.code)
            raise
        await self._note(asked)
        return opened, place, preset, rendered

    async def _open(self, asked: _Asked) -> _Opened:
        if asked.client is None:
            raise NoPictureError(Why.ABSENT, "This summary was made on another server.")
        async with asked.client as client:
            reading = (_patient_of(client, asked.run), client.read(asked.reference))
            patient, resource = await _both(*reading)
            if stop_reason([patient], asked.run.inputs.patient.removeprefix("Patient/")):
                raise NoPictureError(Why.ANOTHER)
            identity = read_identity(Element(patient, "Patient", set()), asked.run.inputs.patient)
            then = asked.run.summary.identity
            is_same = (then.record_number, then.birth_date) == (identity.record_number, identity.birth_date)
            if not is_same or subject_of(resource) != asked.run.inputs.patient:
                raise NoPictureError(Why.ANOTHER)
            policy = replace(self._policy, keep_restricted=asked.as_user)
            if not _is_readable(resource, patient, asked.reference, policy):
                raise NoPictureError(Why.ABSENT)
            return _Opened(patient, identity, await self._gallery.look(client, resource, patient))

    async def _note(self, asked: _Asked, outcome: str = "ok") -> None:
        entry = AuditEntry(
            Action.VIEW, asked.actor, asked.run.inputs.patient, self._clock(), outcome=outcome,
            run_id=asked.run.run_id, target=asked.reference, server=asked.run.inputs.server, by=asked.by,
        )  # fmt: skip
        try:
            await asyncio.to_thread(self._audit.append, entry)
        except Exception:
            raise AuditFailedError from None

    def _ohif(self, look: Look) -> str:
        """Return the address of the study in the site's own viewer; empty where there is none."""
        if not self._ohif_url or not look.study:
            return ""
        return f"{self._ohif_url}/viewer?{urlencode({'StudyInstanceUIDs': look.study})}"


async def _both(
    patient: Awaitable[dict[str, Any]], resource: Awaitable[dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    found = await asyncio.gather(patient, resource, return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    read, other = found
    assert not isinstance(read, BaseException)
    assert not isinstance(other, BaseException)
    return read, other


def _is_readable(
    resource: Mapping[str, Any], patient: Mapping[str, Any], reference: str, policy: Policy
) -> bool:
    """Tell whether a record of these two would hold the resource: current, this patient's, not restricted."""
    patient_id = str(patient.get("id", ""))
    record = assemble_record([dict(patient), dict(resource)], patient_id, policy=policy)
    return any(fact.source.reference == reference for fact in record.facts)


async def _patient_of(client: FhirClient, run: StoredRun) -> dict[str, Any]:
    return await read_patient(client, run.inputs.patient.removeprefix("Patient/"))


def _fact(run: StoredRun, number: int) -> Fact:
    """Return the fact behind a source. Raises HTTPException (404) where that can have no images."""
    facts = {fact.id: fact for fact in run.summary.facts}
    for fact_id, own in number_sources(run.summary, facts).items():
        if own == number and facts[fact_id].source.reference.startswith(PICTURED):
            return facts[fact_id]
    raise HTTPException(404)


def _place(asked: _Asked, look: Look) -> int:
    """Return the place that is asked for; without one that of the image which the model was shown."""
    spot = spot_of(asked.fact)
    if asked.place or spot is None:
        return asked.place or look.middle
    return look.place_of(spot[2], spot[3])


def _preset(asked: _Asked, frame: Frame) -> Preset:
    """Return the window that is asked for; without one that in which the model was shown the image."""
    modality = frame.header.modality if frame.header else ""
    if not asked.window and spot_of(asked.fact) is not None and MODEL in presets_for(modality):
        return MODEL
    preset = preset_named(asked.window, modality)
    if preset is None:
        raise HTTPException(404)
    return preset


def _of_chart(error: ConnectorError) -> NoPictureError:
    """Return why nothing is shown where the chart itself could not be read."""
    if isinstance(error, NotFoundError):
        return NoPictureError(Why.ABSENT)
    return NoPictureError(Why.REFUSED if isinstance(error, RefusedError) else Why.UNREACHABLE)


def _state(asked: _Asked, none: NoPictureError) -> Response:
    return page(
        "viewer.html", _STATUS.get(none.why, 404), banner=None, links=asked.links, number=asked.number,
        shown=None, state=STATES[none.why], detail=none.detail, reference=asked.reference,
    )  # fmt: skip


STATES: Final[Mapping[Why, tuple[str, str]]] = {
    Why.NOT_CONFIGURED: (
        "No image archive is configured",
        "Epicrisis was not told where this site keeps its images. Open them in the site's own viewer.",
    ),
    Why.FOREIGN: (
        "The image archive is not among those that Epicrisis may ask",
        "The record names an archive that this installation does not know. Open the images there.",
    ),
    Why.UNREACHABLE: (
        "The images cannot be reached now",
        "The image archive or the chart did not answer in time, or failed. Try again in a minute.",
    ),
    Why.REFUSED: (
        "Not allowed",
        "The chart or the image archive did not let Epicrisis read these images for you.",
    ),
    Why.ABSENT: (
        "There is no such image",
        "It is not in the chart or in the image archive, or your account may not read it.",
    ),
    Why.ANOTHER: (
        "Not shown: these images are not surely this patient's",
        "Record number, issuer and birth date in the images must be the patient's own, and they are not.",
    ),
    Why.NO_PICTURES: (
        "There are no pictures here",
        "What is stored is of another kind: a report, a measurement or a recording.",
    ),
    Why.UNREADABLE: (
        "The image cannot be shown",
        "It is there, but could not be read. Open it in the site's own viewer.",
    ),
}
