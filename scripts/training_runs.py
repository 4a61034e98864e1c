"""The progress of a training run, read from its folder: curves as SVG, and validation images by step."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

METRICS: Final = "metrics.jsonl"
BINS: Final = 120
"""Points of a curve; more values are averaged in bins."""
WIDTH: Final = 360
HEIGHT: Final = 150
LEFT: Final = 52
BOTTOM: Final = 18

Curve = Sequence[tuple[float, float]]
"""Values by step."""


@dataclass(frozen=True)
class TrainingRun:
    """A training run that may be in progress.

    Args:
        folder: the `--output_dir` of the run.
    """

    folder: Path

    def rows(self) -> list[dict[str, Any]]:
        """Returns the complete rows of the metrics."""
        path, found = self.folder / METRICS, []
        for line in path.read_text().splitlines() if path.is_file() else ():
            try:
                found.append(json.loads(line))
            except ValueError:  # the last one is being written
                continue
        return found

    def curves(self) -> dict[str, Curve]:
        """Returns the scores by name, those of validations first."""
        curves: dict[str, list[tuple[float, float]]] = {}
        for row in self.rows():
            for name, value in row.items():
                if name not in ("step", "seconds") and isinstance(value, int | float):
                    curves.setdefault(name, []).append((row["step"], value))
        return dict(sorted(curves.items(), key=lambda one: one[0] in ("loss", "learning_rate")))

    def images(self) -> dict[int, list[Path]]:
        """Returns the validation images by step."""
        found: dict[int, list[Path]] = {}
        for path in sorted((self.folder / "validation").glob("[0-9]*.png")):
            found.setdefault(int(path.name[:6]), []).append(path)
        return found

    def state(self) -> str:
        """Describes how far the run is, and when it will be done at the pace of the last steps."""
        rows, options = self.rows(), self.folder / "training.json"
        step = rows[-1]["step"] if rows else 0
        if (self.folder / "final").is_dir():
            return f"finished at step {step}"
        if not options.is_file():
            return "no training.json: nothing was trained here yet"
        steps = json.loads(options.read_text())["max_train_steps"]
        taken = [row["seconds"] for row in rows[-20:] if row.get("seconds")]
        left = "" if not taken else f", about {(steps - step) * sum(taken) / len(taken) / 60:.0f} minutes left"
        return f"step {step} of {steps}{left}"

    def plots(self) -> str:
        """Returns all curves as SVG."""
        return "".join(curve_svg(name, curve) for name, curve in self.curves().items())


def curve_svg(name: str, curve: Curve) -> str:
    """Returns one curve as SVG, with its range and its last value."""
    values = [value for _, value in curve]
    low, high, first, last = min(values), max(values), curve[0][0], curve[-1][0]

    def place(step: float, value: float) -> str:
        x = LEFT + (WIDTH - LEFT - 4) * (step - first) / (last - first or 1)
        y = 4 + (HEIGHT - BOTTOM - 8) * (high - value) / (high - low or 1)
        return f"{x:.1f},{y:.1f}"

    size = -(-len(curve) // BINS)
    bins = [curve[i : i + size] for i in range(0, len(curve), size)]
    points = [(sum(s for s, _ in some) / len(some), sum(v for _, v in some) / len(some)) for some in bins]
    title = html.escape(name.replace("_", " "))
    label = '<text x="{}" y="{}" text-anchor="{}">{}</text>'
    labels = [
        label.format(LEFT - 4, 12, "end", f"{high:.3g}"),
        label.format(LEFT - 4, HEIGHT - BOTTOM - 4, "end", f"{low:.3g}"),
        label.format(LEFT, HEIGHT - 4, "start", f"step {first:g}"),
        label.format(WIDTH - 4, HEIGHT - 4, "end", f"{last:g}"),
    ]
    return (
        f'<figure style="display:inline-block;margin:.5rem"><figcaption>{title}: {values[-1]:.4g}</figcaption>'
        f'<svg role="img" aria-label="{title} by step" width="{WIDTH}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-size="11" fill="currentColor">'
        f'<polyline fill="none" stroke="currentColor" stroke-width="1.5" '
        f'points="{" ".join(place(*point) for point in points)}"/>{"".join(labels)}</svg></figure>'
    )
