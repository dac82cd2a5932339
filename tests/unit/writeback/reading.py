"""Reads a built transaction the way another program would: by its types, its base64 and an XML parser."""

from __future__ import annotations

import base64
from typing import Any
from xml.etree import ElementTree

from service.ports import StoredRun
from service.writeback.labels import WriteProfile
from service.writeback.transaction import build_transaction

XHTML = "{http://www.w3.org/1999/xhtml}"


def build(run: StoredRun, profile: WriteProfile | None = None) -> dict[str, Any]:
    return build_transaction(run, software_version="0.1.0", profile=profile)


def resource(bundle: dict[str, Any], resource_type: str) -> dict[str, Any]:
    (found,) = (e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == resource_type)
    assert isinstance(found, dict)
    return found


def request(bundle: dict[str, Any], resource_type: str) -> dict[str, Any]:
    (found,) = (e["request"] for e in bundle["entry"] if e["resource"]["resourceType"] == resource_type)
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
