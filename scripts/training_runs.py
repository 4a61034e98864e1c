"""The progress of a training run, read from its folder: curves, and validation images by step."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS: Final = "metrics.jsonl"
BINS: Final = 120
"""Points of a curve; means of more values are drawn over them."""

Curve = Sequence[tuple[float, float]]
"""Values by step."""
Rows = Sequence[Mapping[str, float]]
"""Scores of the steps, as a run logs them."""


@dataclass(frozen=True)
class TrainingRun:
    """A training run that may be in progress.

    Args:
        folder: the `--output_dir` of the run.
    """

    folder: Path

    def rows(self) -> Rows:
        """Returns the complete rows of the metrics."""
        path, found = self.folder / METRICS, []
        for line in path.read_text().splitlines() if path.is_file() else ():
            try:
                found.append(json.loads(line))
            except ValueError:  # the last one is being written
                continue
        return found

    def images(self) -> dict[int, list[Path]]:
        """Returns the validation images by step."""
        found: dict[int, list[Path]] = {}
        for path in sorted((self.folder / "validation").glob("[0-9]*.png")):
            found.setdefault(int(path.name[:6]), []).append(path)
        return found

    def state(self, rows: Rows) -> str:
        """Describes how far the run with these rows is, and when it will be done at the pace of the last steps."""
        options = self.folder / "training.json"
        step = rows[-1]["step"] if rows else 0
        if (self.folder / "final").is_dir():
            return f"finished at step {step}"
        if not options.is_file():
            return "no training.json: nothing was trained here yet"
        steps = json.loads(options.read_text())["max_train_steps"]
        taken = [row["seconds"] for row in rows[-20:] if row.get("seconds")]
        left = "" if not taken else f", about {(steps - step) * sum(taken) / len(taken) / 60:.0f} minutes left"
        return f"step {step} of {steps}{left}"


def curves_of(rows: Rows) -> dict[str, Curve]:
    """Returns the scores by name, those of validations first."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", "seconds") and isinstance(value, int | float):
                curves.setdefault(name, []).append((row["step"], value))
    return dict(sorted(curves.items(), key=lambda one: one[0] in ("loss", "learning_rate")))


def plot_curves(rows: Rows) -> "dict[str, Figure]":
    """Returns a plot of each curve, with the means of many values, by its title."""
    from matplotlib.figure import Figure

    plots = {}
    for name, curve in curves_of(rows).items():
        figure = Figure(figsize=(4, 2.2), layout="constrained")
        axes, values, many = figure.add_subplot(), np.asarray(curve, float), len(curve) > BINS
        axes.plot(*values.T, "tab:blue", alpha=0.25 if many else 1, marker=None if len(curve) > 1 else "o")
        if many:
            axes.plot(*np.transpose([part.mean(0) for part in np.array_split(values, BINS)]), "tab:blue")
        title = f"{name.replace('_', ' ')}: {values[-1, 1]:.4g}"
        axes.set_title(title, fontsize="medium")
        axes.grid(alpha=0.3)
        plots[title] = figure
    return plots
