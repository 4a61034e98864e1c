"""What a run has left in its folder: complete checkpoints, and a log in which every step stands once."""

import json
from pathlib import Path

from weftwork.datasets.readers.atomic import atomic_path
from weftwork.datasets.readers.errors import UserError


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if (p / "state" / "progress.json").is_file()]
    return sorted(found, key=lambda p: int(p.name.rpartition("-")[2]))


def check_unused(folder: Path) -> None:
    """Raise where another run's checkpoints would be taken for a new one's."""
    if left := checkpoints(folder):
        raise UserError(
            f"output_dir: got {folder}, which holds {left[-1].name} of another run; go on with it by "
            "--resume_from_checkpoint latest, or give another folder"
        )


def keep_metrics(path: Path, step: int) -> None:
    """Drop what was written after a step, and a line that a killed process left unfinished."""
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
