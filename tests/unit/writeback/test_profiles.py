"""What each kind of server is sent, what is left out for it, and where nothing is filed."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import FilingError, SettingsError
from service.writeback.profiles import PROFILES, adapt, choose_profile, profile_named
from service.writeback.transaction import build_transaction
from tests.unit.writeback.charts import make_run, varied


def bundle_for(name: str, encounter: str = "Encounter/9") -> dict[str, Any]:
    run = make_run()
    object.__setattr__(run.inputs, "encounter", encounter)
    profile = profile_named(name, risk_signed_by="Dr. Roe")
    return build_transaction(run, software_version="0", profile=profile)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_that_loses_what_marks_a_draft_files_nothing_until_that_is_signed(name: str) -> None:
    profile = profile_named(name)
    if not profile.risks:
        build_transaction(make_run(), software_version="0", profile=profile)
        return
    with pytest.raises(FilingError, match="a draft could be taken for a finished document"):
        build_transaction(make_run(), software_version="0", profile=profile)
    build_transaction(make_run(), software_version="0", profile=profile_named(name, risk_signed_by="Dr. Roe"))


def test_which_profiles_lose_what() -> None:
    assert {name: profile.risks for name, profile in PROFILES.items()} == {
        "generic": (),
        "us-core": (),
        "oracle-millennium": ("the AI label",),
        "epic": ("docStatus", "the AI label", "the draft's type"),
        "minimal": ("docStatus", "the AI label"),
    }


@pytest.mark.parametrize("name", ["generic", "us-core"])
def test_a_server_that_takes_all_is_sent_all(name: str) -> None:
    bundle = bundle_for(name)
    adapted = adapt(bundle, profile_named(name))
    assert adapted.bundle == bundle
    assert adapted.dropped == ()


DROPPED = {
    "oracle-millennium": {"Device", "Provenance", "attachment application/json"},
    "epic": {
        "Device",
        "Provenance",
        "attachment application/xhtml+xml",
        "DocumentReference.docStatus",
        "DocumentReference.type: the draft code",
    },
    "minimal": {"Device", "Provenance", "DocumentReference.docStatus", "attachment application/json"},
}


@pytest.mark.parametrize("name", DROPPED)
def test_what_a_server_refuses_is_not_sent_and_is_named(name: str) -> None:
    profile = profile_named(name, risk_signed_by="Dr. Roe")
    adapted = adapt(bundle_for(name), profile)
    assert set(adapted.dropped) >= DROPPED[name]
    assert "DocumentReference.meta.security" in adapted.dropped
    (entry,) = adapted.bundle["entry"]
    document = entry["resource"]
    assert document["resourceType"] == "DocumentReference"
    assert "author" not in document
    assert profile.elements is not None
    assert set(document) <= profile.elements
    assert profile.media_types is not None
    kinds = {c["attachment"]["contentType"].partition(";")[0] for c in document["content"]}
    assert kinds <= profile.media_types
    assert "text/plain" in kinds
    assert entry["request"]["ifNoneExist"]


@pytest.mark.parametrize("name", ["oracle-millennium", "epic"])
def test_a_document_without_an_encounter_is_not_sent_where_one_is_needed(name: str) -> None:
    profile = profile_named(name, risk_signed_by="Dr. Roe")
    bundle = build_transaction(
        varied(make_run(), facts=(), sections=()), software_version="0", profile=profile
    )
    with pytest.raises(FilingError, match="encounter"):
        adapt(bundle, profile)


@pytest.mark.parametrize(
    ("software", "guides", "creates", "name"),
    [
        ("Epic", (), None, "epic"),
        ("Cerner Corporation Millennium", (), None, "oracle-millennium"),
        ("Oracle Health", (), None, "oracle-millennium"),
        ("HAPI FHIR", ("http://hl7.org/fhir/us/core/ImplementationGuide/hl7.fhir.us.core",), None, "us-core"),
        ("HAPI FHIR", (), None, "generic"),
        ("", (), None, "generic"),
        ("small", (), ("DocumentReference",), "minimal"),
        ("large", (), ("DocumentReference", "Device", "Provenance"), "generic"),
    ],
)
def test_a_profile_is_chosen_by_what_the_server_says(
    software: str, guides: tuple[str, ...], creates: tuple[str, ...] | None, name: str
) -> None:
    assert choose_profile(software, guides, creates) == name


def test_an_unknown_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError) as caught:
        profile_named("oracle")
    assert "oracle-millennium" in caught.value.advice
