"""One shape for every measurement: rows of named scores, as a printed table and as JSON."""

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

VERSIONS_OF = ("weft", "torch", "diffusers", "transformers", "numpy")


@dataclass(frozen=True)
class Row:
    name: str
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Report:
    """What was measured, on what, with which seed.

    Args:
        kind: "evaluation" or "benchmark".
    """

    kind: str
    name: str
    rows: Sequence[Row]
    seed: int = 0
    count: int = 0
    split: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def table(self) -> str:
        """Rows of scores in columns."""
        columns = list(dict.fromkeys(score for row in self.rows for score in row.scores))
        head = [self.name, *columns]
        body = [[row.name, *(_number(row.scores.get(column)) for column in columns)] for row in self.rows]
        widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
        lines = [
            [cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(cells)]
            for cells in (list(zip(line, widths, strict=True)) for line in [head, *body])
        ]
        return "\n".join("  ".join(line) for line in lines)

    def write(self, folder: Path) -> Path:
        """`folder/NAME.json`, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
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
            "rows": [{"name": row.name, "scores": {k: _finite(v) for k, v in row.scores.items()}} for row in self.rows],
        }
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=2) + "\n")
        partial.replace(path)
        return path


def hardware() -> str:
    """The machine in words: accelerator or processor, and cores."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores, {platform.machine()}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _finite(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"
