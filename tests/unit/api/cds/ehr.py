"""An EHR that calls: its keys, its tokens, its calls, its chart. Real signatures, no network of its own."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import msgspec
from joserfc import jws
from joserfc.jwk import ECKey, Key, RSAKey

from fixtures.sample_run import sample_run
from service.identity.cds import Caller

NOW = datetime(2026, 11, 24, 17, 6, 30, tzinfo=UTC)
"""Three hours after the sample run."""
BASE = "https://epicrisis.hospital.example"
SERVER = "https://ehr.hospital.example/fhir/R4"
ISS = "https://ehr.hospital.example"
JKU = "https://ehr.hospital.example/jwks.json"
VIEW, DISCHARGE = "epicrisis-patient-view", "epicrisis-encounter-discharge"
CALLER = Caller("general", SERVER, ISS, JKU, client_id="epicrisis", origins=(ISS,))
KEYS: dict[str, Key] = {"ec": ECKey.generate_key("P-384"), "rsa": RSAKey.generate_key(2048)}
RUN = sample_run()
TOKEN = "of-the-ehr-for-this-call"


def jwks(**keys: Key) -> dict[str, Any]:
    """The public halves."""
    return {
        "keys": [
            {**key.as_dict(private=False), "kid": kid, "use": "sig"} for kid, key in (keys or KEYS).items()
        ]
    }


def claims(service: str = VIEW, **more: Any) -> dict[str, Any]:
    """Claims of a good token; None leaves one out."""
    now = NOW.timestamp()
    said = {
        "iss": ISS, "aud": f"{BASE}/cds-services/{service}", "iat": now - 5, "exp": now + 300,
        "jti": str(uuid4()),
    }  # fmt: skip
    return {name: value for name, value in {**said, **more}.items() if value is not None}


def token(
    said: Mapping[str, Any] | None = None, by: str = "ec", key: Key | None = None, **header: Any
) -> str:
    """A signed token, however odd its header; None leaves a parameter out."""
    head = {"alg": "ES384" if by == "ec" else "RS384", "kid": by, "typ": "JWT", "jku": JKU, **header}
    parts = ({name: value for name, value in head.items() if value is not None}, said or claims())
    signed = ".".join(_part(msgspec.json.encode(part)) for part in parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        algorithm = jws.JWSRegistry(algorithms=[head["alg"]]).get_alg(head["alg"])
        return f"{signed}.{_part(algorithm.sign(signed.encode(), key or KEYS[by]))}"


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class KeyServer:
    """Where the EHR's keys are; `down` makes it fail."""

    keys: dict[str, Any] = field(default_factory=jwks)
    down: bool = False
    asked: list[str] = field(default_factory=list)

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.answer)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        return httpx.Response(503) if self.down else httpx.Response(200, json=self.keys)


def grant(**more: Any) -> dict[str, Any]:
    """A good `fhirAuthorization`; None leaves a field out."""
    said = {
        "access_token": TOKEN, "token_type": "Bearer", "expires_in": 300,
        "scope": "patient/Patient.rs patient/AllergyIntolerance.rs patient/Condition.rs "
        "patient/MedicationRequest.rs",
        "subject": "epicrisis", "patient": "1",
    }  # fmt: skip
    return {name: value for name, value in {**said, **more}.items() if value is not None}


def call(hook: str = "patient-view", **more: Any) -> dict[str, Any]:
    """A good call without prefetch; None leaves a field out."""
    context = {"userId": "Practitioner/7", "patientId": "1"}
    if hook == "encounter-discharge":
        context["encounterId"] = "9"
    said = {"hook": hook, "hookInstance": str(uuid4()), "fhirServer": SERVER, "context": context}
    return {name: value for name, value in {**said, **more}.items() if value is not None}


def patient(**more: Any) -> dict[str, Any]:
    """The Patient of the sample run, as the EHR has it now."""
    return {"resourceType": "Patient", "id": "1", "active": True, "birthDate": "1951-05-04", **more}


def bundle(*resources: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A searchset."""
    entries = [{"resource": dict(one), "search": {"mode": "match"}} for one in resources]
    return {"resourceType": "Bundle", "type": "searchset", "total": len(entries), "entry": entries, **more}


def unchanged(kind: str, *, of: str = "Patient/1") -> list[dict[str, Any]]:
    """The resources of a type that the sample run rests on, as they were when it was made."""
    sources = {
        source.reference: source
        for fact in RUN.summary.facts
        for source in fact.sources
        if source.reference.startswith(f"{kind}/")
    }
    before = (RUN.read_at - timedelta(days=1)).isoformat()
    subject = "patient" if kind == "AllergyIntolerance" else "subject"
    return [
        {
            "resourceType": kind, "id": reference.partition("/")[2], subject: {"reference": of},
            "meta": {"lastUpdated": before, **({"versionId": source.version} if source.version else {})},
        }
        for reference, source in sources.items()
    ]  # fmt: skip


def whole_prefetch(**more: Any) -> dict[str, Any]:
    """Everything that is asked for, unchanged."""
    return {
        "patient": patient(),
        "allergies": bundle(*unchanged("AllergyIntolerance")),
        "conditions": bundle(*unchanged("Condition")),
        "medications": bundle(*unchanged("MedicationRequest")),
        **more,
    }
