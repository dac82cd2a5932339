"""Small charts around clinician-written notes, with the structured resources that Synthea never writes.

Each holds one note as a DocumentReference, and beside it a family history, an allergy with its reaction,
findings with a side, planned and refused procedures, look-alike drugs, a device and report conclusions.
"""

from __future__ import annotations

import base64
import csv
import json
import re
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any

from tests.claims.charts import Chart, chart_of
from tests.conftest import CANARY

RELATIVES = {"mother": "MTH", "father": "FTH", "sister": "SIS", "brother": "BRO"}
FAMILY = [
    "Breast cancer",
    "Colon cancer",
    "Myocardial infarction",
    "Type 2 diabetes mellitus",
    "Hypertension",
    "Stroke",
    "Asthma",
    "Alzheimer's disease",
    "Glaucoma",
    "Rheumatoid arthritis",
]
ALLERGENS = ["Penicillin", "Sulfonamide", "Codeine", "Peanut", "Iodinated contrast", "Latex", "Cephalexin"]
REACTIONS = ["hives", "anaphylaxis", "nausea", "facial swelling", "rash", "wheezing"]
SIDED_PROBLEMS = [
    ("Osteoarthritis", "knee"),
    ("Rotator cuff tear", "shoulder"),
    ("Cataract", "eye"),
    ("Carpal tunnel syndrome", "wrist"),
    ("Deep vein thrombosis", "leg"),
    ("Plantar fasciitis", "foot"),
    ("Nephrolithiasis", "kidney"),
]
SIDED_PROCEDURES = [
    ("Arthroscopy", "knee"),
    ("Total arthroplasty", "hip"),
    ("Cataract extraction", "eye"),
    ("Carpal tunnel release", "wrist"),
    ("Lumpectomy", "breast"),
    ("Nephrectomy", "kidney"),
]
PLANNED = ["Colonoscopy", "Echocardiography", "Cholecystectomy", "Bone density scan", "Coronary angiography"]
NOT_DONE = ["Lumbar puncture", "Thoracentesis", "Upper endoscopy", "Cardiac catheterization"]
REASONS = ["patient refusal", "abnormal coagulation", "equipment failure"]
DEVICES = ["Cardiac pacemaker", "Insulin pump", "Cochlear implant", "Implantable cardioverter defibrillator"]
LOOK_ALIKES = [
    ("Metoprolol tartrate 25 MG Oral Tablet", "Metoprolol succinate 25 MG Oral Tablet"),
    ("Hydroxyzine 25 MG Oral Tablet", "Hydralazine 25 MG Oral Tablet"),
    ("Prednisone 5 MG Oral Tablet", "Prednisolone 5 MG Oral Tablet"),
    ("Bupropion 100 MG Oral Tablet", "Buspirone 10 MG Oral Tablet"),
    ("Clonidine 0.1 MG Oral Tablet", "Clonazepam 0.5 MG Oral Tablet"),
    ("Glipizide 5 MG Oral Tablet", "Glyburide 5 MG Oral Tablet"),
    ("Tramadol 50 MG Oral Tablet", "Trazodone 50 MG Oral Tablet"),
]
CONCLUSIONS = [
    ("Chest X-ray", "Small right pleural effusion without consolidation."),
    ("Chest X-ray", "No acute cardiopulmonary process."),
    ("CT of abdomen", "Nonobstructing 4 mm stone in the left kidney."),
    ("CT of abdomen", "No evidence of appendicitis."),
    ("MRI of knee", "Complete tear of the anterior cruciate ligament."),
    ("Echocardiogram", "Ejection fraction of 45% with mild mitral regurgitation."),
    ("Ultrasound of abdomen", "Gallstones without signs of cholecystitis."),
    ("Colonoscopy", "Two polyps in the sigmoid colon, both removed."),
    ("Mammogram", "Calcification in the right breast, BI-RADS 4."),
    ("CT of head", "No intracranial hemorrhage."),
]


def note_texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield (name, note) of ACI-Bench's and PriMock57's notes under `folder`."""
    csv.field_size_limit(10**7)
    for part in ("train", "valid"):
        with (folder / "aci-bench" / f"{part}.csv").open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                yield f"aci-{row['encounter_id']}", row["note"]
    for path in sorted((folder / "primock57" / "notes").glob("*.json")):
        yield f"primock-{path.stem}", json.loads(path.read_text(encoding="utf-8"))["note"]


def note_charts(folder: Path) -> Iterator[Chart]:
    """Yield one small chart for each note under `folder`."""
    for name, note in note_texts(folder):
        yield chart_of(name, _resources(name, note))


def note_of(chart: Chart) -> tuple[str, str, str] | None:
    """Return (reference, day, text) of the note of a small chart, else None."""
    if not chart.name.startswith(("aci-", "primock-")):
        return None
    reference, document = next(chart.of_type("DocumentReference"))
    data = document["content"][0]["attachment"]["data"]
    return reference, document["date"][:10], base64.b64decode(data).decode()


def gender_of(note: str) -> str:
    """Return the gender that the note's words tell of its patient."""
    women = len(re.findall(r"\b(she|her|female|woman)\b", note, re.IGNORECASE))
    men = len(re.findall(r"\b(he|his|male|man)\b", note, re.IGNORECASE))
    return "female" if women > men else "male" if men > women else "unknown"


def _resources(name: str, note: str) -> list[dict[str, Any]]:
    rng = Random(f"chart:{name}")
    day = date(2019, 1, 10) + timedelta(days=rng.randrange(1600))
    age = re.search(r"(\d\d)[- ](?:year|y\.?o)", note)
    birth = date(day.year - int(age[1]) - 1, 12, 1) if age else date(1950 + rng.randrange(45), 3, 14)
    patient = {
        "resourceType": "Patient",
        "id": name,
        "name": [{"family": CANARY, "given": ["Test"]}],
        "gender": gender_of(note),
        "birthDate": birth.isoformat(),
    }
    maker = _Maker(name, rng, day)
    return [patient, maker.note(note), *maker.history(), *maker.findings(), *maker.orders(), *maker.reports()]


class _Maker:
    """Writes the resources of one small chart; `day` is the day of its note."""

    def __init__(self, name: str, rng: Random, day: date) -> None:
        self.name, self.rng, self.day = name, rng, day
        self.made = 0

    def _make(self, kind: str, **parts: Any) -> dict[str, Any]:
        self.made += 1
        who = "patient" if kind in ("AllergyIntolerance", "FamilyMemberHistory", "Device") else "subject"
        head = {"resourceType": kind, "id": f"{self.name}-{self.made}"}
        return {**head, who: {"reference": f"Patient/{self.name}"}, **parts}

    def _past(self) -> str:
        return (self.day - timedelta(days=self.rng.randrange(20, 1500))).isoformat()

    def note(self, text: str) -> dict[str, Any]:
        data = base64.b64encode(text.encode()).decode()
        loinc = {"system": "http://loinc.org", "code": "11506-3", "display": "Progress note"}
        return self._make(
            "DocumentReference",
            status="current",
            type={"coding": [loinc]},
            date=f"{self.day.isoformat()}T10:00:00Z",
            content=[{"attachment": {"contentType": "text/plain; charset=utf-8", "data": data}}],
        )

    def history(self) -> Iterator[dict[str, Any]]:
        relatives = self.rng.sample(sorted(RELATIVES), 2)
        for relative, problem in zip(relatives, self.rng.sample(FAMILY, 2), strict=True):
            coding = {
                "system": "http://terminology.hl7.org/CodeSystem/v3-RoleCode",
                "code": RELATIVES[relative],
                "display": relative,
            }
            yield self._make(
                "FamilyMemberHistory",
                status="completed",
                relationship={"coding": [coding], "text": relative},
                condition=[{"code": {"text": problem}}],
            )
        for allergen in self.rng.sample(ALLERGENS, 2):
            yield self._make(
                "AllergyIntolerance",
                clinicalStatus=_coded("allergyintolerance-clinical", "active"),
                verificationStatus=_coded("allergyintolerance-verification", "confirmed"),
                criticality=self.rng.choice(["high", "low"]),
                code={"text": allergen},
                recordedDate=self._past(),
                reaction=[{"manifestation": [{"text": self.rng.choice(REACTIONS)}]}],
            )

    def findings(self) -> Iterator[dict[str, Any]]:
        for name, site in self.rng.sample(SIDED_PROBLEMS, 2):
            yield self._make(
                "Condition",
                clinicalStatus=_coded("condition-clinical", "active"),
                verificationStatus=_coded("condition-ver-status", "confirmed"),
                code={"text": name},
                bodySite=[{"text": f"{self.rng.choice(['Left', 'Right'])} {site}"}],
                onsetDateTime=self._past(),
            )
        name, site = self.rng.choice(SIDED_PROCEDURES)
        yield self._make(
            "Procedure",
            status="completed",
            code={"text": name},
            bodySite=[{"text": f"{self.rng.choice(['Left', 'Right'])} {site}"}],
            performedDateTime=self._past(),
        )
        yield self._make(
            "Procedure",
            status="not-done",
            code={"text": self.rng.choice(NOT_DONE)},
            statusReason={"text": self.rng.choice(REASONS)},
        )
        yield self._make(
            "Device",
            status="active",
            type={"text": self.rng.choice(DEVICES)},
            serialNumber=str(self.rng.randrange(10**7, 10**8)),
        )

    def orders(self) -> Iterator[dict[str, Any]]:
        yield self._make(
            "ServiceRequest",
            status="active",
            intent="plan",
            code={"text": self.rng.choice(PLANNED)},
            authoredOn=self.day.isoformat(),
            occurrenceDateTime=(self.day + timedelta(days=self.rng.randrange(10, 90))).isoformat(),
        )
        for pair, status in zip(
            self.rng.sample(LOOK_ALIKES, 3), ("active", "active", "stopped"), strict=True
        ):
            repeat = {"frequency": self.rng.choice([1, 2, 3]), "period": 1, "periodUnit": "d"}
            yield self._make(
                "MedicationRequest",
                status=status,
                intent="order",
                medicationCodeableConcept={"text": self.rng.choice(pair)},
                authoredOn=self._past(),
                dosageInstruction=[{"timing": {"repeat": repeat}, "asNeededBoolean": False}],
            )

    def reports(self) -> Iterator[dict[str, Any]]:
        for title, finding in self.rng.sample(CONCLUSIONS, 2):
            yield self._make(
                "DiagnosticReport",
                status="final",
                code={"text": title},
                effectiveDateTime=self._past(),
                conclusion=finding,
            )


def _coded(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": f"http://terminology.hl7.org/CodeSystem/{system}", "code": code}]}
