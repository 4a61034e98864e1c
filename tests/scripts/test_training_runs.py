"""The progress of training runs: curves, images and how far they are, in the report and in the demo."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import write_run

from weftwork.scripts.cli import main
from weftwork.scripts.training_runs import BINS, TrainingRun, curves_of, plot_curves

pytest.importorskip("matplotlib")


@pytest.fixture
def run(tmp_path: Path) -> TrainingRun:
    return write_run(tmp_path / "runs/<mine>")


def test_a_run_is_read_while_it_is_written(run: TrainingRun, tmp_path: Path) -> None:
    curves = curves_of(run.rows())
    assert list(curves) == ["validation_loss", "loss", "learning_rate"]
    assert curves["validation_loss"] == [(0, 0.5), (10, 0.25)] and len(curves["loss"]) == 29
    assert {step: len(paths) for step, paths in run.images().items()} == {0: 2, 10: 3}
    assert run.state(run.rows()) == "step 30 of 50, about 2 minutes left"
    (run.folder / "final").mkdir()
    assert run.state(run.rows()) == "finished at step 30"
    empty = TrainingRun(tmp_path / "none")
    assert (empty.rows(), empty.images(), plot_curves([])) == ([], {}, {})
    assert empty.state([]) == "no training.json: nothing was trained here yet"


def test_means_are_drawn_over_many_values(run: TrainingRun) -> None:
    rows = [{"step": step, "loss": step % 2} for step in range(1200)]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    [(title, figure)] = plot_curves(run.rows()).items()
    [axes] = figure.axes
    every, means = (np.asarray(line.get_xydata()) for line in axes.lines)
    assert every.shape == (1200, 2) and means.shape == (BINS, 2)
    assert (means[:, 1] == 0.5).all() and title == axes.get_title() == "loss: 1"


def test_the_report_shows_training_runs(run: TrainingRun, capsys: pytest.CaptureFixture[str]) -> None:
    output = run.folder.parent / "report.html"
    assert main(["report", str(run.folder.parent), "--output", str(output)]) == 0
    page = output.read_text()
    assert "0 reports, 1 training runs" in capsys.readouterr().out
    assert "&lt;mine&gt;</h2>" in page and "step 30 of 50" in page
    assert page.count("<img") == 3 + 3, "the curves, and the images of the last validation"
    assert [title for title in plot_curves(run.rows()) if f'alt="{title}"' in page][:2] == [
        "validation loss: 0.25",
        "loss: 0.03333",
    ]


def test_the_demo_shows_a_run(run: TrainingRun) -> None:
    gr = pytest.importorskip("gradio")
    from weftwork.scripts.demo.training import TrainingPage

    with gr.Blocks() as blocks:
        TrainingPage(run).build()
    refresh = next(one.fn for one in blocks.fns.values() if one.fn.__name__ == "refresh")
    state, plots, menu, images, now = refresh("latest", ("", 0))
    assert plots.count("<img") == 3 and "&lt;mine&gt;: step 30 of 50" in state
    assert [value for _, value in menu.choices] == ["latest", "0", "10"] and len(images) == 3
    assert len(refresh("0", now)[3]) == 2, "the other step was chosen"
    assert refresh("latest", now)[1:4] == (gr.skip(),) * 3, "nothing is new"
    Image.new("RGB", (8, 8)).save(run.folder / "validation/000020-0.png")
    assert len(refresh("latest", now)[3]) == 1
