"""Scores over the weight of a condition, as a table in JSON and a plot."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from weftwork.datasets.readers.errors import UserError
from weftwork.evaluation.core.report import Report, Row

SHOWN = ("style_accuracy", "content_accuracy", "shape_consistency")


def check_plots() -> None:
    """Checks that matplotlib is installed.

    Raises:
        ValueError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise UserError("plot: matplotlib not found; install it with pip install matplotlib")


def plot_curve(rows: Sequence[Row], folder: Path) -> Path:
    """Writes `folder/style-curve.json` and `folder/style-curve.png`; names of rows end in the weight."""
    from matplotlib.figure import Figure

    Report("evaluation", "style-curve", rows).write(folder)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    weights = [float(row.name.rpartition("_")[2]) for row in rows]
    for score in SHOWN:
        axes.plot(weights, [row.scores[score] for row in rows], marker="o", label=score.replace("_", " "))
    axes.set(xlabel="weight of the style", ylabel="score", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=len(SHOWN))
    path = folder / "style-curve.png"
    figure.savefig(path, dpi=120)
    return path
