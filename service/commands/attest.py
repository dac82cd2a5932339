"""`epicrisis attest` and `epicrisis amend`: a named clinician takes responsibility for a text.

There is no sign-in at the command line: who attests is what `--by` says, and the audit log says that it was
said here. The pages attest as the user who is signed in.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from service.errors import SettingsError
from service.filing.attest import amend as amend_document
from service.filing.attest import attest as attest_document
from service.filing.attest import attest_run
from service.given import read_file
from service.ports import RunId
from service.settings import Settings
from service.terminal import print_json, stdout
from service.wiring import open_desk

ACTOR = "system:cli"
MAX_TEXT_BYTES = 1 << 20
_ADVICE = "Give a text file in UTF-8."
By = Annotated[str, typer.Option("--by", help="The clinician, as Practitioner/<id> on the FHIR server.")]
FhirUrl = Annotated[str | None, typer.Option(help="FHIR base URL [EPICRISIS_FHIR_URL].")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; logs go to stderr.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(attest)
    app.command()(amend)


def attest(
    context: typer.Context,
    document: Annotated[
        str,
        typer.Argument(help="DocumentReference/<id>, with the version reviewed, or a run's id."),
    ],
    by: By,
    fhir_url: FhirUrl = None,
    as_json: AsJson = False,
) -> None:
    """Make a draft final in a clinician's name; it replaces the draft and what was final before."""
    filed = asyncio.run(_attest(context.obj, document, by, fhir_url))
    print_json({"document": filed, "attested_by": by}) if as_json else stdout.print(f"attested: {filed}")


def amend(
    context: typer.Context,
    document: Annotated[str, typer.Argument(help="An attested document, DocumentReference/<id>.")],
    by: By,
    text: Annotated[Path, typer.Option("--text", help="A text file (UTF-8) with what the clinician adds.")],
    fhir_url: FhirUrl = None,
    as_json: AsJson = False,
) -> None:
    """Add a clinician's own text to an attested document, marked as theirs; the amended one replaces it."""
    try:
        said = read_file(text, _ADVICE, MAX_TEXT_BYTES).decode()
    except UnicodeDecodeError:
        raise SettingsError("The file of the text cannot be read.", _ADVICE) from None
    filed = asyncio.run(_amend(context.obj, document, by, said, fhir_url))
    print_json({"document": filed, "amended_by": by}) if as_json else stdout.print(f"amended: {filed}")


async def _attest(settings: Settings, document: str, by: str, fhir_url: str | None) -> str:
    async with open_desk(settings, fhir_url) as desk:
        if document.startswith("DocumentReference/"):
            return await attest_document(desk, document, by=by, actor=ACTOR)
        run = desk.runs.get(RunId(document))
        if run is None:
            raise SettingsError("There is no such run.", "`epicrisis runs` lists them.")
        if run.document:
            return await attest_document(desk, run.document, by=by, actor=ACTOR)
        return await attest_run(desk, run, by=by, actor=ACTOR)


async def _amend(settings: Settings, document: str, by: str, text: str, fhir_url: str | None) -> str:
    async with open_desk(settings, fhir_url) as desk:
        return await amend_document(desk, document, by=by, text=text, actor=ACTOR)
