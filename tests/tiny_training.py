"""A small paired task, its records and its options."""

import json
from pathlib import Path
from typing import Any

import torch
from tiny import drawn_sketch, paired_adapter, tiny_pipe
from torch.utils.data import Dataset

from weftwork.attention_processors import PairedAdapter, SketchTextPair
from weftwork.pipelines import ConditionedStableDiffusionPipeline
from weftwork.training.core.config import TrainingConfig
from weftwork.training.core.loop import train
from weftwork.training.core.task import Task
from weftwork.training.data.pairs import PairRecord
from weftwork.training.tasks.paired import PairedConfig, PairedTask


class Records(Dataset[PairRecord]):
    """Ragged designs on random latents."""

    def __init__(self, adapter: PairedAdapter, count: int = 10) -> None:
        self.adapter, self.count = adapter, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> PairRecord:
        pairs = [SketchTextPair(drawn_sketch(i), f"thing {i}", region="sketch") for i in range(1 + index % 2)]
        latents = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(index))
        return PairRecord(latents, tuple(self.adapter.prepare(p) for p in pairs), ("a b", "c"))


def make_task() -> PairedTask:
    pipe = tiny_pipe(ConditionedStableDiffusionPipeline)
    return PairedTask(paired_adapter(pipe.unet), pipe, PairedConfig())


def losses_of(task: Task[Any, Any, Any], batch: Any, learning_rate: float, steps: int) -> list[float]:
    """Losses of steps on one batch with the same draws."""
    optimizer = torch.optim.Adam([one for one in task.module.parameters() if one.requires_grad], learning_rate)
    losses = []
    for _ in range(steps):
        loss = task.loss(batch, torch.Generator().manual_seed(0), 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def config(folder: Path, **changes: Any) -> TrainingConfig:
    settings: dict[str, Any] = dict(
        output_dir=str(folder),
        max_train_steps=5,
        train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        lr_warmup_steps=2,
        checkpointing_steps=0,
        report_to="none",
        use_cpu=True,
    )
    return TrainingConfig(**{**settings, **changes})


def run(folder: Path, **changes: Any) -> Path:
    task = make_task()
    return train(task, Records(task.module), config(folder, **changes))


def losses(folder: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows}
