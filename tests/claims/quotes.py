"""Claims about notes: whole sentences quoted with their date, paraphrases by rule, and planted errors.

A paraphrase rule rewrites only sentences whose shape leaves one reading: lists after `denies`, a relative's
illness after `Father:`, the one-line histories of the notes' first paragraph.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from tests.claims.charts import Chart
from tests.claims.notecharts import note_of

RELATIVE_TIME = re.compile(
    r"\b(ago|today|yesterday|tomorrow|tonight|last|next|now|currently|current|recent\w*|since|upcoming)\b"
    r"|\bthis (?:morning|week|month|year|past)\b|\bpast (?:few|\w+ (?:days|weeks|months|years))\b",
    re.IGNORECASE,
)
ADVICE = re.compile(
    r"\b(will|would like|recommend\w*|should|advis\w+|plan\w*|continue|let's|going to)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Spoken:
    """A text about a note: `span` is what it quotes or, for a paraphrase, all that it says."""

    chart: Chart
    reference: str
    day: str
    span: str
    rule: str = ""
    planted: str | None = None


def quotes(chart: Chart) -> Iterator[Spoken]:
    """Yield every sentence of the chart's note that stands on its own, without relative time or advice."""
    found = note_of(chart)
    if found is None:
        return
    reference, day, note = found
    for line in note.splitlines():
        for sentence in re.split(r"(?<=[a-z)]\.)\s+(?=[A-Z])", line.strip().lstrip("•- \t")):
            if _stands_alone(sentence):
                yield Spoken(chart, reference, day, sentence)


def _stands_alone(sentence: str) -> bool:
    if not 25 <= len(sentence) <= 180 or not re.match(r"^[A-Z]", sentence) or not sentence.endswith("."):
        return False
    return not (RELATIVE_TIME.search(sentence) or ADVICE.search(sentence) or '"' in sentence)


SWAPS: dict[str, tuple[tuple[str, str], ...]] = {
    "side": (
        (r"\bleft\b", "right"),
        (r"\bright\b(?! away| now)", "left"),
        (r"\bLeft\b", "Right"),
        (r"\bRight\b", "Left"),
    ),
    "negation": (
        (r"\b[Dd]enies\b", "reports"),
        (r"\bNo\b", "Some"),
        (r"\bno\b", "marked"),
        (r"\bwithout\b", "with"),
        (r"\breports that (?:she|he) is\b", "denies that she is"),
        (r"\breports\b(?! no\b| that)", "denies"),
        (r"\b[Ee]ndorses\b", "denies"),
        (r"\bis not\b", "is"),
        (r"\bhas not\b", "has"),
    ),
    "person": (
        (r"^The patient\b(?!')", "The patient's mother"),
        (r"\bmother\b", "father"),
        (r"\bMother\b", "Father"),
        (r"\bfather\b", "mother"),
        (r"\bFather\b", "Mother"),
        (r"\bwife\b", "sister"),
        (r"\bhusband\b", "brother"),
    ),
    "value": (
        (r"(?<![\w./-])(\d{2,3})(?![\w/-]|\.\d)", ""),
        (r"(?<![\w./-])(\d)(?= (?:mg|cm|mm|days|times|out))", ""),
    ),
}


def plant_in(quote: Spoken, error: str, rng: Random) -> Spoken | None:
    """Return the quote with one error planted, or None where it has no place or stays true."""
    note = (note_of(quote.chart) or ("", "", ""))[2].lower()
    fitting = [(pattern, new) for pattern, new in SWAPS[error] if re.search(pattern, quote.span)]
    if not fitting:
        return None
    pattern, new = rng.choice(fitting)
    span = re.sub(pattern, lambda match: new or _another(match[0], rng), quote.span, count=1)
    if span.lower().rstrip(".") in note:
        return None
    return Spoken(quote.chart, quote.reference, quote.day, span, quote.rule, error)


def _another(number: str, rng: Random) -> str:
    return str(int(number) + rng.choice([1, 2, 3, 5, 7]))


VAGUE = re.compile(
    r"\b(any|other|these|this|that|symptoms?|issues?|problems?|her|his|it)\b|^(?:nil|none|no|or|and)\b", re.I
)


def _items(text: str) -> list[str]:
    parts = [part.strip() for part in re.split(r",|\band\b|\bor\b", text)]
    return [
        p.removeprefix("any ")
        for p in parts
        if re.fullmatch(r"[A-Za-z][A-Za-z' -]{3,32}", p.removeprefix("any "))
    ]


def _clear_items(text: str) -> list[str]:
    return [item for item in _items(text) if not VAGUE.search(item)]


PAST_HISTORY = (
    r"past medical history (?:is )?significant for ([^.;]+?)"
    r"(?:,? (?:and )?(?:who|presents|presenting)\b|\.)"
)

RULES: tuple[tuple[str, str, tuple[str, str], str], ...] = (
    (
        "denied",
        r"(?:[Tt]he patient|[Ss]he|[Hh]e|^•?[\w /,]+:) ?\s*[Dd]enies (?:any |having )?([^.:;]+)\.",
        ("The patient does not report {}.", "The patient reports {}."),
        "negation",
    ),
    (
        "endorsed",
        r": Endorses ([^.:;]+)\.",
        ("The patient reported {}.", "The patient denied {}."),
        "negation",
    ),
    (
        "past history",
        PAST_HISTORY,
        ("The patient's medical history includes {}.", "There is no medical history of {}."),
        "negation",
    ),
    (
        "past history of another",
        PAST_HISTORY,
        ("The patient is known to have had {}.", "The patient's mother is known to have had {}."),
        "person",
    ),
    (
        "listed",
        r"PM[Hh]x?:? *-? *([^.\n?]+)",
        ("The past medical history lists {}.", "The family history lists {}."),
        "person",
    ),
    (
        "father",
        r"Father *[:-]+ *([^.\n;]+)",
        ("The patient's father had {}.", "The patient's mother had {}."),
        "person",
    ),
    (
        "mother",
        r"Mother *[:-]+ *([^.\n;]+)",
        ("The patient's mother had {}.", "The patient had {}."),
        "person",
    ),
    (
        "imaging",
        r"[Nn]o (fracture|fractures|effusion|wheezes|rales|rhonchi|murmurs|edema|erythema|carotid bruits)\b",
        ("The note records the absence of {}.", "The note records the presence of {}."),
        "negation",
    ),
)
"""(name, shape in the note, (true rewriting, false rewriting), error that the false one plants)."""

EXCEPTIONS = ("except", "but ", "other than", "apart")


def paraphrases(chart: Chart) -> Iterator[tuple[Spoken, Spoken]]:
    """Yield (true, false) paraphrases of the note: the same item, once as written and once with an error."""
    found = note_of(chart)
    if found is None:
        return
    reference, day, note = found
    for name, shape, (true, false), error in RULES:
        for match in re.finditer(shape, note, re.MULTILINE):
            if any(word in match[0] for word in EXCEPTIONS) or RELATIVE_TIME.search(match[0]):
                continue
            for item in _clear_items(match[1])[:4]:
                if _one_sided(name, item, note):
                    yield (
                        Spoken(chart, reference, day, true.format(item), name),
                        Spoken(chart, reference, day, false.format(item), name, error),
                    )
    yield from _sides(chart, reference, day, note)


def _one_sided(rule: str, item: str, note: str) -> bool:
    """Return whether the note speaks of the item in one way only."""
    low, word = note.lower(), item.lower()
    if rule in ("denied", "endorsed"):
        signs = (
            ("endorses", "reports", "positive for") if rule == "denied" else ("denies", "no ", "negative for")
        )
        return not any(re.search(rf"\b{sign}[^.]*\b{re.escape(word)}", low) for sign in signs)
    if rule == "imaging":
        said = re.findall(rf"(\w+) (?:\w+, )*{re.escape(word)}\b", low)
        return all(before in ("no", "or") for before in said) and len(said) == 1
    if rule in ("father", "mother"):
        return low.count(word) == 1
    return "mother" not in low and "family history of" not in low


def _sides(chart: Chart, reference: str, day: str, note: str) -> Iterator[tuple[Spoken, Spoken]]:
    parts = r"knee|shoulder|hip|elbow|ankle|foot|wrist|hand|breast|kidney|ear|eye|leg|arm"
    seen = {(side.lower(), part) for side, part in re.findall(rf"\b([Ll]eft|[Rr]ight) ({parts})\b", note)}
    for side, part in sorted(seen):
        other = "left" if side == "right" else "right"
        if (other, part) not in seen and f"{other} " not in note.lower() and "bilateral" not in note.lower():
            text = "The note describes the {} " + part + "."
            yield (
                Spoken(chart, reference, day, text.format(side), "side"),
                Spoken(chart, reference, day, text.format(other), "side", "side"),
            )
