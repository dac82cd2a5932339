"""Pictures in a prompt, each after its caption under a label of its own; and the grammar of what is read.

They are asked about in a request of their own, after the evidence that all requests on a patient share: the
prompts of the text stay as they are. A caption is made of a DICOM header, so it is data from strangers too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from service.context.chosen import Context, Label
from service.context.render import defused, whole_chat
from service.context.templates import TemplateSet
from service.engine.prompt import PLACE, Image, Message, Profile, Prompt, Sampling
from service.imaging.picture import Picture
from service.record.dates import MONTHS, parse_when
from service.record.facts import Fact, FactId, Kind, ResourceVersion, Status, When

SECTION = "images"
"""Key of the section that holds what the model read from pictures."""
UNSEEN = "picture"
"""Kind of what is left out because it could not be seen."""
TASK = "images.j2"
DIGEST = "pixels sha256"
"""Which detail of a picture's fact is the digest of what the model was shown."""
NO_HEADER = "by the subject of its entry alone; the file has no header that says so"
"""Of a picture that the record itself keeps."""
LETTER = "F"
"""Of labels of pictures: the letters of `layout` are taken, I by immunizations."""
ANSWER_TOKENS = 1024
CAPTION_TOKENS = 120
"""What a caption takes at most."""
MOST_CLAIMS = 8
_LONGEST_CAPTION = 300
_LONGEST_READING = 400
"""The one `maxLength` of all our grammars: each distinct one costs seconds to compile, once."""
_DAY = re.compile(r"(\d\d)-([A-Z][a-z]{2})-(\d{4})")


class Sees(StrEnum):
    """How sure a reading is: the model chooses among these words, and every sentence begins with one."""

    SHOWS = "shows"
    MAY_SHOW = "may show"
    NOT = "does not show"


def picture_facts(pictures: Iterable[Picture], facts: Iterable[Fact], how: str = "") -> dict[Label, Fact]:
    """Return each picture as a citable fact, by label; without one whose resource is not among the facts.

    `how` says by what they were chosen.
    """
    versions = {
        version.reference: version
        for fact in sorted(facts, key=lambda one: one.kind is Kind.IMAGING)
        if fact.kind in (Kind.IMAGING, Kind.NOTE)
        for version in reversed(fact.sources)
    }
    known = [picture for picture in pictures if picture.source in versions]
    return labelled(_fact(picture, versions[picture.source], how) for picture in known)


def labelled(pictures: Iterable[Fact]) -> dict[Label, Fact]:
    """Return pictures by the labels that they are cited by."""
    return {Label(f"{LETTER}{number}"): fact for number, fact in enumerate(pictures, 1)}


def _fact(picture: Picture, source: ResourceVersion, how: str) -> Fact:
    spot = picture.spot
    name = " ".join(picture.what.split())[:_LONGEST_CAPTION] or picture.modality or "picture"
    shown = f"shown as {picture.window}" if picture.window else ""
    burned = "text may be burned into it" if picture.burned_in else ""
    uids = (spot.study, spot.series, spot.instance) if spot.instance else ("", "", "")
    score = f"{picture.score:.2f}" if picture.score is not None else ""
    details = (
        *zip(("study uid", "series uid", "instance uid"), uids, strict=True),
        ("frame", str(spot.frame)), ("window", picture.window), (DIGEST, picture.digest),
        ("chosen because", picture.why), ("score", score), ("chosen by", how), ("note", burned),
        ("whose it is", "" if spot.instance else NO_HEADER),
    )  # fmt: skip
    taken = f"picture of {picture.taken}" if picture.taken else "picture without a date"
    return Fact(
        id=FactId(f"{picture.source}#{spot.instance or 'picture'}/{spot.frame}"),
        kind=Kind.IMAGING,
        source=source,
        text="; ".join(part for part in (name, f"{picture.modality} {taken}".strip(), shown, burned) if part),
        name=name,
        status=Status.FINAL,
        when=_when(picture.taken),
        category=picture.modality,
        details=tuple((label, text) for label, text in details if text),
    )


def spot_of(fact: Fact) -> tuple[str, str, str, int] | None:
    """Return study, series, instance and frame of a picture's fact; None for any other fact.

    The UIDs are empty for a picture that the record itself keeps: its source says where it is.
    """
    told = dict(fact.details)
    uids = tuple(told.get(f"{part} uid", "") for part in ("study", "series", "instance"))
    is_kept = not any(uids) and DIGEST in told
    if not (all(uids) or is_kept) or not told.get("frame", "").isdigit():
        return None
    return uids[0], uids[1], uids[2], int(told["frame"])


def _when(taken: str) -> When | None:
    match = _DAY.fullmatch(taken)
    if match is None or match[2] not in MONTHS:
        return None
    return parse_when(f"{match[3]}-{MONTHS.index(match[2]) + 1:02}-{match[1]}", None)


def picture_prompt(
    context: Context,
    templates: TemplateSet,
    profile: Profile,
    facts: Mapping[Label, Fact],
    pngs: Mapping[str, bytes],
    *,
    seed: int = 0,
) -> Prompt:
    """Return the request about pictures: the shared evidence, each caption with its picture, then the task.

    `pngs` are their bytes by digest; without them it is the request as it is stored.
    """
    system, user = whole_chat(context, templates, profile, task="")
    captions = [f"[{label}] {defused(fact.text).replace(PLACE, ' ')}" for label, fact in facts.items()]
    told = templates.render(TASK, captions=[f"{caption}\n{PLACE}" for caption in captions])
    digests = [dict(fact.details)[DIGEST] for fact in facts.values()]
    images = tuple(Image(digest, pngs.get(digest, b"")) for digest in digests)
    evidence = user.content.replace(PLACE, " ").strip()
    chat = (system, Message("user", f"{evidence}\n\n{told}", images))
    return Prompt(chat, Sampling(ANSWER_TOKENS, profile.temperature, seed), reading_schema(tuple(facts)))


def reading_schema(labels: Sequence[Label]) -> dict[str, Any]:
    """Return the grammar of an answer about pictures: labels, how sure, and what is seen."""
    label = {"type": "string", "enum": list(labels)}
    reading = {
        "type": "object",
        "properties": {
            "cites": {"type": "array", "minItems": 1, "maxItems": 4, "items": label},
            "sees": {"type": "string", "enum": [word.value for word in Sees]},
            "text": {"type": "string", "minLength": 1, "maxLength": _LONGEST_READING},
        },
        "required": ["cites", "sees", "text"],
        "additionalProperties": False,
    }  # fmt: skip
    return {
        "type": "object",
        "properties": {"claims": {"type": "array", "items": reading, "maxItems": MOST_CLAIMS, "minItems": 1}},
        "required": ["claims"],
        "additionalProperties": False,
    }


def room_for_pictures(profile: Profile, context_tokens: int, budget_tokens: int) -> int:
    """Return how many pictures fit beside a whole budget of evidence; none for a model that sees none."""
    if not profile.image_tokens:
        return 0
    left = context_tokens - budget_tokens - ANSWER_TOKENS - CAPTION_TOKENS
    return max(0, left // (profile.image_tokens + CAPTION_TOKENS))
