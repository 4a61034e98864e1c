"""A folder of a training run in progress, for tests."""

import json
from pathlib import Path

from PIL import Image

from weftwork.scripts.training_runs import TrainingRun


def write_run(folder: Path) -> TrainingRun:
    """Writes a run at step 30 of 50, whose last row is being written."""
    (folder / "validation").mkdir(parents=True)
    rows: list[dict[str, float | None]] = [{"step": 0, "validation_loss": 0.5}]
    rows += [{"step": step, "loss": 1 / step, "learning_rate": 1e-3, "seconds": 6.0} for step in range(1, 31)]
    rows[10] |= {"loss": None, "validation_loss": 0.25}
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text + '{"step": 31, "lo')
    (folder / "training.json").write_text(json.dumps({"max_train_steps": 50}))
    for name in ("000000-0", "000000-1", "000010-0", "000010-1", "000010-cases"):
        Image.new("RGB", (8, 8), "red").save(folder / f"validation/{name}.png")
    return TrainingRun(folder)
