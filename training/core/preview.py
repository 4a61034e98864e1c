"""Dry run: data, parameters, memory and output files of a training run."""

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import is_dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.utils.data import Dataset

from weftwork.training.core.batches import Batches
from weftwork.training.core.config import TrainingConfig
from weftwork.training.core.task import BatchT, SampleT, Task

STATES = {"sgd": 0, "adafactor": 0, "adamw8bit": 0.5}
"""Values of optimizer state per trained parameter; 2 for optimizers that are not listed."""
GIB = 1024**3


def preview(
    task: Task[nn.Module, SampleT, BatchT],
    data: Dataset[SampleT],
    config: TrainingConfig,
    parts: Mapping[str, nn.Module],
) -> str:
    """Describes a run: epochs, parameters, memory, output files, and shapes and loss of the first batch.

    The loss is computed as in training, so that a run whose preview succeeds can take a step.

    Args:
        parts: frozen modules by name.

    Raises:
        ValueError: fewer samples than one batch.
    """
    processes = PartialState().num_processes
    batches = Batches(data, task.collate, batch_size=config.train_batch_size, seed=config.seed, processes=processes)
    trained = [p for p in task.module.parameters() if p.requires_grad]
    frozen = [p for part in parts.values() for p in part.parameters() if not p.requires_grad]
    device = frozen[0].device if frozen else torch.device("cpu")
    batch = next(batches.to(device))
    with torch.no_grad():
        task.module.to(device)
        loss = task.loss(batch, torch.Generator().manual_seed(config.seed), 0)
    folder = Path(config.output_dir)
    lines = [
        *_epochs(batches, data, config),
        f"trained: {_count(trained):,} parameters of {type(task.module).__name__}",
        f"frozen: {_count(frozen):,} parameters of {', '.join(parts)}",
        f"memory: {_memory(trained, frozen, config) / GIB:.2f} GiB for weights, gradients and optimizer; "
        "activations come on top",
        f"writes: {folder / 'final'}, {folder / 'metrics.jsonl'}"
        + (f", {folder / 'checkpoint-N'} every {config.checkpointing_steps}" if config.checkpointing_steps else ""),
        "first batch:",
        *(f"  {name}: {text}" for name, text in _shapes(batch)),
        f"  loss: {loss.item():.4f}",
    ]
    return "\n".join(lines)


def _epochs(batches: Batches[SampleT, BatchT], data: Dataset[SampleT], config: TrainingConfig) -> Iterator[str]:
    per_epoch = batches.per_epoch
    if per_epoch is None or not isinstance(data, Sized):
        yield f"data: a stream, in batches of {config.train_batch_size}"
        yield f"steps: {config.max_train_steps}"
        return
    steps = per_epoch / config.gradient_accumulation_steps
    yield f"data: {len(data)} samples, {per_epoch} batches of {config.train_batch_size} per epoch and process"
    yield f"steps: {config.max_train_steps}, {steps:g} per epoch: {config.max_train_steps / steps:.1f} epochs"


def _count(parameters: Sequence[Tensor]) -> int:
    return sum(p.numel() for p in parameters)


def _memory(trained: Sequence[Tensor], frozen: Sequence[Tensor], config: TrainingConfig) -> float:
    """Bytes of weights, gradients and optimizer state."""
    copies = 2 + STATES.get(config.optimizer, 2) + config.use_ema
    return sum(p.numel() * p.element_size() for p in frozen) + sum(p.numel() * 4 * copies for p in trained)


def _shapes(value: object, name: str = "batch") -> Iterator[tuple[str, str]]:
    value = vars(value) if is_dataclass(value) else getattr(value, "_asdict", lambda: value)()
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _shapes(one, str(key))
    elif isinstance(value, torch.Tensor):
        yield name, f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    elif isinstance(value, Sequence) and not isinstance(value, str) and value and isinstance(value[0], Tensor):
        for index, one in enumerate(value):
            yield from _shapes(one, f"{name}[{index}]")
    elif value is not None:
        yield name, type(value).__name__ + (f" of {len(value)}" if isinstance(value, Sequence) else "")
