"""The EHRs that may launch Epicrisis, as the file that EPICRISIS_EHRS names says."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from connectors.errors import BadUrl, ConnectorError
from connectors.origin import is_loopback, origin_of
from service.errors import SettingsError

DEFAULT_SCOPE: Final = "launch openid fhirUser offline_access patient/*.rs user/Practitioner.rs"
NEEDED_SCOPES: Final = ("openid", "fhirUser")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_SCOPES = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")
"""RFC 6749 3.3."""
_PLACE = re.compile(r"[A-Za-z0-9.-]+(?::\d{1,5})?|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")


@dataclass(frozen=True, slots=True)
class CdsCaller:
    """Who may call the CDS hooks for an EHR: the issuer of its tokens, and where its keys are."""

    iss: str
    jku: str
    tenant: str = ""
    """Which hospital of an issuer that serves several; empty: it serves one."""


@dataclass(frozen=True, slots=True)
class Ehr:
    """One EHR, and who we are to it. Without a secret and a key we are a public client."""

    name: str
    title: str
    iss: str
    client_id: str
    scope: str = DEFAULT_SCOPE
    issuer: str = ""
    """Whom its ID tokens name, where the EHR's configuration does not say that (SMART 1)."""
    client_secret_file: Path | None = None
    private_key_file: Path | None = None
    allowed_origins: tuple[str, ...] = ()
    """Origins beside the one of `iss` that its endpoints and links may lie on."""
    frame_ancestors: tuple[str, ...] = ()
    """Origins whose pages may show ours in a frame."""
    roles: tuple[str, ...] = ("clinician",)
    files: bool = False
    allow_plain_http: bool = False
    """Loopback alone: for tests."""
    cds: tuple[CdsCaller, ...] = ()

    @property
    def origins(self) -> frozenset[str]:
        """Every origin that may be asked on behalf of this EHR."""
        return frozenset({origin_of(self.iss), *map(origin_of, self.allowed_origins)})

    def check_endpoint(self, url: str) -> str:
        """Return an address that the EHR named. Raises BadUrl unless it is encrypted and on our list."""
        origin = origin_of(url)
        parts = urlsplit(url)
        if not _is_safe(url, plain=self.allow_plain_http) or parts.fragment or origin not in self.origins:
            raise BadUrl(
                f"The EHR {self.name} names an endpoint on {origin}, which is not allowed.",
                "Where it is the EHR's own, add it to allowed_origins of this EHR in EPICRISIS_EHRS.",
            )
        return url


def canonical(url: str) -> str:
    """Return the one way to write a base URL: `scheme://host:port/path`. Raises BadUrl.

    Two that are equal then are the same server. A user name, query, fragment, empty or dotted segment is
    refused: what such an address means is read differently by different programs.
    """
    trimmed = url.removesuffix("/")
    try:
        parts = urlsplit(trimmed)
    except ValueError:
        raise BadUrl("A URL cannot be read.") from None
    is_plain = _PLACE.fullmatch(parts.netloc) and _PATH.fullmatch(parts.path) and not set("?#") & set(url)
    if not is_plain or parts.scheme not in ("https", "http"):
        raise BadUrl("A URL is not a plain http or https address.")
    if {".", ".."} & set(parts.path.lower().replace("%2e", ".").split("/")):
        raise BadUrl("A URL has dots for a folder.")
    return f"{origin_of(trimmed)}{parts.path}"


def is_same_server(one: str, other: str) -> bool:
    """Tell whether two base URLs are of one server; never where one of them cannot be read."""
    try:
        return canonical(one) == canonical(other)
    except ConnectorError:
        return False


def read_ehrs(path: Path) -> tuple[Ehr, ...]:
    """Return the EHRs of a file. Raises SettingsError that names the field, and what to do."""
    try:
        said = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        raise SettingsError(
            "The file of EPICRISIS_EHRS cannot be read as TOML.", "See ops/ehrs.toml for an example."
        ) from None
    listed = said.get("ehr")
    if set(said) != {"ehr"} or not isinstance(listed, list) or not listed:
        raise _wrong("ehr", "is wanted, and nothing beside it", "Write one [[ehr]] for each EHR.")
    ehrs = tuple(_ehr_of(_Fields(f"ehr {n}", one), path.parent) for n, one in enumerate(listed, 1))
    for field in ("name", "iss"):
        values = [one.name if field == "name" else canonical(one.iss) for one in ehrs]
        if len(set(values)) < len(values):
            raise _wrong(field, "is the same for two EHRs", "Give each one its own.")
    return ehrs


def _wrong(field: str, what: str, advice: str) -> SettingsError:
    return SettingsError(f"EPICRISIS_EHRS: {field} {what}.", advice)


class _Fields:
    """The fields of one table, each taken once; what is left over is a mistake."""

    def __init__(self, where: str, said: Any) -> None:
        if not isinstance(said, dict):
            raise _wrong(where, "is no table", "Write it as a table.")
        self.where = where
        self.said: dict[str, Any] = dict(said)

    def wrong(self, field: str, what: str, advice: str) -> SettingsError:
        return _wrong(f"{field} ({self.where})", what, advice)

    def text(self, field: str, default: str | None = None) -> str:
        value = self.said.pop(field, default)
        if not isinstance(value, str) or (not value.strip() and default is None):
            raise self.wrong(field, "is missing" if value is None else "is no text", "Set it to a text.")
        return value

    def flag(self, field: str) -> bool:
        value = self.said.pop(field, False)
        if not isinstance(value, bool):
            raise self.wrong(field, "is neither true nor false", "Write true or false, without quotes.")
        return value

    def texts(self, field: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        value = self.said.pop(field, list(default))
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.wrong(field, "is no list of texts", f'Write it as {field} = ["…"].')
        return tuple(value)

    def file(self, field: str, folder: Path) -> Path | None:
        name = self.text(field, "")
        if not name:
            return None
        path = folder / name
        if not path.is_file():
            raise self.wrong(field, "names no file that is there", "Give a path from this file's folder on.")
        return path

    def address(self, field: str, *, plain: bool, value: str | None = None) -> str:
        url = self.text(field) if value is None else value
        try:
            canonical(url)
        except ConnectorError:
            raise self.wrong(
                field, "is no plain https address", "Give it without query or fragment."
            ) from None
        if not _is_safe(url, plain=plain):
            raise self.wrong(
                field, "is not encrypted", "Use https. Plain http is for tests on this machine alone."
            )
        return url.rstrip("/")

    def origins(self, field: str, *, plain: bool) -> tuple[str, ...]:
        found = []
        for one in self.texts(field):
            url = self.address(field, plain=plain, value=one)
            if urlsplit(url).path:
                raise self.wrong(field, "holds more than an origin", "Give scheme, host and port alone.")
            found.append(url.lower())
        return tuple(found)

    def nothing_left(self, known: str) -> None:
        if self.said:
            raise self.wrong(min(self.said), "is not known", f"There are: {known}.")


def _ehr_of(fields: _Fields, folder: Path) -> Ehr:
    name = fields.text("name")
    if not _NAME.fullmatch(name):
        raise fields.wrong("name", "is not a name", "Use lower-case letters, digits, - and _.")
    fields.where = f"ehr {name}"
    plain = fields.flag("allow_plain_http")
    ehr = Ehr(
        name=name,
        title=fields.text("title", name),
        iss=fields.address("iss", plain=plain),
        client_id=fields.text("client_id"),
        scope=_scope_of(fields),
        issuer=_issuer_of(fields, plain=plain),
        client_secret_file=fields.file("client_secret_file", folder),
        private_key_file=fields.file("private_key_file", folder),
        allowed_origins=fields.origins("allowed_origins", plain=plain),
        frame_ancestors=fields.origins("frame_ancestors", plain=plain),
        roles=fields.texts("roles", ("clinician",)),
        files=fields.flag("files"),
        allow_plain_http=plain,
        cds=_callers_of(fields, plain=plain),
    )
    if ehr.client_secret_file and ehr.private_key_file:
        raise fields.wrong("client_secret_file", "stands beside private_key_file", "Give one of the two.")
    if not ehr.roles:
        raise fields.wrong("roles", "is empty", 'Leave it out for ["clinician"].')
    fields.nothing_left(", ".join(Ehr.__slots__))
    return ehr


def _issuer_of(fields: _Fields, *, plain: bool) -> str:
    """Return an issuer exactly as it was written: tokens name it to the letter."""
    issuer = fields.text("issuer", "")
    if issuer:
        fields.address("issuer", plain=plain, value=issuer)
    return issuer


def _scope_of(fields: _Fields) -> str:
    scope = fields.text("scope", DEFAULT_SCOPE)
    if not _SCOPES.fullmatch(scope):
        raise fields.wrong("scope", "cannot be read", "Part scopes by one space.")
    if missing := [one for one in NEEDED_SCOPES if one not in scope.split()]:
        raise fields.wrong("scope", f"lacks {' and '.join(missing)}", "They say who the user is.")
    return scope


def _callers_of(fields: _Fields, *, plain: bool) -> tuple[CdsCaller, ...]:
    listed = fields.said.pop("cds", [])
    if not isinstance(listed, list):
        raise fields.wrong("cds", "is no list", "Write one [[ehr.cds]] for each caller.")
    found = []
    for n, one in enumerate(listed, 1):
        caller = _Fields(f"{fields.where}, cds {n}", one)
        jku = caller.address("jku", plain=plain)
        found.append(CdsCaller(caller.text("iss"), jku, caller.text("tenant", "")))
        caller.nothing_left("iss, jku, tenant")
    return tuple(found)


def _is_safe(url: str, *, plain: bool) -> bool:
    """Tell whether an address is https, or, where that is allowed, http to this machine."""
    parts = urlsplit(url)
    is_here = plain and parts.scheme == "http" and is_loopback(parts.hostname or "")
    return (parts.scheme == "https" or is_here) and not parts.username
