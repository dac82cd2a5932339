"""The tree of errors: drawn completely, and with exit codes that scripts can rely on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors import errors
from connectors.errors import ConnectorError, error_of_status
from connectors.fhir.outcome import explain_answer
from tests.conftest import CANARY


def _tree(kind: type[ConnectorError]) -> Iterator[type[ConnectorError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _tree(child)


def test_every_error_is_drawn_in_the_docstring_with_its_exit_code() -> None:
    drawn = (errors.__doc__ or "").splitlines()
    for kind in _tree(ConnectorError):
        lines = [line for line in drawn if f"─ {kind.__name__} " in f"{line} "]
        assert len(lines) == 1, kind
        if ConnectorError in kind.__bases__:
            assert f" {kind.exit_code} " in f"{lines[0]} ", kind


def test_every_leaf_has_a_code_of_its_own_and_advice() -> None:
    kinds = list(_tree(ConnectorError))
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        assert kind("x").advice or kind in ConnectorError.__subclasses__(), kind


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (400, "rejected", 7),
        (401, "unauthorized", 5),
        (403, "forbidden", 5),
        (404, "not_found", 6),
        (409, "conflict", 11),
        (410, "gone", 6),
        (412, "precondition_failed", 11),
        (422, "rejected", 7),
        (429, "throttled", 4),
        (500, "server_failed", 4),
        (503, "server_failed", 4),
    ],
)
def test_a_status_becomes_an_error_with_an_exit_code(status: int, code: str, exit_code: int) -> None:
    error = error_of_status(status, "https://ehr.example:443")
    assert (error.code, error.exit_code, error.status) == (code, exit_code, status)
    assert str(status) in error.message


@pytest.mark.parametrize(("status", "repeatable"), [(500, True), (501, False), (503, True), (404, False)])
def test_only_what_may_pass_is_repeatable(status: int, repeatable: bool) -> None:
    assert error_of_status(status, "o").repeatable is repeatable


def test_an_operation_outcome_gives_its_codes_and_nothing_else() -> None:
    body = (
        '{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"invalid",'
        f'"diagnostics":"name {CANARY}","details":{{"text":"{CANARY}"}}}},{{"code":"{CANARY}"}}]}}'
    )
    error = explain_answer(422, body.encode(), "application/fhir+json", "https://ehr.example:443")
    assert "invalid" in error.message
    assert CANARY not in f"{error} {error.message} {error.advice} {error!r}"


@pytest.mark.parametrize("body", [b"<html>no</html>", b'{"detail":"Not Found"}', b"nothing here"])
def test_a_404_that_is_no_fhir_means_a_wrong_url(body: bytes) -> None:
    assert explain_answer(404, body, "text/html", "o").code == "no_fhir_here"


@pytest.mark.parametrize("body", [b"", b'{"resourceType":"OperationOutcome"}'])
def test_a_404_of_a_fhir_server_means_an_unknown_resource(body: bytes) -> None:
    assert explain_answer(404, body, "application/fhir+json", "o").code == "not_found"


def test_every_code_is_in_the_readme() -> None:
    readme = (Path(errors.__file__).parent / "README.md").read_text(encoding="utf-8")
    assert [kind.code for kind in _tree(ConnectorError) if f"`{kind.code}`" not in readme] == []
