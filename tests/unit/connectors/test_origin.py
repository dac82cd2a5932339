"""Origins, base URLs and links: what may be asked, and followed."""

from __future__ import annotations

import pytest

from connectors.errors import BadUrl, ForeignLink, PlainHttp
from connectors.origin import check_base_url, follow, origin_of


def test_the_default_port_and_the_case_do_not_matter() -> None:
    assert (
        origin_of("HTTPS://EHR.example/fhir")
        == origin_of("https://ehr.example:443/x")
        == "https://ehr.example:443"
    )
    assert origin_of("http://[::1]:8080/fhir") == "http://[::1]:8080"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ehr.example/fhir",
        "ftp://ehr.example",
        "http://",
        "http://[::1",
        "http://a:99999/",
        "https://a:b/",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(BadUrl):
        check_base_url(url)


@pytest.mark.parametrize("url", ["https://user:pw@a/fhir", "https://a/fhir?x=1", "https://a/fhir#x"])
def test_a_base_url_holds_no_password_and_no_query(url: str) -> None:
    with pytest.raises(BadUrl):
        check_base_url(url)


def test_plain_http_is_for_this_machine_only() -> None:
    for url in (
        "http://127.0.0.1:1/fhir",
        "http://localhost/fhir",
        "http://[::1]/fhir",
        "http://ehr.localhost/f",
    ):
        assert check_base_url(url + "/") == url
    for url in ("http://ehr.example/fhir", "http://10.0.0.1/fhir", "http://localhost.example/fhir"):
        with pytest.raises(PlainHttp) as caught:
            check_base_url(url)
        assert "https" in caught.value.advice
        assert check_base_url(url, allow_plain_http=True) == url


SEEN = "https://ehr.example/fhir/Observation"
OWN = frozenset({"https://ehr.example:443"})


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("https://ehr.example:443/fhir?page=2", "https://ehr.example:443/fhir?page=2"),
        ("?page=2", "https://ehr.example/fhir/Observation?page=2"),
        ("/other?page=2", "https://ehr.example/other?page=2"),
    ],
)
def test_a_link_to_the_same_origin_is_followed(link: str, target: str) -> None:
    assert follow(link, SEEN, OWN) == target


@pytest.mark.parametrize(
    "link",
    [
        "http://ehr.example/fhir",
        "https://ehr.example:8443/fhir",
        "https://evil.example/fhir",
        "//evil.example/fhir",
        "https://ehr.example.evil.example/fhir",
        "https://ehr.example@evil.example/fhir",
        "https://user:pw@ehr.example/fhir",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "https://[",
    ],
)
def test_a_link_to_anywhere_else_is_not(link: str) -> None:
    with pytest.raises(ForeignLink):
        follow(link, SEEN, OWN)
