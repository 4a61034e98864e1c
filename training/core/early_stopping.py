"""Early stopping: the validation losses of a run, the step of the lowest one, and when to stop."""

import json
import math
from pathlib import Path
from typing import Self

from weftwork.datasets.readers.errors import UserError
from weftwork.training.core.config import TrainingConfig


class EarlyStopping:
    """Validation losses by step.

    Args:
        patience: number of validations without a new lowest loss after which a run stops; 0 = never.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.losses: dict[int, float] = {}

    @classmethod
    def read(cls, patience: int, folder: Path, last: int) -> Self:
        """Returns the losses of a run's folder up to a step; lowest ones only if their checkpoints are there."""
        made = cls(patience)
        path = folder / "metrics.jsonl"
        rows = map(json.loads, path.read_text().splitlines()) if patience and path.is_file() else ()
        for row in rows:
            if row["step"] <= last:
                made.add(row["step"], row.get("validation_loss"))
        while made.best is not None and not (folder / f"checkpoint-{made.best}").is_dir():
            del made.losses[made.best]
        return made

    def add(self, step: int, loss: float | None) -> None:
        """Adds a validation; NaN counts as infinite."""
        if loss is not None:
            self.losses[step] = math.inf if math.isnan(loss) else loss

    @property
    def best(self) -> int | None:
        """Step of the lowest loss, the earliest of several; None before the first validation, and without patience."""
        return min(self.losses, key=self.losses.__getitem__) if self.patience and self.losses else None

    @property
    def exhausted(self) -> bool:
        """Whether `patience` validations have passed since the lowest loss."""
        return self.best is not None and sum(step > self.best for step in self.losses) >= self.patience


def check_early_stopping(config: TrainingConfig, *, held_out: bool) -> None:
    """Raises for early stopping of a run without a validation loss.

    Args:
        held_out: whether samples are held out.
    """
    patience = config.early_stopping_patience
    if patience and not (held_out and config.validation_steps):
        raise UserError(
            f"early_stopping_patience: got {patience} without a validation loss; pass --validation_split and "
            "--validation_steps"
        )
