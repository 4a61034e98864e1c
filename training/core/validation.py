"""Validation: held-out samples and their loss with the same noise and timesteps every time, images and scores."""

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch.utils.data import Dataset, Subset

from weftwork.datasets.readers.errors import UserError
from weftwork.training.core.task import AnyTask, SampleT

LOSSES: Final = 32
"""Least number of losses that a validation loss is the mean of; fewer samples are read several times."""
NAMED: Final = 20
"""Held-out samples that the log names."""

Evaluate = Callable[[Path], Mapping[str, float]]
"""Writes a sheet of the evaluated images as PNG and returns scores by name."""

logger = logging.getLogger(__name__)


class Part(Subset[SampleT]):
    """Some samples of a dataset, with their buckets."""

    def __init__(self, dataset: Dataset[SampleT], indices: Sequence[int]) -> None:
        super().__init__(dataset, indices)
        buckets: Sequence[Hashable] | None = getattr(dataset, "buckets", None)
        self.buckets = None if buckets is None else [buckets[index] for index in indices]


def split(dataset: Dataset[SampleT], share: float) -> tuple[Part[SampleT], Part[SampleT]]:
    """Splits a dataset into training and held-out samples, and logs the latter.

    Raises:
        ValueError: a stream, or a part that would be empty.
    """
    if not isinstance(dataset, Sized):
        raise UserError("validation_split: got a stream, of which nothing can be held out; leave the option out")
    indices = held_out(dataset, share)
    kept = sorted(set(range(len(dataset))) - set(indices))
    if not kept:
        raise UserError(
            f"validation_split: got {share} of {len(dataset)} samples, which leaves none to train on; pass less, or "
            "add data"
        )
    named = ", ".join(str(index + 1) for index in indices[:NAMED]) + (", …" if len(indices) > NAMED else "")
    logger.info("held out for the validation loss: %d of %d samples, number %s", len(indices), len(dataset), named)
    return Part(dataset, kept), Part(dataset, indices)


def held_out(dataset: Dataset[Any], share: float) -> list[int]:
    """Returns the indices of about this share of the samples, at least one unless it is 0, in order.

    They depend on the number of samples only, so that runs of different seeds hold out the same ones. Samples of one
    group stay together, if `dataset.groups` has the group of each.
    """
    if not (share and isinstance(dataset, Sized)):
        return []
    groups: Sequence[Hashable] = getattr(dataset, "groups", range(len(dataset)))
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    rows, found = list(members.values()), list[int]()
    for place in torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist():
        if len(found) < share * len(groups):
            found += rows[place]
    return sorted(found)


@dataclass(frozen=True)
class Validation:
    """The images, losses and scores of a validation.

    Args:
        evaluate: further scores, if any.
        held_out: samples of the validation loss, if any.
        batch_size: samples of which losses are computed at once.
    """

    task: AnyTask
    evaluate: Evaluate | None
    held_out: Part[Any] | None
    batch_size: int

    def scores(self, step: int, folder: Path, accelerator: Accelerator) -> dict[str, float]:
        """Returns the scores of the task's module, and writes its images to `folder`."""
        scores = dict(self.task.validate(step, folder))
        if self.held_out is not None:
            with accelerator.autocast():
                loss = held_out_loss(self.task, self.held_out, self.batch_size, accelerator.device)
            scores["validation_loss"] = loss
        if self.evaluate is not None:
            scores |= self.evaluate(folder / f"{step:06d}-cases.png")
        return scores


def held_out_loss(task: AnyTask, samples: Part[Any], batch_size: int, device: torch.device) -> float:
    """Computes the mean loss of all samples; what is drawn is the same at every call with equal samples."""
    buckets: dict[Hashable, list[int]] = {}
    rounds = -(-LOSSES // len(samples))
    for index in [*range(len(samples))] * rounds:
        buckets.setdefault(None if samples.buckets is None else samples.buckets[index], []).append(index)
    batches = [row[i : i + batch_size] for row in buckets.values() for i in range(0, len(row), batch_size)]
    total = 0.0
    for number, indices in enumerate(batches):
        batch = send_to_device(task.collate([samples[index] for index in indices]), device)
        total += len(indices) * task.loss(batch, torch.Generator().manual_seed(number), number).item()
    return total / (len(samples) * rounds)
