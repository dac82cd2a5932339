"""AllergyIntolerance → allergy: the substance, how sure, what it did; or an explicit "no known allergy"."""

from __future__ import annotations

from collections.abc import Iterator

from service.record.conditions import clinical_standing, verification_words
from service.record.dates import labelled
from service.record.facts import Fact, Kind, When
from service.record.fhirjson import Element
from service.record.reading import Reading, clause, kept, line, tell
from service.record.rules import is_none_known
from service.record.values import read_value

NONE_KNOWN = "none known"
"""Category of a fact that says explicitly that nothing is known, for example SNOMED CT 716186003."""

_SELF_SPEAKING = ("allerg", "intoleran", "hypersensitiv", "adverse reaction", "anaphyla", "propensity")
_TYPES = {"allergy": "Allergy", "intolerance": "Intolerance"}


def read_allergy(resource: Element, reading: Reading) -> Iterator[Fact]:
    """Yield the one statement of an AllergyIntolerance."""
    concept = resource.concept("code")
    reactions = _reactions(resource, reading)
    name = concept.name or _substances(resource) or reading.name_or_narrative("")
    if not name and reactions:
        name = "a substance that is not recorded"
    if not name:
        return
    onset, onset_words = _onset(resource, reading)
    recorded = reading.past(resource, "recordedDate") or reading.past(resource, "assertedDate")
    certainty = verification_words(resource)
    standing = clinical_standing(resource, certainty, has_ended=False)
    none_known = is_none_known("allergies", concept, name)
    details = _details(resource, reactions)
    said = "" if certainty in ("confirmed", "refuted") else certainty
    text = line(
        name if none_known else _headline(resource, name),
        ", ".join(p for p in (standing.words, said) if p),
        *tell(details),
        labelled("onset", onset) or clause("onset", onset_words),
        labelled("last occurrence", reading.past(resource, "lastOccurrence")),
        labelled("recorded", recorded),
    )
    yield reading.fact(
        Kind.ALLERGY, name, text, codes=concept.codes, status=standing.status,
        recorded_status=standing.recorded,
        certainty=certainty, when=onset or recorded, details=details,
        category=NONE_KNOWN if none_known else ", ".join(resource.texts("category")),
        author=reading.name_of(resource.child("asserter")) or reading.name_of(resource.child("recorder")),
    )  # fmt: skip


def _headline(resource: Element, name: str) -> str:
    if any(word in name.lower() for word in _SELF_SPEAKING):
        return name
    return f"{_TYPES.get(resource.text('type'), 'Allergy or intolerance')} to {name}"


def _substances(resource: Element) -> str:
    names = (reaction.concept("substance").name for reaction in resource.children("reaction"))
    return ", ".join(dict.fromkeys(name for name in names if name))


def _onset(resource: Element, reading: Reading) -> tuple[When | None, str]:
    kind, _ = resource.choice("onset")
    if kind in ("DateTime", "Period"):
        return reading.occurred(resource, "onset")[0], ""
    value = read_value(resource, "onset", reading.chart.date).text
    return None, f"at age {value}" if kind in ("Age", "Range") and value else value


def _reactions(resource: Element, reading: Reading) -> str:
    shown = []
    for reaction in resource.children("reaction"):
        signs = ", ".join(c.name for c in reaction.concepts("manifestation")) or reaction.text("description")
        extra = [
            reaction.text("severity"),
            clause("after", reaction.concept("substance").name),
            clause("route", reaction.concept("exposureRoute").name),
            labelled("on", reading.past(reaction, "onset")),
            reaction.notes_text(),
        ]
        said = "; ".join(e for e in extra if e)
        if signs or said:
            shown.append(f"{signs or 'not described'}{f' ({said})' if said else ''}")
    return ", ".join(shown)


def _details(resource: Element, reactions: str) -> tuple[tuple[str, str], ...]:
    return kept(
        ("reaction", reactions),
        ("criticality", resource.text("criticality")),
        ("note", resource.notes_text()),
    )
