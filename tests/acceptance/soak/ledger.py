"""What is on the FHIR server at the end, by plain GETs, and whether the stores agree."""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from service.ports import ATTESTED_SYSTEM, DOCUMENT_SYSTEM, DocumentState, Standing
from service.wiring import open_admissions, open_store
from tests.acceptance.soak.moments import Queue
from tests.acceptance.soak.stage import Stage
from tests.acceptance.soak.wards import Wards

Resource = dict[str, Any]


@dataclass
class Ledger:
    """What was found. All lists are empty after a night that lost and doubled nothing."""

    admissions: int = 0
    drafts: int = 0
    attested: int = 0
    documents: int = 0
    lost: list[str] = field(default_factory=list)
    """Admissions without a draft of their last state."""
    doubled: list[str] = field(default_factory=list)
    """Admissions with several drafts, and run keys with several documents."""
    left_behind: list[str] = field(default_factory=list)
    """Drafts of stays that are over."""
    unproven: list[str] = field(default_factory=list)
    """Drafts with none or several Provenances."""
    stores: list[str] = field(default_factory=list)
    """Where our stores say something else."""

    @property
    def faults(self) -> list[str]:
        """Everything that is wrong."""
        return [*self.lost, *self.doubled, *self.left_behind, *self.unproven, *self.stores]


def take(stage: Stage, wards: Wards) -> Ledger:
    """Look through the server and the stores."""
    ledger = Ledger(admissions=len(wards.present))
    documents = [one for one in stage.everything("DocumentReference") if "docStatus" in one]
    ledger.documents = len(documents)
    keys = Counter(key for one in documents if (key := _identifier(one, DOCUMENT_SYSTEM)))
    ledger.doubled += [f"run key {key[:8]}: {count} documents" for key, count in keys.items() if count > 1]
    current: dict[str, list[Resource]] = defaultdict(list)
    for one in documents:
        if one["status"] == "current":
            current[one["subject"]["reference"]].append(one)
    proofs = Counter(
        target["reference"] for one in stage.everything("Provenance") for target in one["target"]
    )
    known = _known(stage)
    for number, stay in wards.stays.items():
        found = current.get(stay.patient, [])
        drafts = [one for one in found if one["docStatus"] == "preliminary"]
        ledger.attested += sum(bool(_identifier(one, ATTESTED_SYSTEM)) for one in found)
        if number in wards.left:
            ledger.left_behind += [f"stay {number} is over: {one['id']}" for one in drafts]
        else:
            ledger.drafts += len(drafts)
            _check(ledger, number, drafts, wards.told.get(number, []), proofs)
            ledger.stores += _disagreements(number, stay.encounter, drafts, known)
    left = _queue(stage).left()
    ledger.stores += [f"left in the queue: a {name}" for name, status in left if status == "PENDING"]
    return ledger


def whole_drafts(stage: Stage, wards: Wards) -> list[tuple[int, str]]:
    """Return (number of the stay, reference) of the drafts that tell the last state of a chart."""
    number_of = {wards.stays[number].patient: number for number in wards.present}
    return [
        (number, f"DocumentReference/{one['id']}")
        for one in stage.everything("DocumentReference")
        if (one["status"], one.get("docStatus")) == ("current", "preliminary")
        and (number := number_of.get(one["subject"]["reference"])) is not None
        and all(name in _text(one) for name in wards.told.get(number, []))
    ]


def _check(
    ledger: Ledger, number: int, drafts: Sequence[Resource], told: Sequence[str], proofs: Counter[str]
) -> None:
    whole = [one for one in drafts if all(name in _text(one) for name in told)]
    if not whole:
        ledger.lost.append(
            f"stay {number}: {len(drafts)} drafts, none of its last state ({len(told)} changes)"
        )
    if len(drafts) > 1:
        ledger.doubled.append(f"stay {number}: {len(drafts)} drafts")
    for one in drafts:
        count = sum(n for target, n in proofs.items() if target.startswith(f"DocumentReference/{one['id']}/"))
        if count != 1:
            ledger.unproven.append(f"stay {number}: {count} Provenances of {one['id']}")


def _text(document: Resource) -> str:
    data = (one["attachment"].get("data", "") for one in document["content"])
    return " ".join(base64.b64decode(one).decode(errors="replace") for one in data)


def _identifier(document: Resource, system: str) -> str:
    found = (one["value"] for one in document.get("identifier", ()) if one.get("system") == system)
    return str(next(found, ""))


def _queue(stage: Stage) -> Queue:
    return Queue(stage.folder / "home", stage.database_url)


@dataclass
class _Known:
    standing: dict[str, tuple[Standing, str]]
    drafts: dict[str, list[tuple[str, str]]]
    """Encounter → (document, run) of each draft."""


def _known(stage: Stage) -> _Known:
    settings = stage.settings()
    with open_admissions(settings) as store:
        standing = {one.encounter: (one.standing, one.run_id) for one in store.admissions(stage.base)}
    runs, audit = open_store(settings)
    drafts: dict[str, list[tuple[str, str]]] = defaultdict(list)
    try:
        for row in runs.drafts():
            assert row.state is DocumentState.DRAFT
            drafts[row.encounter].append((row.document, row.run_id))
    finally:
        runs.close()
        audit.close()
    return _Known(standing, drafts)


def _disagreements(number: int, encounter: str, drafts: Sequence[Resource], known: _Known) -> list[str]:
    standing, run_id = known.standing.get(encounter, (None, ""))
    ours = known.drafts.get(encounter, [])
    wrong = []
    if standing is not Standing.FRESH:
        wrong.append(f"stay {number} stands as {standing}")
    if sorted(document for document, _ in ours) != sorted(f"DocumentReference/{d['id']}" for d in drafts):
        wrong.append(f"stay {number}: the store knows {len(ours)} drafts, the server {len(drafts)}")
    if [run for _, run in ours] != [run_id]:
        wrong.append(f"stay {number}: the admission names another run than its draft")
    return wrong
