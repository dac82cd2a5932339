"""The key file, and what is done with its keys: AES-256-GCM for patient text, HMAC-SHA-256 for look-ups.

A sealed value is `1 | key id (4 bytes) | nonce (12 bytes) | ciphertext and tag`. Its place, such as
`epicrisis_run.content`, and its key id are authenticated with it, so that a value which was moved to another
column, cut or changed does not open. Nothing here logs, and no message holds a key or a plain text.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.errors import StoreError
from service.keyfile import read_private, write_private
from service.store.failure import errno_text

KEY_BYTES = 32
NONCE_BYTES = 12
_KEY_ID_BYTES = 4
_VERSION = b"\x01"
_HEAD = len(_VERSION) + _KEY_ID_BYTES + NONCE_BYTES
_RESTORE = "Restore the key file from its backup: without it, what is stored cannot be read by anyone."


class KeyFile(msgspec.Struct, forbid_unknown_fields=True):
    """The key file as it lies on the disk: JSON, keys in base64, ids in hex.

    New values are sealed with `current`; older keys stay in `keys` so that older values still open.
    """

    format: str
    current: str
    keys: dict[str, str]
    lookup: str


class Cipher:
    """The keys of one installation. Instances may be shared between threads."""

    def __init__(self, keys: Mapping[bytes, bytes], current: bytes, lookup: bytes) -> None:
        self._keys = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._current = current
        self._lookup = lookup

    def __repr__(self) -> str:
        return f"Cipher(current={self._current.hex()})"

    @classmethod
    def from_file(cls, path: Path, *, create: bool = True) -> Cipher:
        """Read the key file (mode 0600), or make it on first use.

        Raises StoreError where it is missing and not to be made, readable by others, or not a key file.
        """
        try:
            if create and not path.exists():
                write_private(path, _new_keys())
            return cls._parse(read_private(path, "key file"))
        except FileNotFoundError:
            raise StoreError("The key file is missing.", _RESTORE) from None
        except OSError as error:
            raise StoreError(f"The key file cannot be used ({errno_text(error)}).", _RESTORE) from None

    @classmethod
    def _parse(cls, data: bytes) -> Cipher:
        try:
            file = msgspec.json.decode(data, type=KeyFile)
            keys = {bytes.fromhex(key_id): _key(text) for key_id, text in file.keys.items()}
            current = bytes.fromhex(file.current)
            lookup = _key(file.lookup)
            sound = file.format == "epicrisis-keys/1" and current in keys
            if not sound or any(len(key_id) != _KEY_ID_BYTES for key_id in keys):
                raise ValueError
        except (ValueError, msgspec.MsgspecError):
            raise StoreError("The key file is damaged.", _RESTORE) from None
        return cls(keys, current, lookup)

    def seal(self, plain: bytes, place: str) -> bytes:
        """Encrypt a value for one place, with a fresh random nonce."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = self._keys[self._current].encrypt(nonce, plain, _bound_to(place, self._current))
        return _VERSION + self._current + nonce + sealed

    def unseal(self, sealed: bytes, place: str) -> bytes:
        """Decrypt a value of one place. Raises StoreError for another place or key, or a change."""
        key_id = sealed[1 : 1 + _KEY_ID_BYTES]
        if sealed[:1] != _VERSION or len(sealed) < _HEAD:
            raise StoreError("A stored value is damaged.", "Restore the database from its backup.")
        if key_id not in self._keys:
            raise StoreError("The key file does not hold the key of a stored value.", _RESTORE)
        try:
            nonce = sealed[1 + _KEY_ID_BYTES : _HEAD]
            return self._keys[key_id].decrypt(nonce, memoryview(sealed)[_HEAD:], _bound_to(place, key_id))
        except InvalidTag:
            raise StoreError(
                "A stored value is damaged or was changed.", "Restore the database from its backup."
            ) from None

    def keyed_hash(self, purpose: str, value: str) -> str:
        """Return the hex HMAC by which a value is found again without being stored.

        Plain hashes will not do: references and short texts can be guessed.
        """
        message = f"{purpose}\0{value}".encode("utf-8", "surrogatepass")
        return hmac.new(self._lookup, message, hashlib.sha256).hexdigest()


def _bound_to(place: str, key_id: bytes) -> bytes:
    return b"epicrisis\0" + place.encode() + b"\0" + key_id


def _key(text: str) -> bytes:
    key = base64.b64decode(text, validate=True)
    if len(key) != KEY_BYTES:
        raise ValueError
    return key


def _new_keys() -> bytes:
    def fresh() -> str:
        return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()

    key_id = secrets.token_hex(_KEY_ID_BYTES)
    return msgspec.json.encode(KeyFile("epicrisis-keys/1", key_id, {key_id: fresh()}, fresh()))
