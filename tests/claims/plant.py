"""One error planted in a true statement; a claim that stays true for what it cites is thrown away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from random import Random

from tests.claims.charts import Chart, day_of, text_of
from tests.claims.derived import clear_series, single
from tests.claims.notecharts import LOOK_ALIKES, RELATIVES
from tests.claims.speak import plain, simple_product
from tests.claims.statements import Statement, ingredient

MEASURED = ("result", "vital", "bp", "latest", "first", "extreme", "change")
DRUGS = ("med_active", "med_stopped")
DATED = (
    "result",
    "vital",
    "bp",
    "active",
    "resolved",
    *DRUGS,
    "procedure",
    "encounter",
    "immunization",
    "conclusion",
)
SINGLE = (*DATED, "planned", "allergy", "family", "device", "care_plan", "sided")
UNITS = {
    "mg/dL": ("mmol/L", "g/L"),
    "mmol/L": ("mg/dL", "µmol/L"),
    "g/dL": ("mg/dL", "g/L"),
    "%": ("mg/dL", "g/dL"),
    "kg": ("lb", "g"),
    "cm": ("in", "mm"),
    "mm[Hg]": ("kPa", "cmH2O"),
    "10*3/uL": ("10*6/uL", "g/dL"),
    "10*6/uL": ("10*3/uL",),
    "U/L": ("mg/dL", "mmol/L"),
    "fL": ("pg", "g/dL"),
    "pg": ("fL", "ng"),
    "kg/m2": ("kg", "g/m2"),
    "Cel": ("°F",),
    "mL/min": ("mg/min", "L/min"),
    "mg/g": ("mg/dL", "µg/g"),
    "g/L": ("mg/L", "g/dL"),
}
RELATED = {one: two for pair in LOOK_ALIKES for one, two in (pair, pair[::-1])}


@dataclass(frozen=True)
class Planted:
    """A statement with an error; a wording must show one of `altered`, the keys of `said` that are wrong."""

    kind: str
    cites: tuple[str, ...]
    said: Mapping[str, str]
    altered: frozenset[str]


Planter = Callable[[Statement, Random], Planted | None]


def changed(statement: Statement, kind: str | None = None, **wrong: str) -> Planted:
    """Return the statement with some of what it says replaced."""
    return Planted(kind or statement.kind, statement.cites, {**statement.said, **wrong}, frozenset(wrong))


def _number_key(statement: Statement, rng: Random) -> str:
    return rng.choice(["first", "second"]) if statement.kind == "change" else "value"


def _with_number(statement: Statement, rng: Random, alter: Callable[[str, Random], str]) -> Planted | None:
    key = _number_key(statement, rng)
    parts = statement.said[key].split("/")
    place = rng.randrange(len(parts))
    new = alter(parts[place], rng)
    if not new or new in parts:
        return None
    parts[place] = new
    return changed(statement, **{key: "/".join(parts)})


def _with_dose(statement: Statement, new_dose: str) -> Planted:
    product = statement.said["product"]
    old = statement.said["dose"].split()[0]
    number, unit = new_dose.split()
    return changed(
        statement, dose=new_dose, product=product.replace(f"{old} MG", f"{number} {unit.upper()}", 1)
    )


def _other_number(number: str, rng: Random) -> str:
    old = Decimal(number)
    step = Decimal(1).scaleb(int(old.as_tuple().exponent))
    new = (old * Decimal(rng.choice([70, 78, 85, 92, 108, 115, 127, 140])) / 100).quantize(step)
    return format(new if new != old else old + step, "f")


def _value(statement: Statement, rng: Random) -> Planted | None:
    return _with_number(statement, rng, _other_number)


def _unit(statement: Statement, rng: Random) -> Planted | None:
    if statement.kind in DRUGS:
        dose = statement.said.get("dose")
        return _with_dose(statement, f"{dose.split()[0]} {rng.choice(['mcg', 'g'])}") if dose else None
    others = UNITS.get(statement.said["unit"])
    if not others:
        return None
    planted = changed(statement, unit=rng.choice(others))
    return Planted(planted.kind, planted.cites, planted.said, frozenset({"value", "first", "second"}))


def _tenfold(number: str, rng: Random) -> str:
    value = Decimal(number) * (Decimal(10) if rng.random() < 0.5 else Decimal("0.1"))
    text = format(value, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) if value else ""


def _power(statement: Statement, rng: Random) -> Planted | None:
    if statement.kind in DRUGS:
        dose = statement.said.get("dose")
        return _with_dose(statement, f"{_tenfold(dose.split()[0], rng)} mg") if dose else None
    return _with_number(statement, rng, _tenfold)


def _finer(number: str, rng: Random) -> str:
    return f"{number}{rng.randrange(0, 10)}" if "." in number else f"{number}.{rng.choice('0000123456789')}"


def _precision(statement: Statement, rng: Random) -> Planted | None:
    if statement.kind in DRUGS:
        dose = statement.said.get("dose")
        return _with_dose(statement, f"{_finer(dose.split()[0], rng)} mg") if dose else None
    return _with_number(statement, rng, _finer)


def _date(statement: Statement, rng: Random) -> Planted | None:
    keys = [key for key in ("date", "end_date") if key in statement.said]
    key = rng.choice(keys)
    day = date.fromisoformat(statement.said[key])
    days = rng.choice([1, 2, 3, 9, 31, 365, 730]) * rng.choice([-1, 1])
    moved = (day + timedelta(days=days)).isoformat()
    begun, ended = statement.said["date"], last_day(statement)
    told = moved in str(statement.chart.resources[statement.cites[0]]) or begun <= moved <= ended
    return None if told else changed(statement, **{key: moved})


def last_day(statement: Statement) -> str:
    """Return the day on which what is said ended: what lasts is true of all days between."""
    resource = statement.chart.resources[statement.cites[0]]
    periods = [resource.get(key, {}).get("end", "") for key in ("period", "performedPeriod")]
    return str(max(resource.get("abatementDateTime", "")[:10], *(end[:10] for end in periods)))


def _drug(statement: Statement, rng: Random) -> Planted | None:
    product = statement.said["product"]
    twin = RELATED.get(product)
    if twin is None or rng.random() < 0.2:
        twin = _other_product(statement, rng)
    if twin is None or ingredient(twin) == ingredient(product):
        return None
    simple = simple_product(twin)
    if simple and "dose" in statement.said:
        return changed(statement, product=twin, drug=simple[0])
    return changed(statement, product=twin)


def _other_product(statement: Statement, rng: Random) -> str | None:
    own = statement.said["product"]
    others = {
        text_of(r.get("medicationCodeableConcept")) for _, r in statement.chart.of_type("MedicationRequest")
    }
    fitting = sorted(
        other for other in others - {own, ""} if ("dose" not in statement.said or simple_product(other))
    )
    return rng.choice(fitting) if fitting else None


def _dose(statement: Statement, rng: Random) -> Planted | None:
    if "freq" in statement.said and rng.random() < 0.3:
        times, unit = statement.said["freq"].split("/")
        return changed(statement, freq=f"{rng.choice([n for n in (1, 2, 3, 4) if str(n) != times])}/{unit}")
    if "dose" not in statement.said:
        return None
    old = Decimal(statement.said["dose"].split()[0])
    new = old * rng.choice([Decimal(2), Decimal(3), Decimal(4), Decimal("0.5"), Decimal("1.5")])
    number = format(new.normalize(), "f")
    return _with_dose(statement, f"{number} mg")


STATUS = {
    "active": ("resolved",),
    "resolved": ("active",),
    "med_active": ("med_stopped",),
    "med_stopped": ("med_active",),
    "procedure": ("planned", "not_done"),
    "planned": ("procedure",),
}


def _status(statement: Statement, rng: Random) -> Planted | None:
    kind = rng.choice(STATUS[statement.kind])
    said = {key: value for key, value in statement.said.items() if key != "end_date"}
    return Planted(kind, statement.cites, said, frozenset({"name", "product", "drug"}))


def _negation(statement: Statement, rng: Random) -> Planted | None:
    name = statement.said["name"]
    shown = f"{plain(name)} allergy" if statement.kind == "allergy" else name
    return Planted("negated", statement.cites, {"name": shown, "of": name}, frozenset({"name"}))


def _side(statement: Statement, rng: Random) -> Planted | None:
    return changed(statement, side="left" if statement.said["side"] == "right" else "right")


def _person(statement: Statement, rng: Random) -> Planted | None:
    name = statement.said["name"]
    if statement.kind == "active":
        said = {"name": name, "relation": rng.choice(["mother", "father"])}
        return Planted("family", statement.cites, said, frozenset({"relation"}))
    if rng.random() < 0.5:
        return Planted("active", statement.cites, {"name": name}, frozenset({"name"}))
    return changed(statement, relation=rng.choice(sorted(set(RELATIVES) - {statement.said["relation"]})))


def _derived(statement: Statement, rng: Random) -> Planted | None:
    said = statement.said
    if statement.kind == "change":
        up, small = said["direction"] == "up", Decimal(said["second"]) <= 2 * Decimal(said["first"])
        if up and small and rng.random() < 0.3:
            return Planted("doubled", statement.cites, said, frozenset({"first_date", "first"}))
        return changed(statement, direction="down" if up else "up")
    if statement.kind == "difference":
        return changed(statement, diff=_other_number(said["diff"], rng))
    if statement.kind == "extreme":
        return _not_extreme(statement, rng)
    if statement.kind == "first":
        points = clear_series(statement.chart)[said["name"]]
        later = single(statement.chart, "first", said["name"], rng.choice(points[1:]))
        return Planted("first", later.cites, later.said, frozenset({"date"}))
    key = {"count": "n", "age": "age"}.get(statement.kind, "days")
    new = int(said[key]) + rng.choice([-3, -2, -1, 1, 2, 3, 7])
    return changed(statement, **{key: str(new)}) if new > 0 else None


def _not_extreme(statement: Statement, rng: Random) -> Planted | None:
    end, name = statement.said["end"], statement.said["name"]
    if rng.random() < 0.5:
        return changed(statement, end="lowest" if end == "highest" else "highest")
    points = clear_series(statement.chart)[name]
    other = single(statement.chart, "extreme", name, rng.choice(points), end=end)
    return Planted("extreme", other.cites, other.said, frozenset({"end"}))


def _superseded(statement: Statement, rng: Random) -> Planted | None:
    name = statement.said["name"]
    if statement.kind == "latest":
        points = clear_series(statement.chart)[name]
        older = single(statement.chart, "latest", name, rng.choice(points[:-1]))
        kind = rng.choice(["latest", "latest", "latest", "no_other"])
        return Planted(kind, older.cites, older.said, frozenset({"name"}))
    return Planted("never", statement.cites, {"name": name}, frozenset({"name"}))


def _wrong_source(statement: Statement, rng: Random) -> Planted | None:
    kind = statement.cites[0].partition("/")[0]
    same = [reference for reference, _ in statement.chart.of_type(kind)]
    others = same if rng.random() < 0.8 else [r for r in statement.chart.resources if r.startswith(COMMON)]
    other = rng.choice(others)
    if _alike(statement, other):
        return None
    return Planted(statement.kind, (other,), statement.said, frozenset(statement.said))


COMMON = ("Observation/", "Condition/", "Encounter/", "MedicationRequest/", "Procedure/", "Immunization/")


def _alike(statement: Statement, other: str) -> bool:
    """Return whether another resource is the same or says nearly the same of the same thing."""
    own, there = (statement.chart.resources[ref] for ref in (statement.cites[0], other))
    names = [_short(statement.chart, resource) for resource in (own, there)]
    days = [_day(resource) for resource in (own, there)]
    nested = names[0] in names[1] or names[1] in names[0]
    return own is there or (nested and ("date" not in statement.said or days[0] == days[1]))


def _short(chart: Chart, resource: Mapping[str, object]) -> str:
    code = resource.get("code") or resource.get("vaccineCode") or resource.get("medicationCodeableConcept")
    kinds = resource.get("type")
    return plain(text_of(code or (kinds[0] if isinstance(kinds, list) else kinds))).lower()


def _day(resource: Mapping[str, object]) -> date | None:
    keys = ("effectiveDateTime", "onsetDateTime", "authoredOn", "performedDateTime", "occurrenceDateTime")
    found = next((str(resource[key]) for key in keys if key in resource), None)
    return day_of(found)


PLANTERS: dict[str, tuple[tuple[str, ...], Planter]] = {
    "value": (MEASURED, _value),
    "unit": (("result", "vital", "bp", "latest", "change", *DRUGS), _unit),
    "power_of_ten": (("result", "vital", "latest", "change", *DRUGS), _power),
    "date": (DATED, _date),
    "precision": (("result", "vital", "latest", "change", *DRUGS), _precision),
    "drug": (DRUGS, _drug),
    "dose": (DRUGS, _dose),
    "status": (tuple(STATUS), _status),
    "negation": (("active", "allergy"), _negation),
    "side": (("sided",), _side),
    "person": (("family", "active"), _person),
    "derived": (("change", "difference", "extreme", "count", "age", "duration", "stay", "first"), _derived),
    "superseded": (("latest", "latest", "immunization", "procedure", "active"), _superseded),
    "wrong_source": (SINGLE, _wrong_source),
}
"""Planted error → kinds of statements it can be planted in, and how."""

SAYS_NO_STATUS = (
    "{drug} {dose} {freq} (ordered {date}).",
    "On {date}: {name}.",
    "Procedure: {name} ({date}).",
)
"""Wordings that stay true whatever the status is."""
