"""Turns of phrase by which a sentence derives something: what they mean is computed elsewhere.

Each holds regular expressions, tried in order: a longer phrase stands before what it contains.
"""

from __future__ import annotations

import re

NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()


def told(phrases: str) -> re.Pattern[str]:
    """Return a pattern for any of these phrases as whole words, in any case."""
    return re.compile(rf"\b(?:{phrases})\b", re.IGNORECASE)


_COUNT = rf"(\d{{1,5}}|{'|'.join(NUMBERS)})"
"""A count, told in the first group of a match that is not empty."""


CURRENT = told("active|current|currently|ongoing|still|continues|remains|now")

LATEST = told(
    r"as of(?= \S*\d)|most recently|most recent|most up[- ]to[- ]date|last recorded|latest|"
    "newest|current(?:ly)?|presently|at present|now|last"
)
NO_NEWER = told(
    r"no (?:newer|later|more recent|subsequent) (?P<kept>.{0,120}?)(?: has been| was| is)? "
    r"(?:recorded|measured|on record|available|exists?|documented)(?: since)?"
)
FIRST = told(
    "first (?=recorded|measured|documented|noted|seen|obtained|checked)|earliest|first ever|"
    "for the first time|oldest|initially|initial|first"
)
_AT_ALL = r"(?: recorded)?(?: value)?(?: of)?(?: ever recorded)?"
_ON_RECORD = r"(?=[ ,:]+(?:of|was|on record))"
HIGHEST = told(
    rf"(?:(?:all-time |record )?high{_ON_RECORD}|highest|maximum|maximal|peak(?:ed)?|greatest|largest)"
    rf"{_AT_ALL}|"
    "never (?:been )?(?:measured |recorded )?(?:higher|above|over|greater)(?: than)?|"
    "never exceeded"
)
LOWEST = told(
    rf"(?:(?:all-time |record )?low{_ON_RECORD}|lowest|minimum|minimal|nadir|smallest){_AT_ALL}|"
    "never (?:been )?(?:measured |recorded )?(?:lower|below|under|less)(?: than)?"
)

_ENTRIES = "(?:values?|results?|measurements?|readings?|entry|entries)"
_ONE = (
    "(?:value|result|measurement|reading|recording|record|entry|one|determination|observation|test|occasion)"
)
OTHER_THAN = told(
    r"no (?:other |further |additional |second )?(?P<kept>.{0,120}?) ?"
    r"\b(?:other than|besides|except(?: for)?|apart from|aside from|beyond)"
)
ONLY = told(
    "there (?:is|are) no other|"
    rf"no other (?:\w+ )?{_ENTRIES}(?: (?:is|are|was|were|has been|have been) "
    r"(?:on record|recorded|available|documented|found))?|"
    "no other|"
    "on record than|"
    "(?:apart|aside) from|"
    "besides|"
    "except for|"
    rf"no (?:further|additional|repeat|subsequent|second|more) (?:\w+ )?{_ENTRIES}|"
    "(?:has |was )?(?:not|never) (?:been )?(?:repeated|measured again|recorded again|checked again)|"
    "(?:the |a |only |just |exactly |but )*(?:only|sole|single|solitary|unique|lone)"
    rf"(?: (?:one|single|a single))?(?: {_ONE})?|"
    "(?:only |just |exactly |but )*(?:once|one time)(?: only)?|"
    "(?:only|just|exactly) one"
)

_YEARS = "[- ]?(?:years?|yrs?|y/o|yo)(?:[- ](?:of age|old))?"
AGED = told(
    rf"(?:at (?:the )?age(?: of)?|aged|age(?: (?:at|of)(?: onset)?)?:?(?: was| of)?) {_COUNT}\b"
    rf"(?:{_YEARS})?|"
    rf"(?:at|was|were|is|when|being|as an?|a)? ?{_COUNT}"
    "(?:[- ]?(?:years?|yrs?)[- ](?:old|of age)|[- ]?(?:y/o|yo))|"
    rf"was {_COUNT}(?=,? (?:when|at the time|at onset|at diagnosis)\b)|"
    rf"at {_COUNT} years|"
    rf"when (?:she|he|they|the patient) was {_COUNT}"
)
LASTED = told(
    r"(?:(?:last(?:ed|ing)|for|duration(?: of| was|:)?|stay(?:ed)?(?: of)?|length(?: of stay)?"
    r"(?: of| was|:)?|persist(?:ed|ing)(?: for)?|was|after|took|spanning|spanned|totall?ing|a|of|total of) )*"
    rf"(?:a total of )?{_COUNT}[- ](?:full )?(?P<unit>days?|weeks?)"
    r"(?: (?:later|long|in (?:duration|length|total)|in all|"
    r"after(?: its?)?(?: the)?(?= (?:onset|admission)\b)))?"
)

UP, DOWN, LEVEL = (
    "rose|risen|rises?|rising|increase[sd]?|increasing|climbed|climbs|climbing|grew|grown|growing|went up|"
    "gone up|going up|moved up|higher|greater|up from|rise of",
    "fell|fallen|falls?|falling|decrease[sd]?|decreasing|dropp?ed|drops?|dropping|declined?|declines|declining|"
    "went down|gone down|going down|moved down|lower|less|smaller|down from|fall of|came down",
    "went|gone|changed?|changes|moved|difference|differs?|differed",
)
RISES, FALLS, MOVES = told(UP), told(DOWN), told(f"(?:an? )?(?:{UP}|{DOWN}|{LEVEL})")
TIMES = told(
    r"(?P<over>(?:to )?more than |(?:to )?over |at least )?(?P<times>doubled?|doubling|double|twice|"
    r"two-?fold|tripled?|tripling|three-?fold)"
)
FACTORS = {"doubl": 2, "twice": 2, "twofold": 2, "two-fold": 2, "tripl": 3, "threefold": 3, "three-fold": 3}
"""How often, by how the word of TIMES begins."""
PIVOT = told(
    "than|"
    "as (?:high|great|large|much) as|"
    r"(?:twice|double|triple) (?:the (?:value|level|result|one)|that|what)(?: it was)?(?: of)?"
)
"""What stands before it is compared with what stands after it."""
MARK = told("from|since|between|to|and|after|reaching|until")
"""What a change starts from, or leads to."""
BEFORE_DIFFERENCE = re.compile(
    r"\b(?:by|rise of|increase of|fall of|decrease of|drop of|decline of|difference of|change of|rose|"
    r"increased|climbed|went up|fell|decreased|dropped|declined|went down|was|is)\s*$",
    re.IGNORECASE,
)
TELLS_DIFFERENCE = re.compile(r"\bdifference\b.*\b(?:was|is|of|to)\s*$", re.IGNORECASE | re.DOTALL)

_ITEMS = (
    "(?:times|occasions|values|results|measurements|readings|records|entries|determinations|observations|"
    "tests)"
)
COUNTED = told(
    rf"(?:a total of )?(?P<n>\d{{1,4}}|{'|'.join(NUMBERS)})(?: separate| different)?"
    rf"(?P<name>(?:\s+(?!{_ITEMS}\b)\S+){{0,12}}?)\s+{_ITEMS}|"
    "(?P<adverb>once|twice|thrice)"
)
ADVERBS = {"once": 1, "twice": 2, "thrice": 3}
IN_ALL = told("in total|total|available|on record|overall")
PRESENT = told(
    "is|are|has|have|since|remains?|"
    r"continu\w+|ongoing|still|"
    r"current\w*|now|"
    "active|lives|suffers"
)
"""Words of the present: what was, at an age, without one of them, is told as past."""
IS = told("is|are|has|reads|has been|have")
"""Words that tell a value as the present one."""
ENDED = re.compile(r"\b(?:resolved|discharged|ended|abated|cleared|finished|recovered|over)\b", re.IGNORECASE)
PAST = told("was|were|had|came|measured|showed|reached|returned|recorded|noted|found")
DENIED = re.compile(r"\b(?:not|never|no)\s*$", re.IGNORECASE)
