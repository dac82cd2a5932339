"""Digests: each sentence under a label that stands for its facts; a failed one is named."""

from __future__ import annotations

from fixtures.facts import A1C, APPENDECTOMY, GOUT, record
from service.context.choose import choose_facts
from service.context.chosen import Line
from service.context.digests import TITLE, Digest, Told, digest_block, digest_tokens
from service.context.manifest import CARRIED, LOST, NO_ROOM
from tests.unit.context.charts import FREE, HISTORY, count, prompt_of

FIRST = Digest("2004", (Told("An appendix was taken out.", (APPENDECTOMY,)),))
SECOND = Digest("2011", (Told("Gout began.", (GOUT,)), Told("It is active.", (GOUT, A1C))))
FAILED = Digest("2012", (), (A1C.id,))


def test_every_sentence_has_a_label_that_stands_for_its_facts() -> None:
    block = digest_block([FIRST, SECOND, FAILED])
    assert block is not None
    assert block.title == TITLE
    assert block.lines == (
        Line("2004:"),
        Line("An appendix was taken out.", "Z1", (APPENDECTOMY,)),  # type: ignore[arg-type]
        Line("2011:"),
        Line("Gout began.", "Z2", (GOUT,)),  # type: ignore[arg-type]
        Line("It is active.", "Z3", (GOUT, A1C)),  # type: ignore[arg-type]
        Line("2012: this part of the record could not be digested"),
    )


def test_without_a_sentence_there_is_no_block() -> None:
    assert digest_block([]) is None
    assert digest_block([Digest("2004", ())]) is None


def test_tokens_are_rather_too_many_than_too_few() -> None:
    block = digest_block([FIRST, SECOND])
    assert block is not None
    assert digest_tokens([FIRST, SECOND]) >= sum(len(line.text.split()) + 1 for line in block.lines)
    assert digest_tokens([]) == 0


def test_what_a_digest_tells_is_carried_and_what_a_failed_one_lost_is_named() -> None:
    filler = [Told(f"Sentence {n} of many words in a row.", (GOUT,)) for n in range(60)]
    chart = record([GOUT, A1C, APPENDECTOMY])
    needed = 400
    context = choose_facts(chart, [], HISTORY, FREE, needed, count, digests=[FIRST, SECOND, FAILED])
    assert {"Z1", "Z2", "Z3"} <= set(context.cites)
    assert context.behind("Z3") == (GOUT, A1C)  # type: ignore[arg-type]
    assert "2012: this part of the record could not be digested" in prompt_of(context)
    large = choose_facts(
        chart, [], HISTORY, FREE, needed, count, digests=[Digest("2000", tuple(filler)), FIRST]
    )
    assert "Z2" not in large.cites  # the newest that fit: the long one is the older
    assert large.behind("Z1") == (APPENDECTOMY,)  # type: ignore[arg-type]
    assert large.tokens <= needed


def test_the_reason_of_what_is_left_out_says_which_digest_tells_it() -> None:
    from service.context.manifest import left_out

    found = left_out(record([GOUT, A1C, APPENDECTOMY]), (), {GOUT.id}, {A1C.id}, (), HISTORY)
    assert [(item.kind, item.reason) for item in found] == [
        ("problem", CARRIED),
        ("procedure", NO_ROOM),
        ("result", LOST),
    ]
