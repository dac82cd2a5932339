"""`epicrisis check`: claims about a chart in a file, judged by what they cite, with nothing else running."""

from __future__ import annotations

import gzip
import io
import json
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from fixtures.charts import canary_resources
from fixtures.facts import CANARY
from service.grounding.reasons import CODES
from tests.acceptance.conftest import Ended, Run
from tests.acceptance.test_command_line import on_its_own, write
from tests.conftest import synthea_bundles

SENTENCE = "Patient denies chest pain since 28-Apr-2024."
FRAME = "Progress note of 01-May-2024, Assessment: "
NOTE = f"Assessment:\n{SENTENCE} Cough for two days. Stable.\n"
CLAIMS = 5000

GOUT, URATE, DRUG = "Condition/1-gout", "Observation/1-urate", "MedicationRequest/1-allopurinol"
STOPPED, REFUSED, DOCUMENT = (
    "MedicationRequest/1-simvastatin",
    "Procedure/1-colonoscopy",
    "DocumentReference/1-note",
)


def claim(text: Any, *cites: Any) -> dict[str, Any]:
    return {"text": text, "cites": list(cites)}


TRUE = claim("Gout is active, since 04-Mar-2011.", GOUT)


def note() -> dict[str, Any]:
    attachment = {"contentType": "text/plain", "data": b64encode(NOTE.encode()).decode()}
    return {
        "resourceType": "DocumentReference", "id": "1-note", "status": "current",
        "subject": {"reference": "Patient/1"}, "date": "2024-05-01T09:00:00Z",
        "type": {"text": "Progress note"}, "content": [{"attachment": attachment}],
    }  # fmt: skip


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    return write(tmp_path / "chart.json", [*canary_resources("1"), note()])


@pytest.fixture
def judge(epicrisis: Run, chart: Path, tmp_path: Path) -> Any:
    """Judge claims by the command, and hold the answer's shape."""

    def judged(*claims: Any) -> list[tuple[str, set[str]]]:
        path = tmp_path / "claims.json"
        path.write_text(json.dumps(claims), encoding="utf-8")
        ended = epicrisis("check", str(chart), str(path), "--json")
        assert ended.code == 0
        assert_shape(ended.json, len(claims))
        return [(one["verdict"], {reason["code"] for reason in one["reasons"]}) for one in ended.json]

    return judged


def assert_shape(found: Any, count: int) -> None:
    """Exactly `[{"verdict", "reasons": [{"code", "detail"}]}]`, one for each claim."""
    assert isinstance(found, list)
    assert len(found) == count
    for one in found:
        assert set(one) == {"verdict", "reasons"}
        assert one["verdict"] in ("supported", "unsupported", "contradicted")
        assert (one["verdict"] == "supported") == (one["reasons"] == [])
        for reason in one["reasons"]:
            assert set(reason) == {"code", "detail"}
            assert reason["code"] in CODES
            assert reason["detail"].endswith((".", ")"))


def assert_refused(ended: Ended, code: int, said: str) -> None:
    """Ended with this code, one sentence, its advice, and nothing of the patient."""
    assert ended.code == code
    error = ended.json["error"]
    assert said in error["message"]
    assert ended.stderr.count(error["message"]) == 1
    assert "Traceback" not in ended.stderr
    assert CANARY not in ended.stdout + ended.stderr


def test_true_wrong_and_reversed_claims_get_their_verdicts_in_order(judge: Any) -> None:
    found = judge(
        TRUE,
        claim("Urate was 9.2 mg/dL on 20-Nov-2026.", URATE),
        claim("Colonoscopy was completed on 12-Mar-2019.", REFUSED),
        claim("Urate was 8.2 mg/dL on 20-Nov-2026.", URATE),
    )
    assert [verdict for verdict, _ in found] == ["supported", "unsupported", "contradicted", "supported"]
    assert "number_not_in_source" in found[1][1]
    assert found[2][1] & {"status_lost", "negation_lost"}


@pytest.mark.parametrize(
    "wrong",
    [
        claim("Urate was 8.2 mmol/L on 20-Nov-2026.", URATE),
        claim("Urate was 8.2 mg/dL on 21-Nov-2026.", URATE),
        claim("Urate was 82 mg/dL on 20-Nov-2026.", URATE),
        claim("allopurinol 300 MG Oral Tablet is an active order from 04-May-2020.", DRUG),
        claim("Sodium was 8.2 mg/dL on 20-Nov-2026.", URATE),
        claim("Gout is resolved, since 04-Mar-2011.", GOUT),
        claim("Her mother has gout, active, since 04-Mar-2011.", GOUT),
        claim("simvastatin 20 MG Oral Tablet from 04-May-2018.", STOPPED),
    ],
)
def test_a_claim_with_one_error_is_not_supported(judge: Any, wrong: dict[str, Any]) -> None:
    ((verdict, reasons),) = judge(wrong)
    assert verdict != "supported"
    assert reasons


def test_a_right_sentence_with_another_source_is_refused_and_its_citation_not_corrected(judge: Any) -> None:
    right, wrong = judge(
        claim("Urate was 8.2 mg/dL on 20-Nov-2026.", URATE),
        claim("Urate was 8.2 mg/dL on 20-Nov-2026.", GOUT),
    )
    assert right[0] == "supported"
    assert wrong[0] == "unsupported"


def test_a_citation_may_name_a_version(judge: Any) -> None:
    ((verdict, _),) = judge(claim(TRUE["text"], f"{GOUT}/_history/3"))
    assert verdict == "supported"


@pytest.mark.parametrize("cite", ["Condition/none", "Condition/", "", "gout", "Patient/2", "Condition"])
def test_a_citation_that_names_nothing_supports_nothing(judge: Any, cite: str) -> None:
    alone, beside = judge(claim(TRUE["text"], cite), claim(TRUE["text"], GOUT, cite))
    assert alone == beside == ("unsupported", {"cites_unknown"})


def test_a_note_is_quoted_whole_with_its_section_and_day(judge: Any) -> None:
    whole, unframed, part = judge(
        claim(f"{FRAME}“{SENTENCE}”", DOCUMENT),
        claim(f"“{SENTENCE}”", DOCUMENT),
        claim(f"{FRAME}“chest pain since 28-Apr-2024.”", DOCUMENT),
    )
    assert whole[0] == "supported"
    assert unframed[0] == part[0] == "unsupported"


@pytest.mark.parametrize(
    "quote",
    ["", " ", "“”", '""', "“...”", "…", "“. , ;”", "-", "“a”", "“d”", "a", "“hest pai”", "“able.”", "“enie”",
     "“ough for two day”", f"{FRAME}“”", f"{FRAME}“…”", f"{FRAME}“s”", f"{FRAME}“tabl”", f"{FRAME}“.”"],
)  # fmt: skip
def test_quotes_of_nothing_of_one_letter_and_out_of_a_word_are_never_supported(
    judge: Any, quote: str
) -> None:
    ((verdict, reasons),) = judge(claim(quote, DOCUMENT))
    assert verdict != "supported"
    assert (reasons == {"not_a_claim"}) is not any(character.isalnum() for character in quote)


def test_a_claim_without_a_citation_is_never_supported(judge: Any) -> None:
    found = judge(claim(TRUE["text"]), {"text": TRUE["text"]}, {"text": TRUE["text"], "cites": None})
    assert found == [("unsupported", {"cites_nothing"})] * 3


def test_what_is_no_claim_keeps_its_place(judge: Any) -> None:
    odd: list[Any] = [
        None,
        7,
        "Gout",
        [],
        {},
        claim(3, GOUT),
        {"text": TRUE["text"], "cites": GOUT},
        claim("x", 7),
    ]
    found = judge(TRUE, *odd, TRUE)
    assert [verdict for verdict, _ in found] == ["supported", *["unsupported"] * len(odd), "supported"]


def test_no_claims_give_an_empty_list(judge: Any) -> None:
    assert judge() == []


def test_it_runs_in_a_process_of_its_own_with_no_server_no_engine_and_no_home(
    chart: Path, tmp_path: Path
) -> None:
    path = tmp_path / "claims.json"
    path.write_text(json.dumps([TRUE, claim("Urate was 9 mg/dL.", URATE), claim("", GOUT)]))
    nowhere = "http://127.0.0.1:9"
    ended = on_its_own(
        "check", str(chart), str(path), "--json", EPICRISIS_HOME=str(tmp_path / "home"),
        EPICRISIS_ENGINE_URL=nowhere, EPICRISIS_FHIR_URL=nowhere,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, b"")
    found = json.loads(ended.stdout)
    assert_shape(found, 3)
    assert [one["verdict"] for one in found] == ["supported", "unsupported", "unsupported"]
    assert not (tmp_path / "home").exists()


def test_claims_are_read_from_stdin_and_gzipped(
    epicrisis: Run, chart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.dumps([TRUE]).encode()
    packed = tmp_path / "claims.json.gz"
    packed.write_bytes(gzip.compress(content))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    for path in (str(packed), "-"):
        assert epicrisis("check", str(chart), path, "--json").json == [
            {"verdict": "supported", "reasons": []}
        ]


def test_without_json_it_prints_a_table_that_repeats_no_claim(
    epicrisis: Run, chart: Path, tmp_path: Path
) -> None:
    path = tmp_path / "claims.json"
    path.write_text(json.dumps([TRUE, claim(f"{CANARY} was 9 mg/dL.", URATE)]))
    ended = epicrisis("check", str(chart), str(path))
    assert ended.code == 0
    assert "supported" in ended.stdout
    assert "unsupported" in ended.stdout
    assert CANARY not in ended.stdout + ended.stderr


@pytest.mark.parametrize("content", [b"{}", b'"x"', b"7", b"null", b'{"claims": []}'])
def test_claims_that_are_no_list_are_refused(
    epicrisis: Run, chart: Path, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "claims.json"
    path.write_bytes(content)
    assert_refused(epicrisis("check", str(chart), str(path), "--json"), 7, "not a JSON list")


@pytest.mark.parametrize(
    "content",
    [b"", b"[{", f'[{{"text": "{CANARY}"'.encode(), b"\x1f\x8bx", b"\xff\xfe[", b"[" * 100_000],
    ids=("empty", "cut", "cut name", "no gzip", "no text", "nested"),
)
def test_claims_that_are_not_json_are_refused(
    epicrisis: Run, chart: Path, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "claims.json"
    path.write_bytes(content)
    assert_refused(epicrisis("check", str(chart), str(path), "--json"), 7, "not JSON")


def test_a_file_that_is_not_there_is_refused(epicrisis: Run, chart: Path, tmp_path: Path) -> None:
    assert_refused(epicrisis("check", str(chart), str(tmp_path / "none"), "--json"), 3, "cannot be read")
    path = tmp_path / "claims.json"
    path.write_text("[]")
    assert_refused(epicrisis("check", str(tmp_path / "none"), str(path), "--json"), 3, "cannot be read")
    assert epicrisis("check", str(chart)).code == 2


def test_stderr_holds_nothing_of_the_patient_and_nothing_of_a_claim(
    epicrisis: Run, chart: Path, tmp_path: Path
) -> None:
    path = tmp_path / "claims.json"
    path.write_text(json.dumps([TRUE, claim(f"{CANARY}, Jane has gout.", f"Condition/{CANARY}")]))
    ended = epicrisis("check", str(chart), str(path), "--json", EPICRISIS_LOG_LEVEL="debug")
    assert [one["verdict"] for one in ended.json] == ["supported", "unsupported"]
    for said in (CANARY, "Gout", "gout", "04-Mar-2011", "1951"):
        assert said not in ended.stderr
    assert CANARY not in ended.stdout


@pytest.mark.shared
def test_thousands_of_claims_about_a_real_chart_are_judged_each_in_its_place(
    epicrisis: Run, shared_data: Path, tmp_path: Path
) -> None:
    name, _ = list(synthea_bundles(shared_data))[-1]
    source = shared_data / "synthea" / name
    facts = epicrisis("assemble", str(source), "--json").json["facts"]
    lines = [(fact["text"], fact["sources"][0]["reference"]) for fact in facts if fact["kind"] != "patient"]
    claims = [claim(*lines[n // 2 % len(lines)]) if n % 2 else claim("…", "x/1") for n in range(CLAIMS)]
    path = tmp_path / "claims.json"
    path.write_text(json.dumps(claims))
    ended = epicrisis("check", str(source), str(path), "--json")
    assert_shape(ended.json, CLAIMS)
    assert {one["verdict"] for one in ended.json[::2]} == {"unsupported"}
    own = [one["verdict"] for one in ended.json[1::2]]
    assert own.count("supported") > 0.9 * len(own)
    assert ended.stderr == ""
