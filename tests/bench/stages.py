"""One summary of a small chart by the demonstration's model: seconds and tokens of each stage."""

from __future__ import annotations

from pathlib import Path

from fixtures.engines import model_cache
from service.settings import load_settings
from service.wiring import open_summarizer
from tests.bench.table import Row, Table, seconds


async def bench_stages(base_url: str, patient_id: str, home: Path) -> Table:
    """Summarise without filing; the engine's start is part of the first stage that needs it."""
    settings = load_settings(home=home, model=None)
    if model_cache().is_dir():
        home.mkdir(parents=True, exist_ok=True)
        (home / "models").symlink_to(model_cache().resolve())
    async with open_summarizer(settings, base_url, lambda stage, detail: None) as summarizer:
        outcome = await summarizer.summarize(patient_id, dry_run=True, actor="system:bench")
    notes = {
        "fetch": f"{outcome.resources} resources",
        "assemble": f"{outcome.facts} facts",
        "generate": f"the engine's start included; {outcome.prompt_tokens} prompt tokens "
        f"({outcome.cached_tokens} from the prefix cache), {outcome.completion_tokens} written",
        "verify": f"{outcome.claims_from_model} model claims published, {outcome.claims_dropped} dropped",
    }
    rows: list[Row] = [
        ("summarise the smallest chart of the demo", stage, seconds(taken), notes.get(stage, ""))
        for stage, taken in outcome.seconds.items()
    ]
    return Table("Stages of one summary", ("work", "stage", "seconds", "note"), rows)
