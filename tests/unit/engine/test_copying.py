"""What the engine without a model writes: lines of the record under their own labels."""

from __future__ import annotations

import json
from typing import Any

from service.context.chosen import Label
from service.context.render import guided_schema
from service.engine.copying import CLAIMS, answer_by_copying
from service.engine.prompt import Message, Prompt, Sampling
from service.entailment import answer_schema


def whole(labels: list[str]) -> dict[str, Any]:
    """Return the schema of a free answer."""
    claim = {
        "type": "object",
        "properties": {
            "section": {"enum": ["problems", "results"]},
            "cites": {"type": "array", "minItems": 1, "items": {"enum": labels}},
            "text": {"type": "string", "minLength": 1},
        },
        "required": ["section", "cites", "text"],
    }
    claims = {"type": "array", "minItems": 1, "items": claim}
    return {"type": "object", "properties": {"claims": claims}, "required": ["claims"]}


def answer(text: str, schema: dict[str, Any] | None) -> str:
    return answer_by_copying(Prompt((Message("user", text),), Sampling(999), schema))


def test_each_line_is_told_under_its_own_label_and_only_labels_that_the_schema_admits() -> None:
    lines = "PROBLEMS\n[P1] Asthma: active\n[P2] Gout: active\nno label: here\n[R9] of another\n\n[P1b] no"
    assert json.loads(answer(lines, whole(["P1", "P2"])))["claims"] == [
        {"section": "problems", "cites": ["P1"], "text": "Asthma: active"},
        {"section": "problems", "cites": ["P2"], "text": "Gout: active"},
    ]


def test_of_a_whole_chart_a_summary_s_worth_is_told_from_the_first_line_to_the_last() -> None:
    labels = [f"R{number}" for number in range(1, 301)]
    lines = "\n".join(f"[{label}] Sodium: {label}" for label in labels)
    told = [claim["cites"][0] for claim in json.loads(answer(lines, whole(labels)))["claims"]]
    assert len(told) == CLAIMS
    assert told[0] == "R1"
    assert int(told[-1][1:]) > 280


def test_rows_of_a_table_and_words_of_a_note_are_not_told_where_there_are_sentences() -> None:
    lines = (
        "[R1] 5.8 | | 6.1\n[N1] Feels well.\n[M1] aspirin: active order; 75 mg daily; by A. Person; reason: x"
    )
    said = json.loads(answer(lines, whole(["R1", "N1", "M1"])))
    assert [(claim["cites"], claim["text"]) for claim in said["claims"]] == [
        (["M1"], "aspirin: active order; 75 mg daily")
    ]
    only = json.loads(answer("[N1] Feels well.", whole(["N1"])))
    assert [claim["cites"] for claim in only["claims"]] == [["N1"]]


def test_a_guided_request_gets_one_claim_for_each_label_in_order() -> None:
    schema = guided_schema([Label("F2"), Label("F1")])
    said = json.loads(answer("[F1] Asthma: active\n[F2] Gout: active", schema))
    assert said["claims"] == [
        {"cites": ["F2"], "text": "Gout: active"},
        {"cites": ["F1"], "text": "Asthma: active"},
    ]


def test_a_line_that_is_too_long_for_a_claim_is_not_told() -> None:
    said = json.loads(answer(f"[P1] {'x' * 401}\n[P2] Gout: active", whole(["P1", "P2"])))
    assert [claim["cites"] for claim in said["claims"]] == [["P2"]]


def test_a_question_of_another_kind_gets_the_smallest_answer_and_no_schema_the_model_s_name() -> None:
    assert set(json.loads(answer("?", answer_schema(3)))) == {"1", "2", "3"}
    assert answer("?", None) == "scripted"
    nothing = json.loads(answer("nothing with a label", whole(["P1"])))
    assert nothing["claims"] == [{"section": "problems", "cites": ["P1"], "text": "x"}]
