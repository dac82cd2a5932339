"""`epicrisis verify`: whether a filed document is what was filed, and still follows from its sources.

It reads the server and nothing else: no store, no engine. Exit code 0: valid. 14: altered, something is not
what was filed or does not follow from it. 15: unsigned, nothing proves who filed it. 16: cannot check, the
server or the key could not be read well enough to tell. Other codes are those of every command
(`service.errors`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from connectors.errors import BrokenJson, ConnectorError
from connectors.fhir.attachments import fetch_attachments
from connectors.fhir.client import FhirClient
from connectors.fhir.codec import decode
from connectors.fhir.reference import parse_reference
from connectors.http import Session
from connectors.limits import Limits
from service.errors import SettingsError
from service.given import read_file
from service.proof.check import Prover
from service.proof.report import EXIT_CODES, Report, State
from service.settings import Settings
from service.signing import KEY_FILE, Signer
from service.terminal import print_json, print_table, stdout
from service.wiring import fhir_client, policy

MAX_KEYS_BYTES = 1 << 20
_ADVICE = "Give DocumentReference/<id>, or a file with the document."
_SENTENCES = {
    State.VALID: "Valid: signed, unaltered, and borne out by the versions of its sources that it names.",
    State.ALTERED: "Altered: it is not what was filed, or does not follow from what it cites.",
    State.UNSIGNED: "Unsigned: it agrees with its sources, but nothing proves who filed it.",
    State.CANNOT_CHECK: "Cannot check: not all that it rests on could be read.",
}


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(verify)


def verify(
    context: typer.Context,
    document: Annotated[
        str,
        typer.Argument(
            help="DocumentReference/<id> on the server, or a file: that resource or its JSON form."
        ),
    ],
    fhir_url: Annotated[str | None, typer.Option(help="FHIR base URL [EPICRISIS_FHIR_URL].")] = None,
    jwks: Annotated[
        str | None,
        typer.Option(
            help="Public keys of who is believed: a JWKS file or URL; else this installation's own."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")
    ] = False,
) -> None:
    """Check a filed document anew: valid (exit 0), altered (14), unsigned (15) or cannot check (16)."""
    settings: Settings = context.obj
    report = asyncio.run(_verify(settings, document, fhir_url, jwks))
    print_json(shape_of(report)) if as_json else _show(report)
    if report.state is not State.VALID:
        raise typer.Exit(EXIT_CODES[report.state])


async def _verify(settings: Settings, document: str, fhir_url: str | None, jwks: str | None) -> Report:
    keys = await _keys(settings, jwks)
    named = parse_reference(document) is not None
    if not (named or fhir_url or settings.fhir_url):
        prover = Prover(jwks=keys, policy=policy(settings))
        return await prover.check(await asyncio.to_thread(_read_file, document), document)
    async with fhir_client(settings, fhir_url) as client:
        content = await client.read(document) if named else await asyncio.to_thread(_read_file, document)
        return await prover_of(client, settings, keys).check(content, document)


def prover_of(client: FhirClient, settings: Settings, jwks: Any) -> Prover:
    """Return what checks the documents of one server."""

    async def attached(resources: list[dict[str, Any]]) -> Mapping[str, bytes]:
        return (await fetch_attachments(client, resources, lambda what, count: None)).contents

    return Prover(client, jwks, attached, policy(settings), client.base_url)


async def _keys(settings: Settings, source: str | None) -> Any:
    """Return the JWKS of a file or URL, or this installation's own; without keys an empty one."""
    if source is None:
        return await asyncio.to_thread(_own_keys, settings)
    if not source.lower().startswith(("https://", "http://")):
        return _json(await asyncio.to_thread(read_file, source, _ADVICE, MAX_KEYS_BYTES))
    try:
        session = Session(source.partition("?")[0], limits=Limits(total_s=30.0, allow_plain_http=False))
        try:
            answer = await session.send("GET", source, repeatable=True, max_bytes=MAX_KEYS_BYTES)
        finally:
            await session.aclose()
    except ConnectorError as error:
        raise SettingsError(
            f"The keys cannot be fetched ({error.code}).", "Give --jwks a JWKS file or its URL, by https."
        ) from None
    return _json(answer.body)


def _own_keys(settings: Settings) -> Any:
    own = settings.home / KEY_FILE
    return Signer.from_file(own, create=False).jwks() if own.exists() else {"keys": []}


def _read_file(path: str) -> Any:
    return _json(read_file(path, _ADVICE))


def _json(data: bytes) -> Any:
    try:
        return decode(data)
    except BrokenJson:
        raise BrokenJson(
            "The file is not JSON.", "Give a DocumentReference, its JSON form, or a JWKS."
        ) from None


def shape_of(report: Report) -> dict[str, Any]:
    """Return a report as `--json` prints it."""
    return {
        "document": report.document,
        "state": report.state,
        "statements": report.statements,
        "sources": report.sources,
        "findings": [
            {"code": f.code, "weight": f.weight, "where": f.where, "detail": f.detail}
            for f in report.findings
        ],
    }


def _show(report: Report) -> None:
    stdout.print(_SENTENCES[report.state])
    stdout.print(f"{report.statements} statements, {report.sources} sources.")
    if report.findings:
        rows: list[tuple[str, ...]] = [
            (f.weight.value, f.code.replace("_", " "), f.where, f.detail) for f in report.findings
        ]
        print_table("", ("what", "finding", "where", "detail"), rows)
