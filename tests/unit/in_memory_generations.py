"""A GenerationStore in which nothing is ever under way, and nothing can be begun."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from service.errors import StoreError
from service.ports.held import Right
from service.ports.ondemand import (
    Asked,
    Generation,
    GenerationId,
    GenerationState,
    Maker,
    Taken,
    Told,
)


class NoGenerations:
    """What a page server without any generation finds."""

    def under_way(self, asked: Asked) -> Generation | None:
        return None

    def join(self, generation: Generation, maker: Maker) -> Generation:
        raise StoreError("the database cannot be written")

    def get_generation(self, generation_id: GenerationId) -> Generation | None:
        return None

    def generations_about(
        self, server: str, patient: str, access_profile: str, limit: int = 20, before: int | None = None
    ) -> tuple[Sequence[Generation], int | None]:
        return (), None

    def begin(self, generation_id: GenerationId, maker: str) -> bool:
        return False

    def tell(self, generation_id: GenerationId, maker: str, events: Sequence[Told]) -> bool:
        return False

    def end(self, generation: Generation, maker: str, last: Told, at: datetime) -> bool:
        return False

    def told(
        self, generation_id: GenerationId, after: int = 0
    ) -> tuple[Sequence[Told], GenerationState | None]:
        return (), None

    def beat(self, generation_id: GenerationId) -> None:
        pass

    def beats(self, generation_id: GenerationId, maker: str) -> tuple[int, bool] | None:
        return None

    def stop(self, generation_id: GenerationId) -> None:
        pass

    def maker_of(self, generation_id: GenerationId) -> Maker | None:
        return None

    def take_over(self, generation_id: GenerationId, gone: Maker, maker: Maker) -> Taken | None:
        return None

    def forget_generations(self, before: datetime) -> int:
        return 0

    def hold_slot(self, slot: int) -> Right | None:
        raise StoreError("the database cannot be written")

    def put_answer(self, key: str, body: str, answer: str, patient: str, at: datetime) -> None:
        raise StoreError("the database cannot be written")

    def get_answer(self, key: str, since: datetime) -> tuple[str, str] | None:
        return None
