"""Attested edits as a training set: what the model was asked, and the answer that a clinician signed.

One row is one request of a run: its messages, then its answer with the clinicians' words in the place of the
model's. What the rules refused and what the clinician rejected is left out of the answer, and a request whose
answer nobody edited teaches nothing and is no row. Lines that code added were never asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

from service.engine.prompt import Completion, Prompt
from service.grounding.summary import Origin
from service.ports.attesting import Edit
from service.ports.runs import StoredRun

CLAIMS = "claims"


def rows_of(run: StoredRun, edits: Iterable[Edit], rejected: Set[int]) -> Iterator[dict[str, Any]]:
    """Yield one row for each request of a run whose answer was edited, in chat format (`messages`)."""
    published = run.summary.published
    written = {claim.text: ordinal for ordinal, claim in enumerate(published) if claim.origin is Origin.MODEL}
    changed = {edit.ordinal: edit.after for edit in edits if edit.ordinal not in rejected}
    for prompt, completion in zip(run.prompts, run.completions, strict=False):
        answer = _answer(completion, written, changed, rejected)
        if answer is not None:
            yield {"messages": [*_asked(prompt), {"role": "assistant", "content": answer}]}


def _asked(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in prompt.messages]


def _answer(
    completion: Completion, written: Mapping[str, int], changed: Mapping[int, str], rejected: Set[int]
) -> str | None:
    """Return the answer as it was attested; None where nothing in it was edited, or it is no JSON."""
    content = _json_in(completion.text)
    claims = content.get(CLAIMS) if isinstance(content, dict) else None
    if not isinstance(claims, list):
        return None
    kept: list[dict[str, Any]] = []
    is_edited = False
    for claim in claims:
        ordinal = written.get(_text_of(claim))
        if ordinal is None or ordinal in rejected:
            continue
        is_edited = is_edited or ordinal in changed
        kept.append({**claim, "text": changed.get(ordinal, claim["text"])})
    return json.dumps({**content, CLAIMS: kept}, ensure_ascii=False) if is_edited else None


def _text_of(claim: Any) -> str:
    text = claim.get("text") if isinstance(claim, dict) else None
    return " ".join(text.split()) if isinstance(text, str) else ""


def _json_in(text: str) -> Any:
    """Return the JSON object that a text holds, whatever fence or thinking stands before it; else None."""
    start = text.find("{")
    while start >= 0:
        try:
            return json.JSONDecoder().raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
    return None
