"""Optimizers by name: those of PyTorch, and of other libraries if installed."""

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from weftwork.datasets.readers.errors import check_choice, check_installed

if TYPE_CHECKING:
    import torch
    from torch import nn

    from weftwork.training.core.config import TrainingConfig

OPTIMIZERS: Final[Mapping[str, tuple[str, str, str]]] = {
    "adamw": ("torch.optim", "AdamW", ""),
    "adamw8bit": ("bitsandbytes.optim", "AdamW8bit", "bitsandbytes"),
    "adafactor": ("torch.optim", "Adafactor", ""),
    "prodigy": ("prodigyopt", "Prodigy", "prodigyopt"),
    "sgd": ("torch.optim", "SGD", ""),
}
"""Module, class and package to install, by name."""
ADAMS: Final = ("adamw", "adamw8bit", "prodigy")
"""Optimizers with betas and epsilon."""


def build_optimizer(config: "TrainingConfig", parameters: "Sequence[nn.Parameter]") -> "torch.optim.Optimizer":
    """Builds the optimizer of a config, whose name was checked, over `parameters`."""
    where, kind, _ = OPTIMIZERS[config.optimizer]
    options: dict[str, object] = {"lr": config.learning_rate, "weight_decay": config.adam_weight_decay}
    if config.optimizer in ADAMS:
        options |= {"betas": (config.adam_beta1, config.adam_beta2), "eps": config.adam_epsilon}
    return getattr(importlib.import_module(where), kind)(parameters, **options)


def check_optimizer(name: str) -> None:
    """Raises unless the name is known and its library is installed."""
    check_choice("optimizer", name, OPTIMIZERS)
    if library := OPTIMIZERS[name][2]:
        check_installed(f"optimizer {name}", library)
