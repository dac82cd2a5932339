"""Checking one document anew: its forms, its signature, its sources and its verdicts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from service.proof.evidence import Evidence, Reader, read_again
from service.proof.forms import Filed, check_forms, open_document
from service.proof.report import Finding, Report
from service.proof.statements import check_citations, check_rules, check_sources, judge_again
from service.record.assemble import Policy, assemble_record
from service.record.facts import PatientRecord
from service.texts.worker import TextReader, read_texts

Attached = Callable[[list[dict[str, Any]]], Awaitable[Mapping[str, bytes]]]
"""Resources → the contents that they link to, by URL."""


async def _nothing(resources: list[dict[str, Any]]) -> Mapping[str, bytes]:
    return {}


@dataclass(frozen=True)
class Prover:
    """Checks documents of one server. Without a `reader`, only what a document says of itself is checked."""

    reader: Reader | None = None
    jwks: Any = None
    """The public keys of those who are believed, as JSON (RFC 7517)."""
    attached: Attached = _nothing
    policy: Policy = field(default_factory=Policy)
    base_url: str = ""

    async def check(self, content: Any, name: str = "document") -> Report:
        """Check a DocumentReference or a JSON form, as JSON. Raises nothing for what is in it."""
        filed = open_document(content)
        findings = list(filed.findings)
        if filed.proof:
            findings += check_forms(filed, self.jwks)
            findings += check_rules(filed.proof)
            findings += check_citations(filed.statements, filed.sources)
            findings += await self._against_the_chart(filed)
        return Report(name, tuple(dict.fromkeys(findings)), len(filed.statements), len(filed.sources))

    async def _against_the_chart(self, filed: Filed) -> list[Finding]:
        if self.reader is None:
            return [Finding("source_not_readable", "document", "no server was named")]
        patient = filed.proof.get("patient")
        reference = str(patient.get("reference", "")) if isinstance(patient, dict) else ""
        read_at = _instant(str(filed.proof.get("read_at", "")))
        evidence = await read_again(self.reader, filed.sources, reference, read_at)
        # What rests on labelled sources was written with them in sight: reading on is the reader's own right.
        is_restricted = any(source.get("labels") for source in filed.sources)
        policy = replace(self.policy, keep_restricted=is_restricted)
        record = await self._record(evidence, reference, read_at, policy)
        return [
            *evidence.findings,
            *check_sources(record, filed.sources, evidence),
            *judge_again(record, filed.statements, filed.sources, evidence),
        ]

    async def _record(
        self, evidence: Evidence, patient: str, read_at: datetime | None, policy: Policy
    ) -> PatientRecord:
        """Assemble what was read again as the record it was read from, in the site's way of reading."""
        resources = [*evidence.resources.values(), *evidence.lent.values()]
        binaries = dict(await self.attached(resources))
        texts = await asyncio.to_thread(read_texts, resources, binaries, TextReader())
        return await asyncio.to_thread(
            assemble_record,
            resources,
            patient.removeprefix("Patient/"),
            policy=policy,
            binaries=binaries,
            texts=texts,
            base_url=self.base_url,
            read_at=read_at,
        )


def _instant(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else None
