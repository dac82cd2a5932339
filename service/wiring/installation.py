"""What one installation is: its clock, version, keys, database and time zone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from zoneinfo import ZoneInfo

from service.audit.anchor import AnchorFile
from service.ports import KEPT_AREAS
from service.record.assemble import Policy
from service.settings import Settings
from service.signing import KEY_FILE, Signer
from service.store.cipher import Cipher
from service.store.database import Database, open_cipher
from service.store.inputs import SqlInputs
from service.store.keys import KeyRoom
from service.store.sql import SqlStore
from service.store.sweeps import SqlAdmissions
from service.store.trail import SqlAuditLog
from service.store.vault import SqlVault


def utc_now() -> datetime:
    """The clock of production."""
    return datetime.now(UTC)


def software_version() -> str:
    """Return the version of this installation."""
    try:
        return version("epicrisis")
    except PackageNotFoundError:  # run from a folder that nobody installed
        return "0+unknown"


def open_store(settings: Settings) -> tuple[SqlStore, SqlAuditLog]:
    """Open the database, migrated, and the audit log in it. Raises StoreError."""
    url, cipher = database_of(settings)
    anchors = settings.audit_anchors or settings.home / "audit-anchors"
    return SqlStore(url, cipher), SqlAuditLog(url, cipher, partial(AnchorFile, anchors, utc_now))


def open_vault(settings: Settings) -> SqlVault | None:
    """Open what is kept of charts between runs, without what is too old; None where nothing is to be kept.

    Raises StoreError.
    """
    url, cipher = database_of(settings)
    vault = SqlVault(url, cipher, utc_now)
    try:
        for area in KEPT_AREAS:
            vault.prune(area, utc_now() - timedelta(days=settings.snapshot_days))
    except BaseException:
        vault.close()
        raise
    if settings.snapshot_days:
        return vault
    vault.close()
    return None


def open_inputs(settings: Settings, store: SqlStore) -> SqlInputs | None:
    """Return what keeps the inputs of runs, without what is too old; None where nothing is to be kept.

    Raises StoreError.
    """
    inputs = SqlInputs(store)
    inputs.prune(utc_now() - timedelta(days=settings.replay_days))
    return inputs if settings.replay_days else None


def database_of(settings: Settings) -> tuple[str, Cipher]:
    """Return the database's URL and its master keys. Raises StoreError, SettingsError."""
    url = settings.database_url or f"sqlite:///{(settings.home / 'epicrisis.db').resolve()}"
    secrets_given = (settings.master_key, settings.master_key_previous)
    return url, open_cipher(key_file(settings), url, *(one.get_secret_value() for one in secrets_given))


def key_file(settings: Settings) -> Path:
    """Return the path of the key file, whether there is one or not."""
    return settings.key_file or settings.home / "key"


@contextmanager
def open_keys(settings: Settings) -> Iterator[KeyRoom]:
    """Open what changes the keys of the database. Raises StoreError."""
    url, cipher = database_of(settings)
    database = Database(url, cipher)
    try:
        own = None if settings.master_key.get_secret_value() else key_file(settings)
        yield KeyRoom(database, utc_now, own)
    finally:
        database.close()


@contextmanager
def open_admissions(settings: Settings) -> Iterator[SqlAdmissions]:
    """Open what is kept of admissions and schedules. Raises StoreError."""
    url, cipher = database_of(settings)
    store = SqlAdmissions(url, cipher, utc_now)
    try:
        yield store
    finally:
        store.close()


def signer(settings: Settings) -> Signer:
    """Return the key that signs this site's documents, made on first use. Raises StoreError."""
    return Signer.from_file(settings.home / KEY_FILE)


def policy(settings: Settings) -> Policy:
    """Return how a record is read at this site."""
    return Policy(time_zone=settings.time_zone or None)


def zone_of(settings: Settings) -> tzinfo:
    """Return the site's time zone; UTC where none is set."""
    return ZoneInfo(settings.time_zone) if settings.time_zone else UTC
