"""Checkpoints and metrics in the folder of a training run."""

import json
from pathlib import Path

from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.errors import UserError


def checkpoints(folder: Path) -> list[Path]:
    """Lists the complete checkpoints of a run, oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if (p / "state" / "progress.json").is_file()]
    return sorted(found, key=lambda p: int(p.name.rpartition("-")[2]))


def check_unused(folder: Path) -> None:
    """Raises if the folder holds checkpoints of another run.

    Raises:
        ValueError: it does.
    """
    if left := checkpoints(folder):
        raise UserError(
            f"output_dir: got {folder}, which holds {left[-1].name} of another run; resume it with "
            "--resume_from_checkpoint latest, or pass another folder"
        )


def truncate_metrics(path: Path, step: int) -> None:
    """Removes the rows after `step`, and an incomplete last row, from a metrics file."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:
            continue
    with atomic_path(path) as partial:
        partial.write_text("".join(kept))
