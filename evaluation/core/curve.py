"""Scores over the weight of a condition, or another value, as a table in JSON and a plot."""

from collections.abc import Sequence
from pathlib import Path

from weftwork.datasets.readers.atomic import atomic_path
from weftwork.evaluation.core.report import Report, Row


def plot_curve(name: str, rows: Sequence[Row], scores: Sequence[str], folder: Path, over: str = "") -> Path:
    """Writes `folder/NAME-curve.json` and `folder/NAME-curve.png`; names of rows end in the weight, or in `over`."""
    from matplotlib.figure import Figure

    Report("evaluation", f"{name}-curve", rows).write(folder)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    weights = [float(row.name.rpartition("_")[2]) for row in rows]
    for score in scores:
        axes.plot(weights, [row.scores[score] for row in rows], marker="o", label=score.replace("_", " "))
    axes.set(xlabel=over or f"weight of the {name}", ylabel="score", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=len(scores))
    path = folder / f"{name}-curve.png"
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=120)
    return path
