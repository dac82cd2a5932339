"""What all runs of a prompt or a model share: found by content, free of patient data, named in Provenance."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

from service.writeback.labels import WriteProfile
from tests.conftest import CANARY
from tests.unit.writeback.charts import make_run
from tests.unit.writeback.reading import build, entry, resource, shared

PROMPT, CARD = "urn:epicrisis:prompt", "urn:epicrisis:model-card"


def data_of(document: dict[str, Any]) -> bytes:
    form = document["content"][0]["attachment"]
    data = base64.b64decode(form["data"])
    assert form["size"] == len(data)
    assert base64.b64decode(form["hash"]) == hashlib.sha1(data).digest()
    return data


def test_the_prompt_says_which_template_and_is_found_by_digest_or_by_version() -> None:
    prompt = shared(build(make_run()), PROMPT)["resource"]
    assert prompt["identifier"] == [
        {"system": PROMPT, "value": "b" * 64},
        {"system": "urn:epicrisis:prompt-version", "value": "history@3"},
    ]
    assert json.loads(data_of(prompt)) == {"prompt": "history", "version": "3", "template_sha256": "b" * 64}
    assert prompt["type"]["coding"][0]["code"] == "ai-prompt"
    assert "subject" not in prompt


def test_the_model_card_is_named_by_its_content_and_is_about_the_device() -> None:
    bundle = build(make_run())
    card = shared(bundle, CARD)["resource"]
    text = data_of(card)
    assert card["identifier"] == [{"system": CARD, "value": hashlib.sha256(text).hexdigest()}]
    assert b"google/medgemma-1.5-4b-it" in text
    assert b"f" * 64 in text
    assert card["subject"] == {"reference": entry(bundle, "Device")["fullUrl"]}


def test_two_runs_share_both_and_another_model_has_a_card_of_its_own() -> None:
    one, two = build(make_run()), build(make_run(key="f" * 64))
    run = make_run()
    other = build(replace(run, inputs=replace(run.inputs, model_digest="0" * 64)))
    for system in (PROMPT, CARD):
        assert shared(one, system)["request"] == shared(two, system)["request"]
    assert shared(one, CARD)["request"] != shared(other, CARD)["request"]
    assert shared(one, PROMPT)["request"] == shared(other, PROMPT)["request"]


def test_neither_holds_anything_of_a_patient() -> None:
    bundle = build(make_run())
    for system in (PROMPT, CARD):
        found = shared(bundle, system)["resource"]
        told = json.dumps(found) + data_of(found).decode()
        assert CANARY not in told
        assert "MRN" not in told
        assert "Patient/77" not in told


def test_where_they_are_refused_the_provenance_still_names_the_prompt() -> None:
    bundle = build(make_run(), WriteProfile(shared_documents=False))
    assert [e["resource"]["resourceType"] for e in bundle["entry"]] == [
        "Device",
        "DocumentReference",
        "Provenance",
    ]
    derived = [e["what"] for e in resource(bundle, "Provenance")["entity"] if e["role"] == "derivation"]
    assert derived == [{"identifier": {"system": PROMPT, "value": "b" * 64}, "display": "Prompt history 3"}]


def test_where_a_device_is_no_author_it_is_no_subject_either() -> None:
    assert "subject" not in shared(build(make_run(), WriteProfile(device_author=False)), CARD)["resource"]
