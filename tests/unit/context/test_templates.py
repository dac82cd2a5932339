"""Template sets: what a set resolves to, a site's own folder, and every refusal with its file and line."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib.resources import files
from pathlib import Path

import pytest
from jinja2.exceptions import SecurityError

from fixtures.facts import fact
from service.context.templates import (
    TEMPLATES,
    VARIABLES,
    FocusScope,
    Form,
    Scope,
    TemplateError,
    TemplateSet,
    available,
    load,
    open_library,
)
from service.context.written import _ROWS, Written
from service.record.facts import Kind, Status
from service.record.rules import default_rules

BUILT_IN = ("admission", "handover", "history", "problems")

WARD = """id = "ward"
version = "1.0.0"
title = "Ward"
extends = "handover"
[[changes]]
version = "1.0.0"
date = 2026-11-24
reason = "Ours."
"""

SCHEMA = """{"properties": {"claims": {"items": {"properties": {
  "section": {"type": "string"},
  "cites": {"type": "array", "items": {"type": "string"}},
  "text": {"type": "string", "maxLength": 400}
}}}}}
"""


def write(site: Path, settings: str = WARD, name: str = "ward", **texts: str) -> Path:
    """Write one set; `task="…"` gives it a task.j2, `schema=` its grammar."""
    folder = site / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompt.toml").write_text(settings, encoding="utf-8")
    for key, text in texts.items():
        file = "answer.schema.json" if key == "schema" else f"{key}.j2"
        (folder / file).write_text(text, encoding="utf-8")
    return site


def ward(site: Path, settings: str = WARD, **texts: str) -> TemplateSet:
    return open_library(write(site, settings, **texts)).load("ward")


def refused(site: Path, settings: str = WARD, **texts: str) -> tuple[str, int | None, str]:
    """Return the refused file's name, its line, and the message."""
    write(site, settings, **texts)
    with pytest.raises(TemplateError) as caught:
        open_library(site)
    error = caught.value
    assert error.message.startswith(f"{error.file}, line {error.line}: " if error.line else f"{error.file}: ")
    assert (error.code, error.exit_code) == ("template", 3)
    assert str(site) in error.file
    return Path(error.file).name, error.line, error.message


# The built-in sets


def test_the_four_sets_are_offered_and_the_base_is_not() -> None:
    assert available() == BUILT_IN
    with pytest.raises(KeyError):
        load("base")


@pytest.mark.parametrize("set_id", BUILT_IN)
def test_every_set_has_a_heading_for_every_required_kind(set_id: str) -> None:
    needed = {rule.key for rule in default_rules().rules} | {"encounter"}
    headings = [key for section in load(set_id).sections for key in section.required]
    assert sorted(headings) == sorted(needed)


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "task.j2"])
def test_all_sets_share_their_prompts_up_to_the_task(name: str) -> None:
    for values in VARIABLES[name]:
        assert len({load(set_id).render(name, **values) for set_id in BUILT_IN}) == 1


def test_the_tasks_and_digests_of_the_sets_differ() -> None:
    sets = [load(set_id) for set_id in BUILT_IN]
    assert len({one.render("task.j2", titles=["Problems"]) for one in sets}) == 4
    assert len({one.digest for one in sets}) == 4


@pytest.mark.parametrize("set_id", BUILT_IN)
def test_every_task_asks_for_citations_and_the_headings_in_order(set_id: str) -> None:
    task = load(set_id).render("task.j2", titles=["One", "Two"])
    assert "in this order: One; Two." in task
    assert "Each claim names its section and the labels it cites" in task
    assert task.endswith("Answer with the JSON object alone.")


@pytest.mark.parametrize("set_id", BUILT_IN)
def test_the_evidence_has_one_layout_and_every_fact_one_block(set_id: str) -> None:
    templates = load(set_id)
    assert templates.blocks == load("history").blocks
    for kind in set(Kind) - {Kind.PATIENT}:
        for status in Status:
            for record in ("order", "statement", "administration", "dispense", "", "other"):
                details = (("record", record),) if record else ()
                assert templates.block_of(fact("x", kind, status=status, details=details)), (kind, status)
    assert templates.block_of(fact("x", Kind.PATIENT)) is None


def test_a_procedure_not_done_or_of_unknown_status_does_not_stand_with_those_performed() -> None:
    for status in (Status.PLANNED, Status.NOT_DONE, Status.CANCELLED, Status.UNKNOWN):
        block = load("history").block_of(fact("x", Kind.PROCEDURE, status=status))
        assert block is not None
        assert block.key == "procedures_not_done"
    performed = load("history").block_of(fact("x", Kind.PROCEDURE, status=Status.COMPLETED))
    assert performed is not None
    assert performed.key == "procedures"


def test_what_was_given_does_not_stand_with_past_medications() -> None:
    keys = {}
    for record in ("order", "administration", "dispense"):
        given = fact("x", Kind.MEDICATION, status=Status.COMPLETED, details=(("record", record),))
        block = load("history").block_of(given)
        assert block is not None
        keys[record] = block.key
    assert keys == {
        "order": "past_medications",
        "administration": "medications_given",
        "dispense": "medications_given",
    }


def test_results_are_a_table_vital_signs_go_by_day_and_notes_are_read() -> None:
    forms = {block.key: block.form for block in load("history").blocks}
    assert (forms["results"], forms["vitals"], forms["notes"]) == (Form.PIVOT, Form.VITALS, Form.NOTES)
    assert load("history").unshown == {}


def test_an_admission_keeps_this_stay_apart_from_what_was_before() -> None:
    admission = load("admission")
    potassium = fact("Potassium: 4 mmol/L", Kind.RESULT, status=Status.FINAL)
    now, before = admission.heading_of(potassium, True), admission.heading_of(potassium, False)
    assert now is not None
    assert before is not None
    assert (now.key, now.scope) == ("stay_results", Scope.STAY)
    assert (before.key, before.scope) == ("before_results", Scope.BEFORE)
    assert admission.focus.scope is FocusScope.STAY


def test_every_fact_has_a_heading_in_all_sets_but_the_handover() -> None:
    for set_id in ("admission", "history", "problems"):
        for kind in set(Kind) - {Kind.PATIENT}:
            for status in Status:
                for of_stay in (True, False):
                    assert load(set_id).heading_of(fact("x", kind, status=status), of_stay), (set_id, kind)


def test_a_handover_is_short_and_of_the_last_three_days() -> None:
    handover = load("handover")
    assert (handover.limits.max_claims, handover.focus.days) == (40, 3)
    assert handover.schema["properties"]["claims"]["maxItems"] == 40
    assert handover.heading_of(fact("Gout: resolved", status=Status.RESOLVED), False) is None
    assert handover.heading_of(fact("Gout: active", status=Status.ACTIVE), False) is not None


def test_resolved_problems_come_last_when_the_summary_goes_by_problem() -> None:
    problems = load("problems")
    assert problems.heading_of(fact("Gout", status=Status.RESOLVED), False) is problems.sections[-1]
    active = problems.heading_of(fact("Gout", status=Status.ACTIVE), False)
    assert active is not None
    assert active.required == ("problems",)


@pytest.mark.parametrize("set_id", BUILT_IN)
def test_every_change_of_a_set_has_a_date_and_a_reason(set_id: str) -> None:
    templates = load(set_id)
    assert templates.changes[-1].version == templates.version
    assert all(len(change.reason) > 40 for change in templates.changes)
    assert templates.lineage == (f"{set_id} {templates.version}", "base 1.2.0")


def test_the_evidence_is_in_its_fixed_order_and_ends_in_constant_text() -> None:
    def block(title: str) -> dict[str, object]:
        return {"title": title, "lines": [f"[F1] {title} line"]}

    values = {
        "patient": {"gender": "female", "born": "04-May-1951"},
        "index": ["[F1] x"],
        "blocks": [block("Shared")],
        "focus": [block("Own")],
        "manifest": ["Results: 3 statements"],
    }
    full = load("history").render("evidence.j2", **values)
    marks = ["PATIENT: female", "REQUIRED, BY INDEX", "SHARED", "FURTHER, FOR THIS TASK: OWN", "NOT SHOWN"]
    assert [full.index(mark) for mark in marks] == sorted(full.index(mark) for mark in marks)
    assert full.startswith("PATIENT: female, born 04-May-1951.\n\nREQUIRED, BY INDEX\n[F1] x\n\nSHARED\n")
    empty = load("history").render("evidence.j2", **VARIABLES["evidence.j2"][1])
    assert "REQUIRED" not in empty
    assert full.splitlines()[-1] == empty.splitlines()[-1]
    assert len(full.splitlines()[-1].split()) >= 16
    without_focus = load("history").render("evidence.j2", **{**values, "focus": []})
    assert full.startswith(without_focus[: without_focus.index("NOT SHOWN")].rstrip())


# Inheritance and a site's folder


def test_a_set_inherits_what_it_does_not_give(tmp_path: Path) -> None:
    own = ward(tmp_path, WARD + "[limits]\nmax_claims = 7\n", task="TASK: {{ titles | length }}\n")
    parent = load("handover")
    assert own.render("task.j2", titles=["a", "b"]) == "TASK: 2"
    assert own.render("system.j2") == parent.render("system.j2")
    assert (own.sections, own.blocks, own.focus) == (parent.sections, parent.blocks, parent.focus)
    assert (own.limits.max_claims, own.limits.trends) == (7, 8)
    assert own.schema["properties"]["claims"]["maxItems"] == 7
    assert parent.schema["properties"]["claims"]["maxItems"] == 40
    assert (own.title, own.lineage) == ("Ward", ("ward 1.0.0", f"handover {parent.version}", "base 1.2.0"))


def test_a_site_set_may_extend_another_of_the_site_and_the_built_in_ones_stay(tmp_path: Path) -> None:
    write(tmp_path, system="OURS")
    night = WARD.replace('"ward"', '"anight"').replace('"handover"', '"ward"')
    library = open_library(write(tmp_path, night, "anight"))
    assert library.available() == tuple(sorted((*BUILT_IN, "anight", "ward")))
    assert library.load("anight").render("system.j2") == "OURS"
    assert library.load("history").digest == load("history").digest
    assert available() == BUILT_IN


def test_a_template_may_include_another_of_its_own_set(tmp_path: Path) -> None:
    assert "You copy facts" in ward(tmp_path, system='{% include "guided.j2" %}').render("system.j2")


def test_the_digest_changes_with_any_text_own_or_inherited(tmp_path: Path) -> None:
    night = WARD.replace('"ward"', '"night"').replace('"handover"', '"ward"')
    write(tmp_path, night, "night")
    seen = {open_library(write(tmp_path)).load("night").digest}
    for name in TEMPLATES:
        library = open_library(write(tmp_path, **{name.removesuffix(".j2"): "changed"}))
        seen.add(library.load("night").digest)
    seen.add(open_library(write(tmp_path, WARD.replace("Ours.", "Other."))).load("night").digest)
    assert len(seen) == len(TEMPLATES) + 2


def test_the_schema_digest_changes_with_the_schema_and_the_number_of_claims(tmp_path: Path) -> None:
    first = ward(tmp_path)
    fewer = ward(tmp_path, WARD + "[limits]\nmax_claims = 7\n")
    other = ward(tmp_path, schema=SCHEMA)
    assert first.schema_digest == load("handover").schema_digest
    assert len({first.schema_digest, fewer.schema_digest, other.schema_digest}) == 3


def test_loose_files_and_folders_set_aside_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("Ours.")
    (tmp_path / "_old").mkdir()
    (tmp_path / ".git").mkdir()
    write(tmp_path)
    (tmp_path / "ward" / "README.md").write_text("Ours.")
    assert "ward" in open_library(tmp_path).available()


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "ward" / "prompt.toml").write_bytes(b"\xef\xbb\xbf" + WARD.replace("\n", "\r\n").encode())
    assert open_library(tmp_path).load("ward").title == "Ward"


# Refusals: prompt.toml


@pytest.mark.parametrize(
    ("settings", "line", "words"),
    [
        (WARD.replace('"1.0.0"\ntitle', "1.0.0\ntitle"), 2, "not TOML"),
        (WARD + "x = [\n", 9, "not TOML"),
        (WARD + "[limits]\nmax_claim = 3\n", 10, "'max_claim' is not known"),
        (WARD + "[limmits]\nmax_claims = 3\n", 9, "'limmits' is not known"),
        ("colour = 1\n" + WARD, 1, "'colour' is not known"),
        (WARD.replace("reason", "raeson"), 8, "'raeson' is not known"),
        (WARD.replace('title = "Ward"', "title = 3"), 3, "Expected `str`, got `int`"),
        (WARD + '[limits]\nmax_claims = "3"\n', 10, "Expected `int`, got `str`"),
        (WARD + "[limits]\ntrends = 2\nmax_claims = 0\n", 11, "Expected `int` >= 1"),
        (WARD + "[limits]\nnotes_share = 1.5\n", 10, "<= 1.0"),
        (WARD + '[focus]\nscope = "stay"\nshare = 0.2\n', 11, "<= 0.1"),
        (WARD + '[focus]\nscope = "week"\n', 10, "'week'"),
        (WARD + '[focus]\nscope = "days"\nshare = 0.1\n', 9, "days are given with scope 'days'"),
        (WARD + '[focus]\nscope = "stay"\ndays = 2\nshare = 0.1\n', 11, "days are given with scope 'days'"),
        (WARD + '[focus]\nscope = "stay"\n', 9, "a scope needs a share"),
        (
            WARD + '[focus]\nscope = "stay"\n[[examples]]\nkind = "note"\nstatus = "final"\n'
            'line = "a, share = 1"\nclaim = "a"\n',
            9,
            "a scope needs a share",
        ),
        (WARD.replace('reason = "Ours."', ""), 5, "missing key `reason`"),
        (WARD.replace('title = "Ward"\n', ""), 1, "missing key `title`"),
        (WARD.replace('id = "ward"', 'id = "word"'), 1, "not the name of its folder, 'ward'"),
        (WARD.replace('version = "1.0.0"\ntitle', 'version = "1.0.1"\ntitle'), 2, "newest change is of"),
        (
            WARD + '[[changes]]\nversion = "1.0.0"\ndate = 2026-11-23\nreason = "x"\n',
            11,
            "in order of date",
        ),
        (WARD.replace('"handover"', '"handbook"'), 4, "there is no set 'handbook'"),
        (WARD.replace('"handover"', '"ward"'), 4, "a set cannot extend itself: ward → ward."),
        (WARD.replace('extends = "handover"', ""), 1, "there is no table 'blocks'"),
        (WARD.replace('"handover"', '"base"'), 1, "there is no table 'sections'"),
        (WARD + '[order]\nkinds = ["result",\n "vitals"]\n', 11, "'vitals'"),
        (WARD + '[order]\nkinds = ["result", "result"]\n', 10, "named twice"),
        (WARD + '[kind_titles]\nproblem = "P"\npet = "Pets"\n', 11, "'pet'"),
        (WARD + '[kind_titles]\nproblem = "P"\n', 9, "there is no title for allergy, "),
        (
            WARD + '[unshown]\nimmunization = "not ours"\nnote = "not read"\n',
            11,
            "note facts are unshown and",
        ),
        (WARD + '[[examples]]\nkind = "problem"\nstatus = "alive"\nline = "x"\nclaim = "x"\n', 11, "'alive'"),
        (
            WARD + '[[examples]]\nkind = "problem"\nstatus = "active"\nline = ""\nclaim = "x"\n',
            12,
            "length >= 1",
        ),
    ],
)
def test_a_wrong_prompt_toml_is_refused_with_its_line(
    tmp_path: Path, settings: str, line: int, words: str
) -> None:
    file, found, message = refused(tmp_path, settings)
    assert words in message
    assert (file, found) == ("prompt.toml", line)


def table(name: str, *rows: str) -> str:
    """Return WARD with rows of a table; each row is one line after its header, from line 9 on."""
    return WARD + "".join(f"[[{name}]]\n{row}\n" for row in rows)


ALL_KEYS = ", ".join(f'"{rule.key}"' for rule in default_rules().rules)
SECTION = f'key = "a"; title = "A"; required = [{ALL_KEYS}]; kinds = ["problem"]'


@pytest.mark.parametrize(
    ("rows", "line", "words"),
    [
        ((SECTION, 'key = "b"; title = "B"; kinds = ["plans"]'), 17, "'plans'"),
        ((SECTION, 'key = "b"; title = "B"; statuses = ["ongoing"]'), 17, "'ongoing'"),
        ((SECTION, 'key = "b"; title = "B"; scope = "now"'), 17, "'now'"),
        ((SECTION, 'title = "B"; kinds = []'), 14, "missing key `key`"),
        ((SECTION, 'key = "a"; title = "B"'), 15, "the key 'a' is given twice"),
        ((SECTION, 'key = "b"; title = "B"; required = ["allergy"]'), 17, "no required kind 'allergy'"),
        (('key = "a"; title = "A"; required = ["allergies"]',), 9, "no section requires devices, directives"),
        ((SECTION, 'key = "b"; title = "B"; kinds = ["patient"]'), 17, "the patient's own fact"),
        (
            (SECTION, 'key = "b"; title = "B"; scope = "stay"; kinds = ["problem"]'),
            18,
            "a problem fact of status 'active' has two headings, 'a' and 'b'",
        ),
    ],
)
def test_a_wrong_section_is_refused_with_its_line(
    tmp_path: Path, rows: tuple[str, ...], line: int, words: str
) -> None:
    file, found, message = refused(tmp_path, table("sections", *(row.replace("; ", "\n") for row in rows)))
    assert words in message
    assert (file, found) == ("prompt.toml", line)


KINDS = ", ".join(f'"{kind}"' for kind in Kind if kind not in (Kind.PATIENT, Kind.MEDICATION))
REST = f'key = "rest"; title = "Rest"; kinds = [{KINDS}]'
DRUGS = 'key = "drugs"; title = "Drugs"; kinds = ["medication"]'


@pytest.mark.parametrize(
    ("rows", "line", "words"),
    [
        ((REST,), 9, "a medication fact (order) of status 'active' falls into no block"),
        (
            (REST, DRUGS + '; records = ["order", "statement", "dispense"]'),
            9,
            "a medication fact (administration) of status 'active' falls into no block",
        ),
        ((REST, DRUGS + '; records = ["orders"]'), 17, "'orders'"),
        ((REST, DRUGS, REST.replace('"rest"', '"more"')), 17, "falls into two blocks, 'rest' and 'more'"),
        ((REST.replace('"plan", ', ""), DRUGS), 9, "a plan fact of status 'active' falls into no block"),
        ((REST + '; records = ["order"]', DRUGS), 13, "records are of a block of medications alone"),
        ((REST, DRUGS, 'key = "p"; title = "P"; kinds = ["patient"]'), 20, "holds the name"),
        ((REST, DRUGS + '; form = "table"'), 17, "'table'"),
        ((REST, DRUGS, DRUGS), 18, "the key 'drugs' is given twice"),
        ((REST, 'key = "none"; title = "None"; kinds = []'), 16, "length >= 1"),
    ],
)
def test_a_wrong_block_is_refused_with_its_line(
    tmp_path: Path, rows: tuple[str, ...], line: int, words: str
) -> None:
    file, found, message = refused(tmp_path, table("blocks", *(row.replace("; ", "\n") for row in rows)))
    assert words in message
    assert (file, found) == ("prompt.toml", line)


def test_own_blocks_and_sections_that_are_whole_are_taken(tmp_path: Path) -> None:
    rows = (row.replace("; ", "\n") for row in (REST, DRUGS))
    section = SECTION.replace("; ", "\n")
    own = ward(tmp_path, table("blocks", *rows) + f"[[sections]]\n{section}\n")
    assert [block.key for block in own.blocks] == ["rest", "drugs"]
    assert [section.key for section in own.sections] == ["a"]


def test_sets_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    write(tmp_path, WARD.replace('"ward"', '"night"').replace('"handover"', '"ward"'), "night")
    file, line, message = refused(tmp_path, WARD.replace('"handover"', '"night"'))
    assert (file, line) == ("prompt.toml", 4)
    assert message.endswith("itself: night → ward → night.")


@pytest.mark.parametrize("name", ["history", "base"])
def test_an_id_of_a_built_in_set_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, "# ours\n" + WARD.replace('"ward"', f'"{name}"'), name)
    with pytest.raises(TemplateError, match=r"prompt\.toml, line 2: .*built-in set"):
        open_library(tmp_path)


@pytest.mark.parametrize("name", ["Ward", "7ward", "ward one", "w" * 41])
def test_an_id_that_cannot_stand_in_an_address_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, WARD.replace('"ward"', f'"{name}"'), name)
    with pytest.raises(TemplateError, match=r"line 1: an id is small letters"):
        open_library(tmp_path)


# Refusals: templates


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("one\n{% for x in titles %}\n{{ x }}\n", 3, "not a template"),
        ("one\n\n{{ titles | shout }}", 3, "No filter named 'shout'"),
        ("{{ titles | random }}", 1, "No filter named 'random'"),
        ("one\n{{ sections }}", 2, "nobody passes 'sections' to task.j2: it gets titles."),
        ("one\n{% if 0 %}\n{{ patient.name }}{% endif %}", 3, "nobody passes 'patient'"),
        ("\n\n{{ lipsum(2) }}", 3, "nobody passes 'lipsum'"),
        ("one\n{{ titles.most }}", 2, "it cannot be rendered"),
        ("one\n{{ 1 // (titles | length) }}", 2, "it cannot be rendered"),
        ("one\n{{ titles.append(1) }}", 2, "it cannot be rendered"),
        ("one\n{{ range(1000000) | list }}", 2, "it cannot be rendered"),
        ("one\n{% if 0 %}{{ ''.__class__ }}{% endif %}", 2, "may not reach for '__class__'"),
        ("one\n{% if 0 %}{{ titles['__class__'] }}{% endif %}", 2, "may not reach for '__class__'"),
        ("one\n{{ titles | attr('__' ~ 'class__') }}", 2, "it cannot be rendered"),
        ("one\n{{ '{0.__class__}'.format(titles) }}", 2, "it cannot be rendered"),
        ("one\n{% include '../history/task.j2' %}", 2, "only those of its own set"),
        ("one\n{% include '/etc/hostname' %}", 2, "only those of its own set"),
        ("one\n{% include titles[0] %}", 2, "only those of its own set"),
        ("one\n{% import 'macros.j2' as m %}", 2, "only those of its own set"),
        ("one\n{% from 'macros.j2' import m %}", 2, "only those of its own set"),
        ("{% extends 'base.j2' %}", 1, "only those of its own set"),
    ],
)
def test_a_wrong_template_is_refused_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    file, found, message = refused(tmp_path, task=text)
    assert words in message
    assert (file, found) == ("task.j2", line)


def test_a_misspelt_part_of_a_variable_is_refused_where_no_example_reaches_it(tmp_path: Path) -> None:
    text = "PATIENT\n{% if patient.gender == 'other' %}{{ patient.bron }}{% endif %}"
    file, line, message = refused(tmp_path, evidence=text)
    assert (file, line) == ("evidence.j2", 2)
    assert "nobody passes patient.bron: there are born, gender." in message


def test_an_error_inside_an_included_template_names_that_template(tmp_path: Path) -> None:
    file, line, _ = refused(tmp_path, task='{% include "guided.j2" %}', guided="one\ntwo\n{{ 1 / 0 }}")
    assert (file, line) == ("guided.j2", 3)


def test_a_template_that_includes_itself_is_refused(tmp_path: Path) -> None:
    file, _, message = refused(tmp_path, guided='{% include "guided.j2" %}')
    assert file == "guided.j2"
    assert "recursion" in message


def test_what_a_sandboxed_template_is_given_cannot_be_reached_through(tmp_path: Path) -> None:
    templates = ward(tmp_path, task="{% if titles[2:] %}{{ titles[0] | attr(titles[1]) }}{% endif %}x")
    with pytest.raises(SecurityError):
        templates.render("task.j2", titles=["", "__class__", ""])


# Refusals: the schema, and files


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (SCHEMA.replace('"string"},\n', '"string"}\n', 1), 3, "not JSON"),
        ("[]", 1, "lacks properties.claims"),
        (SCHEMA.replace('"section"', '"part"'), 1, "lacks properties.claims.items.properties.section"),
        (SCHEMA.replace('"cites"', '"refs"'), 1, "lacks properties.claims.items.properties.cites"),
        (SCHEMA.replace('"items": {"type": "string"}', '"x": 1'), 3, "properties.cites.items"),
        (SCHEMA.replace('"text"', '"words"'), 1, "lacks properties.claims.items.properties.text"),
        (
            SCHEMA.replace(', "maxLength": 400', ""),
            4,
            "lacks properties.claims.items.properties.text.maxLength",
        ),
        (SCHEMA.replace('{"type": "string"},\n', '{"maxLength": 40},\n'), 4, "maxLength is 40 elsewhere"),
        (
            SCHEMA.replace('{"claims": {', '{"claims": {\n"maxItems": 9,'),
            2,
            "the number of claims is given by max_claims",
        ),
    ],
)
def test_a_wrong_schema_is_refused_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    file, found, message = refused(tmp_path, schema=text)
    assert words in message
    assert (file, found) == ("answer.schema.json", line)


def test_a_file_that_is_not_utf_8_is_refused_with_its_line(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "ward" / "task.j2").write_bytes(b"one\ntwo\nM\xfcller\n")
    with pytest.raises(TemplateError, match=r"task\.j2, line 3: the file is not UTF-8 text"):
        open_library(tmp_path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "ward" / "task.j2").mkdir()
    with pytest.raises(TemplateError, match=r"task\.j2: the file cannot be read: Is a directory"):
        open_library(tmp_path)


def test_a_folder_without_a_prompt_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ward").mkdir()
    with pytest.raises(TemplateError, match=re.escape(f"{tmp_path}/ward: the folder holds no prompt.toml")):
        open_library(tmp_path)


@pytest.mark.parametrize("name", ["sytem.j2", "answer.json", "prompts.toml"])
def test_a_misspelt_file_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    (tmp_path / "ward" / name).write_text("")
    with pytest.raises(TemplateError, match=re.escape(f"ward/{name}: no such file belongs to a set")):
        open_library(tmp_path)


def test_a_set_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    rows = (row.replace("; ", "\n") for row in (REST, DRUGS))
    titles = "".join(f'{kind} = "{kind}"\n' for kind in Kind)
    alone = table("blocks", *rows).replace('extends = "handover"\n', "")
    settings = (
        f"{alone}[[sections]]\n{SECTION.replace('; ', chr(10))}\n[order]\nkinds = []\n[kind_titles]\n{titles}"
    )
    assert "there is no answer.schema.json" in refused(tmp_path, settings)[2]
    assert "there is no system.j2" in refused(tmp_path, settings, schema=SCHEMA)[2]
    texts = {name.removesuffix(".j2"): "text" for name in TEMPLATES}
    assert ward(tmp_path, settings, schema=SCHEMA, **texts).lineage == ("ward 1.0.0",)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"missing: the folder cannot be read: No such file"):
        open_library(tmp_path / "missing")


def test_the_example_of_the_readme_is_a_set(tmp_path: Path) -> None:
    readme = (files("prompts") / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```toml\n(.*?)```", readme, re.DOTALL)
    assert found
    own = open_library(write(tmp_path, found[1], "ward7")).load("ward7")
    assert own.schema["properties"]["claims"]["maxItems"] == 20


def test_every_key_kind_and_status_is_described_in_the_readme() -> None:
    readme = (files("prompts") / "README.md").read_text(encoding="utf-8")
    words = {field.name for row in (Written, *_ROWS.values()) for field in fields(row)}
    words |= {*Kind, *Status, *TEMPLATES, *Form, *Scope, *FocusScope}
    missing = [word for word in words if not re.search(rf"[`\[ ]{re.escape(word)}[`\]]", readme)]
    assert missing == []
