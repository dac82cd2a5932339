"""Rendering a Context into prompts: instructions, patient, task last; and the grammar of the answer.

The lines of the record are data from strangers. Nothing in them may look like a label of ours or like a
control token of a chat template, so both are defused here, and only here.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.context.chosen import Block, Context, Label, Line
from service.context.layout import name_of
from service.context.manifest import manifest_of
from service.context.templates import Example, TemplateSet
from service.engine.prompt import Message, Profile, Prompt, Sampling
from service.record.dates import parse_when, show_day
from service.record.facts import Fact

_LABEL = re.compile(r"\[([A-Z](?:\d+|@[\w-]+))\]")
_TURN = re.compile(r"\[(/?(?:INST|SYS|ASSISTANT|USER|SYSTEM)[^\]\[]{0,8})\]", re.IGNORECASE)
_CONTROL_TOKEN = re.compile(r"<(\|?/?[A-Za-z_]+\d*\|?)>")
_TEXT = {"type": "string", "minLength": 1, "maxLength": 400}
# One fixed maxLength everywhere: each distinct one costs seconds of grammar compilation, once.

TASK, DIGEST = "task.j2", "digest.j2"

GUIDED_TOKENS_PER_FACT = 160
"""Enough for the longest line that is worth a sentence; the label and the braces included."""


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt, and what its answer is about: a section, or None for the whole summary."""

    prompt: Prompt
    section: str | None
    labels: tuple[Label, ...]


def line_of(label: Label, fact: Fact) -> str:
    """Return the evidence line of a fact: `[R3] Hemoglobin A1c: 5.8 % on 25-Nov-2020`."""
    return f"[{label}] {defused(fact.text)}"


def defused(text: str) -> str:
    """Return text of the record in which nothing looks like a label of ours or a control token."""
    text = _LABEL.sub(r"(\1)", " ".join(text.split()))
    text = _TURN.sub(r"(\1)", text)
    return _CONTROL_TOKEN.sub(r"‹\1›", text).replace("<|", "‹|")


def requests_for(
    context: Context,
    templates: TemplateSet,
    profile: Profile,
    *,
    task: str = TASK,
    priority: int = 0,
    seed: int = 0,
) -> tuple[Request, ...]:
    """Return the prompts that ask for a summary of this Context: one when `free`, many when `guided`.

    `task` names the template of the task: a summary's own, or the digest of a part of the chart.
    """
    if profile.mode == "guided":
        return tuple(_guided_requests(context, templates, profile, priority, seed))
    sampling = Sampling(profile.max_output_tokens, profile.temperature, seed)
    schema = answer_schema(templates.schema, context)
    chat = whole_chat(context, templates, profile, task)
    return (Request(Prompt(chat, sampling, schema, priority), None, tuple(context.cites)),)


def whole_chat(
    context: Context, templates: TemplateSet, profile: Profile, task: str = TASK
) -> tuple[Message, ...]:
    """Render the whole Context as one chat. Its length in tokens is what the budget counts.

    What changes least stands first, the task last: the engine serves the common beginning from its cache.
    Without a `task` it is what all tasks on one patient share.
    """
    evidence = templates.render(
        "evidence.j2",
        patient={"gender": defused(context.identity.gender), "born": _born(context.identity.birth_date)},
        index=_index_lines(context),
        blocks=[_shown(block) for block in context.blocks],
        focus=[_shown(block) for block in context.focus],
        manifest=[defused(line) for line in manifest_of(context)],
    )
    titles = [section.title for section in context.sections]
    asked = task_of(templates, task, titles, context.question) if task else ""
    return (Message("system", templates.render("system.j2")), Message("user", f"{evidence}\n\n{asked}"))


def task_of(templates: TemplateSet, task: str, titles: Sequence[str], question: str = "") -> str:
    """Render a task. A question stands in it as a quotation: what it says is no instruction of ours."""
    return templates.render(task, titles=titles, question=json.dumps(defused(question), ensure_ascii=False))


def _shown(block: Block) -> dict[str, object]:
    return {"title": block.title, "lines": [_text_of(line) for line in block.lines]}


def _text_of(line: Line) -> str:
    return f"[{line.label}] {defused(line.text)}" if line.label else defused(line.text)


def _index_lines(context: Context) -> list[str]:
    labels = {fact.id: label for label, fact in context.facts.items()} if context.index else {}
    lines = []
    for line in context.index:
        named = "; ".join(f"[{labels[fact.id]}] {defused(name_of(fact))}" for fact in line.facts)
        lines.append(f"{defused(line.text)}: {named}")
    return lines


def answer_schema(base: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Fill the answer's grammar with exactly the labels and sections of this Context."""
    schema: dict[str, Any] = copy.deepcopy(dict(base))
    claim = schema["properties"]["claims"]["items"]["properties"]
    claim["section"]["enum"] = [section.key for section in context.sections]
    claim["cites"]["items"]["enum"] = list(context.cites)
    return schema


def guided_schema(labels: Sequence[Label]) -> dict[str, Any]:
    """Return the grammar of a guided answer: one claim a fact, in order, the label before the sentence."""
    claims = [
        {
            "type": "object",
            "properties": {
                "cites": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1,
                    "items": {"type": "string", "enum": [label]},
                },
                "text": _TEXT,
            },
            "required": ["cites", "text"],
            "additionalProperties": False,
        }
        for label in labels
    ]
    return {
        "type": "object",
        "properties": {
            "claims": {"type": "array", "prefixItems": claims, "items": False, "minItems": len(claims)}
        },
        "required": ["claims"],
        "additionalProperties": False,
    }


def _guided_requests(
    context: Context, templates: TemplateSet, profile: Profile, priority: int, seed: int
) -> Iterator[Request]:
    """Ask section by section, `facts_per_request` facts at a time, after the two most like examples.

    Requests about facts of one kind and status share their whole beginning, which the engine caches.
    """
    system = Message("system", templates.render("guided.j2"))
    for section in context.sections:
        for start in range(0, len(section.labels), profile.facts_per_request):
            labels = section.labels[start : start + profile.facts_per_request]
            lines = [line_of(label, context.facts[label]) for label in labels]
            task = Message("user", templates.render("section.j2", title=section.title, lines=lines))
            examples = _example_turns(context.facts[labels[0]], section.title, templates)
            sampling = Sampling(GUIDED_TOKENS_PER_FACT * len(labels), profile.temperature, seed)
            prompt = Prompt((system, *examples, task), sampling, guided_schema(labels), priority)
            yield Request(prompt, section.key, labels)


def _example_turns(fact: Fact, title: str, templates: TemplateSet) -> Iterator[Message]:
    for number, example in enumerate(_most_like(fact, templates.examples), 1):
        line = f"[E{number}] {example.line}"
        yield Message("user", templates.render("section.j2", title=title, lines=[line]))
        answer = {"claims": [{"cites": [f"E{number}"], "text": example.claim}]}
        yield Message("assistant", json.dumps(answer, separators=(",", ":"), ensure_ascii=False))


def _most_like(fact: Fact, examples: Sequence[Example]) -> list[Example]:
    """Return the two examples most like a fact: of its kind, then of its status, then of its line's shape."""

    def likeness(example: Example) -> tuple[bool, bool, int]:
        shape = sum((mark in example.line) == (mark in fact.text) for mark in (";", "(", ","))
        return (example.kind is fact.kind, example.status is fact.status, shape)

    return sorted(examples, key=likeness, reverse=True)[:2]


def _born(recorded: str) -> str:
    when = parse_when(recorded, None)
    return show_day(when) if when else ""
