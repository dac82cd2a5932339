"""A site's own list of patients and wards that no sweep touches: a TOML or CSV file that a person keeps.

A list that cannot be read whole is no list: whoever reads it must then leave everybody out, since the line
that is missing may be somebody's no.
"""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from connectors.admissions.consents import local_reference
from connectors.errors import NotUnderstoodError
from connectors.fhir.codec import dicts
from connectors.limits import MIB

MAX_BYTES = 4 * MIB
_HEADER = ["kind", "value"]
_ADVICE = (
    'Nobody is summarised until it can be read. TOML: everyone = false, patients = ["Patient/1", '
    '"system|number", "number"], wards = ["Location/7", "Organization/3", "3 West"]. CSV: the header '
    "kind,value, then lines of patient,NUMBER or ward,NAME or everyone,yes. Both in UTF-8."
)


class SiteListUnreadable(NotUnderstoodError):
    """The list of patients and wards that opted out cannot be read whole."""

    code = "site_list_unreadable"
    advice_text = _ADVICE


@dataclass(frozen=True, slots=True)
class SiteList:
    """Who and what is left out. The empty one leaves nobody out."""

    is_everyone: bool = False
    """True switches every sweep off."""
    patients: frozenset[str] = field(default=frozenset(), repr=False)
    """`Patient/1`"""
    identifiers: frozenset[tuple[str, str]] = field(default=frozenset(), repr=False)
    """System and value; an empty system stands for any."""
    wards: frozenset[str] = field(default=frozenset(), repr=False)
    """`Location/7`, `Organization/3`, or the point of care of HL7 v2; in lower case."""

    def names_patient(self, references: Iterable[str], patient: Mapping[str, Any]) -> bool:
        """Tell whether a patient is listed, by one of these references or by an identifier."""
        if self.patients.intersection(references):
            return True
        own = [
            (str(one.get("system")), str(one.get("value")).strip())
            for one in dicts(patient.get("identifier"))
        ]
        return any(
            (system, value) in self.identifiers or ("", value) in self.identifiers for system, value in own
        )

    def names_ward(self, places: Iterable[str]) -> bool:
        """Tell whether one of these places is listed."""
        return any(place.casefold() in self.wards for place in places)


def parse_site_list(data: bytes, *, is_csv: bool) -> SiteList:
    """Return the list that a file holds. Raises SiteListUnreadable, with none of its text."""
    if len(data) > MAX_BYTES:
        raise SiteListUnreadable(f"The site's opt-out list is larger than {MAX_BYTES:,} bytes.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SiteListUnreadable("The site's opt-out list is not written in UTF-8.") from None
    rows = _csv_rows(text) if is_csv else _toml_rows(text)
    return _list_of(rows)


class ListFile:
    """The list in a file, read anew each time that it is asked for and parsed when it changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data: bytes | None = None
        self._list = SiteList()

    def read(self) -> SiteList:
        """Return the list as it stands now. Raises SiteListUnreadable; the one before is then not used."""
        try:
            with self.path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError:
            raise SiteListUnreadable("The site's opt-out list cannot be opened.") from None
        if data != self._data:
            self._list = parse_site_list(data, is_csv=self.path.suffix.casefold() == ".csv")
            self._data = data
        return self._list


Row = tuple[str, str]


def _list_of(rows: list[Row]) -> SiteList:
    named = [(value, _reference(value, "Patient")) for kind, value in rows if kind == "patient"]
    numbers = [value.rpartition("|") for value, reference in named if not reference]
    wards = [value for kind, value in rows if kind == "ward"]
    return SiteList(
        any(kind == "everyone" for kind, _ in rows),
        frozenset(reference for _, reference in named if reference),
        frozenset((system.strip(), value.strip()) for system, _, value in numbers),
        frozenset((_reference(one, "Location", "Organization") or one).casefold() for one in wards),
    )


def _reference(text: str, *types: str) -> str:
    """Return `Type/id` of what a person wrote as a reference: whole address, any case of the type."""
    resource_type, _, one = ("" if "|" in text else local_reference(text)).partition("/")
    return next(
        (f"{name}/{one}" for name in types if one and resource_type.casefold() == name.casefold()), ""
    )


def _toml_rows(text: str) -> list[Row]:
    try:
        held = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise SiteListUnreadable("The site's opt-out list is no valid TOML.") from None
    if not held or held.keys() - {"everyone", "patients", "wards"}:
        raise SiteListUnreadable("The site's opt-out list has none of its keys, or others than its own.")
    everyone = held.get("everyone", False)
    if not isinstance(everyone, bool):
        raise SiteListUnreadable("In the site's opt-out list, everyone is neither true nor false.")
    rows: list[Row] = [("everyone", "yes")] if everyone else []
    for key, kind in (("patients", "patient"), ("wards", "ward")):
        values = held.get(key, [])
        if not isinstance(values, list) or not all(isinstance(one, str) and one.strip() for one in values):
            raise SiteListUnreadable(f"In the site's opt-out list, {key} is no list of texts.")
        rows += [(kind, one.strip()) for one in values]
    return rows


def _csv_rows(text: str) -> list[Row]:
    if not text.endswith("\n"):
        raise SiteListUnreadable("The last line of the site's opt-out list is not ended: it may be cut.")
    rows: list[Row] = []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [cell.strip().casefold() for cell in next(reader, [])]
        if header != _HEADER:
            raise SiteListUnreadable("The site's opt-out list does not begin with kind,value.")
        for cells in reader:
            rows += _csv_row([cell.strip() for cell in cells], reader.line_num)
    except csv.Error:
        raise SiteListUnreadable("The site's opt-out list is no valid CSV.") from None
    return rows


def _csv_row(cells: list[str], line: int) -> list[Row]:
    if not any(cells):
        return []
    kind, value = (cells[0].casefold(), cells[1]) if len(cells) == len(_HEADER) else ("", "")
    is_known = kind in ("patient", "ward") or (kind, value.casefold()) == ("everyone", "yes")
    if not is_known or not value:
        raise SiteListUnreadable(f"Line {line} of the site's opt-out list cannot be read.")
    return [(kind, value)]
