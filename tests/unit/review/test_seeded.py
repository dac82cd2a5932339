"""Planted errors: wrong for their sources, of four kinds, and the same for the same seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from fixtures.facts import a_fact
from fixtures.sample_run import sample_summary
from service.grounding.check import Judge
from service.grounding.source import Source
from service.grounding.check import judge
from service.grounding.summary import Verdict
from service.review.seeded import plant

SUMMARY = sample_summary()
SEEDS = [str(n) for n in range(200)]
