"""A run comes back equal to what went in."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import StoreError
from service.record.facts import Precision, When
from service.store.codec import decode_run, encode_run
from tests.conftest import CANARY
from tests.unit.writeback.charts import A1C, make_run, varied

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(
            st.sampled_from(["a", "$tuple", "$decimal", "$object", "$x"]) | st.text("ab$"), inner, max_size=3
        )
    ),
    max_leaves=12,
)


def _same(left: Any, right: Any) -> bool:
    """Equality that tells 1 from True and from 1.0, and 6.10 from 6.1."""
    return bool(left == right) and repr(left) == repr(right)


def test_a_run_comes_back_equal_with_types_kept() -> None:
    run = make_run()
    back = decode_run(encode_run(run))
    assert back == run
    assert back.summary.facts[1].quantity is not None
    assert str(back.summary.facts[1].quantity.number) == "6.10"
    assert back.inputs.sampling["stop"] == ("\n\n", "END")
    assert back.prompts[0].schema is not None
    assert back.prompts[0].schema["required"] == ("cites", "text")
    assert back.created_at.tzinfo is not None


@given(st.dictionaries(st.text("ab$", min_size=1), VALUES, max_size=4))
def test_values_without_a_type_of_their_own_come_back_as_they_were(sampling: dict[str, Any]) -> None:
    run = make_run()
    run = replace(run, inputs=replace(run.inputs, sampling=sampling))
    assert _same(decode_run(encode_run(run)).inputs.sampling, sampling)


def test_local_mean_time_keeps_its_instant() -> None:
    at = datetime(1875, 3, 1, tzinfo=ZoneInfo("America/New_York"))
    assert at.utcoffset() != at.replace(year=1950).utcoffset()  # -4:56:02 against -5:00
    when = When("1875", Precision.YEAR, at, at, at.date())
    run = varied(make_run(), as_of=when, facts=(replace(A1C, when=when),))
    assert decode_run(encode_run(run)) == run


@pytest.mark.parametrize("bad", ["\ud800", f"{CANARY}\udfff"])
def test_text_that_is_not_unicode_is_refused_without_repeating_it(bad: str) -> None:
    run = varied(make_run(), kind=bad)
    with pytest.raises(StoreError, match="cannot be stored as text") as caught:
        encode_run(run)
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_number_that_json_does_not_know_is_refused() -> None:
    with pytest.raises(StoreError):
        encode_run(replace(make_run(), seconds={"fetch": float("nan")}))


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"run_id": 7}'])
def test_what_is_not_a_run_is_refused(text: str) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        decode_run(text)
