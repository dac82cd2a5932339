"""What is kept of pictures: pixels, so that they are not fetched again, and what an encoder made of them.

Both are caches under the patient's key: losing one costs time, and shredding a patient takes both.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from service.imaging.index import PictureIndex


class PictureCache(Protocol):
    """Pictures of a patient (`Patient/1`), by a name that says which one it is. Raises StoreError."""

    def get(self, patient: str, name: str) -> bytes | None:
        """Return a picture, or None; what is damaged is gone, and no error."""
        ...

    def put(self, patient: str, name: str, png: bytes) -> None:
        """Keep a picture; equal ones of a patient lie there once. Raises ShreddedError."""
        ...


class Whose(NamedTuple):
    """Whose pictures: a patient (`Patient/1`) of one server; on another one that is somebody else."""

    server: str
    """Base URL of the FHIR server."""
    reader: str
    """As whom the record that names the pictures was read (SAFETY 21): an access profile."""
    patient: str


class PictureIndexes(Protocol):
    """One index of pictures a patient. Raises StoreError."""

    def read(self, whose: Whose, model: str) -> PictureIndex:
        """Return it; an empty one where there is none, or it is of other weights."""
        ...

    def write(self, whose: Whose, index: PictureIndex) -> None:
        """Keep it in place of the earlier one; of two writers the last one wins. Raises ShreddedError."""
        ...
