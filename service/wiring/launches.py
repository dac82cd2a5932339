"""The EHRs that may launch Epicrisis, and the record as their users see it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from connectors.errors import ConnectorError
from connectors.fhir.client import FhirClient
from connectors.http import network
from connectors.keys import SigningKey
from connectors.lines import Lines
from connectors.smart.bearer import UserAuth
from connectors.smart.server import Client, SmartServer
from service.api.gate import Refusals
from service.api.launch import LaunchDoor
from service.ehrs import Ehr, read_ehrs
from service.errors import SettingsError
from service.identity.keys import KeyRing
from service.identity.launch import Launches, Site, roles_of
from service.identity.renewal import Renewal
from service.ports import AuditLog
from service.ports.launches import Launch
from service.settings import Settings
from service.store.launches import SqlLaunches
from service.wiring.ehr import fhir_limits
from service.wiring.installation import database_of, utc_now


@dataclass(frozen=True, slots=True)
class LaunchCharts:
    """Opens the record as the user of a launch (`service.ports.launches.Charts`)."""

    settings: Settings
    launches: Launches
    renewal: Renewal
    lines: Lines

    @asynccontextmanager
    async def open(self, launch: Launch) -> AsyncIterator[FhirClient]:
        """Return a client with this user's token, renewed as it is needed."""
        site = self.launches.named(launch.ehr)
        client = FhirClient(
            launch.server,
            auth=UserAuth(launch.access_profile, self.renewal.bearer(launch.visit), launch.scope),
            limits=fhir_limits(self.settings),
            transport=self.lines.to(launch.server),
            allowed_origins=site.ehr.allowed_origins if site is not None else (),
        )
        try:
            yield client
        finally:
            await client.aclose()


@dataclass(frozen=True, slots=True)
class LaunchRooms:
    """What launches need: the door, and the charts behind it."""

    door: LaunchDoor
    charts: LaunchCharts


def ehrs_of(settings: Settings) -> tuple[Ehr, ...]:
    """Return the configured EHRs; none where no file is set. Raises SettingsError."""
    return read_ehrs(settings.ehrs) if settings.ehrs is not None else ()


def site_of(ehr: Ehr) -> Site:
    """Return an EHR with its authorization server. Raises SettingsError."""
    server = SmartServer(ehr.iss, _client_of(ehr), ehr.check_endpoint, ehr.allowed_origins, ehr.issuer)
    return Site(ehr, server, KeyRing(server.fetch_keys, time.monotonic), roles_of(ehr))


def open_launches(settings: Settings, audit: AuditLog) -> LaunchRooms | None:
    """Return what launches need, or None where no EHR is configured. Raises SettingsError, StoreError."""
    ehrs = ehrs_of(settings)
    if not ehrs:
        return None
    url, cipher = database_of(settings)
    launches = Launches(
        tuple(map(site_of, ehrs)), SqlLaunches(url, cipher), cipher.keyed_hash, utc_now,
        timedelta(seconds=settings.session_idle_s), timedelta(seconds=settings.session_max_s),
    )  # fmt: skip
    refusals = Refusals(audit, utc_now)
    door = LaunchDoor(launches, audit, utc_now, refusals)
    lines = Lines(lambda: network(fhir_limits(settings)))
    return LaunchRooms(door, LaunchCharts(settings, launches, Renewal(launches, refusals.record), lines))


def _client_of(ehr: Ehr) -> Client:
    try:
        key = SigningKey.from_file(ehr.private_key_file) if ehr.private_key_file else None
        secret = ehr.client_secret_file.read_text("utf-8").strip() if ehr.client_secret_file else ""
    except (ConnectorError, OSError, UnicodeDecodeError):
        field = "private_key_file" if ehr.private_key_file else "client_secret_file"
        raise SettingsError(
            f"EPICRISIS_EHRS: {field} (ehr {ehr.name}) cannot be used.",
            "Give a private JWK (RSA of 2048 bits or more, or P-384), or a text file with the secret alone.",
        ) from None
    if ehr.client_secret_file and not secret:
        raise SettingsError(
            f"EPICRISIS_EHRS: client_secret_file (ehr {ehr.name}) is empty.", "Put the secret into it."
        )
    return Client(ehr.client_id, secret, key)
