"""One patient's chart as it was last fetched, kept for the next refresh: losing it costs time, not truth."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from connectors.fhir.pull import Pull
from service.errors import StoreError
from service.ports import Vault

AREA = "snapshot"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is kept of one patient (`Patient/1`) of one server, as one reader saw it."""

    vault: Vault | None
    """None keeps nothing."""
    server: str
    access_profile: str
    patient: str

    @property
    def key(self) -> str:
        """Name all that decides what a snapshot may hold: server, reader, patient (SAFETY 21)."""
        return f"{self.server} {self.access_profile} {self.patient}"

    def load(self) -> Pull | None:
        """Return the chart as kept; None where there is none, or what is kept is damaged or another's."""
        if self.vault is None:
            return None
        try:
            data = self.vault.get(AREA, self.key)
            pull = Pull.load(data) if data is not None else None
        except (StoreError, ValueError):
            return None
        return pull if pull is not None and self._is_of(pull) else None

    def keep(self, pull: Pull) -> bool:
        """Keep a chart in place of what was kept before; False where there is a vault that could not."""
        if self.vault is None:
            return True
        try:
            self.vault.put(AREA, self.key, pull.dump())
        except StoreError:  # the next run then reads the chart whole; this one has lost nothing
            return False
        return True

    def forget(self) -> None:
        """Keep nothing of this patient any more."""
        if self.vault is not None:
            with suppress(StoreError):
                self.vault.drop(AREA, self.key)

    def _is_of(self, pull: Pull) -> bool:
        return self.patient == f"Patient/{pull.patient_id.removeprefix('Patient/')}"
