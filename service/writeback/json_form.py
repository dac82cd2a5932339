"""The machine-readable form of a document: `application/json`, format `epicrisis-summary/1`.

With it anyone who can read the EHR can check a document without Epicrisis: each statement names its sources
by number, and each source gives the resource version, the SHA-256 of that version's content (without
`meta.versionId` and `meta.lastUpdated`) and the line that was read from it.

    format            `epicrisis-summary/1`; a reader refuses a format that it does not know
    banner            the label that begins and ends every form of the document; again at the end
    kind, language    `history`, `en`
    patient           reference, name, birth_date (as recorded), record_number
    created_at, read_at, expires_at   instants: written, chart read up to, draft stands until
    as_of             the newest clinical date in the record, as recorded; null where there is none
    incomplete        titles of essential kinds that were not retrieved
    sections[]        key, title, state (`listed`, `none recorded, search complete`, `NOT RETRIEVED` or
                      null), reason, conflict, hidden (further facts not shown), statements[]
    statements[]      text, origin (`model` | `record`), verdict (`supported`; `not_verifiable` for what was
                      read from pictures and is not checked against the record), reasons, sources (numbers),
                      citation_corrected, repaired (written anew after the rules refused an earlier one),
                      entailed (`yes` | `no` | `not stated` by the engine itself; empty: not asked)
    sources[]         number, fact, type, name, date, text, reference, version, sha256; also[] (reference,
                      version, sha256 of further resources that say the same); span (first and
                      last-plus-one character in the note's text, or null); labels[] as below; picture
                      (study, series, instance, frame, sha256 of what the model was shown) of a picture alone;
                      without UIDs where the record itself keeps the picture
    left_out[]        kind, title, count, earliest, latest, reason
    not_retrieved[]   type (null: the whole record), reason, detail
    labels[]          system, code, display: the security labels that the document carries because its sources
                      do: sensitivity, and confidentiality R or V last; none for ordinary sources
    statements_refused, entries_searched   counts; refused statements themselves are for reviewers alone
    run               key, attempt, record_sha256, rules_version
    rules             version, lexicon_sha256: by what the verdicts were reached; second_pass
    prompt            id, version, template_sha256, schema_sha256
    model             name, digest, engine
    software          `epicrisis <version>`
    forms[]           type (content type without parameters), sha256 (of its bytes, before base64) of each
                      other form of the document
    attested          by, at; added[] (by, at, text: what clinicians added): of an attested document alone
    written[]         section, place (of a statement in the draft, from 1), text (a clinician's own), by, at,
                      in_place_of (the AI's words); these statements stand in no section
    rejected[]        section, place, by, at: statements that the clinician left out
    signature         JWS with detached content (RFC 7515, appendix F) over all other fields, as JSON in the
                      form of RFC 8785: keys sorted, no white space, UTF-8; absent where nothing signed

Absent text is an empty string. Fields may be added within a format; none is renamed or removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from connectors.fhir.codec import canonical
from service.context.chosen import LeftOut
from service.context.pictures import DIGEST, spot_of
from service.grounding.summary import Claim, SummarySection
from service.ports import StoredRun
from service.record.facts import Code, Fact
from service.record.labels import highest_labels
from service.writeback.clean import one_line
from service.writeback.labels import BANNER
from service.writeback.moment import DRAFT_LIFE, fhir_instant, show_when
from service.writeback.page import Sources
from service.writeback.rules import lexicon_digest
from service.writeback.sources import Source

FORMAT = "epicrisis-summary/1"


Sign = Callable[[bytes], str]
"""Content → its detached JWS; the same content gives the same signature."""


def json_form(
    run: StoredRun,
    sources: Sources,
    software_version: str,
    forms: Mapping[str, str],
    sign: Sign | None = None,
) -> bytes:
    """Return the document as JSON in UTF-8, keys in the documented order, the signature last."""
    form = _form(run, sources, software_version) | {
        "forms": [{"type": media_type, "sha256": digest} for media_type, digest in forms.items()],
        "end": BANNER,
    }
    if sign is not None:
        form["signature"] = sign(signed_content(form))
    return msgspec.json.encode(form)


def signed_content(form: Mapping[str, Any]) -> bytes:
    """Return the bytes that are signed. Raises ValueError for what JSON cannot hold."""
    return canonical({name: value for name, value in form.items() if name != "signature"})


def _form(run: StoredRun, sources: Sources, software_version: str) -> dict[str, Any]:
    summary, identity = run.summary, run.summary.identity
    return {
        "format": FORMAT,
        "banner": BANNER,
        "kind": summary.kind,
        "language": "en",
        "patient": {
            "reference": identity.reference,
            "name": one_line(identity.name),
            "birth_date": one_line(identity.birth_date),
            "record_number": one_line(identity.record_number),
        },
        "created_at": fhir_instant(run.created_at),
        "read_at": fhir_instant(run.read_at),
        "expires_at": fhir_instant(run.created_at + DRAFT_LIFE),
        "as_of": one_line(summary.as_of.recorded) if summary.as_of else None,
        "incomplete": [one_line(title) for title in summary.incomplete],
        "sections": [_section(section, sources) for section in summary.sections],
        "sources": [_source(source) for source in sources.values()],
        "left_out": [_left_out(left) for left in summary.left_out],
        "not_retrieved": [
            {"type": gap.resource_type, "reason": gap.reason.value, "detail": one_line(gap.detail)}
            for gap in summary.gaps
        ],
        "labels": _labels(summary.labels),
        "statements_refused": len(summary.refused),
        "entries_searched": summary.searched,
        **_origin(run, software_version),
    }


def _section(section: SummarySection, sources: Sources) -> dict[str, Any]:
    return {
        "key": section.key,
        "title": one_line(section.title),
        "state": section.state.value if section.state else None,
        "reason": one_line(section.reason),
        "conflict": one_line(section.conflict),
        "hidden": section.hidden,
        "statements": [_statement(claim, sources) for claim in section.claims],
    }


def _statement(claim: Claim, sources: Sources) -> dict[str, Any]:
    return {
        "text": one_line(claim.text),
        "origin": claim.origin.value,
        "verdict": claim.verdict.value,
        "reasons": list(claim.reasons),
        "sources": [sources[fact_id].number for fact_id in claim.citations],
        "citation_corrected": claim.corrected,
        "repaired": claim.repaired,
        "entailed": claim.entailed,
    }


def _source(source: Source) -> dict[str, Any]:
    fact = source.fact
    return {
        "number": source.number,
        "fact": one_line(fact.id),
        "type": source.resource_type,
        "name": one_line(fact.name),
        "date": show_when(fact.when) if fact.when else "",
        "text": one_line(fact.text),
        "reference": one_line(fact.source.reference),
        "version": one_line(fact.source.version or ""),
        "sha256": fact.source.digest,
        "also": [
            {
                "reference": one_line(copy.reference),
                "version": one_line(copy.version or ""),
                "sha256": copy.digest,
            }
            for copy in fact.copies
        ],
        "span": fact.span,
        "labels": _labels(highest_labels(label for one in fact.sources for label in one.security)),
        **_picture(fact),
    }


def _picture(fact: Fact) -> dict[str, Any]:
    """Return where a picture is, for a source that is one; nothing for any other."""
    spot = spot_of(fact)
    if spot is None:
        return {}
    study, series, instance, frame = spot
    digest = dict(fact.details).get(DIGEST, "")
    shown = {"study": study, "series": series, "instance": instance, "frame": frame, "sha256": digest}
    return {"picture": shown}


def _labels(labels: Iterable[Code]) -> list[dict[str, str]]:
    return [
        {"system": one_line(x.system), "code": one_line(x.code), "display": one_line(x.display)}
        for x in labels
    ]


def _left_out(left: LeftOut) -> dict[str, Any]:
    return {
        "kind": left.kind,
        "title": one_line(left.title),
        "count": left.count,
        "earliest": one_line(left.earliest),
        "latest": one_line(left.latest),
        "reason": one_line(left.reason),
    }


def _origin(run: StoredRun, software_version: str) -> dict[str, Any]:
    inputs = run.inputs
    return {
        "run": {
            "key": inputs.key,
            "attempt": inputs.attempt,
            "record_sha256": inputs.record_digest,
            "rules_version": inputs.rules_version,
        },
        "rules": {
            "version": inputs.rules_version,
            "lexicon_sha256": lexicon_digest(),
            "second_pass": one_line(run.summary.second_pass),
        },
        "prompt": {
            "id": inputs.prompt_id,
            "version": inputs.prompt_version,
            "template_sha256": inputs.template_digest,
            "schema_sha256": inputs.schema_digest,
        },
        "model": {
            "name": one_line(inputs.model),
            "digest": one_line(inputs.model_digest),
            "engine": one_line(inputs.engine_version),
        },
        "software": f"epicrisis {software_version}",
    }
