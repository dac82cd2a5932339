"""Whose image it is (SAFETY 3): PatientID with its issuer, and the birth date, must be those of the Patient.

Both must be there on both sides. Nothing here repeats what was compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from service.imaging.picture import Header

ANOTHER = "The image names another patient, so it is not used."
NO_NAME = "The image does not say whose it is, so it is not used."
ISSUER = "The image's record number comes from elsewhere than the patient's, so it is not used."
BORN = "The image's birth date is not the patient's, so it is not used."
_UNKNOWN_BIRTH = frozenset({"", "00000000", "19000101", "99991231"})
"""What devices write where nobody typed a birth date."""


def whose(header: Header, patient: Mapping[str, Any], issuers: Mapping[str, str] | None = None) -> str:
    """Return an empty string where an image is this Patient's, else why it must not be used.

    `issuers` says which system of identifiers an issuer's name in DICOM stands for. Without one the name must
    be the system itself, or the name of who assigns the identifier. An image without an issuer must carry the
    medical record number: any other identifier may be somebody else's elsewhere.
    """
    number, born = header.patient_id.strip(), header.birth_date
    if not number or born in _UNKNOWN_BIRTH:
        return NO_NAME
    same = [one for one in _identifiers(patient) if one.get("value") == number]
    if not same:
        return ANOTHER
    issuer = header.issuer.strip()
    if not any(_is_issued_by(one, issuer, issuers or {}) for one in same):
        return ISSUER
    return "" if str(patient.get("birthDate", "")).replace("-", "") == born else BORN


def _identifiers(patient: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    found = patient.get("identifier")
    for one in found if isinstance(found, list) else ():
        if isinstance(one, Mapping) and one.get("use") != "old":
            yield one


def _is_issued_by(identifier: Mapping[str, Any], issuer: str, issuers: Mapping[str, str]) -> bool:
    if not issuer:
        return "MR" in _codes(identifier)
    assigner = identifier.get("assigner")
    name = assigner.get("display") if isinstance(assigner, Mapping) else None
    system = identifier.get("system")
    return bool(issuer) and issuers.get(issuer, issuer) in (system, name)


def _codes(identifier: Mapping[str, Any]) -> set[str]:
    kind = identifier.get("type")
    codings = kind.get("coding") if isinstance(kind, Mapping) else None
    return {
        str(one.get("code"))
        for one in (codings if isinstance(codings, list) else ())
        if isinstance(one, Mapping)
    }
