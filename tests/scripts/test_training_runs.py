"""The progress of training runs: curves, images and how far they are, in the report and in the demo."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from weftwork.scripts.cli import main
from weftwork.scripts.training_runs import BINS, TrainingRun, curve_svg


@pytest.fixture
def run(tmp_path: Path) -> TrainingRun:
    """A run at step 30 of 50, whose last row is being written."""
    folder = tmp_path / "runs/<mine>"
    (folder / "validation").mkdir(parents=True)
    rows: list[dict[str, float | None]] = [{"step": 0, "validation_loss": 0.5}]
    rows += [{"step": step, "loss": 1 / step, "learning_rate": 1e-3, "seconds": 6.0} for step in range(1, 31)]
    rows[10] |= {"loss": None, "validation_loss": 0.25}
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text + '{"step": 31, "lo')
    (folder / "training.json").write_text(json.dumps({"max_train_steps": 50}))
    for name in ("000000-0", "000000-1", "000010-0", "000010-1", "000010-cases"):
        Image.new("RGB", (8, 8), "red").save(folder / f"validation/{name}.png")
    return TrainingRun(folder)


def test_a_run_is_read_while_it_is_written(run: TrainingRun, tmp_path: Path) -> None:
    curves = run.curves()
    assert list(curves) == ["validation_loss", "loss", "learning_rate"]
    assert curves["validation_loss"] == [(0, 0.5), (10, 0.25)] and len(curves["loss"]) == 29
    assert {step: len(paths) for step, paths in run.images().items()} == {0: 2, 10: 3}
    assert run.state() == "step 30 of 50, about 2 minutes left"
    (run.folder / "final").mkdir()
    assert run.state() == "finished at step 30"
    empty = TrainingRun(tmp_path / "none")
    assert (empty.curves(), empty.images(), empty.plots()) == ({}, {}, "")
    assert empty.state() == "no training.json: nothing was trained here yet"


def test_curves_are_binned_and_scaled() -> None:
    many = [(float(step), 2.0 - step / 1000) for step in range(1001)]
    figure = ElementTree.fromstring(curve_svg("a_<b>", many))
    (line,) = figure.iter("polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert BINS / 2 < len(points) <= BINS
    assert [x for x, _ in points] == sorted(x for x, _ in points) and points[0][1] < points[-1][1]
    assert [text.text for text in figure.iter("text")] == ["2", "1", "step 0", "1000"]
    caption = figure.find("figcaption")
    assert caption is not None and caption.text == "a <b>: 1"
    assert "nan" not in curve_svg("one", [(3, 1.0)])


def test_the_report_shows_training_runs(run: TrainingRun, capsys: pytest.CaptureFixture[str]) -> None:
    output = run.folder.parent / "report.html"
    assert main(["report", str(run.folder.parent), "--output", str(output)]) == 0
    page = output.read_text()
    assert "0 reports, 1 training runs" in capsys.readouterr().out
    assert "&lt;mine&gt;</h2>" in page and "step 30 of 50" in page and "validation loss: 0.25" in page
    assert page.count("<svg") == 3 and page.count("<img") == 3, "the images of the last validation"


def test_the_demo_shows_a_run(run: TrainingRun) -> None:
    gr = pytest.importorskip("gradio")
    from weftwork.scripts.demo.training import TrainingPage

    with gr.Blocks() as blocks:
        TrainingPage(run).build()
    refresh = next(one.fn for one in blocks.fns.values() if one.fn.__name__ == "refresh")
    plots, menu, images, now = refresh("latest", "")
    assert plots.count("<svg") == 3 and "&lt;mine&gt;: step 30 of 50" in plots
    assert [value for _, value in menu.choices] == ["latest", "0", "10"] and len(images) == 3
    assert len(refresh("0", now)[2]) == 2, "the other step was chosen"
    assert refresh("latest", now)[2] == gr.skip(), "nothing is new"
    Image.new("RGB", (8, 8)).save(run.folder / "validation/000020-0.png")
    assert len(refresh("latest", now)[2]) == 1
