"""Frozen encoders of a pipeline as one component, so that they move with it."""

from collections.abc import Mapping

import torch
from torch import nn


class FrozenEncoders(nn.Module):
    """Encoders by name; those that are modules, or have one as `model`, are moved with the pipeline.

    They are not saved with it: adapters name the encoders that they were trained with.
    """

    def __init__(self, encoders: Mapping[str, object]) -> None:
        super().__init__()
        self.by_name = dict(encoders)
        models = {
            name: one if isinstance(one, nn.Module) else getattr(one, "model", None) for name, one in encoders.items()
        }
        self.models = nn.ModuleDict({name: model for name, model in models.items() if isinstance(model, nn.Module)})

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.parameters()), torch.float32)
