"""By which rules the statements of a document were judged: their version, and the words that they know."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files


@cache
def lexicon_digest() -> str:
    """Return the SHA-256 (hex) of the lexicon by which this installation judges."""
    return hashlib.sha256((files("service.grounding") / "lexicon.toml").read_bytes()).hexdigest()
