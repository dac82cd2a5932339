"""Bulk Data Access 2.0: `Group/[id]/$export`, asked for once, waited for, and read line by line.

What is under way is a value (`Export`, then `Manifest` and `Progress`): who keeps it can go on after a crash,
on another machine, or cancel. A file is never in memory as a whole; a line that is too long or damaged is
counted and left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from connectors.admissions.encounter import parse_instant
from connectors.admissions.lines import Line, stream_lines
from connectors.errors import BrokenJson, InvalidId, NotFhir, NotFoundError, TimedOut
from connectors.fhir.client import FHIR_JSON, FhirClient
from connectors.fhir.codec import decode, dicts, encode
from connectors.fhir.reference import parse_reference
from connectors.http import parse_retry_after
from connectors.limits import MIB
from connectors.origin import follow

_NDJSON = "application/fhir+ndjson"
_KICK_OFF = {"Accept": FHIR_JSON, "Prefer": "respond-async"}
_ACCEPTED = 202
_MANIFEST_BYTES = 16 * MIB


@dataclass(frozen=True, slots=True)
class ExportPace:
    """How an export is waited for and read. Seconds end in `_s`, sizes are bytes after decompression."""

    poll_s: float = 10.0
    """Pause where the server asks for none; it doubles up to `max_poll_s`."""
    max_poll_s: float = 300.0
    min_poll_s: float = 0.5
    deadline_s: float = 24 * 3600.0
    max_line_bytes: int = 16 * MIB
    """One resource. A note with a scanned picture in it has several MiB."""
    max_file_bytes: int = 64 * 1024 * MIB


@dataclass(frozen=True, slots=True)
class Export:
    """An export that was asked for. The URL names a job, no patient; it is kept, but never shown."""

    status_url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The export is not ready. `pause_s` is what the server asks for, where it asks."""

    pause_s: float | None


@dataclass(frozen=True, slots=True)
class ExportFile:
    """One file of an export: resources of one type, one a line."""

    resource_type: str
    url: str = field(repr=False)
    count: int | None = None
    """How many lines the server says there are."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an export brought. `errors` are files of OperationOutcome, `deleted` of transaction Bundles."""

    transaction_time: datetime | None
    """The `since` of the next export: every change before it is in this one."""
    needs_token: bool
    files: tuple[ExportFile, ...]
    errors: tuple[ExportFile, ...] = ()
    deleted: tuple[ExportFile, ...] = ()

    def dump(self) -> bytes:
        """Return the manifest as bytes, for `load`."""
        plain = {name: [[f.resource_type, f.url, f.count] for f in getattr(self, name)] for name in _PARTS}
        when = self.transaction_time.isoformat() if self.transaction_time else None
        return encode({**plain, "transaction_time": when, "needs_token": self.needs_token})

    @classmethod
    def load(cls, data: bytes) -> Manifest:
        """Return the manifest that `dump` wrote."""
        plain = decode(data)
        parts = {name: tuple(ExportFile(*file) for file in plain[name]) for name in _PARTS}
        return cls(parse_instant(plain["transaction_time"]), plain["needs_token"], **parts)


_PARTS = ("files", "errors", "deleted")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the files were read: bytes of each one, up to the end of a line, and which are done."""

    offsets: dict[str, int] = field(default_factory=dict, repr=False)
    done: frozenset[str] = field(default=frozenset(), repr=False)

    def dump(self) -> bytes:
        """Return the progress as bytes, for `load`."""
        return encode({"offsets": self.offsets, "done": sorted(self.done)})

    @classmethod
    def load(cls, data: bytes) -> Progress:
        """Return the progress that `dump` wrote."""
        plain = decode(data)
        return cls({str(url): int(at) for url, at in plain["offsets"].items()}, frozenset(plain["done"]))


@dataclass(frozen=True, slots=True)
class Exported:
    """One resource, and the progress to keep once it was dealt with. `resource` is None at a file's end."""

    resource: dict[str, Any] | None = field(repr=False)
    progress: Progress


async def start_export(
    client: FhirClient, group: str, *, types: Sequence[str] = (), since: datetime | None = None
) -> Export:
    """Ask for an export of `Group/1`. Raises InvalidId, RequestRejected, … and, without a place
    to wait at, NotFhir.

    Not repeated by itself after a lost answer: the server would do the work twice.
    """
    target = parse_reference(group if "/" in group else f"Group/{group}")
    if target is None or target.resource_type != "Group" or target.version:
        raise InvalidId("This is not a legal FHIR group id.")
    session = client.session
    params = [("_outputFormat", _NDJSON)]
    params += [("_type", ",".join(types))] if types else []
    params += [("_since", since.astimezone(UTC).isoformat())] if since else []
    url = session.url(f"{target}/$export")
    answer = await session.send("GET", url, params=params, headers=_KICK_OFF, repeatable=False)
    where = answer.headers.get("content-location", "")
    if answer.status != _ACCEPTED or not where:
        raise NotFhir(f"The server {session.origin} does not say where its export can be waited for.")
    return Export(follow(where, answer.url, session.trusted))


async def check_export(client: FhirClient, export: Export) -> Waiting | Manifest:
    """Ask once whether the export is ready. Raises NotFoundError where it expired or was cancelled."""
    session = client.session
    answer = await session.send(
        "GET",
        export.status_url,
        headers={"Accept": "application/json"},
        repeatable=True,
        max_bytes=_MANIFEST_BYTES,
    )
    if answer.status == _ACCEPTED:
        return Waiting(parse_retry_after(answer.headers.get("retry-after", ""), session.patience.now()))
    return _manifest(decode(answer.body), answer.url, client)


async def wait_for_export(client: FhirClient, export: Export, pace: ExportPace | None = None) -> Manifest:
    """Wait until the export is ready. Raises TimedOut after the deadline; the export then still goes on."""
    pace = pace or ExportPace()
    patience = client.session.patience
    waited_s, own_s = 0.0, pace.poll_s
    while waited_s <= pace.deadline_s:
        state = await check_export(client, export)
        if isinstance(state, Manifest):
            return state
        asked_s = own_s if state.pause_s is None else state.pause_s
        pause_s = min(max(asked_s, pace.min_poll_s), pace.max_poll_s)
        own_s = min(own_s * 2, pace.max_poll_s)
        await patience.sleep(pause_s)
        waited_s += pause_s
    raise TimedOut(f"The export of {client.session.origin} was not ready in time.")


async def cancel_export(client: FhirClient, export: Export) -> bool:
    """Cancel an export, or have its files deleted. Returns False where the server knows it no more."""
    try:
        await client.session.send("DELETE", export.status_url, repeatable=True)
    except NotFoundError:
        return False
    return True


async def read_export(
    client: FhirClient,
    manifest: Manifest,
    progress: Progress,
    odd: Counter[str],
    *,
    part: str = "files",
    pace: ExportPace | None = None,
) -> AsyncGenerator[Exported, None]:
    """Yield every resource of the files that is not read yet, each with the progress after it.

    What is odd is counted in `odd`. Raises ConnectorError where a file cannot be read on; the last progress
    then is where to begin again. `part` is `files`, `errors` or `deleted`.
    """
    pace = pace or ExportPace()
    for file in getattr(manifest, part):
        if file.url in progress.done:
            continue
        begun = progress.offsets.get(file.url, 0)
        lines = stream_lines(
            client.session,
            file.url,
            begun,
            max_line_bytes=pace.max_line_bytes,
            max_bytes=pace.max_file_bytes,
            with_token=manifest.needs_token,
        )
        read = 0
        async with aclosing(lines):
            async for line in lines:
                read += 1
                progress = replace(progress, offsets={**progress.offsets, file.url: line.end})
                resource = _resource(line, file, odd)
                if resource is not None:
                    yield Exported(resource, progress)
        if not begun and file.count is not None and read != file.count:
            odd["count_differs"] += 1
        offsets = {url: at for url, at in progress.offsets.items() if url != file.url}
        progress = Progress(offsets, progress.done | {file.url})
        yield Exported(None, progress)


def _resource(line: Line, file: ExportFile, odd: Counter[str]) -> dict[str, Any] | None:
    if line.text is None:
        odd["line_too_long"] += 1
        return None
    try:
        value = decode(line.text)
    except BrokenJson:
        odd["broken_line"] += 1
        return None
    kind = value.get("resourceType") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        odd["not_a_resource"] += 1
        return None
    if file.resource_type and kind != file.resource_type:
        odd["other_type_than_announced"] += 1
    return dict(value)


def _manifest(value: Any, seen_at: str, client: FhirClient) -> Manifest:
    if not isinstance(value, dict) or not isinstance(value.get("output"), list):
        raise NotFhir(f"The server {client.session.origin} answered for an export without a manifest.")
    parts = {"files": "output", "errors": "error", "deleted": "deleted"}
    return Manifest(
        transaction_time=parse_instant(value.get("transactionTime")),
        needs_token=value.get("requiresAccessToken") is not False,
        **{name: _files(value.get(key), seen_at, client) for name, key in parts.items()},
    )


def _files(value: Any, seen_at: str, client: FhirClient) -> tuple[ExportFile, ...]:
    found = []
    for item in dicts(value):
        url, kind, count = item.get("url"), item.get("type"), item.get("count")
        if isinstance(url, str) and url:
            found.append(
                ExportFile(
                    kind if isinstance(kind, str) else "",
                    follow(url, seen_at, client.session.trusted),
                    count if isinstance(count, int) and not isinstance(count, bool) else None,
                )
            )
    return tuple(found)
