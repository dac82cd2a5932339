"""Real notes and generated ones fall into passages that a reader would cite; what repeats counts once."""

from __future__ import annotations

import base64
import csv
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.record.copies import Note, first_appearances
from service.record.notes import LONGEST_PASSAGE, split_note
from tests.conftest import synthea_bundles

pytestmark = pytest.mark.shared

_WHOLE_LINE = re.compile(r"[-•*\d]|[^:\n]{1,48}:")
"""How a list item or a `Key: value` line begins."""
_CLOSED = tuple(".?!:;")


def aci_bench(folder: Path) -> list[str]:
    texts = []
    for name in ("train.csv", "valid.csv"):
        with (folder / "notes" / "aci-bench" / name).open(encoding="utf-8", newline="") as file:
            texts += [row["note"].replace("\r\n", "\n") for row in csv.DictReader(file)]
    return texts


def primock57(folder: Path) -> list[str]:
    files = sorted((folder / "notes" / "primock57" / "notes").glob("*.json"))
    return [msgspec.json.decode(path.read_bytes())["note"] for path in files]


def synthea(bundle: dict[str, Any]) -> Iterator[Note]:
    for entry in bundle["entry"]:
        resource = entry["resource"]
        if resource["resourceType"] == "DocumentReference":
            attachment = resource["content"][0]["attachment"]
            assert attachment["contentType"].startswith("text/plain")
            text = base64.b64decode(attachment["data"]).decode()
            yield Note(resource["id"], datetime.fromisoformat(resource["date"]), text)


def read(text: str) -> list[tuple[str, str]]:
    """Split, and hold what is true of every text: only headings and decoration are left out."""
    passages = split_note(text)
    rest, end = [], 0
    for passage in passages:
        assert passage.end - passage.start <= LONGEST_PASSAGE <= 700
        rest.append(text[end : passage.start])
        end = passage.end
    rest.append(text[end:])
    return [(p.section, text[p.start : p.end]) for p in passages]


def left_out(text: str) -> set[str]:
    passages = split_note(text)
    for passage in reversed(passages):
        text = f"{text[: passage.start]}\0{text[passage.end :]}"
    return {line.strip(" #*:\t") for line in text.replace("\0", "\n").split("\n")} - {""}


def test_the_passages_of_aci_bench_are_sentences_or_lines(shared_data: Path) -> None:
    written = [passage for text in aci_bench(shared_data) for passage in read(text)]
    closed = [p for _, p in written if p.rstrip("\"”’')").endswith(_CLOSED) or _WHOLE_LINE.match(p)]
    assert len(written) > 2900
    assert len(closed) / len(written) > 0.98
    assert not [p for _, p in written if p[0] in ".,;)" or p.endswith((" Dr.", " Mr.", " Mrs.", " Ms."))]
    assert sum(not section for section, _ in written) < 20


def test_every_line_left_out_of_a_clinicians_note_is_a_heading(shared_data: Path) -> None:
    names = set().union(*(left_out(text) for text in [*aci_bench(shared_data), *primock57(shared_data)]))
    assert {"CHIEF COMPLAINT", "HISTORY OF PRESENT ILLNESS", "Imp", "Plan", "Cardiovascular"} <= names
    stated = re.compile(r"(?i)\b(no|not|nil|none|nkda|denies|negative|normal|positive|stable|\d+)\b|[;?]")
    assert not {name for name in names if stated.search(name)}


def test_primock57_notes_keep_one_statement_a_line(shared_data: Path) -> None:
    texts = primock57(shared_data)
    written = [p for text in texts for _, p in read(text)]
    assert len(texts) == 57
    assert len(written) > 1150
    assert sum("\n" in p for p in written) < 15


def test_what_synthea_repeats_from_encounter_to_encounter_counts_once(shared_data: Path) -> None:
    notes = passages = appearances = before = after = 0
    for name, bundle in synthea_bundles(shared_data):
        chart = list(synthea(bundle))
        texts = {note.key: note.text for note in chart}
        for note in chart:
            assert read(note.text)
        found = first_appearances(chart)
        firsts = [(a.passage.section, texts[a.note][a.passage.start : a.passage.end]) for a in found]
        long = [first for first in firsts if len(first[1]) > 60]
        assert len(long) == len(set(long)), name
        after += sum(len(words) for _, words in firsts)
        split = [p for note in chart for p in split_note(note.text)]
        notes += len(chart)
        passages += len(split)
        before += sum(p.end - p.start for p in split)
        appearances += len(found)
    assert notes > 1100
    assert passages / appearances > 2
    assert before / after > 1.5
    print(
        f"{notes} notes: {passages} passages, {appearances} first appearances; {before} characters, {after}"
    )
