"""Why a summary is not there, in the words of a ward. Codes are for machines; nobody reads one alone."""

from __future__ import annotations

from connectors.admissions.resolve import Unresolved
from service.eligibility import Reason, sentence_of

_SENTENCES = {
    "ended": "The stay is over, or was cancelled.",
    "withdrawn": "A person withdrew this summary; the chart has not changed since.",
    "shredded": "What was stored about this patient was destroyed, and nothing new is made.",
    "incomplete": "A part of the chart that matters could not be read, so nothing was filed.",
    "deceased": "The patient has died.",
    "stopped": "Publishing is stopped.",
    "not_readable": "The record system does not let this patient or stay be read.",
    "chart_keeps_changing": "The chart changed while it was being summarised. It is tried again.",
    "engine": "The language model did not answer.",
    "store": "The database could not be used.",
    "record": "This patient record cannot be summarised: merged, inactive, or without this stay.",
    "timeout": "The record system did not answer in time.",
    "unreachable": "The record system cannot be reached.",
    "connection_refused": "The record system cannot be reached.",
    "dns": "The record system cannot be reached.",
    "cut_off": "The connection to the record system broke off.",
    "server_failed": "The record system failed.",
    "throttled": "The record system was too busy.",
    "rejected": "The record system did not take the request.",
    "filing": "The record system did not take the document.",
    "template": "There is no template set of this kind that can be used.",
    "settings": "A setting is wrong. `epicrisis doctor` says which.",
    "internal": "A fault in Epicrisis itself. The log names its kind.",
    "forbidden": "The record system refuses access.",
    "unauthorized": "The record system refuses access.",
}
_OTHER = "It did not work ({code}). `epicrisis retry` tries again."


def sentence_for(code: str) -> str:
    """Return what a reason or an error code means; empty for an empty one."""
    if not code:
        return ""
    if code in _SENTENCES:
        return _SENTENCES[code]
    for kind in (Reason, Unresolved):
        if code in {str(one) for one in kind}:
            return sentence_of(kind(code))
    return _OTHER.format(code=code)
