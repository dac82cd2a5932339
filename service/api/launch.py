"""The door for EHRs: a launch begun, finished and ended (SMART App Launch 2.2).

Pages behind it stand in a frame of the EHR's: their cookie is SameSite=None, so that what changes something
names its visit and comes from a page of ours (`service.api.gate`).
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response

from connectors.errors import ConnectorError
from service.api.cookies import drop_launch, put_launch, read_launch
from service.api.gate import NOBODY, Refusals, forbidden, is_launched, launch_of
from service.api.render import page, plain_page
from service.api.security import allow_frames
from service.errors import StoreError
from service.identity.launch import Launches
from service.identity.refusal import Reason, Refused
from service.identity.visitor import Visitor
from service.ports import Action, AuditEntry, AuditLog, Clock
from service.ports.launches import Launch

__all__ = ["LaunchDoor", "is_launched", "launch_of"]

LAUNCH_PATH: Final = "/launch"
CALLBACK_PATH: Final = "/launch/callback"
LOGOUT_PATH: Final = "/launch/logout"
SIDEBAR_PATH: Final = "/sidebar"
_AGAIN: Final = "Open Epicrisis again from the patient's chart."
_log = logging.getLogger("epicrisis.identity")


@dataclass(frozen=True, slots=True)
class LaunchDoor:
    """Lets in whom a configured EHR launches, and writes down who came, left, and was turned away."""

    launches: Launches
    audit: AuditLog
    clock: Clock
    refusals: Refusals

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""
        app.add_api_route(LAUNCH_PATH, self.launch, methods=["GET"], response_model=None)
        app.add_api_route(CALLBACK_PATH, self.callback, methods=["GET"], response_model=None)
        app.add_api_route(LOGOUT_PATH, self.logout, methods=["POST"], response_model=None)

    def frames(self, launch: Launch | None = None) -> tuple[str, ...]:
        """Return who may frame a launch's pages: its EHR; where none is known yet, every configured one."""
        ehrs = [one.ehr for one in self.launches.sites if launch is None or one.ehr.name == launch.ehr]
        return tuple(sorted({origin for ehr in ehrs for origin in ehr.frame_ancestors}))

    async def find(self, browser: str, visit: str) -> tuple[Launch, Visitor] | None:
        """Return a launch of a browser, and who came by it. Raises Refused, and StoreError."""
        launch = await self.launches.find(browser, visit)
        return None if launch is None else (launch, self.launches.visitor_of(launch))

    def invite(self) -> Response:
        """Say that the chart must be opened again (401)."""
        title = "Open the patient's chart"
        text = "There is no launch from an EHR here, or it is over."
        return page("message.html", 401, title=title, text=text, advice=_AGAIN)

    async def launch(self, request: Request) -> Response:
        """Send the browser to the authorization server of the EHR that launches us."""
        allow_frames(request.scope, self.frames())
        said = _single(request)
        if not said.get("iss"):
            return plain_page(400, "This address is one that an EHR opens.", _AGAIN)
        redirect_uri = str(request.url.replace(path=CALLBACK_PATH, query="", fragment=""))
        try:
            begun = await self.launches.begin(
                said["iss"], said.get("launch", ""), redirect_uri, read_launch(request)
            )
        except Refused as refused:
            await self._record(refused.reason)
            return _unknown() if refused.reason is Reason.ISSUER else _unfinished(request)
        except ConnectorError as error:
            return _unreachable(error)
        answer = RedirectResponse(begun.address, status_code=303)
        put_launch(answer, begun.browser)
        return answer

    async def callback(self, request: Request) -> Response:
        """Take the authorization server's answer, and open the page for the patient that it names."""
        allow_frames(request.scope, self.frames())
        said, browser = _single(request), read_launch(request)
        try:
            launch = await self.launches.finish(browser, said)
        except Refused as refused:
            await self._record(refused.reason)
            return _refused(request, refused.reason)
        except ConnectorError as error:
            return _unreachable(error)
        try:
            await asyncio.to_thread(self._note, Action.LOGIN, launch)
            kept = await self.launches.admit(browser, launch)
        except StoreError:
            await self.launches.give_back(launch)
            raise
        answer = RedirectResponse(f"{SIDEBAR_PATH}?visit={launch.visit}", status_code=303)
        put_launch(answer, kept)
        return answer

    async def logout(self, request: Request) -> Response:
        """End all launches of this browser, here and at the EHR."""
        await self.launches.end(read_launch(request))
        await asyncio.to_thread(self._note, Action.LOGOUT, launch_of(request))
        answer = page("signedout.html", link="")
        drop_launch(answer)
        return answer

    def _note(self, action: Action, launch: Launch) -> None:
        self.audit.append(
            AuditEntry(
                action, launch.actor, launch.patient, self.clock(), server=launch.server, by=launch.fhir_user
            )
        )

    async def _record(self, reason: Reason) -> None:
        await asyncio.to_thread(self.refusals.record, reason, NOBODY)


def _single(request: Request) -> dict[str, str]:
    """Return the query; empty where a name stands in it twice: who is to say which one is meant."""
    said = dict(request.query_params)
    return said if len(said) == len(request.query_params.multi_items()) else {}


def _unknown() -> Response:
    return plain_page(
        403,
        "The EHR that opened this address is not one that Epicrisis knows.",
        "Ask those who look after Epicrisis at your site to add it (EPICRISIS_EHRS).",
    )


def _refused(request: Request, reason: Reason) -> Response:
    if reason is Reason.NO_PATIENT:
        text = "The EHR opened Epicrisis without a patient, so there is no chart to show."
        return plain_page(400, text, "Open a patient's chart first, and Epicrisis from there.")
    return forbidden() if reason in (Reason.ROLE, Reason.PATIENT) else _unfinished(request)


def _unfinished(request: Request) -> Response:
    if not read_launch(request):
        return plain_page(
            400,
            "This launch did not come to an end: the browser sent no cookie of Epicrisis along.",
            "Allow cookies for Epicrisis in frames, or have the EHR open it in a window of its own.",
        )
    return plain_page(400, "This launch did not come to an end.", _AGAIN)


def _unreachable(error: ConnectorError) -> Response:
    _log.warning("A launch could not be carried out (%s)", error.code)
    return plain_page(
        503, "The EHR's sign-in cannot be used at the moment, so nothing is shown.", "Try again in a minute."
    )
