"""What each resource costs in the evidence, in tokens, beside its compact FHIR JSON."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from connectors.fhir.codec import decode, encode
from service.context.choose import choose_facts
from service.context.chosen import Context, Line
from service.context.render import defused
from service.engine.profiles import profile_for
from service.engine.prompt import Message
from service.engine.tokens import FolderTokenizer
from service.engine.weights import DEMONSTRATION_MODEL
from service.record.assemble import assemble_record, resources_of
from service.record.facts import Kind
from service.record.required import required_facts
from tests.bench.charts import UNBOUNDED, everything_of
from tests.bench.table import Table, at_least

TokensOf = Callable[[str], int]
EVERY, PIVOTED = 10, 20
"""How many times fewer tokens every type, and results in a table, must cost."""
LABS, VITALS, ALONE = "results in a table", "vital signs in a table", "on lines of their own"


class Cost(NamedTuple):
    """One resource: its type, how it is shown, and its tokens as FHIR JSON and in the evidence."""

    kind: str
    form: str
    json: int
    evidence: float


def bench_compaction(charts: Iterable[bytes], tokenizer: FolderTokenizer) -> Table:
    """Return the medians of every type over these charts, everything shown, the text of notes apart."""
    tokens = token_counter(tokenizer)
    costs = [cost for data in charts for cost in costs_of(data, tokens)]
    groups: dict[tuple[str, str], list[Cost]] = defaultdict(list)
    for cost in costs:
        groups[cost.kind, ""].append(cost)
        if cost.kind == "Observation":
            groups[cost.kind, cost.form].append(cost)
    columns = ("type", "shown as", "n", "tokens, JSON", "tokens, evidence", "ratio", "ratio, each", "target")
    rows = [_row(kind, form, found) for (kind, form), found in sorted(groups.items())]
    remarks = [
        "`ratio` is the JSON's median over the evidence's median; `ratio, each` the median of each "
        "resource's own. A row is shared out evenly over its values, the head of a table over its rows' "
        "values, a line over the resources that say the same; labels, authors and trends are counted in.",
        "The text of notes is left out of both sides: base64 data there, sentences here.",
    ]
    return Table("Compaction", columns, rows, remarks)


def token_counter(tokenizer: FolderTokenizer) -> TokensOf:
    """Return a function that counts the tokens of a text, the chat around it left out."""
    around = tokenizer.count((Message("user", ""),))
    return lambda text: tokenizer.count((Message("user", text),)) - around


def costs_of(data: bytes, tokens: TokensOf) -> Iterator[Cost]:
    """Yield the cost of every resource of a Bundle that is shown."""
    resources = list(resources_of(decode(data)))
    record = assemble_record(resources)
    context = choose_facts(
        record, required_facts(record), everything_of("history"), profile_for(DEMONSTRATION_MODEL),
        UNBOUNDED, lambda chat: sum(len(message.content) for message in chat) // 4,
    )  # fmt: skip
    shared = shares(context, tokens)
    for resource in resources:
        reference = f"{resource.get('resourceType')}/{resource.get('id')}"
        if reference in shared:
            form, evidence = shared[reference]
            yield Cost(resource["resourceType"], form, tokens(minified(resource)), evidence)


def minified(resource: dict[str, Any]) -> str:
    """Return a resource as received, in compact JSON, without the data of its attachments."""
    bare = dict(resource)
    if "presentedForm" in bare:
        bare["presentedForm"] = [_without_data(form) for form in bare["presentedForm"]]
    if resource["resourceType"] == "DocumentReference":
        bare["content"] = [
            {**content, "attachment": _without_data(content.get("attachment", {}))}
            for content in bare.get("content", ())
        ]
    return encode(bare).decode()


def _without_data(attachment: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attachment.items() if key != "data"}


def shares(context: Context, tokens: TokensOf) -> dict[str, tuple[str, float]]:
    """Return for each resource how it is shown, and its share of the evidence in tokens."""
    spent: dict[str, float] = defaultdict(float)
    forms: dict[str, str] = {}
    for block in context.blocks:
        for line, head_tokens, head_facts in _with_heads(block.lines, tokens):
            said = [fact for fact in line.facts if fact.span is None]
            if not said:
                continue
            each = (tokens(shown(line)) + 1) / len(line.facts) + head_tokens / max(head_facts, 1)
            for fact in said:
                for source in fact.sources:
                    spent[source.reference] += each / len(fact.sources)
                    if block.key != "trends":
                        forms[source.reference] = _form(line, fact.kind)
    return {reference: (forms[reference], value) for reference, value in spent.items() if reference in forms}


def _with_heads(lines: Sequence[Line], tokens: TokensOf) -> Iterator[tuple[Line, int, int]]:
    """Yield each labelled line with the tokens of its table's head, and how many values share that head."""
    tables: list[tuple[Line | None, list[Line]]] = [(None, [])]
    for line in lines:
        if line.label is None:
            tables.append((line, []))
        elif is_row(line) or tables[-1][0] is None:
            tables[-1][1].append(line)
        else:
            tables.append((None, [line]))
    for head, rows in tables:
        is_table = head is not None and any(map(is_row, rows))
        size = tokens(shown(head)) + 1 if head is not None and is_table else 0
        values = sum(len(row.facts) for row in rows)
        yield from ((row, size, values) for row in rows)


def is_row(line: Line) -> bool:
    """Tell whether a line is a row of a table: those are labelled by their day."""
    return line.label is not None and "@" in line.label


def shown(line: Line) -> str:
    """Return a line as it stands in the prompt."""
    return f"[{line.label}] {defused(line.text)}" if line.label else defused(line.text)


def _form(line: Line, kind: Kind) -> str:
    if is_row(line):
        return VITALS if kind is Kind.VITAL else LABS
    return ALONE


def _row(kind: str, form: str, costs: Sequence[Cost]) -> tuple[str, ...]:
    json = statistics.median(cost.json for cost in costs)
    evidence = statistics.median(cost.evidence for cost in costs)
    each = statistics.median(cost.json / cost.evidence for cost in costs)
    ratio, least = json / evidence, PIVOTED if form == LABS else EVERY
    target = at_least(ratio, least, f"{least} ×") if not form or form == LABS else ""
    return (
        kind, form or "all", f"{len(costs):,}", f"{json:,.0f}", f"{evidence:.1f}", f"{ratio:.1f}",
        f"{each:.1f}", target,
    )  # fmt: skip
