"""A site's own list of opt-outs: read whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from connectors.admissions.sitelist import MAX_BYTES, ListFile, SiteList, SiteListUnreadable, parse_site_list
from tests.conftest import CANARY

TOML = b"""
patients = ["Patient/1", "https://ehr.example/fhir/Patient/2", "urn:mrn|700100", " 700200 "]
wards = ["Location/7", "3 West"]
"""
CSV = b"kind,value\npatient,Patient/1\r\npatient, urn:mrn|700100\n\nward,3 West\n"


def test_a_toml_list_names_patients_by_reference_and_number_and_wards() -> None:
    listed = parse_site_list(TOML, is_csv=False)
    assert listed.patients == {"Patient/1", "Patient/2"}
    assert listed.identifiers == {("urn:mrn", "700100"), ("", "700200")}
    assert listed.wards == {"location/7", "3 west"}
    assert not listed.is_everyone


def test_a_csv_list_says_the_same_in_lines() -> None:
    listed = parse_site_list(CSV, is_csv=True)
    assert listed == SiteList(
        False, frozenset({"Patient/1"}), frozenset({("urn:mrn", "700100")}), frozenset({"3 west"})
    )
    assert parse_site_list(b"\xef\xbb\xbfKind,Value\neveryone,YES\n", is_csv=True).is_everyone


@pytest.mark.parametrize(
    ("references", "identifier", "expected"),
    [
        (("Patient/1",), {}, True),
        (("Patient/9", "Patient/1"), {}, True),
        (("Patient/9",), {"system": "urn:mrn", "value": "700100"}, True),
        (("Patient/9",), {"system": "urn:other", "value": "700100"}, False),
        (("Patient/9",), {"system": "urn:any", "value": "700200 "}, True),
        (("Patient/9",), {"value": 700200}, True),
        (("Patient/9",), {}, False),
    ],
)
def test_a_patient_is_listed_by_any_reference_or_number(
    references: tuple[str, ...], identifier: dict[str, str], expected: bool
) -> None:
    listed = parse_site_list(TOML, is_csv=False)
    assert listed.names_patient(references, {"identifier": [identifier]}) is expected


def test_a_ward_is_listed_in_any_case() -> None:
    listed = parse_site_list(TOML, is_csv=False)
    assert listed.names_ward(["Location/7"])
    assert listed.names_ward(["Location/1", "3 WEST"])
    assert not listed.names_ward(["3 West^301", "Location/70"])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"patient = ['Patient/1']",
        b"patients = 'Patient/1'",
        b"patients = ['Patient/1', 7]",
        b"patients = ['']",
        b"everyone = 'yes'",
        b"patients = ['Patient/1'",
        b"patients = []\nwards = {}",
        b"patients = ['\xff']",
        b"#" * (MAX_BYTES + 1),
    ],
)
def test_a_toml_list_with_anything_odd_in_it_is_no_list(data: bytes) -> None:
    with pytest.raises(SiteListUnreadable):
        parse_site_list(data, is_csv=False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"patient,Patient/1\n",
        b"kind,value\npatient,70010",
        b"kind,value\npatient\n",
        b"kind,value\npatient,1,2\n",
        b"kind,value\npatients,1\n",
        b"kind,value\npatient,\n",
        b"kind,value\neveryone,no\n",
        b'kind,value\npatient,"1\n',
    ],
)
def test_a_csv_list_with_anything_odd_in_it_is_no_list(data: bytes) -> None:
    with pytest.raises(SiteListUnreadable):
        parse_site_list(data, is_csv=True)


def test_a_list_can_be_empty_where_it_says_so() -> None:
    assert parse_site_list(b"patients = []", is_csv=False) == SiteList()
    assert parse_site_list(b"kind,value\n", is_csv=True) == SiteList()


def test_neither_an_error_nor_a_repr_holds_what_was_listed(tmp_path: Path) -> None:
    with pytest.raises(SiteListUnreadable) as caught:
        parse_site_list(f"kind,value\nnobody,{CANARY}\n".encode(), is_csv=True)
    assert CANARY not in f"{caught.value} {caught.value.advice} {caught.value.__cause__}"
    assert "Line 2" in caught.value.message
    listed = parse_site_list(
        f"patients = ['{CANARY}', 'Patient/{CANARY}']\nwards = ['{CANARY}']".encode(), is_csv=False
    )
    assert CANARY not in repr(listed)


def test_a_file_is_read_anew_when_it_changed_also_within_the_same_second(tmp_path: Path) -> None:
    path = tmp_path / "optouts.toml"
    path.write_text("patients = ['Patient/1']")
    file = ListFile(path)
    before = file.read()
    assert file.read() is before
    stamp = path.stat()
    path.write_text("patients = ['Patient/2']")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert file.read().patients == {"Patient/2"}


def test_a_file_that_goes_missing_or_breaks_leaves_no_older_list_behind(tmp_path: Path) -> None:
    path = tmp_path / "optouts.csv"
    path.write_text("kind,value\npatient,1\n")
    file = ListFile(path)
    assert file.read().identifiers
    path.write_text("kind,value\npatient,1")
    for _ in range(2):
        with pytest.raises(SiteListUnreadable):
            file.read()
    path.unlink()
    with pytest.raises(SiteListUnreadable):
        file.read()
    path.write_text("kind,value\npatient,1\n")
    assert file.read().identifiers
