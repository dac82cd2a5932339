"""The EHRs that may call CDS Hooks, and their charts with what they grant for one call."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from connectors.auth import BearerAuth
from connectors.fhir.client import FhirClient
from connectors.limits import MIB, Limits
from service.api.cds.call import Grant
from service.api.cds.prefetch import FETCH_S, Opener
from service.api.cds.room import CdsHooks
from service.api.gate import Refusals
from service.ehrs import Ehr
from service.identity.cds import Caller, Callers
from service.ports import AdmissionStore, AuditLog, FilingStore
from service.settings import Settings
from service.store.hook_calls import SqlHookCalls
from service.wiring.installation import database_of, utc_now
from service.wiring.launches import ehrs_of

MOST_PAGES = 4
"""Of one list: a longer one is not read while a clinician waits, and not compared."""


def open_cds(
    settings: Settings, store: FilingStore, admissions: AdmissionStore, audit: AuditLog, swept: str
) -> CdsHooks | None:
    """Return the services, or None where no EHR is named that may call. Raises SettingsError, StoreError.

    `swept` is the FHIR server whose admissions are summarised by schedules.
    """
    known = [caller for ehr in ehrs_of(settings) for caller in callers_of(ehr)]
    if not known:
        return None
    kept = SqlHookCalls(*database_of(settings))
    return CdsHooks(
        Callers(known, kept, utc_now, time.monotonic), store, kept, admissions, audit, utc_now,
        Refusals(audit, utc_now), open_granted, swept,
    )  # fmt: skip


def callers_of(ehr: Ehr) -> list[Caller]:
    """Return who may call for an EHR."""
    return [
        Caller(
            ehr=ehr.name, server=ehr.iss, iss=one.iss, jku=one.jku, tenant=one.tenant,
            client_id=ehr.client_id, origins=ehr.frame_ancestors, allow_plain_http=ehr.allow_plain_http,
        )
        for one in ehr.cds
    ]  # fmt: skip


def open_granted(caller: Caller) -> Opener:
    """Return what opens a caller's FHIR server with a grant, which nothing but that server is shown."""
    limits = Limits(
        connect_s=FETCH_S, read_s=FETCH_S, total_s=FETCH_S, retries=0, max_bytes=4 * MIB,
        max_pages=MOST_PAGES, allow_plain_http=caller.allow_plain_http,
    )  # fmt: skip

    @asynccontextmanager
    async def opened(grant: Grant) -> AsyncIterator[FhirClient]:
        async with FhirClient(caller.server, auth=BearerAuth(grant.token), limits=limits) as client:
            yield client

    return opened
