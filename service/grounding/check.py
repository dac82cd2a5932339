"""Checking a claim against the facts it cites: deterministic, model-free, and quick to refuse.

`supported` means that every content-bearing word, number, unit and date of the sentence is accounted for
by a cited fact, that what belongs together there belongs together here, and that no status, negation or
person of a cited fact was lost (SAFETY 9 to 11). What no rule understands is `not_checked`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from unicodedata import normalize

from service.context.chosen import Context
from service.grounding.dating import misdated
from service.grounding.derive import Whole, computed
from service.grounding.order import (
    apart_from,
    lent_words,
    name_spans,
    negations,
    out_of_order,
    turned_reasons,
)
from service.grounding.pairs import computed_of_several
from service.grounding.quotation import RELATIVES, narrowed, quotations, without_quotations
from service.grounding.source import OBSERVED, Source, content
from service.grounding.status import STATUS_WORDS, lost_status
from service.grounding.summary import Claim, DraftClaim, Origin, Verdict
from service.grounding.wording import in_recorded_units, neutral_words, said_plainly
from service.grounding.words import (
    NEGATIONS,
    PLAIN_WORDS,
    RELATIVE_DATE,
    DateToken,
    NumberToken,
    Piece,
    Sentence,
    take_apart,
    words_of,
)
from service.record.dates import show_day
from service.record.facts import Fact, FactId, Kind, PatientRecord

MAX_CHARACTERS = 600

_PRESSURE = re.compile(
    r"(?<![\d./])(\d{2,3}(?:\.\d+)?)\s?/\s?(\d{2,3}(?:\.\d+)?)(?![\d/])(?:\s?mm\s?\[?hg\]?)", re.IGNORECASE
)
_IS_THE_PATIENTS_TOO = re.compile(
    r"\bpatient, whose\b|\b(?:patient|he|she|they)\s+(?:(?:and|or|also|is|was|suffer\w*|developed|"
    r"experienced|diagnosed)\b|(?:has|had|have)\b(?!\s+(?:an?\s+(?:\w+\s+){0,2})?(?:family|relative|mother|father|sister|"
    r"brother|son|daughter|aunt|uncle|cousin|grand\w+|sibling|parent)\b))",
    re.IGNORECASE,
)
"""`The patient and her mother have asthma`: what only a relative has is said of both."""
_ALLERGIC = re.compile("allerg", re.IGNORECASE)
_WHAT = {
    Kind.IMMUNIZATION: re.compile(
        r"vaccin|immuni|\b(?:shot|jab|dose|injection|administered|given|received|not done|completed on)\b",
        re.IGNORECASE,
    ),
    Kind.GOAL: re.compile(r"\b(?:goal|target|aim)", re.IGNORECASE),
}
"""By which words a sentence says that it speaks of a vaccine, not its disease; of a goal, not a result."""
_PLAIN = re.compile("[ -~–—“”„«»‘’…·•°µ≤≥×]")
_SIGN_BEFORE_NUMBER = re.compile(r"(?<![\w)\]])[–—?!=^|&~]\s?(?=\d)")


class Judge:
    """Judges sentences about one patient against facts; takes each fact apart once."""

    def __init__(self, gender: str, record: PatientRecord | None = None) -> None:
        """Without the whole `record`, nothing that is said of all of it is supported."""
        self._gender = gender
        self._whole = Whole(record) if record is not None else None
        self._sources: dict[FactId, Source] = {}

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Every fact that claims were checked against so far."""
        return tuple(source.fact for source in self._sources.values())

    def source(self, fact: Fact) -> Source:
        """Return a fact taken apart."""
        if fact.id not in self._sources:
            self._sources[fact.id] = Source(fact)
        return self._sources[fact.id]

    def _as_told(self, fact: Fact, text: str) -> Source:
        """Return a fact taken apart; of a note's passage only the sentences that are quoted."""
        told = narrowed(self._in_its_plan(fact), text)
        return self.source(fact) if told is fact else Source(told)

    def _in_its_plan(self, fact: Fact) -> Fact:
        """Return an activity of a care plan with the days of its plan, which are its own."""
        plan = dict(fact.details).get("plan") if fact.kind is Kind.PLAN else None
        if plan is None or fact.when is not None or self._whole is None:
            return fact
        own = (f for f in self._whole.by_source.get(fact.source.reference, ()) if f.name == plan and f.when)
        parent = next(own, None)
        if parent is None:
            return fact
        days = [show_day(when) for when in (parent.when, parent.until) if when is not None]
        return replace(
            fact, text=f"{fact.text}; from {' to '.join(days)}", when=parent.when, until=parent.until
        )

    def meant(self, group: Sequence[Fact], text: str) -> Sequence[Fact]:
        """Return which facts of a row or a digest a sentence speaks of: those that it names, by value or day.

        Nothing is lent by this: the sentence is then judged against these facts alone.
        """
        if len(group) < 2:
            return group
        sources = [self.source(fact) for fact in group]
        said = frozenset(words_of(text))
        named = [source for source in sources if source.name_words and source.name_words <= said]
        # Where a longer name is said too (`Glucose in Urine`), the shorter one within it is not meant.
        named = [s for s in named if not any(s.name_words < other.name_words for other in named)]
        told = [source for source in named if _shares_a_value(source, text)]
        return [source.fact for source in told or named]

    def verdict(self, text: str, facts: Sequence[Fact]) -> tuple[Verdict, tuple[str, ...]]:
        """Return the worst verdict on a sentence that cites these facts, and every reason for it."""
        if not facts:
            return Verdict.UNSUPPORTED, ("cites_nothing",)
        relative = bool(RELATIVE_DATE.search(text))  # before a duration is taken out: `in the past 3 weeks`
        sources = [self._as_told(fact, text) for fact in facts]
        findings: list[tuple[Verdict, str]] = []
        if self._whole:
            text, findings = computed(text, facts, self._whole)
            text, more = computed_of_several(_in_own_units(text, sources), sources, self._whole)
            findings += more
        findings += judge(text, sources, self._gender)
        findings += [(Verdict.UNSUPPORTED, "relative_date")] if relative else []
        if not findings:
            return Verdict.SUPPORTED, ()
        worst = min((verdict for verdict, _ in findings), key=_SEVERITY.index)
        return worst, tuple(dict.fromkeys(reason for _, reason in findings))


class Checker:
    """Checks the claims of one draft against one Context."""

    def __init__(self, context: Context, record: PatientRecord | None = None) -> None:
        self._context = context
        self._judge = Judge(context.identity.gender, record)
        self._seen: set[tuple[tuple[str, ...], tuple[DateToken | NumberToken, ...]]] = set()

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Every fact that claims were checked against so far."""
        return self._judge.facts

    def check(self, draft: DraftClaim) -> Claim:
        """Return the claim with its verdict. A wrong citation is corrected where SAFETY 14 allows it."""
        behind = [self._context.behind(label) for label in draft.labels]
        facts = list(dict.fromkeys(fact for group in behind for fact in self._judge.meant(group, draft.text)))
        verdict, reasons = self._judge.verdict(draft.text, facts)
        if not all(behind):
            verdict, reasons = Verdict.UNSUPPORTED, ("cites_unknown_label",)
        cited = tuple(fact.id for fact in facts)
        better = self._better_source(draft) if verdict is not Verdict.SUPPORTED else None
        if better is not None:
            verdict, reasons, cited = Verdict.SUPPORTED, (), (better.fact.id,)
        if verdict is Verdict.SUPPORTED:
            told = take_apart(draft.text)
            key = told.words, tuple(piece.token for piece in told.pieces)
            if key in self._seen:
                verdict, reasons = Verdict.NOT_CHECKED, ("said_before",)
            self._seen.add(key)
        return Claim(draft.section, draft.text, cited, Origin.MODEL, verdict, reasons, better is not None)

    def _better_source(self, draft: DraftClaim) -> Source | None:
        """Return the one other fact that bears the claim out: entity, value, unit and date (SAFETY 14)."""
        if len(draft.labels) != 1 or NEGATIONS & set(words_of(draft.text)):
            return None
        others = [
            self._judge.source(fact)
            for label, fact in self._context.facts.items()
            if label not in draft.labels and fact.quantity is not None and fact.when is not None
        ]
        matches = [
            source
            for source in others
            if _tells_value_and_day(draft.text, source)
            and not any(judge(draft.text, [source], self._context.identity.gender))
        ]
        return matches[0] if len(matches) == 1 else None


def _tells_value_and_day(text: str, source: Source) -> bool:
    sentence = take_apart(text, source.units)
    return bool(sentence.numbers) and any(date.day for date in sentence.dates)


def _shares_a_value(source: Source, text: str) -> bool:
    sentence = take_apart(text, source.units)
    numbers, dates = source.sentence.numbers, source.sentence.dates
    return any(token in numbers for token in sentence.numbers) and all(
        any(date.within(own) for own in dates) or len(sentence.dates) > 1 for date in sentence.dates
    )


_SEVERITY = (Verdict.CONTRADICTED, Verdict.SUPERSEDED, Verdict.UNSUPPORTED, Verdict.NOT_CHECKED)


def judge(text: str, sources: Sequence[Source], gender: str) -> Iterator[tuple[Verdict, str]]:
    """Yield every fault of a sentence against its sources: (verdict, machine-readable reason).

    No fault at all means supported. `gender` is the patient's as recorded, empty where it is not.
    """
    if len(text) > MAX_CHARACTERS:
        yield Verdict.NOT_CHECKED, "too_long"
        return
    if RELATIVE_DATE.search(text):
        yield Verdict.UNSUPPORTED, "relative_date"
    units = frozenset().union(*(source.units for source in sources))
    yield from misdated(text, units, sources)
    plain = _plainly(text, sources, units)
    if _odd_signs(plain, sources):
        yield Verdict.UNSUPPORTED, "sign_not_in_source"
    sentence = _without_numbers_of_names(take_apart(plain, units), plain, sources)
    yield from _pieces(sentence, sources)
    yield from _days(sentence, sources)
    yield from _words(sentence, sources, gender)
    yield from _whose(text, plain, sources, units, gender)
    yield from lost_status(sentence, sources, plain)
    yield from quotations(text, sources)
    for source in sources:
        said = frozenset(sentence.words)
        if source.fact.span is None and not source.is_named_by(said):
            yield Verdict.UNSUPPORTED, f"does_not_name:{source.fact.kind}"
        if not _says_what_it_is(text, source):
            yield Verdict.UNSUPPORTED, f"does_not_name:{source.fact.kind}"
        if source.fact.person.role != "patient":
            own = content(words_of(source.fact.person.text))
            told = [word for word in sentence.words if word in RELATIVES | own]
            one_said = len(told) <= max(1, len(own)) or len({s.fact.name for s in sources}) > 1
            if not own & said or not one_said or _IS_THE_PATIENTS_TOO.search(text):
                yield Verdict.CONTRADICTED, "another_person"


def _whose(
    text: str, plain: str, sources: Sequence[Source], units: frozenset[str], gender: str
) -> Iterator[tuple[Verdict, str]]:
    """Words stand where the record has them; what is quoted of a note is judged as a quotation."""
    if any(source.fact.span is not None for source in sources):
        return
    passed_over = _neutral(sources) | _pronouns(gender)
    yield from turned_reasons(text, sources)
    yield from negations(plain, sources, passed_over - {"present"})
    yield from lent_words(plain, sources, units, passed_over)
    yield from out_of_order(plain, sources, units)


def _says_what_it_is(text: str, source: Source) -> bool:
    """Say whether a sentence tells a vaccine from its disease, a goal from a result, an allergy from less."""
    kind = source.fact.kind
    if kind is Kind.ALLERGY:
        return bool(_ALLERGIC.search(source.line)) or not _ALLERGIC.search(text)
    return kind not in _WHAT or _WHAT[kind].search(text) is not None


def _without_numbers_of_names(sentence: Sentence, plain: str, sources: Sequence[Source]) -> Sentence:
    """Return a sentence without the numbers of names (`type 2`); a drug's strength stands in its name."""
    named = [source for source in sources if source.fact.kind is not Kind.MEDICATION]
    spans = name_spans(plain, named) if named else []
    return replace(sentence, pieces=tuple(apart_from(spans, sentence.pieces)))


def _neutral(sources: Sequence[Source]) -> frozenset[str]:
    told = [source.fact.kind for source in sources if source.fact.kind is not Kind.PATIENT]
    return neutral_words(frozenset(told), len(told) == 1)


def _in_own_units(text: str, sources: Sequence[Source]) -> str:
    return in_recorded_units(text, {unit for source in sources for unit in source.units})


def _odd_signs(text: str, sources: Sequence[Source]) -> set[str]:
    """Return characters that no source has and that are not plain writing: signs can say `not` or `minus`.

    Letters and digits in other shapes (circled, fullwidth, combined with overlays) count as signs.
    """
    known = {character for source in sources for character in source.fact.text}
    odd = {c for c in text if c not in known and not c.isspace() and not _is_plain(c)}
    told = {match.group() for match in _SIGN_BEFORE_NUMBER.finditer(text)}
    return odd | {sign for sign in told if not any(sign in source.fact.text for source in sources)}


def _is_plain(character: str) -> bool:
    if _PLAIN.match(character):
        return True
    return character.isalnum() and normalize("NFKC", character) == character


def _plainly(text: str, sources: Sequence[Source], units: frozenset[str]) -> str:
    """Return a sentence in the record's words; what it quotes of a note stands last, as it was written."""
    kinds = [source.fact.kind for source in sources if source.fact.kind is not Kind.PATIENT]
    text, told = without_quotations(text, [s.fact for s in sources if s.fact.span is not None])
    quoted = "".join(f" “{fact.value}”" for fact in told)
    text = _PRESSURE.sub(_parts_of, text) if any(source.is_pressure for source in sources) else text
    names, lines = [s.fact.name for s in sources], [s.fact.text for s in sources]
    return said_plainly(text, kinds, units, names, lines) + quoted


def _parts_of(match: re.Match[str]) -> str:
    """Read `127/80 mmHg` as a record says it: each part by its name and with its unit."""
    return f"systolic {match[1]} mm[Hg], diastolic {match[2]} mm[Hg]"


def _pieces(sentence: Sentence, sources: Sequence[Source]) -> Iterator[tuple[Verdict, str]]:
    """Every number and date stands in a cited fact, beside the words it stands beside here."""
    before: set[str] = set()
    previous: Sequence[Source] = sources
    known = content(frozenset().union(*(source.words for source in sources)))
    for place, piece in enumerate(sentence.pieces):
        before |= piece.window
        window = piece.window & known  # a word that no source has is a finding of its own
        bearing = [source for source in sources if source.bears(piece.token, window, frozenset(before))]
        if not bearing:
            yield Verdict.UNSUPPORTED, _not_borne(piece, sources)
            continue
        if not window:
            # Nothing beside it says whose value it is: it must belong to the fact spoken of just before.
            shared = [source for source in bearing if source in previous] if place else bearing
            if not shared or (not place and len(bearing) < len(sources)):
                yield Verdict.NOT_CHECKED, "whose_value_is_unclear"
                continue
            bearing = shared
        previous = bearing


def _not_borne(piece: Piece, sources: Sequence[Source]) -> str:
    if isinstance(piece.token, DateToken):
        known = any(piece.token.within(date) for source in sources for date in source.sentence.dates)
        return "date_of_something_else" if known else "date_not_in_source"
    same = [
        token for source in sources for token in source.sentence.numbers if token.text == piece.token.text
    ]
    if not same:
        return "number_not_in_source"
    if all(token.unit != piece.token.unit for token in same):
        return "unit_missing" if not piece.token.unit else "unit_not_in_source"
    return "number_of_something_else"


def _days(sentence: Sentence, sources: Sequence[Source]) -> Iterator[tuple[Verdict, str]]:
    """Where several measurements are spoken of, each value stands with a day on which it was measured.

    Dates lead (`on D1 it was N1, on D2 N2`) or follow (`N1 on D1 and N2 on D2`); a value without a date of
    its own belongs to the nearest date on the other side.
    """
    observed = [source for source in sources if source.fact.kind in OBSERVED]
    if len(observed) < 2:
        return
    if not sentence.dates:
        if sentence.numbers and len({source.fact.name for source in observed}) == 1:
            yield Verdict.UNSUPPORTED, "value_of_another_day"  # which of them was it when?
        return
    lead = isinstance(sentence.pieces[0].token, DateToken)
    for place, piece in enumerate(sentence.pieces):
        if isinstance(piece.token, DateToken):
            continue
        bearing = [source for source in observed if piece.token in source.sentence.numbers]
        day = _day_beside(sentence.pieces, place, lead)
        if bearing and not any(day.within(own) for source in bearing for own in source.sentence.dates):
            yield Verdict.UNSUPPORTED, "value_of_another_day"


def _day_beside(pieces: Sequence[Piece], place: int, lead: bool) -> DateToken:
    earlier = [piece.token for piece in pieces[:place] if isinstance(piece.token, DateToken)]
    later = [piece.token for piece in pieces[place:] if isinstance(piece.token, DateToken)]
    return earlier[-1] if earlier and (lead or not later) else later[0]


def _words(sentence: Sentence, sources: Sequence[Source], gender: str) -> Iterator[tuple[Verdict, str]]:
    """Every content word stands in a cited fact; negations and status words weigh more than others."""
    known = frozenset().union(*(source.words | source.units for source in sources))
    known |= _neutral(sources) | _pronouns(gender)
    for word in dict.fromkeys(sentence.words):
        if word in known or word in PLAIN_WORDS:
            continue
        if word in NEGATIONS:
            yield Verdict.CONTRADICTED, "negation_not_in_source"
        elif word in STATUS_WORDS:
            yield Verdict.CONTRADICTED, f"status_not_in_source:{word}"
        else:
            yield Verdict.NOT_CHECKED, "word_not_in_source"


def _pronouns(gender: str) -> frozenset[str]:
    return {
        "female": frozenset(("she", "her", "hers")),
        "male": frozenset(("he", "his", "him")),
    }.get(gender, frozenset()) | {"they", "their"}
