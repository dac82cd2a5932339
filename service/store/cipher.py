"""The master keys, and what is done with them: AES-256-GCM for the data keys, HMAC-SHA-256 for look-ups.

They lie in the key file, in the environment, or in both. What they seal is `1 | key id (4 bytes) | nonce (12
bytes) | ciphertext and tag`: the data keys of `service.store.envelope`, and the text of databases from before
there were any. Its place, such as `epicrisis_run.content`, and its key id are authenticated with it, so that
a value which was moved to another column, cut or changed does not open. Nothing here logs, and no message
holds a key or a plain text.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.errors import SettingsError, StoreError
from service.keyfile import read_private, replace_private, write_private
from service.store.failure import errno_text

KEY_BYTES = 32
NONCE_BYTES = 12
KEY_ID_BYTES = 4
BY_MASTER = b"\x01"
"""How what a master key sealed begins."""
_HEAD = len(BY_MASTER) + KEY_ID_BYTES + NONCE_BYTES
_RESTORE = (
    "Restore the key file from its backup, or set EPICRISIS_MASTER_KEY as it was: without it, what is stored"
    " cannot be read by anyone."
)


class KeyFile(msgspec.Struct, forbid_unknown_fields=True):
    """The key file as it lies on the disk: JSON, keys in base64, ids in hex.

    `current` is the master key that the database uses, or turns to with the rotation under way; older keys
    stay in `keys` until nothing is left that they alone open.
    """

    format: str
    current: str
    keys: dict[str, str]
    lookup: str

    def __repr__(self) -> str:
        return f"KeyFile(current={self.current!r})"


class Cipher:
    """The master keys of one installation. Instances may be shared between threads.

    Which of them seals new data keys is what the database says; `current` is what it is to become.
    """

    def __init__(
        self, keys: Mapping[bytes, bytes], current: bytes, lookup: bytes | None, file: Path | None = None
    ) -> None:
        """Where a `file` is given, a key that is not known is looked for there once more."""
        self._keys = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.current = current
        self._lookup = lookup
        self._file = file

    def __repr__(self) -> str:
        return f"Cipher(current={self.current.hex()})"

    @classmethod
    def from_file(cls, path: Path, *, create: bool = True) -> Cipher:
        """Read the key file (mode 0600), or make it on first use.

        Raises StoreError where it is missing and not to be made, readable by others, or not a key file.
        """
        file = read_keys(path, create=create)
        return cls(_raw_keys(file), bytes.fromhex(file.current), _key(file.lookup), path)

    @classmethod
    def from_master(cls, current: str, previous: str = "", path: Path | None = None) -> Cipher:
        """Take the master key from a setting (32 bytes in base64), with the one before it where it is given.

        The keys of a key file, where there is one, open what they sealed, and it says the lookup key. Raises
        SettingsError for what is no key, and StoreError for a key file that cannot be used.
        """
        given = [master_key(current), *([master_key(previous)] if previous else [])]
        keys = {master_key_id(key): key for key in given}
        lookup = None
        if path is not None and path.exists():
            file = read_keys(path, create=False)
            keys |= _raw_keys(file)
            lookup = _key(file.lookup)
        return cls(keys, master_key_id(given[0]), lookup)

    def holds(self, key_id: bytes) -> bool:
        """Tell whether a master key is here; another process may have put it into the key file just now."""
        if key_id not in self._keys and self._file is not None:
            try:
                found = _raw_keys(read_keys(self._file, create=False))
            except StoreError:
                return False
            self._keys |= {new: AESGCM(key) for new, key in found.items() if new not in self._keys}
        return key_id in self._keys

    def know_lookup(self, key: bytes) -> None:
        """Take the lookup key that the database keeps; one that is known already stays."""
        if self._lookup is None:
            self._lookup = key

    @property
    def lookup(self) -> bytes | None:
        """The lookup key, or None where only the database knows it yet."""
        return self._lookup

    def of_house(self) -> Cipher:
        """Return itself: a master key is nobody's."""
        return self

    def seal(self, plain: bytes, place: str, key_id: bytes | None = None) -> bytes:
        """Encrypt a value for one place, with a fresh random nonce. Raises StoreError for a key not held."""
        with_key = self.current if key_id is None else key_id
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = self._aead(with_key).encrypt(nonce, plain, _bound_to(place, with_key))
        return BY_MASTER + with_key + nonce + sealed

    def unseal(self, sealed: bytes, place: str) -> bytes:
        """Decrypt a value of one place. Raises StoreError for another place or key, or a change."""
        key_id = key_id_of(sealed)
        if sealed[:1] != BY_MASTER or len(sealed) < _HEAD:
            raise StoreError("A stored value is damaged.", "Restore the database from its backup.")
        aead = self._aead(key_id)
        try:
            nonce = sealed[1 + KEY_ID_BYTES : _HEAD]
            return aead.decrypt(nonce, memoryview(sealed)[_HEAD:], _bound_to(place, key_id))
        except InvalidTag:
            raise StoreError(
                "A stored value is damaged or was changed.", "Restore the database from its backup."
            ) from None

    def keyed_hash(self, purpose: str, value: str) -> str:
        """Return the hex HMAC by which a value is found again without being stored.

        Plain hashes will not do: references and short texts can be guessed.
        """
        if self._lookup is None:
            raise StoreError("The lookup key is not known before the database was opened.")
        message = f"{purpose}\0{value}".encode("utf-8", "surrogatepass")
        return hmac.new(self._lookup, message, hashlib.sha256).hexdigest()

    def _aead(self, key_id: bytes) -> AESGCM:
        if not self.holds(key_id):
            raise StoreError("The key file does not hold the key of a stored value.", _RESTORE)
        return self._keys[key_id]


def key_id_of(sealed: bytes) -> bytes:
    """Return the id of the master key that sealed a value."""
    return sealed[1 : 1 + KEY_ID_BYTES]


def read_keys(path: Path, *, create: bool = False) -> KeyFile:
    """Return the key file, made on first use with `create`. Raises StoreError; see `Cipher.from_file`."""
    try:
        if create and not path.exists():
            write_private(path, _new_keys())
        return _parse(read_private(path, "key file"))
    except FileNotFoundError:
        raise StoreError("The key file is missing.", _RESTORE) from None
    except OSError as error:
        raise StoreError(f"The key file cannot be used ({errno_text(error)}).", _RESTORE) from None


def add_master(path: Path) -> bytes:
    """Put a new master key into the key file, as the one to come, and return its id. Raises StoreError."""
    file = read_keys(path)
    key_id = secrets.token_bytes(KEY_ID_BYTES)
    _write_keys(path, KeyFile(file.format, key_id.hex(), {**file.keys, key_id.hex(): _fresh()}, file.lookup))
    return key_id


def keep_masters(path: Path, needed: Collection[bytes]) -> int:
    """Forget every master key in the file that is neither needed nor the one to come; return how many.

    Raises StoreError.
    """
    file = read_keys(path)
    kept = {
        name: key for name, key in file.keys.items() if bytes.fromhex(name) in needed or name == file.current
    }
    if kept != file.keys:
        _write_keys(path, KeyFile(file.format, file.current, kept, file.lookup))
    return len(file.keys) - len(kept)


def master_key(text: str) -> bytes:
    """Return the key that a setting holds. Raises SettingsError, without any of its text."""
    try:
        return _key(text.strip())
    except ValueError:
        raise SettingsError(
            "EPICRISIS_MASTER_KEY is not a key.", "Make one with `openssl rand -base64 32`, and keep it safe."
        ) from None


def master_key_id(key: bytes) -> bytes:
    """Return the id of a key that comes without one."""
    return hmac.new(key, b"epicrisis master key id", hashlib.sha256).digest()[:KEY_ID_BYTES]


def _write_keys(path: Path, file: KeyFile) -> None:
    try:
        replace_private(path, msgspec.json.encode(file))
    except OSError as error:
        raise StoreError(
            f"The key file cannot be written ({errno_text(error)}).", "It is as it was."
        ) from None


def _parse(data: bytes) -> KeyFile:
    try:
        file = msgspec.json.decode(data, type=KeyFile)
        keys = _raw_keys(file)
        _key(file.lookup)
        sound = file.format == "epicrisis-keys/1" and bytes.fromhex(file.current) in keys
        if not sound or any(len(key_id) != KEY_ID_BYTES for key_id in keys):
            raise ValueError
    except (ValueError, msgspec.MsgspecError):
        raise StoreError("The key file is damaged.", _RESTORE) from None
    return file


def _raw_keys(file: KeyFile) -> dict[bytes, bytes]:
    return {bytes.fromhex(key_id): _key(text) for key_id, text in file.keys.items()}


def _bound_to(place: str, key_id: bytes) -> bytes:
    return b"epicrisis\0" + place.encode() + b"\0" + key_id


def _key(text: str) -> bytes:
    key = base64.b64decode(text, validate=True)
    if len(key) != KEY_BYTES:
        raise ValueError
    return key


def _fresh() -> str:
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def _new_keys() -> bytes:
    key_id = secrets.token_hex(KEY_ID_BYTES)
    return msgspec.json.encode(KeyFile("epicrisis-keys/1", key_id, {key_id: _fresh()}, _fresh()))
