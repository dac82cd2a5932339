"""Signatures: the same bytes give the same one, and only those bytes under that key."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from joserfc import jws
from joserfc.jwk import OKPKey

from service.errors import StoreError
from service.signing import Signer, check_signature

CONTENT = b'{"a":1}'


def test_the_key_is_made_once_private_and_signs_alike_ever_after(tmp_path: Path) -> None:
    path = tmp_path / "home" / "signing.key"
    first = Signer.from_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["signing.key"]
    again = Signer.from_file(path)
    assert again.sign(CONTENT) == first.sign(CONTENT)
    assert again.sign(b"other") != first.sign(CONTENT)


def test_of_eight_processes_that_start_at_once_all_sign_with_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: Signer.from_file(tmp_path / "signing.key").kid, range(8)))
    assert len(set(made)) == 1


def test_what_is_served_is_public_and_checks_what_was_signed(tmp_path: Path) -> None:
    signer = Signer.from_file(tmp_path / "signing.key")
    jwks = json.loads(json.dumps(signer.jwks()))
    assert set(jwks["keys"][0]) == {"kty", "crv", "x", "kid", "use", "alg"}
    signature = signer.sign(CONTENT)
    assert check_signature(signature, CONTENT, jwks) == ""
    assert check_signature(signature, CONTENT + b" ", jwks) == "wrong_signature"
    # another program checks it without our code
    key = OKPKey.import_key(jwks["keys"][0])
    assert jws.deserialize_compact(signature, key, payload=CONTENT, algorithms=["Ed25519"]).payload == CONTENT


@pytest.mark.parametrize("signature", ["", "junk", "a.b.c", "e30..", "eyJhbGciOiJub25lIn0..", "é..x"])
def test_what_is_no_signature_is_wrong(tmp_path: Path, signature: str) -> None:
    jwks = Signer.from_file(tmp_path / "signing.key").jwks()
    assert check_signature(signature, CONTENT, jwks) == "wrong_signature"


def test_a_signature_without_algorithm_is_wrong_even_under_a_known_key(tmp_path: Path) -> None:
    signer = Signer.from_file(tmp_path / "signing.key")
    _, _, signed = signer.sign(CONTENT).partition("..")
    header = json.dumps({"alg": "none", "kid": signer.kid}).encode()
    import base64

    forged = f"{base64.urlsafe_b64encode(header).rstrip(b'=').decode()}..{signed}"
    assert check_signature(forged, CONTENT, signer.jwks()) == "wrong_signature"


@pytest.mark.parametrize(
    "jwks", [{"keys": []}, {}, [], None, {"keys": [{"crv": "Ed25519"}, 3, {"kty": "RSA"}]}]
)
def test_without_its_key_nothing_is_said_of_a_signature(tmp_path: Path, jwks: object) -> None:
    signature = Signer.from_file(tmp_path / "signing.key").sign(CONTENT)
    assert check_signature(signature, CONTENT, jwks) == "unknown_key"


def test_after_a_new_key_is_put_first_the_old_documents_are_still_checked(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    old = Signer.from_file(path).sign(CONTENT)
    keys = json.loads(path.read_text())["keys"]
    path.write_text(json.dumps({"keys": [OKPKey.generate_key("Ed25519").as_dict(private=True), *keys]}))
    signer = Signer.from_file(path)
    assert signer.sign(CONTENT) != old
    assert check_signature(old, CONTENT, signer.jwks()) == ""
    assert check_signature(signer.sign(CONTENT), CONTENT, signer.jwks()) == ""


@pytest.mark.parametrize(
    "content", ["", "{}", '{"keys": []}', '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA"}]}', "[1]"]
)
def test_a_damaged_key_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "signing.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(StoreError, match="damaged"):
        Signer.from_file(path)


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    Signer.from_file(path)
    path.chmod(0o640)
    with pytest.raises(StoreError, match="other users"):
        Signer.from_file(path)


def test_a_missing_key_is_not_made_where_none_is_to_be(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        Signer.from_file(tmp_path / "signing.key", create=False)
    assert list(tmp_path.iterdir()) == []


def test_no_key_shows_in_a_representation(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    signer = Signer.from_file(path)
    assert json.loads(path.read_text())["keys"][0]["d"] not in repr(signer)
