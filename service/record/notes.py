"""A clinical note's text → passages: its sentences, list lines and table rows, each with its offsets.

The one thing it must never do is to lose words: whatever is not surely a heading or decoration is a passage.
A heading counts by its words, not by its capitals: `ALLERGIES` is one, `NO KNOWN ALLERGIES`, `FULL CODE` and
`**DNR**` are statements. Only a short label with nothing after its colon (`Cardio:`), or a Markdown heading
below the first level, counts by its form; `#` before anything else is a fracture (`# NOF`), or a problem of a
problem-oriented plan. Where the signs of a sentence's end are weak two sentences stay one: a passage that is
too long still says what was written, half a sentence may say something else.
All rules are linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

_WHOLE = 200
"""Characters up to which a list item or a `Key: value` line of several sentences stays one passage: the
second sentence of `Neck: Supple. No masses.` is worth little without its key."""
_WRAP_LEAST, _WRAP_MOST = 60, 130
"""Columns at which text is hard-wrapped; longer lines are paragraphs of their own."""
_RAGGED = 12
"""Characters by which wrapped lines differ in length."""

_DECORATION = frozenset("-=_*~#•·◦▪‣.,|+:–—─━═│┃ \t\u00a0")
_ITEM = re.compile(
    r"(?:[*•·◦▪‣●○■□–—→]\s*|-\s*(?=[^\d\s-])|-\s+|\d{1,2}[.)]\s+|\(?[A-Za-z\d]{1,2}\)\s+|o\s+|#+\s*(?=[^\W\d]))"
)
_KEY = re.compile(r"[^\W\d_][^:.?!;\n]{0,47}:(?=\s)")
_TIMED = re.compile(r"\d{1,2}[:h]\d{2}\b|\d{4}-\d{2}-\d{2}\b|\d{1,2}/\d{1,2}/\d{2,4}\b")
_GAPS = ("\t", " | ", "   ")
_COLUMNS = re.compile(r"\t|\s\|\s|\S\s{3}")
_GOES_ON = frozenset(
    "is was are were has had have and or but of with without to for from by in on at as than that which who "
    "whose when while where because since until after before during due secondary".split()
)
"""A line that opens with one of these, in lower case, carries the line above it on."""


@dataclass(frozen=True, slots=True)
class Passage:
    """One sentence, list line or table row: `text[start:end]` as written, without white space around it."""

    section: str
    """The heading above it as written, without marks; empty before the first heading."""
    start: int
    end: int


class _Kind(Enum):
    PLAIN = "plain"
    KEY = "key"
    TIMED = "timed"
    ITEM = "item"
    ROW = "row"


class _Row(NamedTuple):
    """One line that is neither blank nor decoration: the offsets of what is written on it."""

    start: int
    end: int
    length: int
    """With the white space before it: what counts where lines are wrapped."""
    apart: bool
    """A blank line or a rule stands before it, or it is the first."""


class _Line(NamedTuple):
    section: str
    kind: _Kind
    start: int
    end: int
    length: int
    apart: bool


def split_note(text: str) -> tuple[Passage, ...]:
    """Return the passages of a note in order: no two overlap, and no word is left out but headings.

    Line ends are `\\n`. A passage has at most 600 characters; a longer sentence is cut at a space.
    """
    rows = list(_rows(text))
    found: list[Passage] = []
    block: list[_Line] = []
    width = _wrap_width(rows)
    for line in _lines(text, rows):
        if block and not _goes_on(text, block[-1], line, width):
            found += _passages(text, block)
            block = []
        block.append(line)
    if block:
        found += _passages(text, block)
    return tuple(found)


def _rows(text: str) -> Iterator[_Row]:
    start, apart = 0, True
    for raw in text.split("\n"):
        content = raw.strip()
        if not content or _is_decoration(content):
            apart = True
        else:
            left = start + len(raw) - len(raw.lstrip())
            end = left + len(content)
            yield _Row(left, end, end - start, apart)
            apart = False
        start += len(raw) + 1


def _is_decoration(content: str) -> bool:
    """Tell rules and bare bullets from words; `+`, `++` and `+++` alone are findings."""
    return content[0] in _DECORATION and _DECORATION.issuperset(content) and bool(content.strip("+"))


def _wrap_width(rows: Sequence[_Row]) -> int:
    """Return the column at which the note is hard-wrapped; 0 where too few lines speak for one."""
    lengths = [row.length for row in rows if row.length <= _WRAP_MOST]
    width = max(lengths, default=0)
    full = sum(length > width - _RAGGED for length in lengths)
    return width if width >= _WRAP_LEAST and full > max(1, len(lengths) // 4) else 0


def _lines(text: str, rows: Sequence[_Row]) -> Iterator[_Line]:
    """Yield what stands on each line under its section; headings themselves yield nothing."""
    section = ""
    apart = False
    for index, row in enumerate(rows):
        heading = None
        if not text[row.start].islower():
            heading = _read_heading(text[row.start : row.end], row.apart, _is_followed(rows, index))
        apart = apart or row.apart
        start = row.start
        if heading is not None:
            section, apart, start = heading.name, True, row.start + heading.rest
            if start >= row.end:
                continue
        kind = _kind(text, start, row.end, heading)
        yield _Line(section, kind, start, row.end, row.length, apart)
        apart = False


def _is_followed(rows: Sequence[_Row], index: int) -> bool:
    return index + 1 < len(rows) and not rows[index + 1].apart


def _kind(text: str, start: int, end: int, heading: _Heading | None) -> _Kind:
    if heading is not None:
        return _Kind.PLAIN if heading.rest else _Kind.KEY
    if _ITEM.match(text, start, end):
        return _Kind.ITEM
    if any(text.find(gap, start, end) > 0 for gap in _GAPS) and len(_COLUMNS.findall(text, start, end)) > 1:
        return _Kind.ROW
    if _TIMED.match(text, start, end):
        return _Kind.TIMED
    key = _KEY.match(text, start, end)
    return _Kind.KEY if key and _is_label(key[0]) else _Kind.PLAIN


def _goes_on(text: str, above: _Line, line: _Line, width: int) -> bool:
    """Tell whether a line carries on what the line above began: wrapped prose, or a wrapped list item."""
    if line.apart or _Kind.ROW in (above.kind, line.kind) or line.kind is _Kind.ITEM:
        return False
    head = text[line.start : min(line.end, line.start + 40)].split(None, 1)[0]
    tail = text[max(above.start, above.end - 40) : above.end].rsplit(None, 1)[-1]
    if line.kind is not _Kind.PLAIN:
        return line.kind is _Kind.TIMED and tail in _DANGLING
    full = bool(width) and above.length <= _WRAP_MOST and above.length + 1 + len(head) > width
    if tail[-1] in ".!?:":
        return full or tail.rstrip(".").casefold() in _NEVER_LAST
    if tail in _DANGLING:
        return True
    if head[0].islower():
        hangs = above.kind is _Kind.ITEM and line.length - line.end + line.start > 1
        return bool(width) or hangs or above.length >= _WRAP_LEAST or tail[-1] == "," or head in _GOES_ON
    return full or (tail[-1] == "," and head[0].isdigit())


def _passages(text: str, block: Sequence[_Line]) -> Iterator[Passage]:
    first, end = block[0], block[-1].end
    if first.kind is _Kind.ROW or (first.kind is not _Kind.PLAIN and end - first.start <= _WHOLE):
        spans: Iterator[tuple[int, int]] = iter([(first.start, end)])
    else:
        spans = _sentences(text, first.start, end)
    for span in spans:
        for left, right in _cut(text, *span):
            yield Passage(first.section, left, right)


_LONGEST_NAME = 70
_ENUMERATOR = re.compile(r"(?:\d{1,2}(?:\.\d{1,2})?[.)]|[IVX]{1,4}\.)\s+")
_MARKS = "#*_= \t"
_SPACED = str.maketrans("(),-", "    ")
_BY_FORM_WORDS = 5
_VALUE_WORDS = 4
"""Up to so many words after `PMH:` make a line that stays whole: `nil` alone says nothing."""

_PHRASE = re.compile(
    r"\b(?:history of (?:the )?present(?:ing)? (?:illness|complaint)|review of systems|"
    r"reason for (?:visit|admission|consultation|referral)|condition (?:at|on) discharge|"
    r"medications? (?:at|on) (?:admission|discharge))\b"
)
"""The names in which `of`, `for` and `on` are no part of a statement."""
_NAMES = frozenset(
    "history hx hpi hpc pc cc pmh pmhx psh fh fhx fmh sh shx dh dhx ros pe a&p a/p o/e ice imp dx ddx rx ix "
    "assessment plan impression exam examination complaint complaints diagnosis diagnoses problem problems "
    "medication medications meds allergies allergy allergens intolerances results findings labs laboratory "
    "imaging radiology investigations studies vitals observations obs immunizations immunisations "
    "vaccinations procedures procedure operations consults consultations disposition instructions "
    "recommendation recommendations course summary subjective objective background situation indication "
    "technique comparison conclusion interpretation treatment management followup orders goals events "
    "note notes".split()
)
"""One of these makes a name a section's, unless a word stands beside it that is in neither list."""
_BESIDE = frozenset(
    "and & past present presenting medical surgical family social psychiatric obstetric gynecological birth "
    "developmental travel sexual drug occupational personal psychosocial interval chief main active current "
    "home inpatient outpatient admission admitting discharge final principal primary secondary differential "
    "working physical neurological mental status general review reviewed vital signs data list lists new "
    "hospital clinical progress nursing care patient pertinent relevant recent previous prior "
    "postoperative preoperative operative test tests diagnostic blood ecg ekg x-ray ct mri further "
    "additional overnight brief day follow up systems system illness reactions adverse".split()
)
_ALLOWED = _NAMES | _BESIDE
_ALONE = frozenset(
    "medical surgical social family constitutional cardiovascular respiratory pulmonary gastrointestinal "
    "genitourinary musculoskeletal neurological neurologic psychiatric integumentary skin eyes ears nose "
    "mouth and throat neck head chest lungs lymphatic hematologic hematology immunology endocrine abdomen "
    "pelvic rectal extremities general ent heent heart breast back follow up vital signs code status".split()
)
"""A line of nothing but these heads the lines right below it, after a blank line."""
_CLAIMS = frozenset(
    "no not nil none never denies denied deny reports reported states stated says said admits endorses "
    "without negative positive has had have is was are were been following include includes including shows "
    "showed revealed allergic to of with for if he she they we i unable refused declined".split()
)
"""A label that holds one of these says something: `Patient denies:` is no heading."""


class _Heading(NamedTuple):
    """What a line heads."""

    name: str
    """As written, without marks, number and colon."""
    rest: int
    """Offset in the line at which the section's text begins; the line's length where there is none; 0 where
    the whole line stays a passage because its text is a word or two."""


def _read_heading(line: str, apart: bool, followed: bool) -> _Heading | None:
    """Return the heading that a line without white space around it is or opens with; None where it is text.

    `apart`: a blank line stands above it. `followed`: a line stands right below it.
    """
    before, colon, _ = line[: _LONGEST_NAME + 2].partition(":")
    if not colon and (len(line) > _LONGEST_NAME or line[-1] in ".;?!"):
        return None
    name = _bare(before)
    if not name or name[0].islower() or not name[0].isalpha() or len(name) > _LONGEST_NAME:
        return None
    if colon:
        return _with_colon(line, before, name)
    if line.startswith("##") or is_section(name) or (apart and followed and _words(name) <= _ALONE):
        return _Heading(name, len(line))
    return None


def _with_colon(line: str, before: str, name: str) -> _Heading | None:
    rest = line[len(before) + 1 :]
    text = rest.lstrip(_MARKS)
    if not text:
        return _Heading(name, len(line)) if is_section(name) or _is_bare_label(name) else None
    if rest[0] not in _MARKS or not is_section(name):
        return None
    whole = len(text.split(None, _VALUE_WORDS)) <= _VALUE_WORDS
    return _Heading(name, 0 if whole else len(line) - len(text))


def is_section(name: str) -> bool:
    """Tell whether a name is a section's by its words alone, in any case: `PAST MEDICAL HISTORY`."""
    folded = _folded(name)
    if " " in folded:
        folded = _PHRASE.sub("complaint", folded)
    words = {part for word in folded.split() for part in ([word] if word in _NAMES else word.split("/"))}
    return not words.isdisjoint(_NAMES) and words <= _ALLOWED


def _is_label(key: str) -> bool:
    """Tell the key of a `Key: value` line from the beginning of a sentence that holds a colon."""
    return len(key.split()) <= _BY_FORM_WORDS and not key[0].islower()


def _is_bare_label(name: str) -> bool:
    words = _words(name)
    return len(words) <= _BY_FORM_WORDS and words.isdisjoint(_CLAIMS) and not any(c in ".?!;" for c in name)


def _bare(before: str) -> str:
    name = before.strip(_MARKS)
    numbered = _ENUMERATOR.match(name)
    return name[numbered.end() :].strip(_MARKS) if numbered else name


def _folded(name: str) -> str:
    return " ".join(name.casefold().translate(_SPACED).replace("x ray", "x-ray").replace(" / ", " ").split())


def _words(name: str) -> set[str]:
    return set(_folded(name).replace("/", " ").split())


LONGEST_PASSAGE = 600
"""Characters of the longest passage: a citation must stay readable, and notes exist without a full stop."""

_STOP = re.compile(r"[.!?…。！？｡।۔؟]+[\"'”’»)\]]*")
_ANYWHERE = frozenset("。！？｡।")
"""Full stops of scripts that put no space after them."""
_LOOK = 32
"""Characters looked at before and after a full stop; no abbreviation is as long."""

_NEVER_LAST = frozenset(
    "dr drs mr mrs ms mx prof st vs e.g eg i.e ie approx cf z.b d.h u.a z.n v.a bzw evtl ggf inkl sra dra "
    "mme mlle".split()
)
"""Abbreviations that a sentence does not end with."""
_BEFORE_NUMBER = frozenset("no nos nr fig figs vol p pp ch sec art ref tab".split())
_MAY_BE_LAST = frozenset(
    "pt pts pat etc al jr sr a.m p.m am pm q.d qd b.i.d bid t.i.d tid q.i.d qid q.h.s q.o.d p.o p.r.n prn "
    "h.s a.c p.c i.v i.m s.c s.l p.r n.p.o y.o yo yr yrs hr hrs min mins sec secs wk wks mo mos mg mcg kg ml "
    "tab tabs cap caps inj soln susp dept hosp dx hx rx tx sx fx abd resp temp wt ht bp lt rt bilat neg pos "
    "neuro cardio gi gu mod sev max avg est incl excl esp usu prev hgb hct ca "
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun".split()
)
"""Abbreviations that end a sentence only where a capital letter follows."""
_DOSE_WORDS = frozenset(
    "BID TID QID QDS BD TDS OD OM ON PRN PO HS QHS STAT IV IM SC SL PR NG AC PC Q Monday Tuesday Wednesday "
    "Thursday Friday Saturday Sunday".split()
)
"""What follows `p.o.` or `8 a.m.` inside one sentence although it is a capital."""
_LETTERED = frozenset(
    "vitamin vit hepatitis hep type class group stage grade plan influenza flu troponin factor child-pugh "
    "hemoglobin haemoglobin protein category ward bay room unit team level zone schedule immunoglobulin "
    "appendix part strep lead case arm".split()
)
"""Words after which one capital letter is a name's end, not a person's initial: `Hepatitis C.`"""
_DANGLING = frozenset(
    "a an and or but of the with without to for from by in on at as than that which who his her their its is "
    "was are were has had be been any not".split()
)
"""No sentence ends with one of these in lower case (`Vitamin A` may): the next line carries it on."""
_OPENING = "\"'“‘«(["


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each sentence of `text[start:end]`, without white space around it."""
    begin = start
    for stop in _STOP.finditer(text, start, end):
        if stop.end() < end and _ends(text, begin, stop, end):
            yield begin, stop.end()
            begin = _skip_space(text, stop.end(), end)
    if begin < end:
        yield begin, end


def _cut(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the span in pieces of at most 600 characters: cut after `;`, else at a space, else hard."""
    while end - start > LONGEST_PASSAGE:
        limit = start + LONGEST_PASSAGE
        place = text.rfind("; ", start + LONGEST_PASSAGE // 2, limit) + 1 or _last_space(
            text, start, limit + 1
        )
        place = place if place > start else limit
        yield start, _before_space(text, start, place)
        start = _skip_space(text, place, end)
    if start < end:
        yield start, end


def _last_space(text: str, start: int, end: int) -> int:
    return next((i for i in range(end - 1, start, -1) if text[i].isspace()), start)


def _skip_space(text: str, place: int, end: int) -> int:
    while place < end and text[place].isspace():
        place += 1
    return place


def _before_space(text: str, start: int, place: int) -> int:
    while place > start and text[place - 1].isspace():
        place -= 1
    return place


def _ends(text: str, begin: int, stop: re.Match[str], end: int) -> bool:
    marks = stop[0]
    if not _ANYWHERE.isdisjoint(marks):
        return True
    if not text[stop.end()].isspace() or stop.start() == begin:
        return False
    spaced = text[stop.start() - 1].isspace()
    if marks[0] in "!?؟":
        return not spaced  # `? Bell's palsy` asks before the word
    following = text[stop.end() : min(end, stop.end() + _LOOK)].split(None, 1)
    follows = following[0].lstrip(_OPENING) or following[0] if following else ""
    if marks.startswith(("..", "…")) and follows:
        return not follows[0].islower()
    if spaced or not follows or marks[0] == "۔":
        return True
    before = text[max(begin, stop.start() - _LOOK) : stop.start()].split()
    return _full_stop_ends(before, begin + _LOOK >= stop.start(), follows)


def _full_stop_ends(before: list[str], from_start: bool, follows: str) -> bool:
    """Decide for `before[-1]` + `.` + space + `follows`; `from_start`: `before` is all of the sentence."""
    word = before[-1].lstrip(_OPENING)
    folded = word.casefold()
    opens = from_start and len(before) == 1
    if folded in _NEVER_LAST:
        return word in ("MS", "ST")  # the disease, the segment
    if folded in _BEFORE_NUMBER:
        return not (follows[0].isdigit() or follows[0] == "#" or follows[0].islower())
    if word.isdigit():
        return not (follows[0].islower() or _enumerates(before, opens))
    if len(word) == 1 and word.isupper():
        return not (follows[0].islower() or opens or _is_initial(before, follows))
    if folded in _MAY_BE_LAST or _is_dotted(word):
        return follows[0].isupper() and not opens and follows.rstrip(".,;:") not in _DOSE_WORDS
    if follows[0].islower():
        return len(word) > 3 and word.isalpha()
    return True


def _enumerates(before: list[str], opens: bool) -> bool:
    """`1.` at the beginning, or after a colon, counts what follows."""
    return len(before[-1]) < 3 and (opens or (len(before) > 1 and before[-2][-1] in ":;"))


def _is_dotted(word: str) -> bool:
    return "." in word and not any(c.isdigit() for c in word) and all(len(p) < 3 for p in word.split("."))


def _is_initial(before: list[str], follows: str) -> bool:
    if len(follows) == 2 and follows[0].isupper() and follows[1] == ".":
        return True
    if len(before) < 2:
        return False
    previous = before[-2].lstrip(_OPENING)
    folded = previous.rstrip(".").casefold()
    if previous.endswith("."):
        return folded in _NEVER_LAST or len(folded) == 1
    if previous in ("by", "with", "from"):
        return True
    return (
        previous.isalpha() and previous[:1].isupper() and previous[1:].islower() and folded not in _LETTERED
    )
