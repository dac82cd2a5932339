"""One HL7 v2 ADT message as an event (HL7 v2.3 to 2.8, chapter 3), and as the answer it gets.

Only the five segments that matter are parsed: MSH, EVN, PID, PV1 and MRG. Their fields are read raw: the
library's own unescaping logs the field it fails on, and lets `\\.sp999999999\\` write as many line ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone, tzinfo
from enum import StrEnum
from typing import Any

import hl7  # type: ignore[import-untyped]

from connectors.admissions.events import (
    Admitted,
    Cancelled,
    Deceased,
    Discharged,
    Event,
    Identifier,
    Merged,
    Reinstated,
    Source,
    Subject,
    Transferred,
    Updated,
    Visit,
)


class Verdict(StrEnum):
    """Acknowledgement code, HL7 table 0008, original mode."""

    ACCEPTED = "AA"
    ERROR = "AE"
    """The content cannot be used: sending it again unchanged is of no use."""
    REJECTED = "AR"
    """The kind of message is not for us, or we cannot take anything at present."""


@dataclass(frozen=True, slots=True)
class Header:
    """What an acknowledgement repeats of MSH. None of it is about a patient."""

    sender: tuple[str, str] = ("", "")
    """Sending application and facility."""
    receiver: tuple[str, str] = ("", "")
    control_id: str = ""
    trigger: str = ""
    version: str = ""
    processing: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message: what happened, if anything, and how it is answered."""

    header: Header
    events: tuple[Event, ...] = field(default=(), repr=False)
    """One, or one for each pair of patients that an A40 merges; none where there is nothing to do."""
    verdict: Verdict = Verdict.ACCEPTED
    odd: str = ""
    """In one word why there is no event, or what is doubtful about it; empty where all is well."""


_WANTED = ("MSH", "EVN", "PID", "PV1", "MRG")
_SEGMENT_END = re.compile(r"\r\n|\r|\n")
"""The standard ends a segment by CR alone; files and careless senders write LF too."""
_MAX_SEGMENT = 64 * 1024
_MAX_SEGMENTS = 1_000
_PLAIN = re.compile(r"[\x20-\x7e]{1,199}")
_DELIMITERS = frozenset("|^~\\&")
_CLASSES = {"I": "IMP", "E": "EMER", "O": "AMB", "P": "PRENC", "B": "IMP", "IMP": "IMP", "EMER": "EMER"}
"""HL7 table 0004 to v3-ActCode; obstetrics is inpatient care. Others are a site's own."""
_EXPIRED = frozenset({"20", "40", "41", "42", "EXP"})
"""PV1-36, HL7 table 0112 (UB-04 patient status): died; the hospices' 40 to 42 too."""
_SIMPLE: dict[str, type[Event]] = {
    "A01": Admitted,
    "A03": Discharged,
    "A08": Updated,
    "A11": Cancelled,
    "A13": Reinstated,
}
TRIGGERS = frozenset({*_SIMPLE, "A02", "A40"})


def read_message(data: bytes, zone: tzinfo) -> Message:
    """Return what one message says. Never raises, whatever the bytes are.

    `zone` is the site's time zone: most senders write local times without an offset.
    """
    try:
        segments = _segments(_decode(data))
    except Exception:  # the library raises what it likes on hostile input, and quotes the input in it
        segments = []
    if not segments:
        return Message(Header(), (), Verdict.REJECTED, "not_hl7")
    header, kind = _header(segments[0])
    if kind != "ADT":
        return Message(header, (), Verdict.REJECTED, "not_adt")
    if not header.control_id:
        return Message(header, (), Verdict.ERROR, "without_control_id")
    if header.trigger not in TRIGGERS:
        return Message(header, (), Verdict.ACCEPTED, "other_trigger")
    if header.trigger == "A40":
        return _read_merges(header, segments, zone)
    return _read_event(header, segments, zone)


def acknowledge(message: Message, now: datetime, verdict: Verdict | None = None) -> bytes:
    """Return the acknowledgement of a message (ACK, HL7 v2 chapter 2.9.2). `now` is aware."""
    header = message.header
    stamp = now.strftime("%Y%m%d%H%M%S%z")
    fields = (
        "MSH", "^~\\&", *header.receiver, *header.sender, stamp, "",
        f"ACK^{header.trigger}" if header.trigger else "ACK",
        f"E{stamp[:14]}{header.control_id[-5:]}", header.processing or "P", header.version or "2.5",
    )  # fmt: skip
    return ("|".join(fields) + f"\rMSA|{verdict or message.verdict}|{header.control_id}\r").encode("ascii")


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


class _Segment:
    """One segment's fields by number; what is not there is empty."""

    def __init__(self, fields: Any = (), escapes: Callable[[str], str] = str) -> None:
        self.name = str(fields[0]) if fields else ""
        self._fields = fields
        self._escapes = escapes

    def repeats(self, number: int) -> Iterator[tuple[str, ...]]:
        """Yield each repetition of a field as its components, subcomponents cut to the first."""
        if number >= len(self._fields):
            return
        for repetition in self._fields[number]:
            parts = repetition if isinstance(repetition, list) else [repetition]
            yield tuple(self._escapes(_first(part)) for part in parts)

    def parts(self, number: int) -> tuple[str, ...]:
        """Return the components of the first repetition."""
        return next(self.repeats(number), ())

    def part(self, number: int, component: int = 1) -> str:
        """Return one component of the first repetition, from 1."""
        parts = self.parts(number)
        return parts[component - 1] if len(parts) >= component else ""


def _first(part: Any) -> str:
    while isinstance(part, list):
        part = part[0] if part else ""
    text = str(part).strip()
    return "" if text == '""' else text


def _segments(text: str) -> list[_Segment]:
    """Return the segments that matter, MSH first. Others (with pictures in them) are never parsed."""
    lines = [line for line in _SEGMENT_END.split(text.strip()) if line[:3] in _WANTED]
    if not lines or lines[0][:3] != "MSH" or any(len(line) > _MAX_SEGMENT for line in lines):
        return []
    lines = [lines[0], *(line for line in lines if line[:3] != "MSH")][:_MAX_SEGMENTS]
    message = hl7.parse("\r".join(lines))
    unescape = _unescaper(str(message.separators), str(message.esc))
    return [_Segment(segment, unescape) for segment in message]


def _first_of(segments: list[_Segment], name: str) -> _Segment:
    return next((segment for segment in segments if segment.name == name), _Segment())


def _unescaper(separators: str, escape: str) -> Callable[[str], str]:
    """Return what puts delimiters back (HL7 v2 chapter 2.7.1); other sequences stay as they are."""
    plain = dict(zip("FRST", separators[1:5], strict=False)) | {"E": escape}
    pattern = re.compile(re.escape(escape) + "([EFRST])" + re.escape(escape)) if escape else None
    return lambda text: pattern.sub(lambda found: plain.get(found[1], ""), text) if pattern else text


def _header(msh: _Segment) -> tuple[Header, str]:
    kind = msh.parts(9)
    trigger = kind[1] if len(kind) > 1 else ""
    header = Header(
        sender=(_safe(msh.part(3)), _safe(msh.part(4))),
        receiver=(_safe(msh.part(5)), _safe(msh.part(6))),
        control_id=_safe(msh.part(10)),
        trigger=trigger if re.fullmatch("[A-Z][0-9A-Z]{2}", trigger) else "",
        version=msh.part(12) if re.fullmatch(r"2\.[0-9.]{1,5}", msh.part(12)) else "",
        processing=msh.part(11) if msh.part(11) in ("P", "T", "D") else "",
    )
    return header, kind[0] if kind else ""


def _safe(text: str) -> str:
    """Return what may be repeated in an acknowledgement: short ASCII without delimiters, else nothing."""
    return text if _PLAIN.fullmatch(text) and not _DELIMITERS & set(text) else ""


def _read_event(header: Header, segments: list[_Segment], zone: tzinfo) -> Message:
    pid, pv1 = _first_of(segments, "PID"), _first_of(segments, "PV1")
    patient = _subject(pid, 3)
    if not patient:
        return Message(header, (), Verdict.ERROR, "without_patient")
    common: dict[str, Any] = {
        "patient": patient,
        "visit": _visit(pv1),
        "encounter_class": _CLASSES.get(pv1.part(2).upper(), ""),
        "location": _place(pv1.parts(3)),
        "at": _event_time(header.trigger, segments, zone),
        "source": Source.HL7,
        "key": _key(header),
    }
    event = _event(header.trigger, pid, pv1, common)
    return Message(header, (event,), odd=_doubt(event, pv1))


def _read_merges(header: Header, segments: list[_Segment], zone: tzinfo) -> Message:
    """Read the pairs of PID and MRG of a merge (ADT_A39): the first survives, the second is retired."""
    at = _event_time(header.trigger, segments, zone)
    events: list[Event] = []
    survivor = Subject()
    for segment in segments:
        if segment.name == "PID":
            survivor = _subject(segment, 3)
        elif segment.name == "MRG":
            retired = _subject(segment, 1)
            if not survivor or not retired:
                return Message(header, (), Verdict.ERROR, "merge_of_nobody")
            key = f"{_key(header)}/{len(events)}"
            events.append(
                Merged(patient=survivor, visit=Visit(), at=at, source=Source.HL7, key=key, retired=retired)
            )
    if not events:
        return Message(header, (), Verdict.ERROR, "merge_of_nobody")
    return Message(header, tuple(events))


def _key(header: Header) -> str:
    return "/".join((*header.sender, header.control_id, header.trigger))


def _event(trigger: str, pid: _Segment, pv1: _Segment, common: dict[str, Any]) -> Event:
    died = pid.part(30).upper() == "Y" or (trigger == "A03" and pv1.part(36).upper() in _EXPIRED)
    if died and trigger not in ("A11", "A13"):
        return Deceased(**common)
    if trigger == "A02":
        return Transferred(**common, from_location=_place(pv1.parts(6)))
    return _SIMPLE[trigger](**common)


def _doubt(event: Event, pv1: _Segment) -> str:
    if not event.visit:
        return "without_visit_number"
    return "without_class" if not event.encounter_class and pv1.part(2) else ""


def _subject(segment: _Segment, number: int) -> Subject:
    found = [_identifier(parts) for parts in segment.repeats(number)]
    return Subject(identifiers=tuple(dict.fromkeys(one for one in found if one is not None)))


def _identifier(parts: tuple[str, ...]) -> Identifier | None:
    """Read a CX: id, check digit, its scheme, assigning authority, type. An OID authority becomes a URI."""
    if not parts or not parts[0]:
        return None
    authority = parts[3] if len(parts) > 3 else ""
    return Identifier(authority, parts[0], parts[4] if len(parts) > 4 else "")


def _visit(pv1: _Segment) -> Visit:
    return Visit(number=_identifier(pv1.parts(19)))


def _place(parts: tuple[str, ...]) -> str:
    """Return point of care, room and bed (PL-1 to PL-3) as the sender writes them."""
    return "^".join(parts[:3]).rstrip("^")


def _event_time(trigger: str, segments: list[_Segment], zone: tzinfo) -> datetime | None:
    """EVN-6 is when it happened, EVN-2 when it was typed in; PV1-44 and 45 are admission and discharge."""
    evn, pv1 = _first_of(segments, "EVN"), _first_of(segments, "PV1")
    own = {"A01": pv1.part(44), "A03": pv1.part(45)}.get(trigger, "")
    times = (parse_time(text, zone) for text in (own, evn.part(6), evn.part(2), segments[0].part(7)))
    return next((when for when in times if when is not None), None)


_TIME = re.compile(
    r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)?(\d\d)?(?:\.(\d{1,6})\d*)?(?:([+-])(\d\d)(\d\d))?", re.ASCII
)


def parse_time(text: str, zone: tzinfo) -> datetime | None:
    """Return an HL7 v2 time (DTM) as an aware instant; None for a mere date, or what is no time."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(number or 0) for number in found.groups()[:6])
    micro = int((found[7] or "").ljust(6, "0"))
    where = zone
    try:
        if found[8]:
            offset = timedelta(hours=int(found[9]), minutes=int(found[10]))
            where = timezone(-offset if found[8] == "-" else offset)
        return datetime(year, month, day, hour, minute, second, micro, tzinfo=where)
    except ValueError:
        return None
