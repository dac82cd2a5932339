"""Whatever goes wrong, a command ends with one sentence, its exit code, and nothing half-written."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from fixtures.charts import canary_bundle, canary_patient, canary_resources, search_bundle
from fixtures.facts import CANARY
from fixtures.servers import SekmetServer, free_port
from tests.acceptance.conftest import Ended, Run
from tests.integration.connectors.fault_server import FaultServer, Reply

CAPABILITIES = {
    "resourceType": "CapabilityStatement",
    "fhirVersion": "4.0.1",
    "rest": [
        {
            "mode": "server",
            "interaction": [{"code": "transaction"}],
            "resource": [
                {"type": "Patient", "operation": [{"name": "everything", "definition": "x"}]},
                *(
                    {
                        "type": name,
                        "interaction": [{"code": "search-type"}],
                        "searchParam": [{"name": "patient"}],
                    }
                    for name in (
                        "Condition",
                        "AllergyIntolerance",
                        "MedicationRequest",
                        "Observation",
                        "Encounter",
                    )
                ),
            ],
        }
    ],
}
OUTCOME = {
    "resourceType": "OperationOutcome",
    "issue": [{"code": "exception", "diagnostics": f"{CANARY} secret"}],
}


def summarize(epicrisis: Run, url: str, patient: str = "1", **environment: str) -> Ended:
    return epicrisis("summarize", patient, "--fhir-url", url, "--json", **environment)


def check_error(ended: Ended, code: int, *words: str) -> None:
    assert ended.code == code, ended.stderr
    error = ended.json["error"]
    for word in words:
        assert word.lower() in f"{error['message']} {error['advice']}".lower()
    assert CANARY not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def serve_patient(faults: FaultServer, *everything: Any) -> None:
    faults.on("GET", "/fhir/metadata", Reply(json=CAPABILITIES))
    faults.on("GET", "/fhir/Patient/1", Reply(json=canary_patient("1")))
    faults.on("GET", "/fhir/Patient/1/$everything", *everything)
    faults.on("GET", "/fhir/DocumentReference", Reply(json=search_bundle([])))


def test_a_wrong_url(epicrisis: Run) -> None:
    check_error(summarize(epicrisis, "not a url"), 4, "url")


def test_a_name_that_does_not_resolve(epicrisis: Run) -> None:
    check_error(summarize(epicrisis, "https://no-such-host.invalid/fhir"), 4, "name")


def test_nothing_listens(epicrisis: Run) -> None:
    check_error(summarize(epicrisis, f"http://127.0.0.1:{free_port()}/fhir"), 4, "refused")


def test_a_certificate_that_nobody_trusts(epicrisis: Run, faults: FaultServer) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    import socket
    import threading

    listener = socket.create_server(("127.0.0.1", 0))

    def handshake() -> None:
        for _ in range(8):
            try:
                connection, _address = listener.accept()
                with context.wrap_socket(connection, server_side=True):
                    pass
            except OSError:
                if listener.fileno() < 0:
                    return

    thread = threading.Thread(target=handshake, daemon=True)
    thread.start()
    ended = summarize(epicrisis, f"https://127.0.0.1:{listener.getsockname()[1]}/fhir")
    listener.close()
    check_error(ended, 4, "certificate")


@pytest.mark.parametrize(
    ("status", "code", "word"),
    [(401, 5, "sign"), (403, 5, "access"), (404, 6, "patient"), (410, 6, "deleted"), (500, 4, "500")],
)
def test_an_answer_that_refuses(
    epicrisis: Run, faults: FaultServer, status: int, code: int, word: str
) -> None:
    serve_patient(faults)
    faults.on("GET", "/fhir/Patient/1", Reply(status, json=OUTCOME))
    ended = summarize(epicrisis, faults.base_url)
    assert ended.code == code, ended.stderr
    check_error(ended, code)


def test_too_many_requests_with_a_retry_after_is_waited_for(epicrisis: Run, faults: FaultServer) -> None:
    serve_patient(faults, Reply(json=search_bundle(canary_resources("1"))))
    slow_down = Reply(429, json=OUTCOME, headers={"Retry-After": "1"})
    faults.on("GET", "/fhir/Patient/1", slow_down, Reply(json=canary_patient("1")))
    start = time.monotonic()
    ended = epicrisis("summarize", "1", "--fhir-url", faults.base_url, "--dry-run", "--json")
    assert ended.code == 0, ended.stderr
    assert time.monotonic() - start >= 1.0
    assert len(faults.asked("GET", "/fhir/Patient/1")) == 2


def test_too_many_requests_for_ever(epicrisis: Run, faults: FaultServer) -> None:
    serve_patient(faults)
    faults.on("GET", "/fhir/Patient/1", Reply(429, json=OUTCOME))
    check_error(summarize(epicrisis, faults.base_url), 4)
    assert 1 < len(faults.asked("GET", "/fhir/Patient/1")) < 10


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=f"<html>{CANARY} please sign in</html>".encode(), content_type="text/html"),
        Reply(body=b'{"resourceType": "Patient", "name": [{"family": "' + CANARY.encode()),
    ],
)
def test_an_answer_that_is_not_fhir(epicrisis: Run, faults: FaultServer, reply: Reply) -> None:
    serve_patient(faults)
    faults.on("GET", "/fhir/Patient/1", reply)
    check_error(summarize(epicrisis, faults.base_url), 7)


def test_a_page_that_links_to_itself_leaves_a_gap_and_nothing_is_filed(
    epicrisis: Run, faults: FaultServer
) -> None:
    page = f"{faults.base_url}/Patient/1/$everything"
    serve_patient(faults, Reply(json=search_bundle(canary_resources("1"), page)))
    ended = summarize(epicrisis, faults.base_url)
    check_incomplete(ended, faults)
    assert len(faults.asked("GET", "/fhir/Patient/1/$everything")) < 4


def test_a_connection_cut_in_the_middle_of_page_3_keeps_what_came(
    epicrisis: Run, faults: FaultServer
) -> None:
    pages = [canary_resources("1")[:3], canary_resources("1")[3:5], canary_resources("1")[5:]]
    serve_patient(faults, Reply(json=search_bundle(pages[0], f"{faults.base_url}/page2")))
    faults.on("GET", "/fhir/page2", Reply(json=search_bundle(pages[1], f"{faults.base_url}/page3")))
    faults.on("GET", "/fhir/page3", Reply(json=search_bundle(pages[2]), cut_after=200))
    ended = summarize(epicrisis, faults.base_url)
    check_incomplete(ended, faults)
    assert ended.json["resources"] >= 5


def check_incomplete(ended: Ended, faults: FaultServer) -> None:
    """The summary is stored and says INCOMPLETE; nothing was written to the server."""
    assert ended.code == 10, ended.stderr
    assert ended.json["state"] == "incomplete"
    assert ended.json["document"] == ""
    assert "INCOMPLETE" in ended.json["reason"]
    assert not [request for request in faults.requests if request.method != "GET"]
    assert CANARY not in ended.stdout + ended.stderr


def test_an_unknown_patient(epicrisis: Run, sekmet: SekmetServer) -> None:
    check_error(summarize(epicrisis, sekmet.base_url, "no-such-patient"), 6, "patient")


def test_a_patient_id_that_is_none_is_never_put_into_a_url(epicrisis: Run, faults: FaultServer) -> None:
    check_error(summarize(epicrisis, faults.base_url, "../admin?x=1"), 6)
    assert faults.requests == []


def test_an_engine_that_dies_in_mid_answer_files_nothing(
    epicrisis: Run, sekmet: SekmetServer, faults: FaultServer
) -> None:
    load(sekmet, "engine-dies")
    faults.on(
        "GET",
        "/v1/models",
        Reply(json={"data": [{"id": "m", "max_model_len": 8192}]}, content_type="application/json"),
    )
    faults.on("GET", "/version", Reply(json={"version": "0"}, content_type="application/json"))
    faults.on("POST", "/tokenize", Reply(json={"count": 500}, content_type="application/json"))
    event = b'data: {"choices":[{"delta":{"content":"{\\"claims"}}]}\n\n'
    faults.on(
        "POST",
        "/v1/chat/completions",
        Reply(body=event * 50, content_type="text/event-stream", cut_after=120),
    )
    ended = summarize(
        epicrisis,
        sekmet.base_url,
        "engine-dies",
        EPICRISIS_ENGINE="vllm",
        EPICRISIS_ENGINE_URL=f"{faults.root_url}/v1",
        EPICRISIS_MODEL="m",
    )
    check_error(ended, 8)
    assert documents(sekmet, "engine-dies") == []


def test_a_full_disk_files_nothing(tmp_path: Path, sekmet: SekmetServer) -> None:
    """The file size limit of the process stands in for the disk: every write beyond it fails."""
    load(sekmet, "disk-full")
    ended = run_command(
        tmp_path, "summarize", "disk-full", "--fhir-url", sekmet.base_url, "--json", file_limit_bytes=100_000
    )
    check_error(ended, 9)
    assert documents(sekmet, "disk-full") == []


def test_ctrl_c_stops_at_once_and_files_nothing(tmp_path: Path, faults: FaultServer) -> None:
    serve_patient(faults)
    faults.on("GET", "/fhir/Patient/1", Reply(json=canary_patient("1"), delay_s=60))
    process = start_command(tmp_path, "summarize", "1", "--fhir-url", faults.base_url, "--json")
    wait_for(lambda: faults.asked("GET", "/fhir/Patient/1"))
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    check_error(Ended(process.returncode, stdout, stderr), 130, "stopped")


def test_ctrl_c_is_how_the_pages_end(tmp_path: Path) -> None:
    port = free_port()
    process = start_command(tmp_path, "serve", "--port", str(port))

    def answers() -> bool:
        try:
            return bool(httpx.get(f"http://127.0.0.1:{port}/healthz").json() == {"status": "ok"})
        except httpx.TransportError:
            return False

    wait_for(answers)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, stdout) == (0, "")
    assert f"http://127.0.0.1:{port}/" in stderr


def test_nothing_of_a_patient_is_in_logs_or_in_the_stored_bytes(
    epicrisis: Run, sekmet: SekmetServer, tmp_path: Path
) -> None:
    load(sekmet, "canary")
    ended = summarize(epicrisis, sekmet.base_url, "canary")
    assert ended.code == 0, ended.stderr
    assert CANARY not in ended.stdout + ended.stderr
    written = list((tmp_path / "home").rglob("*"))
    assert any(path.name == "epicrisis.db" for path in written)
    assert not [path for path in written if path.is_file() and CANARY.encode() in path.read_bytes()]
    shown = epicrisis("show", ended.json["run_id"])
    assert CANARY in shown.stdout  # it is there, encrypted


def load(server: SekmetServer, patient_id: str) -> None:
    answer = httpx.post(server.base_url, json=canary_bundle(patient_id), timeout=30)
    answer.raise_for_status()


def documents(server: SekmetServer, patient_id: str) -> list[Any]:
    answer = httpx.get(f"{server.base_url}/DocumentReference", params={"patient": f"Patient/{patient_id}"})
    return [entry["resource"] for entry in answer.json().get("entry", [])]


def start_command(home: Path, *arguments: str, file_limit_bytes: int = 0) -> subprocess.Popen[str]:
    import resource

    def limit() -> None:
        if file_limit_bytes:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit_bytes, file_limit_bytes))

    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - a real process needs it
        "EPICRISIS_HOME": str(home / "home"),
        "EPICRISIS_ENGINE": "scripted",
        "EPICRISIS_LOG_LEVEL": "debug",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "service.cli", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


def run_command(home: Path, *arguments: str, file_limit_bytes: int = 0) -> Ended:
    process = start_command(home, *arguments, file_limit_bytes=file_limit_bytes)
    stdout, stderr = process.communicate(timeout=60)
    return Ended(process.returncode, stdout, stderr)


def wait_for(what: Any, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_every_exit_code_is_in_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    listed = {int(code) for code in re.findall(r"(?:Exit codes: |· )(\d+) ", readme)}
    from connectors import errors as connector_errors
    from service import errors as service_errors

    classes = [c for m in (connector_errors, service_errors) for c in vars(m).values() if isinstance(c, type)]
    assert {c.exit_code for c in classes if hasattr(c, "exit_code")} <= listed
