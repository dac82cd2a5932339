"""How clinicians and language models say a date, a number, a unit, a test, a drug or a diagnosis.

Every form here must mean the same as the recorded one, so that a claim that uses it stays true.
"""

from __future__ import annotations

import re
from datetime import date
from random import Random

MONTHS = "January February March April May June July August September October November December".split()
NUMBERS = "zero one two three four five six seven eight nine".split()

UNITS: dict[str, tuple[str, ...]] = {
    "mm[Hg]": ("mmHg", "mm Hg"),
    "/min": ("/min", "per minute"),
    "10*3/uL": ("10*3/uL", "x10^3/µL", "×10³/µL"),
    "10*6/uL": ("10*6/uL", "x10^6/µL", "×10⁶/µL"),
    "kg/m2": ("kg/m2", "kg/m²"),
    "Cel": ("°C", "Cel"),
    "%": ("%", "percent"),
    "mL/min/{1.73_m2}": ("mL/min/1.73 m²", "mL/min/1.73m2"),
    "{score}": ("",),
    "{nominal}": ("",),
    "{T-score}": ("",),
    "{count}": ("",),
    "pH": ("",),
    "{INR}": ("",),
}

TESTS: dict[str, tuple[str, ...]] = {
    "Hemoglobin A1c/Hemoglobin.total in Blood": ("HbA1c", "hemoglobin A1c", "A1c"),
    "Hemoglobin [Mass/volume] in Blood": ("hemoglobin", "Hgb", "Hb"),
    "Hematocrit [Volume Fraction] of Blood by Automated count": ("hematocrit", "Hct"),
    "Body Mass Index": ("BMI", "body mass index"),
    "Body Weight": ("weight", "body weight"),
    "Body Height": ("height", "body height"),
    "Heart rate": ("heart rate", "pulse", "HR"),
    "Respiratory rate": ("respiratory rate", "RR"),
    "Body temperature": ("temperature", "body temperature"),
    "Urea Nitrogen": ("BUN", "urea nitrogen"),
    "Creatinine": ("creatinine",),
    "Carbon Dioxide": ("carbon dioxide", "CO2"),
    "Total Cholesterol": ("total cholesterol", "cholesterol"),
    "Low Density Lipoprotein Cholesterol": ("LDL cholesterol", "LDL", "LDL-C"),
    "High Density Lipoprotein Cholesterol": ("HDL cholesterol", "HDL", "HDL-C"),
    "Platelets [#/volume] in Blood by Automated count": ("platelets", "platelet count"),
    "Leukocytes [#/volume] in Blood by Automated count": ("WBC", "white blood cell count", "leukocytes"),
    "Erythrocytes [#/volume] in Blood by Automated count": ("RBC", "red blood cell count", "erythrocytes"),
    "MCV [Entitic volume] by Automated count": ("MCV", "mean corpuscular volume"),
    "MCH [Entitic mass] by Automated count": ("MCH",),
    "MCHC [Mass/volume] by Automated count": ("MCHC",),
    "Alanine aminotransferase [Enzymatic activity/volume] in Serum or Plasma": ("ALT",),
    "Aspartate aminotransferase [Enzymatic activity/volume] in Serum or Plasma": ("AST",),
    "Alkaline phosphatase [Enzymatic activity/volume] in Serum or Plasma": ("alkaline phosphatase", "ALP"),
    "Estimated Glomerular Filtration Rate": ("eGFR", "estimated GFR"),
    "Oxygen saturation in Arterial blood": ("oxygen saturation", "O2 saturation"),
    "Bilirubin.total [Mass/volume] in Serum or Plasma": ("total bilirubin",),
    "Blood Pressure": ("blood pressure", "BP"),
}
"""LOINC's display as recorded → what people call it."""

PROBLEMS: dict[str, tuple[str, ...]] = {
    "Hypertension": ("hypertension", "high blood pressure", "HTN"),
    "Diabetes": ("diabetes", "diabetes mellitus"),
    "Anemia (disorder)": ("anemia",),
    "Coronary Heart Disease": ("coronary heart disease", "CHD"),
    "Body mass index 30+ - obesity (finding)": ("obesity",),
    "Streptococcal sore throat (disorder)": ("strep throat", "streptococcal sore throat"),
    "Dyspnea (finding)": ("dyspnea", "shortness of breath"),
    "Fever (finding)": ("fever",),
    "Stroke": ("stroke",),
    "Myocardial infarction": ("myocardial infarction", "heart attack"),
    "Type 2 diabetes mellitus": ("type 2 diabetes", "type 2 diabetes mellitus", "T2DM"),
}

VACCINES: dict[str, tuple[str, ...]] = {
    "Influenza, seasonal, injectable, preservative free": ("influenza", "seasonal influenza", "flu"),
    "Td (adult) preservative free": ("Td", "Td (adult)"),
    "Pneumococcal conjugate PCV 13": ("PCV13", "pneumococcal conjugate"),
    "Hep A, adult": ("hepatitis A", "Hep A"),
    "Hep B, adult": ("hepatitis B", "Hep B"),
    "zoster": ("zoster", "shingles"),
    "pneumococcal polysaccharide vaccine, 23 valent": ("PPSV23",),
}

BRANDS: dict[str, tuple[str, ...]] = {
    "amlodipine": ("Norvasc",),
    "lisinopril": ("Zestril", "Prinivil"),
    "hydrochlorothiazide": ("HCTZ",),
    "simvastatin": ("Zocor",),
    "clopidogrel": ("Plavix",),
    "acetaminophen": ("paracetamol", "Tylenol"),
    "ibuprofen": ("Advil",),
    "furosemide": ("Lasix",),
    "carvedilol": ("Coreg",),
    "donepezil": ("Aricept",),
    "loratadine": ("Claritin",),
}

OWN_NAMES = ("Hep", "New", "York", "Td", "Tdap", "Hib")

SALTS = ("hydrochloride", "sodium", "potassium")

FREQUENCIES: dict[tuple[int, str], tuple[str, ...]] = {
    (1, "d"): ("once daily", "daily", "once a day", "every day"),
    (2, "d"): ("twice daily", "BID", "two times a day", "twice a day"),
    (3, "d"): ("three times daily", "TID", "three times a day"),
    (4, "d"): ("four times daily", "four times a day", "QID"),
}
"""(times, FHIR's unit of a period of 1) → how it is said."""


def say_day(day: date, rng: Random) -> str:
    """Return a whole day in one of the forms seen in charts: `25-Nov-2020`, `November 25, 2020`…"""
    return rng.choice(all_day_forms(day))


def all_day_forms(day: date) -> list[str]:
    month = MONTHS[day.month - 1]
    short = month[:3]
    return [
        f"{day.day:02d}-{short}-{day.year}",
        f"{day.day} {month} {day.year}",
        f"{month} {day.day}, {day.year}",
        day.isoformat(),
        f"{day.day} {short} {day.year}",
        f"{short} {day.day}, {day.year}",
    ]


def month_forms(day: date) -> list[str]:
    month = MONTHS[day.month - 1]
    return [f"{month} {day.year}", f"{month[:3]} {day.year}"]


def say_when(day: date, rng: Random, whole: bool = False) -> str:
    """Return `on 25 Nov 2020`, `in November 2020` or `in 2020`; `whole` allows days only."""
    pick = 0.0 if whole else rng.random()
    if pick < 0.7:
        return f"on {say_day(day, rng)}"
    if pick < 0.85:
        return f"in {rng.choice(month_forms(day))}"
    return f"in {day.year}"


def say_since(day: date, rng: Random, whole: bool = False) -> str:
    """Return `since 25 Nov 2020`, `since November 2020` or `since 2020`."""
    return "since " + say_when(day, rng, whole).split(" ", 1)[1]


def say_value(number: str, unit: str, rng: Random) -> str:
    """Return a number with its unit in one of the unit's written forms."""
    form = rng.choice(UNITS.get(unit, (unit,)))
    if not form:
        return number
    glue = "" if form in ("%", "/min") else " "
    return f"{number}{glue}{form}"


def say_count(number: int, rng: Random) -> str:
    """Return a count, below ten also as a word."""
    return NUMBERS[number] if number < 10 and rng.random() < 0.5 else str(number)


def plain(name: str) -> str:
    """Return a display without its bracketed parts and SNOMED's semantic tag."""
    bare = re.sub(r"\s*\[[^\]]*\]", "", name)
    tags = "disorder|finding|situation|procedure|record artifact|regime/therapy|physical object"
    bare = re.sub(rf"\s*\((?:{tags})\)$", "", bare)
    return re.sub(r", device$", "", bare).strip()


def lowered(name: str) -> str:
    """Lower every word but abbreviations and names of people (`MCV`, `DTaP`, `SARS-CoV-2`)."""
    return " ".join(_lower_word(word) for word in name.split(" "))


def _lower_word(word: str) -> str:
    titled = re.fullmatch(r"[(\"']?[A-Z][a-z]+(?:-[a-z]+)*[,.;)\"']*", word)
    return word.lower() if titled and word not in OWN_NAMES else word


def name_forms(name: str) -> list[str]:
    """Return the forms of the name of a test, a problem, a procedure, a vaccine: as recorded first."""
    known = TESTS.get(name) or PROBLEMS.get(name) or VACCINES.get(name) or ()
    return list(dict.fromkeys([name, plain(name), lowered(plain(name)), *known]))


def drug_forms(drug: str) -> list[str]:
    """Return the forms of an ingredient: as recorded, lower case, without a salt, brand or generic."""
    low = drug.lower()
    bare = low
    for salt in SALTS:
        bare = bare.removesuffix(f" {salt}")
    return list(dict.fromkeys([low, low.capitalize(), bare, *BRANDS.get(bare, ())]))


def product_forms(product: str) -> list[str]:
    """Return the forms of a product: as recorded, lower case, and ingredient with strength."""
    forms = [product, product.lower()]
    simple = simple_product(product)
    if simple:
        drug, strength = simple
        forms += [f"{form} {strength}" for form in drug_forms(drug)]
    return list(dict.fromkeys(forms))


def simple_product(product: str) -> tuple[str, str] | None:
    """Return (ingredient, strength) of a product with one ingredient and a plain strength in mg."""
    if "/" in product or "[" in product:
        return None
    match = re.match(r"^(?:\d+ HR )?([A-Za-z][A-Za-z ]+?) ([\d.]+) MG(?= [A-Z])", product)
    return (match[1], f"{match[2]} mg") if match else None


def finish(text: str) -> str:
    """Set articles, spaces and the first letter as a writer would."""
    text = re.sub(r"\ban (?=[b-df-hj-np-tv-z]|[B-DF-HJ-NP-TV-Z][a-z])", "a ", text)
    text = re.sub(r"\ba (?=[aeioAEIO])", "an ", text)
    text = re.sub(r"^A (?=[aeioAEIO])", "An ", text)
    text = text.replace("  ", " ").strip()
    text = re.sub(r"(?<!\.)\.\.$", ".", text)
    text = re.sub(r'\."\.$', '."', text)
    return text if text.startswith(("pH", "eGFR")) else text[:1].upper() + text[1:]
