"""Context manager that swaps a module's weights for their moving average."""

from typing import Any

from diffusers.training_utils import EMAModel
from torch import nn


class Averaged:
    """Context manager: averaged weights and evaluation mode inside the block, live weights and mode outside.

    Args:
        ema: moving average of `parameters`; None leaves the weights as they are.
    """

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
