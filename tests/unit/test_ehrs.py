"""The file of EHRs: what it says, and that every mistake in it is named with its field."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import BadUrl
from service.ehrs import DEFAULT_SCOPE, CdsCaller, Ehr, canonical, is_same_server, read_ehrs
from service.errors import SettingsError
from tests.conftest import ROOT

LEAST = '[[ehr]]\nname = "general"\niss = "https://ehr.example.org/fhir"\nclient_id = "epicrisis"\n'


def read(tmp_path: Path, text: str) -> tuple[Ehr, ...]:
    path = tmp_path / "ehrs.toml"
    path.write_text(text)
    return read_ehrs(path)


def test_the_least_that_an_ehr_needs(tmp_path: Path) -> None:
    (ehr,) = read(tmp_path, LEAST)
    assert ehr == Ehr(
        name="general", title="general", iss="https://ehr.example.org/fhir", client_id="epicrisis"
    )
    assert ehr.scope == DEFAULT_SCOPE
    assert ehr.roles == ("clinician",)
    assert not ehr.files
    assert not ehr.allow_plain_http
    assert ehr.frame_ancestors == ()


def test_the_example_that_we_ship_is_read_whole(tmp_path: Path) -> None:
    (ehr,) = read_ehrs(ROOT / "ops" / "ehrs.toml")
    assert ehr.name == "general"
    assert ehr.files
    assert ehr.origins == {"https://ehr.example.org:443", "https://login.example.org:443"}
    assert ehr.cds == (CdsCaller("https://ehr.example.org", "https://ehr.example.org/jwks.json"),)


def test_several_ehrs_stand_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    found = read(
        tmp_path,
        LEAST + 'client_secret_file = "secret"\n'
        '[[ehr]]\nname = "other"\niss = "https://other.example/r4/"\nclient_id = "e"\nroles = ["reader"]\n',
    )
    assert [ehr.name for ehr in found] == ["general", "other"]
    assert found[0].client_secret_file == tmp_path / "secret"
    assert found[1].iss == "https://other.example/r4"
    assert found[1].roles == ("reader",)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ('titel = "x"', "titel"),
        ("title = 7", "title"),
        ('scope = "openid"', "scope"),
        ('issuer = "http://login.example"', "issuer"),
        ('issuer = "x"', "issuer"),
        ('scope = "fhirUser patient/*.rs"', "scope"),
        ('scope = "openid fhirUser  x"', "scope"),
        ('frame_ancestors = "https://x.example"', "frame_ancestors"),
        ('frame_ancestors = ["https://x.example/path"]', "frame_ancestors"),
        ('frame_ancestors = ["http://x.example"]', "frame_ancestors"),
        ('frame_ancestors = ["https://x.example; script-src *"]', "frame_ancestors"),
        ('frame_ancestors = ["*"]', "frame_ancestors"),
        ('frame_ancestors = ["https://*.example"]', "frame_ancestors"),
        ("frame_ancestors = [7]", "frame_ancestors"),
        ('allowed_origins = ["http://127.0.0.1"]', "allowed_origins"),
        ('allowed_origins = ["https://user@x.example"]', "allowed_origins"),
        ('files = "yes"', "files"),
        ("allow_plain_http = 1", "allow_plain_http"),
        ("roles = []", "roles"),
        ('roles = "clinician"', "roles"),
        ('client_secret_file = "nowhere"', "client_secret_file"),
        ('private_key_file = "nowhere"', "private_key_file"),
        ('client_secret_file = "ehrs.toml"\nprivate_key_file = "ehrs.toml"', "client_secret_file"),
        ("cds = 7", "cds"),
        ('cds = [{iss = "x"}]', "jku"),
        ('cds = [{iss = "x", jku = "http://x.example/jwks"}]', "jku"),
        ('cds = [{iss = "x", jku = "https://x.example/jwks", kid = "1"}]', "kid"),
    ],
)
def test_a_mistake_is_named_with_its_field_and_what_to_do(tmp_path: Path, more: str, field: str) -> None:
    with pytest.raises(SettingsError) as wrong:
        read(tmp_path, LEAST + more)
    assert wrong.value.message.startswith(f"EPICRISIS_EHRS: {field} (ehr general")
    assert wrong.value.advice


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "ehr"),
        ("x = 1", "ehr"),
        ("ehr = 7", "ehr"),
        ("ehr = []", "ehr"),
        ("ehr = [7]", "ehr 1"),
        ("[[ehr]]\n[[ehr]", "TOML"),
        (LEAST + LEAST, "name"),
        (LEAST + LEAST.replace('"general"', '"other"').replace("/fhir", "/fhir/"), "iss"),
        (LEAST.replace("general", "General"), "name"),
        (LEAST.replace("general", ""), "name"),
        (LEAST.replace("https://ehr", "http://ehr"), "iss"),
        (LEAST.replace("https://ehr", "http://127.0.0.1"), "iss"),
        (LEAST.replace("/fhir", "/fhir?x=1"), "iss"),
        (LEAST.replace('client_id = "epicrisis"', ""), "client_id"),
        (LEAST.replace("iss", "isss"), "iss"),
        (LEAST + "x = 1\n[other]\n", "ehr"),
    ],
)
def test_a_file_that_says_no_ehr_is_told_as_such(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        read(tmp_path, text)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_told_as_such(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ehrs.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match="TOML"):
        read_ehrs(path)


def test_plain_http_is_for_this_machine_alone_and_only_where_it_is_allowed(tmp_path: Path) -> None:
    here = LEAST.replace("https://ehr.example.org", "http://127.0.0.1:8080")
    (ehr,) = read(tmp_path, here + "allow_plain_http = true\n")
    assert ehr.check_endpoint("http://127.0.0.1:8080/token") == "http://127.0.0.1:8080/token"
    with pytest.raises(SettingsError, match="iss"):
        read(tmp_path, LEAST.replace("https://", "http://") + "allow_plain_http = true\n")


@pytest.mark.parametrize(
    "url",
    [
        "https://ehr.example.org.evil.example/token",
        "https://ehr.example.org:444/token",
        "http://ehr.example.org/token",
        "https://me@ehr.example.org/token",
        "https://ehr.example.org/token#x",
        "ftp://ehr.example.org/token",
        "/token",
        "",
    ],
)
def test_an_endpoint_beyond_the_allowed_origins_is_refused(tmp_path: Path, url: str) -> None:
    (ehr,) = read(tmp_path, LEAST)
    assert ehr.check_endpoint("https://ehr.example.org/token?x=1") == "https://ehr.example.org/token?x=1"
    with pytest.raises(BadUrl):
        ehr.check_endpoint(url)


@pytest.mark.parametrize(
    "path", ["/fhir/..", "/fhir/../x", "/./fhir", "/fhir/%2e%2E/x", "/fhir/.%2e", "/fhir//x", "/a b", "/é"]
)
def test_a_path_that_programs_read_differently_is_no_address(path: str) -> None:
    with pytest.raises(BadUrl):
        canonical(f"https://ehr.example.org{path}")


def test_one_server_has_one_way_to_be_written() -> None:
    wanted = "https://ehr.example.org:443/fhir"
    for url in ("https://ehr.example.org/fhir", "HTTPS://EHR.example.ORG:443/fhir/", wanted):
        assert canonical(url) == wanted
    assert is_same_server("https://ehr.example.org/fhir", "https://EHR.example.org/fhir/")
    assert not is_same_server("https://ehr.example.org/fhir", "https://ehr.example.org/FHIR")
    assert not is_same_server("x", "x")


@given(st.text(max_size=40), st.sampled_from(["", "https://", "https://ehr.example.org", "http://[::1]"]))
def test_any_text_is_an_address_with_one_form_or_refused(text: str, before: str) -> None:
    try:
        found = canonical(before + text)
    except BadUrl:
        return
    assert canonical(found) == found
    assert not set(found) & set("?#@\\ \n\r;'\"<>") - set("';")
