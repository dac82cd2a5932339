"""The text of a document that a clinician has attested: the draft's own words without the draft's banner.

Every form is made by the same builders as the draft's. What a clinician added stands apart, and what they
wrote in the place of a statement stands there, both marked as theirs; what they rejected is left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from service.ports import StoredRun
from service.record.labels import CONFIDENTIALITY, LEVELS
from service.writeback.attachment import attachment
from service.writeback.clean import one_line
from service.writeback.composition import document_bundle, encoded
from service.writeback.json_form import Sign, json_form, signed_content
from service.writeback.labels import BANNER, WriteProfile
from service.writeback.moment import fhir_instant, show_instant
from service.writeback.page import Block, Line, compose_page, describe
from service.writeback.pictures import as_filed
from service.writeback.sources import numbered_sources
from service.writeback.text import plain_text, xhtml

_EXPIRES = "Draft expires "
_EXPIRY_LINE = re.compile(f'<p class="identity">{_EXPIRES}[^<]*</p>')
"""The same line in a narrative."""


class Addition(NamedTuple):
    """Text that a clinician added."""

    by: str
    """`Practitioner/7`"""
    at: str
    """A FHIR instant."""
    text: str


class Change(NamedTuple):
    """What a clinician did with one statement of the AI's before they attested the text."""

    ordinal: int
    """The statement's place in reading order, from 0: of the stored run; in a document, among those filed."""
    by: str
    """`Practitioner/7`"""
    at: str
    """A FHIR instant."""
    text: str = ""
    """Their own words in its place; empty where it is left out."""


def filed_changes(run: StoredRun, changes: Iterable[Change]) -> tuple[Change, ...]:
    """Return changes of a stored run's statements by their places among those that are filed of it.

    What is not filed (SAFETY 26) is not attested, and a change of it is dropped.
    """
    kept = {section.key for section in as_filed(run).summary.sections}
    is_filed = [section.key in kept for section in run.summary.sections for _ in section.claims]
    places = {ordinal: sum(is_filed[:ordinal]) for ordinal, filed in enumerate(is_filed) if filed}
    return tuple(one._replace(ordinal=places[one.ordinal]) for one in changes if one.ordinal in places)


def lasting_banner(by: str, at: datetime) -> str:
    """Begin and end every form of an attested document with who took responsibility, and when."""
    return f"AI-GENERATED, REVIEWED AND ATTESTED BY {one_line(by)} ON {show_instant(at)}"


def lasting_description(run: StoredRun, by: str, at: datetime) -> str:
    """Return the one-line description of an attested document."""
    parts = describe(run).split(" · ")
    return " · ".join(
        part.replace(BANNER, lasting_banner(by, at)) for part in parts if not part.startswith(_EXPIRES)
    )


def lasting_content(
    run: StoredRun,
    by: str,
    at: datetime,
    additions: Sequence[Addition],
    software_version: str,
    profile: WriteProfile,
    sign: Sign | None,
    security: Sequence[Mapping[str, Any]],
    changes: Sequence[Change] = (),
) -> list[dict[str, Any]]:
    """Return the contents of an attested DocumentReference, in the order of the draft's.

    Sources keep the numbers that they have in the draft, whatever `changes` leave out. `security` are the
    labels of the attested document, which may be higher than the draft's.
    """
    run = as_filed(run)
    banner, sources = lasting_banner(by, at), numbered_sources(run.summary)
    page = _page(compose_page(run, sources, software_version), banner, additions, changes)
    forms = [
        ("text/plain; charset=utf-8", "text", plain_text(page).encode()),
        ("application/xhtml+xml", "page", xhtml(page).encode()),
    ]
    if not additions and not changes:  # a Composition has no place for words that are not the AI's
        draft = document_bundle(run, sources, software_version, profile)
        bundle = encoded(_final(draft, banner, security))
        forms += [("application/fhir+json", "document", bundle)] if bundle is not None else []
    digests = {kind.partition(";")[0]: hashlib.sha256(data).hexdigest() for kind, _, data in forms}
    proof = json_form(run, sources, software_version, digests)
    signed = _proof(proof, by, at, additions, changes, sign)
    forms.insert(2, ("application/json", "statements and sources", signed))
    written = fhir_instant(at)
    return [
        {"attachment": attachment(kind, f"{banner}: {title}", data, written)} for kind, title, data in forms
    ]


def _page(
    draft: Sequence[Block], banner: str, additions: Sequence[Addition], changes: Sequence[Change]
) -> tuple[Block, ...]:
    return tuple(_lines(_changed(draft, changes), banner, additions))


def _changed(draft: Sequence[Block], changes: Sequence[Change]) -> Iterator[Block]:
    """Yield the lines with each change in the place of its statement, without that one's sources."""
    by_ordinal, ordinal = {change.ordinal: change for change in changes}, -1
    for block in draft:
        ordinal += block.line is Line.STATEMENT
        change = by_ordinal.get(ordinal) if block.line is Line.STATEMENT else None
        if change is None:
            yield block
            continue
        when = f"{one_line(change.by)} on {show_instant(datetime.fromisoformat(change.at))}"
        if change.text:
            yield Block(Line.STATEMENT, one_line(change.text))
            yield Block(Line.NOTE, f"Written by {when}, in place of a statement of the AI.")
        else:
            yield Block(Line.NOTE, f"A statement of the AI was left out here by {when}.")


def _lines(draft: Iterable[Block], banner: str, additions: Sequence[Addition]) -> Iterator[Block]:
    for block in draft:
        if block.line is Line.HEADING and block.text == "Sources":
            yield from _added(additions)
        if block.line is Line.BANNER:
            yield replace(block, text=banner)
        elif not (block.line is Line.IDENTITY and block.text.startswith(_EXPIRES)):
            yield replace(block, text=block.text.replace("About this draft", "About this summary"))


def _added(additions: Sequence[Addition]) -> Iterator[Block]:
    for addition in additions:
        when = datetime.fromisoformat(addition.at)
        yield Block(Line.HEADING, f"Added by {one_line(addition.by)} on {show_instant(when)}")
        yield from (Block(Line.NOTE, one_line(text)) for text in addition.text.splitlines() if text.strip())


def _proof(
    draft: bytes,
    by: str,
    at: datetime,
    additions: Sequence[Addition],
    changes: Sequence[Change],
    sign: Sign | None,
) -> bytes:
    """Return the JSON form of an attested document, signed anew: it no longer expires."""
    banner = lasting_banner(by, at)
    form: dict[str, Any] = msgspec.json.decode(draft)
    form |= {"banner": banner, "end": banner, "expires_at": None}
    form["attested"] = {"by": by, "at": fhir_instant(at)}
    form["added"] = [addition._asdict() for addition in additions]
    if changes:
        form |= _told(form, changes)
    if sign is not None:
        form["signature"] = sign(signed_content(form))
    return msgspec.json.encode(form)


def _told(form: Mapping[str, Any], changes: Sequence[Change]) -> dict[str, Any]:
    """Return the sections without what was changed, and each change with the words that it stands for."""
    by_ordinal, ordinal = {change.ordinal: change for change in changes}, 0
    told: dict[str, Any] = {"sections": [], "written": [], "rejected": []}
    for section in form["sections"]:
        kept = []
        for statement in section["statements"]:
            change = by_ordinal.get(ordinal)
            ordinal += 1
            if change is None:
                kept.append(statement)
                continue
            who = {"section": section["key"], "place": ordinal, "by": change.by, "at": change.at}
            if change.text:
                own = {"text": one_line(change.text), "in_place_of": statement["text"]}
                told["written"].append(who | own)
            else:
                told["rejected"].append(who)
        told["sections"].append({**section, "statements": kept})
    return told


def _final(bundle: dict[str, Any], banner: str, security: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the document Bundle with its Composition final and without a word of the draft's banner."""
    final: dict[str, Any] = _said(bundle, banner)
    final["meta"]["security"] = labels = [dict(label) for label in security]
    level = next(x["code"] for x in labels if x.get("system") == CONFIDENTIALITY and x["code"] in LEVELS)
    for entry in final["entry"]:
        if entry["resource"]["resourceType"] == "Composition":
            entry["resource"]["status"] = "final"
            entry["resource"]["meta"]["security"] = labels
            entry["resource"]["confidentiality"] = level
            entry["resource"]["type"] = {"coding": [{"system": "http://loinc.org", "code": "60591-5"}]}
    return final


def _said(value: Any, banner: str) -> Any:
    if isinstance(value, list):
        return [_said(item, banner) for item in value]
    if isinstance(value, dict):
        return {name: _said(item, banner) for name, item in value.items()}
    if isinstance(value, str):
        return (
            _EXPIRY_LINE.sub("", value)
            .replace(BANNER, banner)
            .replace("About this draft", "About this summary")
        )
    return value
