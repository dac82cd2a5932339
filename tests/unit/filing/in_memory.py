"""A DocumentStore that keeps everything in lists."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from service.ports import DocumentState, FiledDocument, RunId, Stop, StopScope, Wanted


class _Held:
    def __init__(self, held: set[str], key: str) -> None:
        self._held, self._key, self._is_open = held, key, True

    def close(self) -> None:
        if self._is_open:
            self._held.discard(self._key)
        self._is_open = False

    def is_held(self) -> bool:
        return self._is_open


class InMemoryDocuments:
    """Documents and stops. What runs decide (`find_documents`, `find_templates`) finds nothing here."""

    def __init__(self) -> None:
        self.filed: dict[tuple[str, str], FiledDocument] = {}
        self.halted: list[Stop] = []
        self.held: set[str] = set()

    def put_document(self, document: FiledDocument) -> None:
        self.filed[document.server, document.document] = document

    def get_document(self, server: str, document: str) -> FiledDocument | None:
        return self.filed.get((server, document))

    def documents_of(self, patient: str) -> Sequence[FiledDocument]:
        return [document for document in reversed(self.filed.values()) if document.patient == patient]

    def drafts(self) -> Sequence[FiledDocument]:
        return [document for document in self.filed.values() if document.state is DocumentState.DRAFT]

    def find_documents(self, wanted: Wanted) -> Sequence[FiledDocument]:
        return []

    def find_runs(self, wanted: Wanted) -> Sequence[RunId]:
        return []

    def find_templates(self, prompt_id: str, prompt_version: str) -> Sequence[str]:
        return []

    def hold(self, key: str) -> _Held | None:
        if key in self.held:
            return None
        self.held.add(key)
        return _Held(self.held, key)

    def add_stop(self, stop: Stop) -> None:
        self.halted.append(stop)

    def lift_stop(self, scope: StopScope, value: str, by: str, at: datetime) -> int:
        before = len(self.halted)
        self.halted = [stop for stop in self.halted if (stop.scope, stop.value) != (scope, value)]
        return before - len(self.halted)

    def stops(self) -> Sequence[Stop]:
        return list(self.halted)
