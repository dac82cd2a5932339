"""The order of words: whose words they are, what a negation denies, which number stands with which name.

That every word of a sentence stands somewhere in its sources does not yet make it true: `metformin daily and
lisinopril twice` may lend each drug the other's frequency, `effusion, no embolism` may turn a report round.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from service.grounding.source import Source, content
from service.grounding.summary import Verdict
from service.grounding.wording import recorded_forms
from service.grounding.words import (
    NEGATIONS,
    PLAIN_WORDS,
    DateToken,
    NumberToken,
    Piece,
    fold,
    take_apart,
    words_of,
)
from service.record.facts import Fact, Kind, Status

Finding = tuple[Verdict, str]

_SCOPE_END = re.compile(
    r"[;,.:()“”]\s|[;()“”]|\d|\b(?:and|but|although|because|as|or|while|with)\b", re.IGNORECASE
)
_DENIED_BY_SOMEONE = frozenset("refused declined denied denie".split())
_CUT = re.compile(r"[;:()“”]|[.,](?=\s|$)|\b(?:and|while|but|whereas|then)\b", re.IGNORECASE)
_TURNING = frozenset(
    "no not without due because after with history suspected possible family risk absence contact screening "
    "rule exposure".split()
)
"""Words in a name that turn the others: `Chest pain without shortness of breath`."""
_ORDERED = ("dosage", "reaction")
_ITEM = re.compile(r"[,;/+]|\band\b")
_DONE = frozenset("done performed completed undergone undergo".split())
_AFFIRMED = frozenset("present active known confirmed".split())
_LONGEST_SCOPE = 6


def scopes(text: str, passed_over: frozenset[str]) -> list[frozenset[str]]:
    """Return what each negation of a text denies: the content words after it, as far as its phrase goes."""
    found: list[frozenset[str]] = []
    for match in re.finditer(r"[A-Za-z]+", text):
        word = fold(match.group())
        if word in NEGATIONS and word not in _DENIED_BY_SOMEONE:
            phrase = _SCOPE_END.split(text[match.end() :] + " ")[0]
            words = [w for w in words_of(phrase) if w not in PLAIN_WORDS and w not in passed_over]
            found.append(frozenset(words[:_LONGEST_SCOPE]))
    return found


def negations(plain: str, sources: Sequence[Source], passed_over: frozenset[str]) -> Iterator[Finding]:
    """Yield a finding where a negation denies something else than in a source, or is lost where it stood.

    `plain` is the sentence in the record's words; `passed_over` are words that carry nothing.
    """
    denied = [scope for source in sources for scope in scopes(source.line, passed_over)]
    denied += [source.name_words | _DONE for source in sources if source.fact.status is Status.NOT_DONE]
    told = scopes(_names_apart(plain, sources), passed_over)
    if not all(any(scope <= own if scope else not own for own in denied) for scope in told):
        yield Verdict.CONTRADICTED, "negation_of_something_else"
    said = frozenset(words_of(plain))
    for source in sources:
        if said & _DENIED_BY_SOMEONE and source.fact.status is not Status.NOT_DONE:
            continue
        if says_refuted(source.fact, said):
            continue
        line = words_of(source.line)
        for scope in scopes(source.line, passed_over):
            heads = frozenset(word for word in scope if line.count(word) == 1 and word in said)
            if heads and not any(heads <= own for own in told):
                yield Verdict.CONTRADICTED, "negation_lost"


def _names_apart(plain: str, sources: Sequence[Source]) -> str:
    """Return a sentence in which a denial within a name ends with it: `CT without contrast; completed`."""
    denying = [source for source in sources if NEGATIONS & set(words_of(source.fact.name))]
    for _, end in reversed(name_spans(plain, denying) if denying else []):
        plain = f"{plain[:end]}; {plain[end:]}"
    return plain


def says_refuted(fact: Fact, said: Collection[str]) -> bool:
    """Say whether `refuted` itself denies what the record refutes, and nothing else calls it present."""
    return fact.status is Status.REFUTED and "refuted" in said and not _AFFIRMED & set(said)


def lent_words(
    plain: str, sources: Sequence[Source], units: frozenset[str], passed_over: frozenset[str]
) -> Iterator[Finding]:
    """Yield a finding where a word, a value or a day stands beside one fact's name and belongs to another's.

    The sentence is cut into clauses. What stands in a clause with one name is of that fact; with several,
    of all of them; in a clause without a name, of what was named before, or of all where nothing was.
    """
    groups = _named_apart(sources)
    if len(groups) < 2:
        return
    starts = {name: _mention(plain, group[0], sources) for name, group in groups.items()}
    if None in starts.values():
        return  # a fact that is not named has a finding of its own
    pieces = take_apart(plain, units).pieces
    named: list[str] = []
    bare: list[str] = []
    for start, end in _clauses(plain, pieces, sources):
        here = [name for name, at in starts.items() if at is not None and start <= at < end]
        named = [*bare, *here] or named
        # `Hypertension and gout are active`: a bare name shares what is said of the next.
        bare = named if here and not _says_more(plain, (start, end), pieces, sources, passed_over) else []
        of = [groups[name] for name in named] or list(groups.values())
        if not _is_borne(plain, (start, end), pieces, of, passed_over):
            yield Verdict.NOT_CHECKED, "whose_value_is_unclear"
            return


def _named_apart(sources: Sequence[Source]) -> dict[str, list[Source]]:
    groups: dict[str, list[Source]] = {}
    for source in sources:
        if source.fact.kind is not Kind.PATIENT and source.fact.span is None:
            groups.setdefault(source.fact.name.casefold(), []).append(source)
    return groups


def _mention(plain: str, source: Source, sources: Sequence[Source]) -> int | None:
    """Return where a sentence names a fact: by its name, or by a word of its name that no other fact has."""
    spans = name_spans(plain, [source])
    if spans:
        return spans[0][0]
    others = frozenset().union(*(other.words for other in sources if other.fact.name != source.fact.name))
    own = source.name_words - others or source.name_words
    said = [
        (match.start(), set(words_of(match.group()))) for match in re.finditer(r"[^\W\d_][\w'/-]*", plain)
    ]
    for word in words_of(source.fact.name):  # `osteoarthritis`, before `hip`
        at = next((start for start, words in said if word in own and word in words), None)
        if at is not None:
            return at
    return None


def name_spans(plain: str, sources: Sequence[Source]) -> list[tuple[int, int]]:
    """Return where a sentence says the recorded names of facts, as recorded."""
    names = {form for source in sources for form in recorded_forms(source.fact.name)}
    told = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return [match.span() for match in re.finditer(rf"(?<!\w)(?:{told})(?!\w)", plain, re.IGNORECASE)]


def _clauses(plain: str, pieces: Sequence[Piece], sources: Sequence[Source]) -> Iterator[tuple[int, int]]:
    whole = [*name_spans(plain, sources), *((piece.start, piece.end) for piece in pieces)]
    position = 0
    for match in _CUT.finditer(plain):
        if not any(start < match.end() and match.start() < end for start, end in whole):
            yield position, match.start()
            position = match.end()
    yield position, len(plain)


def _says_more(
    plain: str,
    clause: tuple[int, int],
    pieces: Sequence[Piece],
    sources: Sequence[Source],
    passed_over: frozenset[str],
) -> bool:
    """Say whether a clause says anything beside names."""
    start, end = clause
    naming = frozenset().union(*(source.name_words for source in sources))
    words = content(words_of(plain[start:end])) - passed_over - naming
    return bool(words or apart_from(name_spans(plain, sources), _within(clause, pieces)))


def _is_borne(
    plain: str,
    clause: tuple[int, int],
    pieces: Sequence[Piece],
    groups: Sequence[Sequence[Source]],
    passed_over: frozenset[str],
) -> bool:
    """Say whether all that stands in a clause is of each of these facts, or names one of them."""
    start, end = clause
    names = name_spans(plain, [source for group in groups for source in group])
    rest = blanked(plain, [*names, *((piece.start, piece.end) for piece in pieces)])[start:end]
    naming = frozenset().union(*(source.name_words for group in groups for source in group))
    words = content(words_of(rest)) - passed_over - naming
    if any(words.difference(*(source.words | source.units for source in group)) for group in groups):
        return False
    told = apart_from(names, _within(clause, pieces))
    return all(any(_has(source, piece) for source in group) for piece in told for group in groups)


def _within(clause: tuple[int, int], pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces of a clause; no clause ends within one."""
    start, end = clause
    return [piece for piece in pieces if start <= piece.start and piece.end <= end]


def apart_from(names: Sequence[tuple[int, int]], pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces that are no part of a name, as the number of `type 2` is."""
    return [
        piece
        for piece in pieces
        if not any(start <= piece.start and piece.end <= end for start, end in names)
    ]


def blanked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return a text of the same length with these parts of it left blank."""
    for start, end in spans:
        text = text[:start] + " " * (end - start) + text[end:]
    return text


def _has(source: Source, piece: Piece) -> bool:
    if isinstance(piece.token, DateToken):
        return any(piece.token.within(date) for date in source.sentence.dates)
    return (
        piece.token in source.sentence.numbers
        or piece.token in take_apart(source.fact.name, source.units).numbers
    )


def out_of_order(plain: str, sources: Sequence[Source], units: frozenset[str]) -> Iterator[Finding]:
    """Yield a finding where the words of a name, or of a dosage, stand in another order than recorded.

    `right hip fracture` for `Fracture of right hip` is another order of one thing; where a name holds several
    numbers, or a word that turns the others, each order says something else.
    """
    said = _tokens(plain, units)
    for source in sources:
        if source.fact.kind is Kind.PATIENT or source.fact.span is not None:
            continue
        if _is_strict(source.fact.name) and not _follows(said, _tokens(source.fact.name, source.units)):
            yield Verdict.NOT_CHECKED, "words_in_another_order"
            return
        fields = [text for label, text in source.fact.details if label in _ORDERED and _ITEM.search(text)]
        fields += [source.fact.value] if source.fact.quantity is None and not source.is_pressure else []
        for field in fields:
            if not _follows(_tokens(_without_name(plain, source), units), _tokens(field, source.units)):
                yield Verdict.NOT_CHECKED, "words_in_another_order"
                return
        if _TURNING & set(words_of(source.fact.name)) and not _says_name_whole(plain, source):
            yield Verdict.UNSUPPORTED, f"does_not_name:{source.fact.kind}"
            return


def _without_name(plain: str, source: Source) -> str:
    return blanked(plain, name_spans(plain, [source]))


def _is_strict(name: str) -> bool:
    numbers = sum(word[0].isdigit() for word in name.split())
    return numbers > 1 or bool(_TURNING & set(words_of(name)))


def _says_name_whole(plain: str, source: Source) -> bool:
    told = " ".join(plain.casefold().split())
    return any(" ".join(form.casefold().split()) in told for form in recorded_forms(source.fact.name))


def _tokens(text: str, units: frozenset[str]) -> list[str | DateToken | NumberToken]:
    """Return the numbers with their units, the dates and the content words of a text, in order."""
    found: list[str | DateToken | NumberToken] = []
    ends = [0]
    for piece in take_apart(text, units).pieces:
        found += [*_told(text[ends[-1] : piece.start]), piece.token]
        ends.append(piece.end)
    return [*found, *_told(text[ends[-1] :])]


def _told(text: str) -> list[str]:
    return [word for word in words_of(text) if word not in PLAIN_WORDS]


def _follows(said: Sequence[object], recorded: Sequence[object]) -> bool:
    """Say whether the words told of a field stand in its order; told twice, each time anew.

    A word that the field holds twice says nothing of the order.
    """
    once = {word: recorded.index(word) for word in recorded if recorded.count(word) == 1}
    run: list[int] = []
    for place in (once[word] for word in said if word in once):
        if place in run:
            run = []
        if run and place < run[-1]:
            return False
        run.append(place)
    return True


_REASON = re.compile(
    r"\b(?:because of|because|due to|owing to|on account of|reason(?: is| was)?:)\s+(?P<why>[^.;,()]*)",
    re.IGNORECASE,
)
_VISITED_WITH = re.compile(
    r"\b(?:visit\w*|seen|admi\w+|presented|hospital\w*|inpatient|department|room)\b.*\bwith\b", re.I
)
_TELLS_REASON = re.compile(
    r"\b(?:reasons?|for|because|due|owing|account|indication|indicated)\b(?P<why>[^.;]*)", re.IGNORECASE
)


_LINE_REASON = re.compile(r"\breason: ([^;]*)", re.IGNORECASE)


def _reasons_of(source: Source) -> list[str]:
    """Return what a fact gives as a reason, in its details and in its line."""
    told = [text for label, text in source.fact.details if "reason" in label]
    return list(dict.fromkeys((*told, *_LINE_REASON.findall(source.line))))


def turned_reasons(text: str, sources: Sequence[Source]) -> Iterator[Finding]:
    """Yield a finding where what is called a reason is not one, or a reason is not called one."""
    names = {word for source in sources for word in words_of(source.fact.name)}
    reasons = [(s, content(words_of(told))) for s in sources for told in _reasons_of(s)]
    told = [content(words_of(match["why"])) for match in _REASON.finditer(text)]
    if not names & {"due", "because"} and any(
        not any(why and why <= reason for _, reason in reasons) for why in told
    ):
        yield Verdict.NOT_CHECKED, "cause_not_in_source"
    said = content(words_of(text))
    called = frozenset().union(*(content(words_of(match["why"])) for match in _TELLS_REASON.finditer(text)))
    for source, reason in reasons:
        if source.fact.kind is Kind.ENCOUNTER and _VISITED_WITH.search(text):
            continue
        calls_it_so = "reason" in words_of(source.line)
        if calls_it_so and not (reason - names) & said <= called:
            yield Verdict.NOT_CHECKED, "cause_not_in_source"
