"""What every task on one chart begins with, as prompts of their own, so that an engine has read it before.

With sliding-window layers an engine can go on only from where an earlier prompt ended: a question that
follows a summary finds none of the chart in the cache, although both begin with it. A prompt that ends with
the chart makes such a place.
"""

from __future__ import annotations

from dataclasses import replace

from service.context.chosen import Context
from service.context.render import requests_for, whole_chat
from service.context.templates import TemplateSet
from service.engine.prompt import Message, Profile, Prompt, Sampling

BACKGROUND = 1
"""After the answers that somebody waits for."""
_AFTER_THE_CHART = "\n\nNOT SHOWN\n"
"""From here on a prompt may differ from one task to the next."""


def beginnings(context: Context, templates: TemplateSet, profile: Profile) -> tuple[Prompt, ...]:
    """Return the prompts that an engine should have read, at one token each; the first before the others.

    Of a whole chart two: to its last line, from where a question goes on, and with what stands behind it for
    this task. A guided model is shown no chart: its first request wakes the engine, and no more is worth it
    (measured: 5,300 tokens read to save 400).
    """
    if profile.mode == "guided":
        requests = requests_for(context, templates, profile, priority=BACKGROUND)
        return tuple(_at_one_token(request.prompt) for request in requests[:1])
    *before, user = whole_chat(context, templates, profile, task="")
    shared = whole_chat(replace(context, focus=()), templates, profile, task="")[-1].content
    chart, _, _ = shared.rpartition(_AFTER_THE_CHART)
    ends = (chart, user.content.rstrip())
    return tuple(Prompt((*before, Message(user.role, end)), Sampling(1), priority=BACKGROUND) for end in ends)


def _at_one_token(prompt: Prompt) -> Prompt:
    return replace(prompt, sampling=replace(prompt.sampling, max_tokens=1))
