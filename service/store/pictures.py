"""Pictures and embeddings in the vault: sealed under the patient's key, and gone with it."""

from __future__ import annotations

import hashlib
import threading

from service.imaging.index import PictureIndex
from service.ports.pictures import Whose
from service.store.vault import SqlVault

PICTURE, EMBEDDING = "picture", "embedding"
_MEGABYTE = 1024 * 1024
_COUNTED_EVERY = 16
"""So many parts of the limit are put before it is measured again: that reads every row's length."""
_KEPT_OF_LIMIT = 0.9
"""What is left once the limit was passed, so that not every further picture passes it."""


class SqlPictures:
    """The PictureCache over a vault, of so many megabytes in all patients; 0 keeps nothing.

    A picture lies under the digest of its bytes, a name under the name's: equal pictures lie there once.
    With several processes the limit may be passed by a sixteenth for each.
    """

    def __init__(self, vault: SqlVault, megabytes: int) -> None:
        self._vault = vault
        self._most_bytes = megabytes * _MEGABYTE
        self._unmeasured: int | None = None
        """Bytes put since the room was measured; None before the first time."""
        self._lock = threading.Lock()

    def get(self, patient: str, name: str) -> bytes | None:
        """Return a picture, or None where it is not kept, not whole, or its patient was shredded."""
        digest = self._vault.get(PICTURE, _key("name", name, patient))
        if digest is None:
            return None
        png = self._vault.get(PICTURE, f"{digest.decode('ascii', 'replace')} {patient}")
        return png if png is not None and _digest(png) == digest else None

    def put(self, patient: str, name: str, png: bytes) -> None:
        """Keep a picture. Raises ShreddedError, StoreError."""
        if not self._most_bytes or len(png) > self._most_bytes:
            return
        digest = _digest(png)
        self._vault.put(PICTURE, f"{digest.decode()} {patient}", png)
        self._vault.put(PICTURE, _key("name", name, patient), digest)
        self._make_room(len(png))

    def _make_room(self, added: int) -> None:
        with self._lock:
            known = self._unmeasured
            self._unmeasured = None if known is None else known + added
            if self._unmeasured is not None and self._unmeasured < self._most_bytes // _COUNTED_EVERY:
                return
            self._unmeasured = 0
        if self._vault.size(PICTURE) > self._most_bytes:
            self._vault.shrink(PICTURE, int(self._most_bytes * _KEPT_OF_LIMIT))


class SqlPictureIndexes:
    """The PictureIndexes over a vault: one sealed entry a patient."""

    def __init__(self, vault: SqlVault) -> None:
        self._vault = vault

    def read(self, whose: Whose, model: str) -> PictureIndex:
        """Return a patient's index; an empty one where there is none that these weights made."""
        return PictureIndex.from_bytes(self._vault.get(EMBEDDING, " ".join(whose)), model)

    def write(self, whose: Whose, index: PictureIndex) -> None:
        """Keep a patient's index. Raises ShreddedError, StoreError."""
        self._vault.put(EMBEDDING, " ".join(whose), index.to_bytes())


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _key(what: str, name: str, patient: str) -> str:
    return f"{what} {hashlib.sha256(name.encode()).hexdigest()} {patient}"
