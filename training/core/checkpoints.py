"""Checkpoints and metrics in the folder of a training run."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from weftwork.datasets.readers.atomic import atomic_path, write_errors
from weftwork.datasets.readers.errors import UserError


def checkpoints(folder: Path) -> list[Path]:
    """Lists the complete checkpoints of a run, oldest first."""
    found = [p for p in folder.glob("checkpoint-*") if (p / "state" / "progress.json").is_file()]
    return sorted(found, key=lambda p: int(p.name.rpartition("-")[2]))


def check_unused(folder: Path) -> None:
    """Raises `ValueError` if the folder holds checkpoints or the result of another run."""
    if left := checkpoints(folder):
        raise UserError(
            f"output_dir: got {folder}, which holds {left[-1].name} of another run; resume it with "
            "--resume_from_checkpoint latest, or pass another folder"
        )
    if (folder / "final").exists():
        raise UserError(
            f"output_dir: got {folder}, which holds the result of another run; pass another folder, with --init_from "
            f"{folder / 'final'} to train that result further"
        )


def checkpoint_to_resume(source: str | None, folder: Path) -> Path | None:
    """Returns the checkpoint that `--resume_from_checkpoint` names: "latest", one of the run's folder, or a path.

    Without one, and for "latest" in a folder without checkpoints, a run begins.

    Raises:
        ValueError: not a checkpoint, naming those that are there; or a run that would replace another.
    """
    known = checkpoints(folder)
    if source == "latest" and known:
        return known[-1]
    if source in (None, "latest"):
        return check_unused(folder)
    for path in (Path(source), folder / source):
        if (path / "state" / "progress.json").is_file():
            return path
    found = ", ".join(p.name for p in known) or "none"
    raise UserError(f"resume_from_checkpoint: got {source!r}, expected 'latest' or one of: {found}; pass one of these")


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Holds the folder of a run, so that no other run writes to it; `ValueError` if another one holds it."""
    lock = FileLock(folder / ".lock")
    try:
        with lock.acquire(timeout=0):
            yield
    except Timeout as error:
        raise UserError(
            f"output_dir: got {folder}, to which another run writes; pass another folder, or wait"
        ) from error


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yields the path of a new folder that replaces `folder` at the end of the block; nothing is left on an error."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with write_errors(folder):
            yield partial
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:  # on a full disk it would take the room of the next one
        shutil.rmtree(partial, ignore_errors=True)


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
