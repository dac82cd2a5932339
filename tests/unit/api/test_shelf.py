"""What is kept in memory for a while: bounded in bytes and seconds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.api.shelf import Shelf


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=30))
def test_what_is_kept_never_exceeds_its_bytes(puts: list[tuple[int, int]]) -> None:
    shelf: Shelf[bytes] = Shelf(10, 100, Clock())
    for key, size in puts:
        shelf.put(key, bytes(size), size)
        kept = [one for one in map(shelf.get, range(6)) if one is not None]
        assert sum(map(len, kept)) <= 100
        assert shelf.get(key) == bytes(size)


def test_what_was_used_last_stays_and_what_is_old_goes() -> None:
    clock = Clock()
    shelf: Shelf[str] = Shelf(10, 100, clock)
    shelf.put("a", "a", 50)
    shelf.put("b", "b", 50)
    assert shelf.get("a") == "a"
    shelf.put("c", "c", 50)
    assert (shelf.get("a"), shelf.get("b"), shelf.get("c")) == ("a", None, "c")
    clock.at = 10
    assert shelf.get("a") is None
    shelf.put("d", "d", 101)
    assert shelf.get("d") is None
