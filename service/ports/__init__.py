"""The seams: what the one use case needs from the edges, and the values that cross them.

Implementations are chosen in `service.wiring` alone. The engine's seam is `service.engine.prompt.Engine`.
"""

from __future__ import annotations

from service.ports.admissions import SHREDDED, Admission, AdmissionStore, Heard, Standing, Tick, WorkerRow
from service.ports.audit import Action, AuditEntry, AuditLog, DueEntry, Outbox
from service.ports.documents import (
    ATTESTED_SYSTEM,
    DEVICE_SYSTEM,
    DOCUMENT_SYSTEM,
    DocumentState,
    DocumentStore,
    FiledDocument,
    FilingStore,
    Stop,
    StopScope,
    Wanted,
)
from service.ports.ehr import Documents, Ehr, Receipt
from service.ports.held import LASTING, Clock, Closes, Right
from service.ports.kept import KEPT_AREAS, KeptSession, SessionStore, Vault
from service.ports.runs import RunId, RunInputs, RunRow, RunState, Store, StoredRun

__all__ = [
    "ATTESTED_SYSTEM",
    "DEVICE_SYSTEM",
    "DOCUMENT_SYSTEM",
    "KEPT_AREAS",
    "LASTING",
    "SHREDDED",
    "Action",
    "Admission",
    "AdmissionStore",
    "AuditEntry",
    "AuditLog",
    "Clock",
    "Closes",
    "DocumentState",
    "DocumentStore",
    "Documents",
    "DueEntry",
    "Ehr",
    "FiledDocument",
    "FilingStore",
    "Heard",
    "KeptSession",
    "Outbox",
    "Receipt",
    "Right",
    "RunId",
    "RunInputs",
    "RunRow",
    "RunState",
    "SessionStore",
    "Standing",
    "Stop",
    "StopScope",
    "Store",
    "StoredRun",
    "Tick",
    "Vault",
    "Wanted",
    "WorkerRow",
]
