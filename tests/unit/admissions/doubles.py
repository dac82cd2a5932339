"""A roster over doubles: a resolver that knows its answers, and a desk whose documents are in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from connectors.admissions.events import Event
from connectors.admissions.resolve import Resolved, Resolver
from connectors.errors import ConnectorError, Forbidden
from fixtures.facts import NOW
from service.admissions.form import dump_events
from service.admissions.roster import Roster
from service.filing.desk import Desk, Manner
from service.ports import Admission, DocumentState, FiledDocument, RunId
from tests.unit.api.in_memory import InMemoryAudit, InMemoryStore
from tests.unit.in_memory_admissions import InMemoryAdmissions

SERVER = "http://127.0.0.1:1/fhir"


class KnownAnswers:
    """A Resolver whose answers are given by the patient that is asked for."""

    def __init__(self) -> None:
        self.answers: dict[str, Resolved | list[ConnectorError]] = {}
        self.asked: list[Event] = []
        self.prefetched = 0
        self.prefetch_fails: ConnectorError | None = None

    async def prefetch(self, events: Iterable[Event]) -> None:
        self.prefetched += len(list(events))
        if self.prefetch_fails is not None:
            raise self.prefetch_fails

    async def resolve(self, event: Event) -> Resolved:
        self.asked.append(event)
        who = event.patient.reference or event.patient.identifiers[0].value
        answer = self.answers[who]
        if isinstance(answer, list):
            raise answer[0]
        return answer


class ClosedDocuments:
    """A server that lets no document be read, and remembers which ones were asked for."""

    base_url = SERVER

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def read(self, reference: str) -> dict[str, Any]:
        self.asked.append(reference)
        raise Forbidden("The server denies this.")


@dataclass
class Bench:
    """A roster with its doubles in reach."""

    store: InMemoryAdmissions = field(default_factory=InMemoryAdmissions)
    resolver: KnownAnswers = field(default_factory=KnownAnswers)
    documents: InMemoryStore = field(default_factory=InMemoryStore)
    ehr: ClosedDocuments = field(default_factory=ClosedDocuments)
    ordered: list[Admission] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.roster = self.session()

    def session(self) -> Roster:
        """A new roster over the same store."""

        async def order(admission: Admission) -> None:
            self.ordered.append(admission)

        async def cancel(admission: Admission) -> None:
            self.cancelled.append(admission.id)

        desk = Desk(
            cast(Any, self.ehr), self.documents, self.documents, InMemoryAudit(), lambda: self.now,
            Manner("0"),
        )  # fmt: skip
        return Roster(self.store, cast(Resolver, self.resolver), desk, order, cancel)

    async def hear(self, *events: Event, again: bool = True) -> int:
        """Hear and heed."""
        self.store.hear(dump_events(events))
        self.roster = self.session()
        return await self.roster.heed_all(again=again)

    def draft(self, number: int, patient: str, encounter: str) -> FiledDocument:
        """A draft that stands on the server."""
        row = FiledDocument(
            f"DocumentReference/{number}", SERVER, "1", RunId(f"run-{number}"), patient, DocumentState.DRAFT,
            NOW, None, encounter,
        )  # fmt: skip
        self.documents.put_document(row)
        return row

    def only(self) -> Admission:
        """The one admission that is kept."""
        (found,) = self.store.stays.values()
        return found
