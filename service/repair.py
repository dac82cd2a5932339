"""Repair: what the rules refused goes back to the engine once, with the reasons, behind the same beginning.

What comes back is judged by the same rules as any other sentence; here only the questions are made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from service.context.chosen import Context, Label
from service.context.render import (
    GUIDED_TOKENS_PER_FACT,
    Request,
    defused,
    guided_schema,
    whole_chat,
)
from service.context.templates import TemplateSet
from service.engine.prompt import Profile
from service.grounding.reasons import reason_of
from service.grounding.summary import Claim, DraftClaim, Verdict

REPAIR = "repair.j2"
ROUNDS = 1
"""How often a refused sentence goes back: part of the run key."""
MOST_REQUESTS = 3
MOST_CLAIMS = 20
"""Refused sentences that one request gives back."""
MOST_GUIDED_REQUESTS = 4
"""A guided model is asked about a fact or a few at a time. A small one mends little (2 of 14, measured) and
is slow without a GPU: so many short requests, in one batch."""
TOKENS_A_CLAIM = 400
"""What a refused sentence takes, with its reasons, in the task and again in the answer."""
NOT_GIVEN_BACK = frozenset({"said_before"})
_OURS = re.compile(r"[A-Z][0-9A-Za-z@-]{0,30}")


@dataclass(frozen=True, slots=True)
class Checked:
    """A sentence of an answer, and what the rules found."""

    draft: DraftClaim
    claim: Claim

    @property
    def is_refused(self) -> bool:
        """True where the sentence may be mended: a repetition is not worth another one."""
        return self.claim.verdict is not Verdict.SUPPORTED and not NOT_GIVEN_BACK & set(self.claim.reasons)


@dataclass(frozen=True, slots=True)
class Answered:
    """A request, and each sentence of its answer with the rules' verdict."""

    request: Request
    checked: tuple[Checked, ...]


def repair_requests(
    answered: Sequence[Answered], context: Context, templates: TemplateSet, profile: Profile
) -> tuple[Request, ...]:
    """Return the requests that give refused sentences back, a bounded number; none where none is refused."""
    if profile.mode == "guided":
        return tuple(_guided(answered, templates))[:MOST_GUIDED_REQUESTS]
    return tuple(_free(answered, context, templates, profile))[:MOST_REQUESTS]


def _free(
    answered: Sequence[Answered], context: Context, templates: TemplateSet, profile: Profile
) -> Iterator[Request]:
    """Give back some sentences at a time behind the whole evidence, which the engine has in its cache.

    The answer's room is that of the first answer: what the task grows by, the answer is shorter.
    """
    most = max(1, min(MOST_CLAIMS, profile.max_output_tokens // TOKENS_A_CLAIM))
    titles = [section.title for section in context.sections]
    for one in answered:
        refused = [checked for checked in one.checked if checked.is_refused]
        for start in range(0, len(refused), most):
            part = refused[start : start + most]
            system, user = whole_chat(context, templates, profile, task="")
            task = templates.render(REPAIR, refused=[_told(checked) for checked in part], titles=titles)
            chat = (system, replace(user, content=user.content + task))
            tokens = min(profile.max_output_tokens, len(part) * TOKENS_A_CLAIM // 2 + TOKENS_A_CLAIM)
            sampling = replace(one.request.prompt.sampling, max_tokens=tokens)
            prompt = replace(one.request.prompt, messages=chat, sampling=sampling)
            yield replace(one.request, prompt=prompt)


def _guided(answered: Sequence[Answered], templates: TemplateSet) -> Iterator[Request]:
    """Ask again about the facts that no sentence bears out yet."""
    borne_out = {
        label
        for one in answered
        for checked in one.checked
        if checked.claim.verdict is Verdict.SUPPORTED
        for label in checked.draft.labels
    }
    for one in answered:
        asked = set(one.request.labels) - borne_out
        refused = [c for c in one.checked if c.is_refused and asked & set(c.draft.labels)]
        if refused:
            yield _guided_request(one.request, refused, templates)


def _guided_request(request: Request, refused: Sequence[Checked], templates: TemplateSet) -> Request:
    """Ask again behind the same examples: what was refused and why, then the lines as they were shown.

    Measured with the small model, of 14 facts: 2 mended so, none with its answer as a turn before the
    reasons, or with the reasons behind the lines. It copies what it read last.
    """
    named = {label for checked in refused for label in checked.draft.labels}
    labels = tuple(label for label in request.labels if label in named)
    *before, lines = request.prompt.messages
    task = templates.render(REPAIR, refused=[_told(checked) for checked in refused], titles=[])
    chat = (*before, replace(lines, content=f"{task}\n\n{lines.content}"))
    tokens = GUIDED_TOKENS_PER_FACT * len(labels)
    sampling = replace(request.prompt.sampling, max_tokens=tokens)
    prompt = replace(request.prompt, messages=chat, sampling=sampling, schema=guided_schema(labels))
    return Request(prompt, request.section, labels)


def _told(checked: Checked) -> dict[str, str]:
    """Return what the task says of one refused sentence. The model may have copied a stranger's words."""
    reasons = dict.fromkeys(reason_of(code).detail for code in checked.claim.reasons)
    return {
        "text": json.dumps(defused(checked.draft.text), ensure_ascii=False),
        "labels": " ".join(f"[{_shown(label)}]" for label in checked.draft.labels),
        "reasons": " ".join(reasons),
    }


def _shown(label: Label) -> str:
    """Return a label as a task may hold it: what is none of ours may be anything, half a character too."""
    return label if _OURS.fullmatch(label) else "?"


def mended(drafts: Sequence[DraftClaim], answered: Sequence[Answered]) -> tuple[DraftClaim, ...]:
    """Return what is new among the sentences that came back: an answer that says the same again is none."""
    before = {(checked.draft.text, checked.draft.labels) for one in answered for checked in one.checked}
    return tuple(draft for draft in drafts if (draft.text, draft.labels) not in before)
