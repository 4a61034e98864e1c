"""One shape for every measurement: rows of named scores, as a printed table and as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from weftwork.datasets.readers.atomic import atomic_path
from weftwork.pipelines.core.hardware import hardware

VERSIONS_OF = ("weftwork", "torch", "diffusers", "transformers", "numpy")


@dataclass(frozen=True)
class Row:
    """Scores under one name.

    Args:
        spread: by score, the standard deviation over seeds; empty when there is one seed only.
    """

    name: str
    scores: Mapping[str, float]
    spread: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def over_seeds(cls, name: str, runs: Sequence[Mapping[str, float]]) -> "Row":
        """The mean of every score, with its spread."""
        values = {score: [run[score] for run in runs] for score in runs[0]}
        spread = {score: stdev(of_seeds) for score, of_seeds in values.items()} if len(runs) > 1 else {}
        return cls(name, {score: fmean(of_seeds) for score, of_seeds in values.items()}, spread)

    def record(self) -> dict[str, Any]:
        """The row as it is written."""
        spread = {"spread": _finite(self.spread)} if self.spread else {}
        return {"name": self.name, "scores": _finite(self.scores), **spread}

    def cell(self, score: str) -> str:
        """A score as it is printed."""
        value, spread = self.scores.get(score), self.spread.get(score)
        if value is None or not math.isfinite(value):
            return "-"
        return f"{value:.3f}" if spread is None else f"{value:.3f} ±{spread:.3f}"


@dataclass(frozen=True)
class Report:
    """What was measured, on what, with which seed.

    Args:
        kind: "evaluation" or "benchmark".
        seed: one, or several of which the rows are means.
    """

    kind: str
    name: str
    rows: Sequence[Row]
    seed: int | Sequence[int] = 0
    count: int = 0
    split: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def table(self) -> str:
        """Rows of scores in columns."""
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
        """`folder/NAME.json`, whole or not at all."""
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
