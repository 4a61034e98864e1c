"""Averaged weights, in the place of the live ones for as long as a block lasts."""

from typing import Any

from diffusers.training_utils import EMAModel
from torch import nn


class Averaged:
    """The module with its averaged weights inside the block, its live ones outside."""

    def __init__(self, module: Any, ema: EMAModel | None, parameters: list[nn.Parameter]) -> None:
        self.module, self.ema, self.parameters = module, ema, parameters

    def __enter__(self) -> Any:
        self.training = self.module.training
        self.module.eval()
        if self.ema is not None:
            self.ema.store(self.parameters)
            self.ema.copy_to(self.parameters)
        return self.module

    def __exit__(self, *_: object) -> None:
        if self.ema is not None:
            self.ema.restore(self.parameters)
        self.module.train(self.training)
