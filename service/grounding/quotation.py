"""What a sentence quotes of a note: whole sentences, in their place, with nothing beside them that they bear.

Words taken out of a sentence would say something else: "denies", "mother" and "if" may stand anywhere in it.
A passage of a note may hold several sentences (`Neck: Supple. No masses.`): each may be quoted without the
others, and without a key before it, unless the key says whose it is or whether it is so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from service.grounding.source import Source, content
from service.grounding.summary import Verdict
from service.grounding.wording import neutral_words, said_plainly
from service.grounding.words import Sentence, take_apart, words_of
from service.record.copies import sense_of
from service.record.dates import show_day
from service.record.facts import Fact, Kind

Finding = tuple[Verdict, str]

_QUOTATION_MARKS = frozenset("\"'“”„«»‘’`")
_MARK = f"[{re.escape(''.join(sorted(_QUOTATION_MARKS)))}]"
_BULLET = re.compile(r"^\s*(?:(?:[-*•·◦▪‣●○■□–—→#]+|\d{1,2}[.)]|\(?[A-Za-z]\))\s+)+")
_KEY = re.compile(r"([^\W\d_][^:.?!;\n]{0,47}):\s+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z(“\"'])")
_CLOSING = re.compile(r"[.,;: ]+\Z")
_SYSTEMS = frozenset(
    "abdomen auscultation back exam examination physical breast cardiac cardiovascular chest "
    "constitutional cv ear endocrine ent extremitie extremity eye gastrointestinal general "
    "genitourinary gi gu head heart heent hematologic hematological integumentary lung lymphatic "
    "mouth msk musculoskeletal neck neuro neurologic neurological nose psych psychiatric psychological "
    "respiratory skin spine system throat urinary vascular vital".split()
)
"""Headings that only say of which part of the body the words below speak; folded, as words are compared."""
_OTHERS = frozenset(
    "husband wife partner spouse roommate caregiver caretaker friend neighbor neighbour".split()
)
_NOT_SO = re.compile(
    r"\b(?:not true|untrue|incorrect|erroneous|mistaken\w*|another patient|wrong patient|if)\b", re.IGNORECASE
)
RELATIVES = frozenset(
    "mother father sister brother son daughter aunt uncle cousin grandmother grandfather parent sibling "
    "maternal paternal".split()
)
_BINDING = frozenset(
    "stopped stop discontinued held hold past previous prior allergy allergie allergen intolerance "
    "reaction denie negative no not without ruled excluded differential ddx possible "
    "suspected risk if refused declined advised recommended home admission discharge".split()
)
"""Words of a heading, folded, without which what is below says something else, even a whole sentence."""
_FINITE = re.compile(
    r"\b(?:is|are|was|were|has|have|had|will|would|should|may|might|can|could|did|does|do|am|reviewed|discussed|"
    r"explained|revealed|showed|shows|demonstrated|demonstrates|reports|reported|denies|states|stated|appreciate|"
    r"appreciated|underwent|received|presents|presented|appears|appeared|experienced|feels|lives|works|remains)\b",
    re.IGNORECASE,
)


def as_quoted(text: str) -> str:
    """Return a text as quotations are compared: without case, quotation marks and doubled white space."""
    return " ".join("".join(c for c in text if c not in _QUOTATION_MARKS).casefold().split())


def _without_stop(value: str) -> str:
    """Return a sentence as it is compared: the stop at its end may go unsaid."""
    return _CLOSING.sub("", as_quoted(value))


def without_quotation(text: str, value: str) -> str | None:
    """Return a text without its quotations of a sentence; None where it does not quote the sentence whole.

    A single word counts within quotation marks only, and one letter never: both stand anywhere by chance.
    """
    if sum(character.isalnum() for character in value) < 2:
        return None
    folded, whole = as_quoted(text), _without_stop(value)
    words = whole.split()
    told = r"\s".join(map(re.escape, words))
    if len(words) == 1 and not re.search(f"{_MARK}{told}[.,;]?{_MARK}", text.casefold()):
        return None
    left, times = re.subn(rf"(?<![\w/–-])(?<!\d[.,]){told}(?![\w/–-]|[.,]\d)", " ", folded)
    return left if times else None


def without_quotations(text: str, passages: Iterable[Fact]) -> tuple[str, list[Fact]]:
    """Return a text without what it quotes of passages, and those that it quotes, the longest first."""
    told: list[Fact] = []
    for fact in sorted(passages, key=lambda fact: -len(fact.value)):
        left = without_quotation(text, fact.value)
        if left is not None:
            text = left
            told.append(fact)
    return text, told


def quoted_run(text: str, value: str) -> str:
    """Return the longest run of whole sentences of a passage that a text quotes; empty where none."""
    folded = as_quoted(text)
    for run in _runs(value):
        if _without_stop(run) in folded and without_quotation(text, run) is not None:
            return run
    return ""


def narrowed(fact: Fact, text: str) -> Fact:
    """Return a note's passage with only the sentences that a text quotes of it; the passage where none."""
    run = quoted_run(text, fact.value) if fact.span is not None else ""
    if not run or run == fact.value:
        return fact
    head, _, tail = fact.text.rpartition(fact.value)
    return replace(fact, value=run, text=f"{head}{run}{tail}")


@lru_cache(maxsize=4096)
def _runs(value: str) -> tuple[str, ...]:
    """Return the passage and every run of whole sentences in it, the longest first."""
    bare = _BULLET.sub("", value)
    sentences = [sentence for sentence in _SENTENCE_END.split(bare) if sentence.strip()]
    key = _KEY.match(bare)
    heading = key[1] if key is not None else ""
    binds = _says_more_than_where(heading)  # `Mother: diabetes. Asthma.`: both are hers
    found = {value, bare}
    for first in range(len(sentences)):
        if first and binds and not _stands_alone(sentences[first], heading):
            continue
        if first and _may_be_of_another(sentences[:first]):
            break
        for last in range(first, len(sentences)):
            found.add(" ".join(sentences[first : last + 1]))
    if key is not None and not binds:
        found |= {run[key.end() :] for run in tuple(found) if run.startswith(key[0])}
    return tuple(sorted(found, key=lambda run: (-len(run), run)))


def _says_more_than_where(heading: str) -> bool:
    """Say whether a heading adds to what stands below it: `Stopped` does, `Neck` does not."""
    return bool(sense_of(heading)) and bool(content(words_of(heading)) - _SYSTEMS)


def _may_be_of_another(before: Sequence[str]) -> bool:
    """Say whether the sentences before may turn the next: `Husband was interviewed. She smokes.`"""
    told = " ".join(before)
    return bool(set(words_of(told)) & (RELATIVES | _OTHERS)) or _NOT_SO.search(told) is not None


def _stands_alone(sentence: str, heading: str) -> bool:
    """Say whether a sentence says all that it says without its heading: it has a verb and a person."""
    words = set(words_of(heading))
    if sense_of(heading) == "family" or words & RELATIVES:
        return bool(set(words_of(sentence)) & (RELATIVES | {"family"}))
    return not words & _BINDING and _FINITE.search(sentence) is not None


def demands_section(fact: Fact) -> bool:
    """Say whether a passage says what it says only below its heading: `Aspirin` below `Stopped`.

    A whole sentence in a plan says itself what is planned and what was found; one of a relative says so.
    """
    return _says_more_than_where(fact.category) and not _stands_alone(fact.value, fact.category)


def quotations(text: str, sources: Sequence[Source]) -> Iterator[Finding]:
    """Yield the faults of what is quoted of notes: whole, with the day it was first written (SAFETY 9, 13).

    Beside the quotation stand only its note, author, section and day, and what other facts bear out.
    """
    quoted = [source.fact for source in sources if source.fact.span is not None]
    if not quoted:
        return
    beside, told = without_quotations(text, quoted)
    if len(told) < len(quoted):
        yield Verdict.NOT_CHECKED, "not_a_quotation"
    beside = said_plainly(beside, (source.fact.kind for source in sources), ())
    rest = take_apart(beside, frozenset().union(*(source.units for source in sources)))
    for fact in quoted:
        yield from _place_in_the_note(rest, fact)
    yield from _beside(rest, [source.beside for source in sources])


def _beside(rest: Sentence, frames: Sequence[Source]) -> Iterator[Finding]:
    """Nothing stands beside a quotation that only the words quoted could account for."""
    words = frozenset().union(*(frame.words | frame.units for frame in frames))
    words |= neutral_words(frozenset(frame.fact.kind for frame in frames) - {Kind.PATIENT}, len(frames) == 1)
    if content(rest.words) - words:
        yield Verdict.NOT_CHECKED, "words_beside_the_quotation"
    numbers = {token for frame in frames for token in frame.sentence.numbers}
    dates = [date for frame in frames for date in frame.sentence.dates]
    if not numbers.issuperset(rest.numbers) or not all(any(d.within(o) for o in dates) for d in rest.dates):
        yield Verdict.UNSUPPORTED, "value_beside_the_quotation"


def _place_in_the_note(rest: Sentence, fact: Fact) -> Iterator[Finding]:
    section = content(words_of(fact.category)) if demands_section(fact) else frozenset()
    if not section.issubset(rest.words):  # `Stopped:` above a drug says what the line itself does not
        yield Verdict.NOT_CHECKED, "section_of_the_note_missing"
    if not _says_its_day(rest, fact):
        yield Verdict.UNSUPPORTED, "day_of_the_note_missing"


def _says_its_day(rest: Sentence, fact: Fact) -> bool:
    own = take_apart(show_day(fact.when)).dates if fact.when else ()
    return any(date in rest.dates for date in own)


def meant_passages(passages: Sequence[Fact], text: str) -> list[Fact]:
    """Return the passages of notes that a text quotes: the longest where one stands within another.

    Of the same words in several places it is the one whose day and section the text tells.
    """
    runs = {fact.id: quoted_run(text, fact.value) for fact in passages}
    found = [fact for fact in passages if runs[fact.id]]
    told = {fact.id: _without_stop(runs[fact.id]) for fact in found}
    longest = {
        run for run in told.values() if not any(run != other and run in other for other in told.values())
    }
    sentence = take_apart(text)
    chosen: list[Fact] = []
    for run in sorted(longest):
        same = [fact for fact in found if told[fact.id] == run]
        chosen.append(min(same, key=lambda fact: (not _says_its_day(sentence, fact), demands_section(fact))))
    return chosen
