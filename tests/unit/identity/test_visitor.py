from __future__ import annotations

from typing import Any

import pytest

from service.errors import SettingsError
from service.identity.refusal import Reason, Refused
from service.identity.visitor import Register, Role, claimed, parse_roles, split_fhir_user
from tests.conftest import CANARY

EHR = "https://ehr.example.org/fhir"
REGISTER = Register(
    "https://login.example",
    "groups",
    parse_roles({"ward-doctors": "clinician", "quality": "reviewer", "it": "admin"}),
    lambda purpose, value: f"{purpose}:{value}".encode().hex().rjust(64, "0"),
    EHR + "/",
)


def person(**claims: Any) -> dict[str, Any]:
    return {"sub": "7", "groups": ["ward-doctors"], **claims}


def why(**claims: Any) -> Reason:
    with pytest.raises(Refused) as refused:
        REGISTER.person(person(**claims))
    return refused.value.reason


def test_roles_come_from_the_sites_own_map_and_from_nothing_else() -> None:
    visitor = REGISTER.person(person(groups=["quality", "ward-doctors", "choir", 7, None]))
    assert visitor.roles == {Role.CLINICIAN, Role.REVIEWER}


@pytest.mark.parametrize(
    "groups", [[], None, "choir", ["admin", "Clinician"], {"it": True}, 5, [["it"]], "it,"]
)
def test_who_has_no_role_is_nobody(groups: Any) -> None:
    assert why(groups=groups) is Reason.ROLE
    with pytest.raises(Refused):
        REGISTER.bearer(person(groups=groups))


@pytest.mark.parametrize("subject", [None, "", 7, "x" * 256])
def test_who_has_no_subject_is_nobody(subject: Any) -> None:
    assert why(sub=subject) is Reason.SUBJECT


def test_nobody_is_called_by_name() -> None:
    visitor = REGISTER.person(person(sub=CANARY, name=CANARY, email=f"{CANARY}@x", preferred_username=CANARY))
    assert CANARY not in repr(visitor)
    assert visitor.actor.startswith("user:")
    assert len(visitor.actor) == len("user:") + 32


def test_two_people_and_two_providers_are_told_apart() -> None:
    hashed: list[str] = []

    def note(purpose: str, value: str) -> str:
        hashed.append(value)
        return "0" * 64

    for issuer, subject in (("a", "b"), ("b", "b"), ("a", "c")):
        Register(issuer, "groups", {"it": Role.ADMIN}, note).person({"sub": subject, "groups": "it"})
    assert len(set(hashed)) == 3


@pytest.mark.parametrize(
    ("value", "reference"),
    [
        ("Practitioner/7", "Practitioner/7"),
        (f"{EHR}/Practitioner/7", "Practitioner/7"),
        (f"{EHR}/Practitioner/7/_history/2", "Practitioner/7"),
        ("PractitionerRole/a-b.c", "PractitionerRole/a-b.c"),
        ("https://other.example/fhir/Practitioner/7", ""),
        (f"{EHR}/Device/7", ""),
        ("Practitioner/", ""),
        ("Practitioner/../7", ""),
        ("Practitioner/7?x=1", ""),
        ("Person/7", ""),
        (["Practitioner/7"], ""),
        (None, ""),
    ],
)
def test_only_staff_of_our_own_server_is_named(value: Any, reference: str) -> None:
    assert REGISTER.person(person(fhirUser=value)).fhir_user == reference


@pytest.mark.parametrize(
    "value", ["Patient/7", f"{EHR}/Patient/7", "https://o.example/RelatedPerson/7/_history/1"]
)
def test_patients_and_relatives_are_not_let_in_whatever_their_groups_say(value: str) -> None:
    assert why(fhirUser=value) is Reason.PATIENT


def test_a_service_is_called_by_its_client_id_and_a_delegate_by_whom_it_acts_for() -> None:
    assert REGISTER.bearer(person(sub="night-job", client_id="night-job")).actor == "service:night-job"
    assert REGISTER.bearer(person(sub="night-job", azp="night-job")).actor == "service:night-job"
    assert REGISTER.bearer(person(sub="7", client_id="app")).actor.startswith("user:")
    odd = REGISTER.bearer(person(sub=f"{CANARY} x", client_id=f"{CANARY} x")).actor
    assert odd.startswith("service:")
    assert CANARY not in odd


def test_a_bearer_is_no_browser() -> None:
    assert not REGISTER.bearer(person()).by_cookie
    assert REGISTER.person(person()).by_cookie


def test_claims_are_found_by_name_by_path_and_by_a_name_with_dots() -> None:
    nested = {"realm_access": {"roles": ["a", "b"]}, "https://x.example/roles": ["c"], "scope": "d e"}
    assert claimed(nested, "realm_access.roles") == ["a", "b"]
    assert claimed(nested, "https://x.example/roles") == ["c"]
    assert claimed(nested, "scope") == ["d", "e"]
    assert claimed(nested, "scope.d") == claimed(nested, "nothing") == []


def test_a_role_that_does_not_exist_is_named_before_anybody_signs_in() -> None:
    with pytest.raises(SettingsError, match="EPICRISIS_OIDC_ROLES"):
        parse_roles({"it": "superuser"})


def test_a_reference_is_taken_apart() -> None:
    assert split_fhir_user(f"{EHR}/Practitioner/7") == (EHR, "Practitioner/7")
    assert split_fhir_user("nonsense") == ("", "")
