"""The table of methods and families: what it finds, prints and writes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from remedies import check_call

from weftwork.attention_processors.core.example import Example
from weftwork.attention_processors.core.method import methods
from weftwork.attention_processors.style.example import example as style
from weftwork.scripts.benchmarks import blocks
from weftwork.scripts.benchmarks.backbones import basic, kernels, memory, table
from weftwork.scripts.benchmarks.backbones.basic import off, unused
from weftwork.scripts.benchmarks.backbones.cells import Row, cells
from weftwork.scripts.benchmarks.backbones.outcomes import BEGIN, END, FILE, markdown, recorded, written
from weftwork.scripts.benchmarks.backbones.table import ROWS, check, outcomes
from weftwork.scripts.benchmarks.backbones.tiny import FAMILIES, flux, stable_audio, wan
from weftwork.scripts.cli import main


def test_a_few_cells_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row.name for row in basic.ROWS if row.name != "LoRA"]
    assert check(["paired", "in-context", "regional", "flux", *rows], tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "24 of 24 cells hold"


def test_methods_and_rows_that_cannot_apply_are_left_out() -> None:
    made = {(cell.method.name, cell.backbone): cell for cell in cells(methods().values(), FAMILIES)}
    region, schedule = (next(row for row in ROWS if row.name == name) for name in ("region", "schedule"))
    for (method, family), cell in made.items():
        audio = family in ("stable_audio", "stable_audio3", "ace_step")
        images = ("reference", "in-context", "aligned-views", "attention-control", "subjects", "expressions")
        fits = method not in images if audio else method != "spatial-audio"
        in_places = fits and not audio and cell.method.acts_on == "attention"
        assert cell.applies(schedule) == fits and cell.applies(region) == in_places


def without_weight(denoiser: Any) -> Example:
    """Styles that act at weight 0 too."""
    made = style(denoiser)
    return replace(made, conditions=lambda seed, **options: made.conditions(seed, **{**options, "weight": 1.0}))


def without_effect(denoiser: Any) -> Example:
    made = style(denoiser)
    return replace(made, conditions=lambda seed, **options: made.conditions(seed, **{**options, "weight": 0.0}))


def test_what_does_not_hold_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Row("unused", unused), Row("weight 0", off)]
    reasons: dict[str, list[str | None]] = {}
    for name in ("without_weight", "without_effect"):
        method = replace(methods()["style"], name=name, example=f"{name}:it")
        example = globals()[name]
        monkeypatch.setattr("weftwork.scripts.benchmarks.backbones.cells.load", lambda _, example=example: example)
        found = outcomes(cells([method], [wan]), rows, lambda one: None)
        reasons[name] = [one.reason for one in found]
        lines = markdown([one.place for one in found], {one.place: one for one in found}).splitlines()
        assert lines[-1].startswith(f"- {name} on wan, ")
    held, broken = reasons["without_weight"]
    assert held is None and broken is not None and "expected the same bits" in broken
    assert all(reason and "moves the output by 0.0e+00" in reason for reason in reasons["without_effect"])


def test_the_page_gets_the_table_in_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, folder = tmp_path / "page.md", tmp_path / "reports"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    part = ["benchmark", "backbones", "--check", "--output", str(folder), "--only", "style", "reference", "paired"]
    assert main([*part, stable_audio.__name__, "detach"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 of 2 cells hold"
    outcomes = (folder / FILE).read_text()
    other = outcomes.splitlines()[0].replace('"detach"', '"unused"').replace("diffusers ", "diffusers 0.0.")
    (folder / FILE).write_text(f"{outcomes}{other}\n{other[:20]}\n")  # other versions; cut short
    assert main([*part, wan.__name__, "detach", "unused", "--write", str(page)]) == 0
    lines = page.read_text().splitlines()
    assert lines[0] == "before" and lines[-1] == "after" and "old" not in lines
    cells = {line.split(" | ")[0].removeprefix("| "): line for line in lines}
    assert cells["stable_audio"].count("1/1 (") == 2 and cells["wan"].count("2/2 (") == 3
    assert "not run" in cells["sd3"] and "/" not in cells["sd3"]
    assert any(line.startswith("8 of ") and "were not run, checked with torch " in line for line in lines)
    assert len(recorded(folder / FILE)) == 8
    words = "write: got a page without the lines .*; add them where the table belongs"
    check_call(lambda page: written(page, ""), "nothing", words, f"nothing {BEGIN} {END}")
    assert main(["benchmark", "backbones", "--check", "--only", "fluxx"]) == 2
    assert "only: got 'fluxx', expected some of" in capsys.readouterr().err
    assert main(["benchmark", "generate", "--check"]) == 2


def test_cells_without_their_package_are_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = tuple(replace(row, package="no_such_package" if row.name == "detach" else row.package) for row in ROWS)
    monkeypatch.setattr(table, "ROWS", lacking)
    assert check(["style", "wan", "sd3", "detach", "unused"], tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "detach: 2 cells are not run, no_such_package is not installed"
    assert lines[-1] == "2 of 4 cells hold, 2 were not run"


@pytest.mark.slow
def test_all_cells_hold() -> None:
    rows = [row for row in ROWS if row.installed and not row.name.startswith("compiled")]
    found = outcomes(cells(methods().values(), FAMILIES), rows, lambda one: None)
    assert not [str(one) for one in found if one.reason is not None]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda one: one.__name__)
def test_compiled_blocks(family: Any) -> None:
    """The tracer alone, without code generation."""
    (row,) = (row for row in kernels.ROWS if row.name == "compiled")
    (cell,) = cells([methods()["style"]], [family])
    if cell.applies(row):
        row.check(cell)


def test_kernels_and_precisions() -> None:
    rows = [row for row in (*memory.ROWS, *kernels.ROWS) if row.installed and "compiled" not in row.name]
    rows = [row for row in rows if row.name != "flex kernel"]  # compiles
    found = outcomes(cells([methods()["style"], methods()["regional"]], [flux]), rows, lambda one: None)
    assert len(found) == 2 * len(rows) and all(one.reason is None for one in found)


def test_speed_has_its_rows() -> None:
    rows = blocks.measure("tiny", 1)
    assert {f"{name}_{row}" for name in blocks.BACKBONES for row in ("stock", "again", "unused", "pairs")} <= set(rows)
    few, many = (rows[name] for name in rows if name.startswith("references_"))
    assert many["weighted_mb"] > few["weighted_mb"] > few["stock_mb"]
    assert many["added_kb_per_token"] == pytest.approx(few["added_kb_per_token"], rel=0.1)  # linear
