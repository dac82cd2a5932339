from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from service.identity.onetime import OneTimeToken
from service.identity.refusal import Reason, Refused


def test_a_token_opens_once_and_the_next_one_is_another() -> None:
    token = OneTimeToken()
    first = token.value
    assert len(first) >= 43
    assert first not in repr(token)
    token.use(first)
    assert token.value != first
    with pytest.raises(Refused) as refused:
        token.use(first)
    assert refused.value.reason is Reason.ONE_TIME
    token.use(token.value)


@pytest.mark.parametrize("shown", ["", "x", "é" * 43, "0" * 43])
def test_another_text_opens_nothing_and_leaves_the_token_good(shown: str) -> None:
    token = OneTimeToken()
    first = token.value
    with pytest.raises(Refused):
        token.use(shown)
    token.use(first)


def test_of_many_who_show_it_at_once_one_comes_in() -> None:
    token = OneTimeToken()
    first = token.value

    def comes_in(_: int) -> bool:
        try:
            token.use(first)
        except Refused:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(comes_in, range(64))) == 1
