"""The base of training tasks: a module, its batches, loss and validation."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

ModuleT = TypeVar("ModuleT")
SampleT = TypeVar("SampleT")
BatchT = TypeVar("BatchT")


class Task(ABC, Generic[ModuleT, SampleT, BatchT]):
    """A module to train, its batches, loss and validation."""

    module: ModuleT
    """The trainable module, with `save_pretrained`; all other modules of the task stay frozen."""

    @abstractmethod
    def collate(self, samples: list[SampleT]) -> BatchT:
        """Makes a batch of a list of samples, on the CPU."""

    @abstractmethod
    def loss(self, batch: BatchT, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        """Returns the loss of micro-batch number `micro`; all random draws use `generator`."""

    def training_loss(self, batch: BatchT, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        """Returns the loss that is trained on: `loss`, and terms that a validation loss does not have."""
        return self.loss(batch, generator, micro)

    def validate(self, step: int, folder: Path) -> Mapping[str, float]:
        """Returns scores of the module, whose weights are averaged; may write images to `folder`."""
        return {}


AnyTask = Task[Any, Any, Any]
