"""A launch: an answer that is not the one asked for is refused, and nobody comes in by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from connectors.errors import BadUrl, ConnectorError, NotUnderstoodError
from service.ehrs import Ehr
from service.errors import SettingsError
from service.identity.launch import roles_of
from service.identity.refusal import Reason, Refused
from service.identity.visitor import Role
from service.store.cipher import Cipher
from tests.conftest import CANARY
from tests.unit.identity.ehr import (
    CALLBACK,
    CONFIGURATION,
    EHR,
    HOST,
    IDLE,
    ISS,
    LOGIN,
    LONGEST,
    PATIENT,
    SCOPE,
    Launching,
    signed,
)
from tests.unit.identity.issuer import NOW, forged, jwks, new_key, signed_with_the_public_key, unsigned

OTHER = Ehr(name="other", title="Other", iss="https://other.example/fhir", client_id="other", scope=SCOPE)


@pytest.fixture
def cipher(tmp_path: Path) -> Cipher:
    return Cipher.from_file(tmp_path / "key")


@pytest.fixture
def site(cipher: Cipher) -> Launching:
    return Launching(cipher)


def query_of(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


async def why(site: Launching, browser: str, answer: Mapping[str, str]) -> Reason:
    with pytest.raises(Refused) as refused:
        await site.launches.finish(browser, answer)
    assert CANARY not in str(refused.value) + repr(refused.value)
    return refused.value.reason


async def why_not(site: Launching, **more: str) -> Reason:
    browser, address = await site.begin()
    return await why(site, browser, {**site.ehr.authorize(address), **more})


async def test_a_launch_opens_the_patient_that_the_ehr_names_for_the_user_that_it_vouches_for(
    site: Launching,
) -> None:
    browser, launch = await site.opened(iss=LOGIN)
    assert launch.patient == f"Patient/{PATIENT}"
    assert launch.encounter == "Encounter/e-9"
    assert launch.server == ISS
    assert launch.ehr == "general"
    assert launch.fhir_user == "Practitioner/roe"
    assert launch.actor.startswith("user:")
    assert "sub-7" not in launch.actor
    assert launch.scope == " ".join(sorted(SCOPE.split()))
    assert not launch.needs_banner
    assert launch.messaging == ("handle", HOST)
    assert launch.tokens.access == "access-1"
    assert launch.tokens.expires_at == site.now + timedelta(seconds=300)
    assert await site.launches.find(browser, launch.visit) == launch
    assert site.launches.visitor_of(launch).roles == {Role.CLINICIAN}


async def test_nothing_secret_shows(site: Launching) -> None:
    _, launch = await site.opened()
    shown = repr(launch) + repr(launch.tokens)
    for secret in ("access-1", "refresh-1", CANARY, "e-9", "roe", "handle"):
        assert secret not in shown


async def test_the_ehr_is_asked_with_pkce_state_nonce_audience_and_launch(site: Launching) -> None:
    asked = [query_of((await site.begin())[1]) for _ in range(2)]
    for one in asked:
        assert one["code_challenge_method"] == "S256"
        assert one["response_type"] == "code"
        assert one["aud"] == ISS
        assert one["launch"] == "xyz"
        assert one["scope"] == SCOPE
        assert one["redirect_uri"] == CALLBACK
    for name in ("state", "nonce", "code_challenge"):
        assert asked[0][name] != asked[1][name]
        assert len(asked[0][name]) >= 43


async def test_without_a_launch_the_user_chooses_the_patient_at_the_ehr(site: Launching) -> None:
    asked = query_of((await site.begin(launch=""))[1])
    assert "launch" not in asked
    assert asked["scope"] == "launch/patient openid fhirUser offline_access patient/*.rs"


@pytest.mark.parametrize(
    "iss",
    [
        "https://evil.example/fhir/R4",
        "https://ehr.hospital.example.evil.example/fhir/R4",
        "https://ehr.hospital.example@evil.example/fhir/R4",
        "https://ehr.hospital.example/fhir/R4/../R5",
        "https://ehr.hospital.example/fhir/R4/%2e%2e/R5",
        "https://ehr.hospital.example/fhir/r4",
        "https://ehr.hospital.example/fhir/R4x",
        "https://ehr.hospital.example/fhir/R4/x",
        "https://ehr.hospital.example/fhir",
        "https://ehr.hospital.example/fhir/R4?x=1",
        "https://ehr.hospital.example/fhir/R4#x",
        "https://ehr.hospital.example/fhir//R4",
        "https://ehr.hospital.example/fhir/R4//",
        "https://ehr.hospital.example\\.evil.example/fhir/R4",
        "https://ehr.hospital.example:444/fhir/R4",
        "http://ehr.hospital.example/fhir/R4",
        "https://ehr.hospital.example/fhir/R4\n",
        " https://ehr.hospital.example/fhir/R4",
        "//ehr.hospital.example/fhir/R4",
        "https://ehr.hospital.example",
        "javascript:alert(1)",
        "x",
        "",
    ],
)
async def test_an_ehr_that_is_not_configured_launches_nothing_and_is_not_asked(
    site: Launching, iss: str
) -> None:
    with pytest.raises(Refused) as refused:
        await site.launches.begin(iss, "xyz", CALLBACK)
    assert refused.value.reason is Reason.ISSUER
    assert site.ehr.asked == []


@pytest.mark.parametrize("iss", [f"{ISS}/", "HTTPS://EHR.hospital.example:443/fhir/R4"])
async def test_the_same_server_written_otherwise_is_the_same(site: Launching, iss: str) -> None:
    begun = await site.launches.begin(iss, "xyz", CALLBACK)
    assert begun.ehr == EHR
    assert query_of(begun.address)["aud"] == iss


@pytest.mark.parametrize("launch", ["x" * 4097, "a\nb", "é"])
async def test_a_launch_that_no_ehr_writes_is_refused(site: Launching, launch: str) -> None:
    with pytest.raises(Refused) as refused:
        await site.launches.begin(ISS, launch, CALLBACK)
    assert refused.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"state": "x" * 43}, Reason.STATE),
        ({"state": ""}, Reason.STATE),
        ({"iss": "https://evil.example"}, Reason.ISSUER),
        ({"iss": ""}, Reason.ISSUER),
        ({"error": "access_denied"}, Reason.DECLINED),
        ({"code": ""}, Reason.DECLINED),
        ({"code": "code-2"}, Reason.CODE),
    ],
)
async def test_an_answer_that_is_not_the_one_asked_for_is_refused(
    site: Launching, more: dict[str, str], reason: Reason
) -> None:
    assert await why_not(site, **more) is reason


async def test_an_answer_counts_once_for_one_browser_and_ten_minutes(site: Launching) -> None:
    browser, address = await site.begin()
    answer = site.ehr.authorize(address)
    other, _ = await site.begin()
    assert await why(site, other, answer) is Reason.STATE
    assert await why(site, "", answer) is Reason.STATE
    await site.launches.finish(browser, answer)
    assert await why(site, browser, answer) is Reason.STATE
    browser, address = await site.begin()
    site.now += timedelta(minutes=10, seconds=1)
    assert await why(site, browser, site.ehr.authorize(address)) is Reason.STATE


async def test_a_failed_answer_uses_the_attempt_up(site: Launching) -> None:
    browser, address = await site.begin()
    answer = site.ehr.authorize(address)
    assert await why(site, browser, {**answer, "iss": "https://evil.example"}) is Reason.ISSUER
    assert await why(site, browser, answer) is Reason.STATE


async def test_a_server_that_always_says_who_answers_must_do_so(cipher: Cipher) -> None:
    site = Launching(cipher)
    assert site.ehr.configuration is not None
    site.ehr.configuration["authorization_response_iss_parameter_supported"] = True
    assert await why_not(site) is Reason.ISSUER
    await site.opened(iss=LOGIN)


async def test_the_answer_of_one_ehr_is_not_taken_to_another(cipher: Cipher) -> None:
    """A mix-up: a code goes to the token endpoint of the EHR that was asked, whatever the browser brings."""
    site = Launching(cipher, others=(replace(OTHER, allowed_origins=("https://evil.example",)),))
    browser, address = await site.begin()
    await site.launches.finish(browser, {**site.ehr.authorize(address), "ehr": "other"})
    assert {urlsplit(one).netloc for one in site.ehr.addresses} == {
        "ehr.hospital.example", "login.hospital.example",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"nonce": "another"}, Reason.NONCE),
        ({"nonce": None}, Reason.NONCE),
        ({"aud": "other-app"}, Reason.AUDIENCE),
        ({"aud": None}, Reason.AUDIENCE),
        ({"azp": "other-app"}, Reason.PARTY),
        ({"aud": ["epicrisis", "other"]}, Reason.PARTY),
        ({"iss": "https://evil.example"}, Reason.ISSUER),
        ({"iss": ISS}, Reason.ISSUER),
        ({"exp": NOW - 61}, Reason.EXPIRED),
        ({"exp": None}, Reason.EXPIRED),
        ({"iat": NOW + 61}, Reason.NOT_YET),
        ({"sub": None}, Reason.SUBJECT),
        ({"sub": "x" * 256}, Reason.SUBJECT),
        ({"fhirUser": f"{ISS}/Patient/{PATIENT}"}, Reason.PATIENT),
        ({"fhirUser": "Patient/1"}, Reason.PATIENT),
        ({"fhirUser": "https://other.example/RelatedPerson/1"}, Reason.PATIENT),
        ({"fhirUser": "Person/1"}, Reason.ROLE),
        ({"fhirUser": "x"}, Reason.ROLE),
        ({"fhirUser": 7}, Reason.ROLE),
        ({"fhirUser": None}, Reason.ROLE),
    ],
)
async def test_an_id_token_that_is_not_for_this_launch_or_not_of_staff_is_refused(
    site: Launching, claims: dict[str, Any], reason: Reason
) -> None:
    site.ehr.claims = claims
    assert await why_not(site) is reason
    assert site.ehr.revoked == ["refresh-1", "access-1"]


@pytest.mark.parametrize(
    ("sign", "reason"),
    [
        (unsigned, Reason.ALGORITHM),
        (signed_with_the_public_key, Reason.ALGORITHM),
        (forged, Reason.SIGNATURE),
        (lambda claims: signed(claims)[:-4] + "AAAA", Reason.SIGNATURE),
        (lambda claims: "x", Reason.MALFORMED),
        (lambda claims: None, Reason.SUBJECT),
    ],
)
async def test_an_id_token_that_the_ehr_did_not_sign_is_refused(
    site: Launching, sign: Any, reason: Reason
) -> None:
    site.ehr.sign = sign
    assert await why_not(site) is reason


async def test_an_id_token_of_an_unknown_key_is_refused(site: Launching) -> None:
    site.ehr.keys = jwks(other=new_key("P-384"))
    assert await why_not(site) is Reason.UNKNOWN_KEY


async def test_who_the_user_is_comes_from_the_validated_token_alone(site: Launching) -> None:
    site.ehr.claims = {"fhirUser": "Patient/1"}
    site.ehr.said = {"fhirUser": "Practitioner/roe", "profile": "Practitioner/roe"}
    assert await why_not(site) is Reason.PATIENT


@pytest.mark.parametrize(
    ("claim", "wanted"),
    [
        (f"{ISS}/Practitioner/roe", "Practitioner/roe"),
        (f"{ISS}/Practitioner/roe/_history/3", "Practitioner/roe"),
        ("PractitionerRole/roe", "PractitionerRole/roe"),
        ("https://directory.example/fhir/Practitioner/roe", ""),
    ],
)
async def test_a_user_is_named_only_where_the_chart_s_own_server_knows_them(
    site: Launching, claim: str, wanted: str
) -> None:
    site.ehr.claims = {"fhirUser": claim}
    assert (await site.opened())[1].fhir_user == wanted


@pytest.mark.parametrize("patient", [None, "", "a/b", "x" * 65, 7, "Patient/", f"Group/{PATIENT}"])
async def test_a_launch_without_a_patient_is_refused_and_its_tokens_taken_back(
    site: Launching, patient: Any
) -> None:
    site.ehr.said = {"patient": patient}
    assert await why_not(site) is Reason.NO_PATIENT
    assert site.ehr.revoked == ["refresh-1", "access-1"]


@pytest.mark.parametrize(
    "said",
    [
        {"access_token": None},
        {"access_token": ""},
        {"access_token": "a b"},
        {"access_token": "a\nb"},
        {"access_token": "x" * 20_000},
        {"token_type": "mac"},
        {"scope": 7},
        {"scope": "é"},
        {"scope": "x" * 9_000},
    ],
)
async def test_an_answer_without_a_token_that_can_be_used_is_refused(
    site: Launching, said: dict[str, Any]
) -> None:
    site.ehr.said = said
    assert await why_not(site) is Reason.CODE


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_code_that_the_ehr_does_not_take_is_refused(site: Launching, status: int) -> None:
    site.ehr.refuses = status
    assert await why_not(site) is Reason.CODE


async def test_an_ehr_that_does_not_answer_is_an_error_and_no_refusal(site: Launching) -> None:
    site.ehr.down = True
    with pytest.raises(ConnectorError):
        await site.begin()
    site.ehr.down = False
    browser, address = await site.begin()
    site.ehr.down = True
    with pytest.raises(ConnectorError):
        await site.launches.finish(browser, site.ehr.authorize(address))


async def test_messages_go_to_nobody_but_the_pages_that_may_frame_us(site: Launching) -> None:
    for origin in ("https://evil.example", f"{HOST}/path", "*", "null", 7, None):
        site.ehr.said = {"smart_web_messaging_origin": origin}
        assert (await site.opened())[1].messaging == ("", "")
    site.ehr.said = {"smart_web_messaging_handle": None}
    assert (await site.opened())[1].messaging == ("", "")


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"appContext": '{"run": "7", "n": 1}'}, {"run": "7"}),
        ({"appContext": {"run": "7"}}, {"run": "7"}),
        ({"appContext": "not json"}, {}),
        ({"appContext": "[1]"}, {}),
        ({"appContext": {"run": "x" * 500}}, {}),
        ({"appContext": {str(n): "x" for n in range(21)}}, {}),
        ({"appContext": 7}, {}),
        ({}, {}),
    ],
)
async def test_what_a_card_passed_on_is_texts_or_nothing(
    site: Launching, said: dict[str, Any], wanted: dict[str, str]
) -> None:
    site.ehr.said = said
    assert (await site.opened())[1].context == wanted


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"encounter": "Encounter/e-1"}, "Encounter/e-1"),
        ({"encounter": None}, ""),
        ({"encounter": "a b"}, ""),
        ({"encounter": None, "fhirContext": [{"reference": "Encounter/e-2"}]}, "Encounter/e-2"),
        ({"encounter": None, "fhirContext": [{"reference": "ImagingStudy/1"}]}, ""),
        (
            {
                "encounter": None,
                "fhirContext": [{"reference": "Encounter/1"}, {"reference": "Encounter/2"}],
            },
            "",
        ),
        ({"encounter": None, "fhirContext": "x"}, ""),
    ],
)
async def test_the_encounter_is_the_one_that_is_open_or_none(
    site: Launching, said: dict[str, Any], wanted: str
) -> None:
    site.ehr.said = {**said, "intent": "order-review"}
    assert (await site.opened())[1].encounter == wanted


async def test_whoever_is_granted_less_has_another_access_profile(site: Launching) -> None:
    _, whole = await site.opened()
    site.ehr.said = {"scope": "openid fhirUser patient/Condition.rs"}
    _, less = await site.opened()
    site.ehr.said = {"scope": " ".join(reversed(SCOPE.split()))}
    _, same = await site.opened()
    site.ehr.said = {}
    site.ehr.claims = {"sub": "sub-8"}
    _, other = await site.opened()
    assert whole.access_profile == same.access_profile
    assert len({whole.access_profile, less.access_profile, other.access_profile}) == 3
    assert whole.access_profile.startswith("user:")


async def test_an_answer_that_names_no_scope_grants_what_was_asked_for(site: Launching) -> None:
    site.ehr.said = {"scope": None}
    assert (await site.opened())[1].scope == SCOPE


async def test_a_page_names_its_launch_so_that_two_tabs_stay_on_their_patients(site: Launching) -> None:
    browser, first = await site.opened()
    site.ehr.said = {"patient": "other"}
    site.now += timedelta(seconds=1)
    same, second = await site.opened(browser)
    assert same == browser
    for _ in range(2):
        for one in (first, second):
            assert await site.launches.find(browser, one.visit) == one
    assert await site.launches.find(browser) == second


async def test_the_launch_of_another_browser_is_refused(site: Launching) -> None:
    mine, launch = await site.opened()
    other, _ = await site.opened()
    with pytest.raises(Refused) as refused:
        await site.launches.find(other, launch.visit)
    assert refused.value.reason is Reason.BROWSER
    for browser, visit in ((mine, "x"), (mine, "A" * 22), ("", launch.visit), ("é" * 43, launch.visit)):
        assert await site.launches.find(browser, visit) is None


async def test_a_launch_is_over_when_nobody_used_it_or_after_its_longest_time(site: Launching) -> None:
    browser, launch = await site.opened()
    site.now += IDLE - timedelta(seconds=1)
    assert await site.launches.find(browser, launch.visit) is not None
    site.now += IDLE - timedelta(seconds=1)
    assert await site.launches.find(browser, launch.visit) is not None
    site.now += IDLE
    assert await site.launches.find(browser, launch.visit) is None
    assert await site.launches.find(browser) is None
    browser, launch = await site.opened()
    start = site.now
    while site.now < start + LONGEST - timedelta(minutes=20):
        site.now += timedelta(minutes=20)
        assert await site.launches.find(browser, launch.visit) is not None
    site.now = start + LONGEST
    assert await site.launches.find(browser, launch.visit) is None


async def test_who_leaves_leaves_with_everything_of_this_browser_and_its_tokens(site: Launching) -> None:
    browser, first = await site.opened()
    _, second = await site.opened(browser)
    other, third = await site.opened()
    await site.launches.end(browser)
    for one in (first, second):
        assert await site.launches.find(browser, one.visit) is None
    assert await site.launches.find(other, third.visit) == third
    assert set(site.ehr.revoked) == {"refresh-1", "access-1", "refresh-2", "access-2"}


async def test_who_leaves_is_gone_also_where_the_ehr_does_not_answer_or_takes_nothing_back(
    site: Launching,
) -> None:
    browser, launch = await site.opened()
    site.ehr.down = True
    await site.launches.end(browser)
    assert await site.launches.find(browser, launch.visit) is None
    without = Launching(site.cipher)
    without.ehr.configuration = {**CONFIGURATION, "revocation_endpoint": None}
    browser, launch = await without.opened()
    await without.launches.end(browser)
    assert await without.launches.find(browser, launch.visit) is None
    assert without.ehr.revoked == []


async def test_another_user_of_the_same_browser_finds_nothing_of_the_one_before(site: Launching) -> None:
    browser, launch = await site.opened()
    site.ehr.claims = {"sub": "somebody-else"}
    newer, theirs = await site.opened(browser)
    assert newer != browser
    assert await site.launches.find(browser, launch.visit) is None
    assert await site.launches.find(newer, theirs.visit) == theirs
    assert set(site.ehr.revoked) == {"refresh-1", "access-1"}


async def test_the_launches_of_an_ehr_that_is_no_longer_configured_are_over(cipher: Cipher) -> None:
    site = Launching(cipher)
    browser, launch = await site.opened()
    without = Launching(cipher, config=OTHER, store=site.store)
    assert await without.launches.find(browser, launch.visit) is None
    moved = Launching(cipher, config=replace(EHR, iss="https://new.example/fhir"), store=site.store)
    assert await moved.launches.find(browser, launch.visit) is None


@pytest.mark.parametrize(
    "change",
    [
        {"token_endpoint": "https://evil.example/token"},
        {"authorization_endpoint": "https://evil.example/authorize"},
        {"jwks_uri": "https://evil.example/jwks"},
        {"revocation_endpoint": "https://evil.example/revoke"},
        {"token_endpoint": "http://login.hospital.example/token"},
        {"authorization_endpoint": "http://127.0.0.1/authorize"},
        {"authorization_endpoint": "https://me@login.hospital.example/authorize"},
        {"authorization_endpoint": "https://login.hospital.example/authorize#x"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "//login.hospital.example/authorize"},
    ],
)
async def test_an_endpoint_elsewhere_or_in_the_open_is_not_used(
    cipher: Cipher, change: dict[str, Any]
) -> None:
    site = Launching(cipher)
    site.ehr.configuration = {**CONFIGURATION, **change}
    with pytest.raises(BadUrl):
        await site.begin()


async def test_an_ehr_without_s256_is_not_used(cipher: Cipher) -> None:
    site = Launching(cipher)
    site.ehr.configuration = {**CONFIGURATION, "code_challenge_methods_supported": ["plain"]}
    with pytest.raises(NotUnderstoodError, match="PKCE"):
        await site.begin()


def statement(**uris: str) -> dict[str, Any]:
    inner = [{"url": name, "valueUri": url} for name, url in uris.items()]
    outer = {
        "url": "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris",
        "extension": inner,
    }
    return {"resourceType": "CapabilityStatement", "rest": [{"security": {"extension": [outer]}}]}


async def test_a_server_of_smart_1_says_it_in_its_capability_statement(cipher: Cipher) -> None:
    site = Launching(cipher)
    site.ehr.configuration = None
    site.ehr.statement = statement(authorize=f"{LOGIN}/authorize", token=f"{LOGIN}/token")
    site.ehr.openid = {"issuer": ISS, "jwks_uri": f"{LOGIN}/jwks"}
    site.ehr.claims = {"iss": ISS}
    _, address = await site.begin()
    assert query_of(address)["scope"] == "launch openid fhirUser offline_access patient/*.read"
    _, launch = await site.opened()
    assert launch.fhir_user == "Practitioner/roe"


async def test_an_issuer_that_only_the_site_knows_is_configured(cipher: Cipher) -> None:
    site = Launching(cipher, config=replace(EHR, issuer=LOGIN))
    site.ehr.configuration = None
    site.ehr.statement = statement(authorize=f"{LOGIN}/authorize", token=f"{LOGIN}/token")
    site.ehr.openid = {"issuer": LOGIN, "jwks_uri": f"{LOGIN}/jwks"}
    assert (await site.opened())[1].fhir_user == "Practitioner/roe"


@pytest.mark.parametrize(
    "openid",
    [
        {"issuer": "https://evil.example", "jwks_uri": f"{LOGIN}/jwks"},
        {"issuer": ISS, "jwks_uri": "https://evil.example/jwks"},
        {"issuer": ISS},
        [],
    ],
)
async def test_keys_of_another_issuer_or_elsewhere_are_not_taken(cipher: Cipher, openid: Any) -> None:
    site = Launching(cipher)
    site.ehr.configuration = None
    site.ehr.statement = statement(authorize=f"{LOGIN}/authorize", token=f"{LOGIN}/token")
    site.ehr.openid = openid
    site.ehr.claims = {"iss": ISS}
    browser, address = await site.begin()
    with pytest.raises(ConnectorError):
        await site.launches.finish(browser, site.ehr.authorize(address))


@pytest.mark.parametrize("found", [{}, statement(token=f"{LOGIN}/token"), {"rest": "x"}])
async def test_a_server_that_says_nothing_is_an_error(cipher: Cipher, found: dict[str, Any]) -> None:
    site = Launching(cipher)
    site.ehr.configuration = None
    site.ehr.statement = found
    with pytest.raises(NotUnderstoodError, match="does not say"):
        await site.begin()


def test_a_role_that_does_not_exist_is_named_with_its_ehr() -> None:
    with pytest.raises(SettingsError, match=r"roles \(ehr general\)"):
        roles_of(replace(EHR, roles=("boss",)))
