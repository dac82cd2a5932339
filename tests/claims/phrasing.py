"""Wordings, and how a statement is set into one."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from random import Random
from string import Formatter

from tests.claims.speak import (
    FREQUENCIES,
    drug_forms,
    finish,
    lowered,
    name_forms,
    plain,
    product_forms,
    say_count,
    say_day,
    say_since,
    say_value,
    say_when,
)

FOLDER = Path(__file__).parent / "wordings"
RISES = ("rose", "increased", "climbed", "went up")
FALLS = ("fell", "decreased", "dropped", "went down")
PAIRED = {"change", "difference", "doubled"}


@dataclass(frozen=True)
class Wording:
    """One sentence pattern of a kind of statement; `id` names its file and place."""

    id: str
    kind: str
    pattern: str
    frozen: bool

    @property
    def slots(self) -> frozenset[str]:
        return frozenset(name for _, name, _, _ in Formatter().parse(self.pattern) if name)


@cache
def wordings() -> Mapping[str, tuple[Wording, ...]]:
    """Return every wording by kind, the frozen ones first."""
    found: dict[str, list[Wording]] = {}
    for stem in ("frozen", "open"):
        for kind, patterns in tomllib.loads((FOLDER / f"{stem}.toml").read_text(encoding="utf-8")).items():
            for place, pattern in enumerate(patterns):
                wording = Wording(f"{kind}-{stem}-{place}", kind, pattern, stem == "frozen")
                found.setdefault(kind, []).append(wording)
    return {kind: tuple(each) for kind, each in found.items()}


def set_in(
    wording: Wording, said: Mapping[str, str], gender: str, rng: Random, whole: bool = False
) -> str | None:
    """Return the sentence, or None where the statement lacks what the wording says.

    `whole` keeps every date a full day. A dose, an activity or a date that was not recorded leaves a gap.
    """
    slots = _Slots(said, gender, rng, whole)
    try:
        filled = {name: slots.fill(name) for name in sorted(wording.slots)}
    except KeyError:
        return None
    return pronoun_fits(finish(wording.pattern.format(**filled)))


class _Slots:
    """Fills the slots of one sentence; KeyError where the statement has nothing to say there."""

    def __init__(self, said: Mapping[str, str], gender: str, rng: Random, whole: bool) -> None:
        self.said, self.gender, self.rng, self.whole = said, gender, rng, whole

    def fill(self, slot: str) -> str:
        if slot in ("date", "on") or slot.endswith(("_date", "_on")):
            return self._date(slot)
        special = getattr(self, f"_{slot}", None)
        return str(special()) if special else self.said[slot]

    def _date(self, slot: str) -> str:
        stem = slot.removesuffix("date").removesuffix("on")
        day = date.fromisoformat(self.said[f"{stem}date"])
        return say_day(day, self.rng) if slot.endswith("date") else say_when(day, self.rng, self.whole)

    def _since(self) -> str:
        return say_since(date.fromisoformat(self.said["date"]), self.rng, self.whole)

    def _who(self) -> str:
        pronoun = {"female": ["she"], "male": ["he"]}.get(self.gender, [])
        return self.rng.choice(["the patient", *pronoun])

    def _name(self) -> str:
        return self.rng.choice(name_forms(self.said["name"]))

    def _activity(self) -> str:
        return lowered(plain(self.said["activity"]))

    def _value(self) -> str:
        return say_value(self.said["value"], self.said["unit"], self.rng)

    def _first(self) -> str:
        return say_value(self.said["first"], self.said["unit"], self.rng)

    def _second(self) -> str:
        return say_value(self.said["second"], self.said["unit"], self.rng)

    def _diff(self) -> str:
        return say_value(self.said["diff"], self.said["unit"], self.rng)

    def _rose(self) -> str:
        return self.rng.choice(RISES if self.said["direction"] == "up" else FALLS)

    def _a_rise(self) -> str:
        return self.rng.choice(
            ["a rise", "an increase"] if self.said["direction"] == "up" else ["a fall", "a decrease"]
        )

    def _has_risen(self) -> str:
        up = self.said["direction"] == "up"
        return "has " + self.rng.choice(["risen", "increased"] if up else ["fallen", "decreased"])

    def _higher(self) -> str:
        return "higher" if self.said["direction"] == "up" else "lower"

    def _highest(self) -> str:
        return self.said["end"]

    def _n(self) -> str:
        return say_count(int(self.said["n"]), self.rng)

    def _length(self) -> str:
        days = int(self.said["days"])
        return f"{say_count(days, self.rng)} day{'s' if days != 1 else ''}"

    def _product(self) -> str:
        forms = product_forms(self.said["product"])
        return self.rng.choice(forms)

    def _drug(self) -> str:
        return self.rng.choice(drug_forms(self.said["drug"]))

    def _freq(self) -> str:
        times, unit = self.said["freq"].split("/")
        return self.rng.choice(FREQUENCIES[int(times), unit])

    def _finding_lower(self) -> str:
        return lowered(self.said["finding"])


def pronoun_fits(text: str) -> str:
    """Return the sentence with possessives of pronouns as English has them."""
    for wrong, right in (("She's", "Her"), ("He's", "His"), ("she's", "her"), ("he's", "his")):
        text = text.replace(f"{wrong} ", f"{right} ")
    return text
