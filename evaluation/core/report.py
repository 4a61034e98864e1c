"""Reports of evaluations and benchmarks: rows of named scores, as a table and as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import fmean, stdev

from weftwork.datasets.readers.atomic import atomic_path
from weftwork.pipelines.core.hardware import hardware

VERSIONS_OF = ("weftwork", "torch", "diffusers", "transformers", "numpy")


@dataclass(frozen=True)
class Row:
    """Named row of scores.

    Args:
        spread: standard deviations of the scores over seeds, if there are several.
        images: paths of its first images, relative to the report.
        truth: name of the row with the true images of these.
    """

    name: str
    scores: Mapping[str, float]
    spread: Mapping[str, float] = field(default_factory=dict)
    images: Sequence[str] = ()
    truth: str | None = None

    @classmethod
    def over_seeds(cls, name: str, runs: Sequence[Mapping[str, float]]) -> "Row":
        """Averages scores over seeds; the spread is their standard deviation."""
        values = {score: [run[score] for run in runs] for score in runs[0]}
        spread = {score: stdev(of_seeds) for score, of_seeds in values.items()} if len(runs) > 1 else {}
        return cls(name, {score: fmean(of_seeds) for score, of_seeds in values.items()}, spread)

    def record(self) -> dict[str, object]:
        """Returns the row as written to JSON."""
        spread = {"spread": _finite(self.spread)} if self.spread else {}
        images = {"images": list(self.images)} if self.images else {}
        truth = {} if self.truth is None else {"truth": self.truth}
        return {"name": self.name, "scores": _finite(self.scores), **spread, **images, **truth}

    def cell(self, score: str) -> str:
        """Formats a score for the table."""
        value, spread = self.scores.get(score), self.spread.get(score)
        if value is None or not math.isfinite(value):
            return "-"
        return f"{value:.3f}" if spread is None else f"{value:.3f} ±{spread:.3f}"


@dataclass(frozen=True)
class Report:
    """Result of an evaluation or benchmark, with its settings.

    Args:
        kind: "evaluation" or "benchmark".
        seed: one seed, or several over which the rows are averaged.
    """

    kind: str
    name: str
    rows: Sequence[Row]
    seed: int | Sequence[int] = 0
    count: int = 0
    split: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict)

    def table(self) -> str:
        """Formats the rows as a text table."""
        columns = list(dict.fromkeys(score for row in self.rows for score in row.scores))
        head = [self.name, *columns]
        body = [[row.name, *(row.cell(column) for column in columns)] for row in self.rows]
        widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
        lines = [
            [cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(cells)]
            for cells in (list(zip(line, widths, strict=True)) for line in [head, *body])
        ]
        return "\n".join("  ".join(line) for line in lines)

    def write(self, folder: Path) -> Path:
        """Writes `folder/NAME.json` atomically and returns its path."""
        path = folder / f"{self.name}.json"
        content = {
            "kind": self.kind,
            "name": self.name,
            **({"split": self.split} if self.split else {}),
            "seed": self.seed,
            "count": self.count,
            "settings": dict(self.settings),
            "versions": {name: _version(name) for name in VERSIONS_OF},
            "hardware": hardware(),
            "rows": [row.record() for row in self.rows],
        }
        with atomic_path(path) as partial:
            partial.write_text(json.dumps(content, indent=2) + "\n")
        return path


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: round(float(value), 4) if math.isfinite(value) else None for name, value in values.items()}
