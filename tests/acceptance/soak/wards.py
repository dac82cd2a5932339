"""What happens on the wards meanwhile: patients come and go, and their charts change in what must be told."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from fixtures.inpatients import ADMITTED_ON, Resource, Stay, new_allergy, stay_of, tiny_chart
from tests.acceptance.soak.stage import Stage

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_KIND = "http://terminology.hl7.org/CodeSystem"


def name_of(number: int, change: int) -> str:
    """Return a name that no other change has, of letters alone."""
    return (
        "zor" + "".join(_LETTERS[n] for n in (number // 26, number % 26, change // 26, change % 26)) + "ine"
    )


def change_of(stay: Stay, number: int, change: int) -> Resource:
    """Return a resource that says something new which every summary must tell."""
    name, kind = name_of(number, change), change % 3
    if kind == 0:
        return {**new_allergy(stay, name), "id": f"more-{number}-{change}"}
    about = {"subject": {"reference": stay.patient}, "encounter": {"reference": stay.encounter}}
    if kind == 1:
        return {
            "resourceType": "Condition", "id": f"more-{number}-{change}", **about,
            "clinicalStatus": _coded("condition-clinical", "active"),
            "verificationStatus": _coded("condition-ver-status", "confirmed"),
            "category": [_coded("condition-category", "problem-list-item")],
            "code": {"text": name}, "recordedDate": f"{ADMITTED_ON}",
        }  # fmt: skip
    return {
        "resourceType": "MedicationRequest", "id": f"more-{number}-{change}", **about,
        "status": "active", "intent": "order", "medicationCodeableConcept": {"text": name},
        "authoredOn": f"{ADMITTED_ON + timedelta(days=1)}T09:00:00Z",
        "dosageInstruction": [{"text": "10 mg by mouth once daily"}],
    }  # fmt: skip


def _coded(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": f"{_KIND}/{system}", "code": code}]}


@dataclass
class Wards:
    """Everybody who is or was there. What `told` names, the last draft must tell."""

    stage: Stage
    stays: dict[int, Stay]
    seed: int
    pause_s: float = 1.0
    most: int = 60
    """Patients at most, those who left too."""
    told: dict[int, list[str]] = field(default_factory=dict)
    left: set[int] = field(default_factory=set)
    kept: set[int] = field(default_factory=set)
    """Who is not discharged: those whose draft was attested."""
    acts: Counter[str] = field(default_factory=Counter)
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._lock = threading.RLock()

    @property
    def present(self) -> list[int]:
        """Whose stay goes on."""
        return [number for number in self.stays if number not in self.left]

    def begin(self) -> None:
        """Let it go on in a thread."""
        self._thread.start()

    def end(self) -> None:
        """Let nothing more happen; raises what went wrong."""
        self._stop.set()
        self._thread.join(120)
        if self.failure is not None:
            raise self.failure

    def _live(self) -> None:
        try:
            while not self._stop.wait(self.pause_s * self._dice.uniform(0.5, 1.5)):
                with self._lock:
                    self.act()
        except BaseException as error:
            self.failure = error

    def act(self) -> None:
        """Let one thing happen."""
        dice = self._dice.random()
        if dice < 0.12 and len(self.stays) < self.most:
            self.admit(max(self.stays) + 1)
        elif dice < 0.2 and len(self.present) > len(self.kept) + 4:
            self.discharge(self._dice.choice([one for one in self.present if one not in self.kept]))
        else:
            self.change(self._dice.choice(self.present), moves=dice < 0.8)

    def change(self, number: int, *, moves: bool = True) -> None:
        """Let a chart say something new; of one who moves, the workers hear by their next look."""
        count = len(self.told.setdefault(number, []))
        self.stage.put(change_of(self.stays[number], number, count))
        self.told[number].append(name_of(number, count))
        if moves:
            self._put_stay(number, bed=count)
        self.acts["changes that are heard of" if moves else "changes that a sweep finds"] += 1

    def admit(self, number: int) -> None:
        """Let somebody come."""
        for resource in tiny_chart(number):
            self.stage.put(resource)
        self.stays[number] = stay_of(tiny_chart(number))
        self.acts["admitted"] += 1

    def discharge(self, number: int) -> None:
        """Let somebody go."""
        self.left.add(number)
        self._put_stay(number, status="finished")
        self.acts["discharged"] += 1

    def keep(self, number: int) -> None:
        """See that somebody stays whose draft was attested, and that the chart changes once more."""
        with self._lock:
            self.kept.add(number)
            self.change(number)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let nothing else happen meanwhile."""
        with self._lock:
            yield

    def _put_stay(self, number: int, *, status: str = "in-progress", bed: int = 0) -> None:
        stay = next(one for one in tiny_chart(number) if one["resourceType"] == "Encounter")
        stay["status"] = status
        stay["location"] = [{"location": {"reference": f"Location/ward-{bed % 8 + 1}"}, "status": "active"}]
        if status == "finished":
            stay["period"]["end"] = f"{ADMITTED_ON + timedelta(days=8)}T10:00:00Z"
        self.stage.put(stay)
