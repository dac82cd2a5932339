"""The document as it lies there: its forms, whether each is what was filed, and whether they say the same."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lxml import etree

from connectors.errors import BrokenJson
from connectors.fhir.codec import decode, dicts
from service.ports import DOCUMENT_SYSTEM
from service.proof.report import Finding
from service.signing import check_signature
from service.writeback.json_form import FORMAT, signed_content

JSON, TEXT, PAGE, BUNDLE = "application/json", "text/plain", "application/xhtml+xml", "application/fhir+json"
_XHTML = "{http://www.w3.org/1999/xhtml}"


@dataclass(frozen=True, slots=True)
class Filed:
    """A document taken apart. `proof` is its JSON form, empty where there is none that can be read."""

    proof: dict[str, Any]
    forms: Mapping[str, bytes] = field(default_factory=dict)
    """Content type without parameters → bytes."""
    resource: dict[str, Any] = field(default_factory=dict)
    """The DocumentReference; empty where only the JSON form was given."""
    findings: tuple[Finding, ...] = ()

    @property
    def statements(self) -> list[dict[str, Any]]:
        """Every statement in reading order, its section's key with it."""
        return [s for section in dicts(self.proof.get("sections")) for s in dicts(section.get("statements"))]

    @property
    def sources(self) -> list[dict[str, Any]]:
        """Every source as listed."""
        return dicts(self.proof.get("sources"))


def open_document(content: Any) -> Filed:
    """Take a DocumentReference apart, or a JSON form by itself. Never raises; what is wrong is a finding."""
    if not isinstance(content, dict) or content.get("resourceType") != "DocumentReference":
        proof = content if isinstance(content, dict) else {}
        return Filed(proof, findings=tuple(_format(proof)))
    forms: dict[str, bytes] = {}
    findings: list[Finding] = []
    for item in dicts(content.get("content")):
        findings += _take(item.get("attachment"), forms)
    proof = _json(forms.get(JSON))
    findings += _format(proof)
    if proof:
        findings += _same_document(content, proof)
        findings += _labelled(content, proof)
    return Filed(proof, forms, content, tuple(findings))


def _take(attachment: Any, forms: dict[str, bytes]) -> Iterator[Finding]:
    """Add one attachment's bytes to the forms, and say what does not fit them."""
    given = attachment if isinstance(attachment, dict) else {}
    media_type = str(given.get("contentType", "")).partition(";")[0].strip()
    try:
        data = base64.b64decode(given["data"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        yield Finding("attachment_not_readable", media_type or "attachment")
        return
    forms.setdefault(media_type, data)
    if "size" in given and given["size"] != len(data):
        yield Finding("attachment_size_differs", media_type)
    digest = base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()
    if "hash" in given and given["hash"] != digest:
        yield Finding("attachment_hash_differs", media_type)


def _json(data: bytes | None) -> dict[str, Any]:
    try:
        value = decode(data) if data is not None else None
    except BrokenJson:
        return {}
    return value if isinstance(value, dict) else {}


def _format(proof: Mapping[str, Any]) -> Iterator[Finding]:
    if not proof:
        yield Finding("no_proof", "document")
    elif proof.get("format") != FORMAT:
        yield Finding("unknown_format", "document")


def _same_document(resource: Mapping[str, Any], proof: Mapping[str, Any]) -> Iterator[Finding]:
    """Compare what the resource and its JSON form both say of the document.

    An attested one stands under an identifier of its own, and is dated when it was attested.
    """
    keys = [i.get("value") for i in dicts(resource.get("identifier")) if i.get("system") == DOCUMENT_SYSTEM]
    attested = _at(proof, "attested", "at")
    key = [] if attested is not None else [_at(proof, "run", "key")]
    told: dict[str, tuple[Any, Any]] = {
        "identifier": (keys, key),
        "subject": (_at(resource, "subject", "reference"), _at(proof, "patient", "reference")),
        "date": (resource.get("date"), attested or proof.get("created_at")),
    }
    for name, (here, there) in told.items():
        if here != there:
            yield Finding("document_differs", "document", name)


def _labelled(resource: Mapping[str, Any], proof: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the labels of the sources that the resource does not carry; a higher level is no fault."""
    meta = resource.get("meta")
    found = dicts(meta.get("security") if isinstance(meta, dict) else None)
    codes = {str(label.get("code")) for label in found}
    for label in dicts(proof.get("labels")):
        code = str(label.get("code"))
        if code not in codes and not (code == "R" and "V" in codes):
            yield Finding("label_missing", "document", code)


def _at(value: Mapping[str, Any], *path: str) -> Any:
    found: Any = value
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def check_forms(filed: Filed, jwks: Any) -> Iterator[Finding]:
    """Yield what the signature does not bear out, and what one form says otherwise than the signed one."""
    yield from _signed(filed.proof, jwks)
    listed = {form.get("type"): form.get("sha256") for form in dicts(filed.proof.get("forms"))}
    for media_type, data in filed.forms.items():
        if media_type != JSON and hashlib.sha256(data).hexdigest() != listed.get(media_type):
            yield Finding("form_differs", media_type)
    if filed.resource:
        for kept in listed:
            if kept not in filed.forms:
                yield Finding("form_missing", str(kept))
    lines = {name: read(filed.forms[name]) for name, read in _READERS.items() if name in filed.forms}
    for number, statement in enumerate(filed.statements, 1):
        for media_type, told in lines.items():
            if _told(statement) not in told:
                yield Finding("claim_differs", f"statement {number}", media_type)


def _signed(proof: Mapping[str, Any], jwks: Any) -> Iterator[Finding]:
    signature = proof.get("signature")
    if not signature:
        yield Finding("not_signed", "document")
        return
    try:
        fault = check_signature(str(signature), signed_content(proof), jwks)
    except ValueError:
        fault = "wrong_signature"
    if fault:
        yield Finding(fault, "document")


def _told(statement: Mapping[str, Any]) -> str:
    """Return a statement as every form tells it: `text [1][2]`."""
    numbers = statement.get("sources")
    cited = "".join(f"[{number}]" for number in numbers) if isinstance(numbers, list) else ""
    return f"{statement.get('text')} {cited}"


def _without_mark(line: str) -> str:
    """Return a line without what stands after its citations: `(citation corrected)`."""
    return line[: line.rfind("]") + 1]


def _plain_lines(data: bytes) -> set[str]:
    lines = data.decode(errors="replace").split("\n")
    return {_without_mark(line.removeprefix("- ")) for line in lines}


def _page_lines(data: bytes) -> set[str]:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError):
        return set()
    return {_without_mark("".join(item.itertext())) for item in root.iter(f"{_XHTML}li")}


def _bundle_lines(data: bytes) -> set[str]:
    lines: set[str] = set()
    for entry in dicts(_json(data).get("entry")):
        resource = entry.get("resource")
        sections = resource.get("section") if isinstance(resource, dict) else None
        for section in dicts(sections):
            text = section.get("text")
            lines |= _page_lines(str(text.get("div")).encode()) if isinstance(text, dict) else set()
    return lines


_READERS = {TEXT: _plain_lines, PAGE: _page_lines, BUNDLE: _bundle_lines}
