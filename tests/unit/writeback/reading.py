"""Reads a built transaction the way another program would: by its types, its base64 and an XML parser."""

from __future__ import annotations

import base64
from typing import Any
from xml.etree import ElementTree

from service.ports import DOCUMENT_SYSTEM, StoredRun
from service.writeback.json_form import Sign
from service.writeback.labels import WriteProfile
from service.writeback.transaction import build_transaction

XHTML = "{http://www.w3.org/1999/xhtml}"


def build(run: StoredRun, profile: WriteProfile | None = None, sign: Sign | None = None) -> dict[str, Any]:
    return build_transaction(run, software_version="0.1.0", profile=profile, sign=sign)


def entry(bundle: dict[str, Any], resource_type: str) -> dict[str, Any]:
    """The entry of the Device or the Provenance; of the documents, the one about the patient."""
    (found,) = (e for e in bundle["entry"] if _is_meant(e["resource"], resource_type))
    assert isinstance(found, dict)
    return found


def _is_meant(resource: dict[str, Any], resource_type: str) -> bool:
    if resource["resourceType"] != resource_type:
        return False
    return resource_type != "DocumentReference" or resource["identifier"][0]["system"] == DOCUMENT_SYSTEM


def resource(bundle: dict[str, Any], resource_type: str) -> dict[str, Any]:
    found = entry(bundle, resource_type)["resource"]
    assert isinstance(found, dict)
    return found


def request(bundle: dict[str, Any], resource_type: str) -> dict[str, Any]:
    found = entry(bundle, resource_type)["request"]
    assert isinstance(found, dict)
    return found


def shared(bundle: dict[str, Any], system: str) -> dict[str, Any]:
    """The entry whose first identifier is of this system."""
    (found,) = (
        e for e in bundle["entry"] if e["resource"].get("identifier", [{}])[0].get("system") == system
    )
    assert isinstance(found, dict)
    return found


def forms(run: StoredRun) -> dict[str, bytes]:
    """Content type (without parameters) → data, of the filed document."""
    attachments = [c["attachment"] for c in resource(build(run), "DocumentReference")["content"]]
    return {a["contentType"].partition(";")[0]: base64.b64decode(a["data"]) for a in attachments}


def plain(run: StoredRun) -> str:
    return forms(run)["text/plain"].decode()


def page(run: StoredRun) -> ElementTree.Element:
    return ElementTree.fromstring(forms(run)["application/xhtml+xml"])


def lines_of(root: ElementTree.Element) -> list[str]:
    """The text of every line of the page's body, in order."""
    body = root.find(f"{XHTML}body")
    assert body is not None
    tags = {f"{XHTML}{tag}" for tag in ("p", "h2", "li")}
    return ["".join(element.itertext()) for element in body.iter() if element.tag in tags]


def spoken(text: str) -> list[str]:
    """The lines of the plain form without its signs for headings, warnings and statements."""
    lines = [line for line in text.split("\n") if line and set(line) != {"-"}]
    return [line.removeprefix("- ").removeprefix("! ") for line in lines]
