"""Optimizers by name: those of PyTorch, and of other libraries if installed."""

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from weftwork.datasets.readers.errors import check_choice, check_installed

if TYPE_CHECKING:
    import torch
    from torch import nn

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


def build_optimizer(
    name: str,
    parameters: "Sequence[nn.Parameter]",
    learning_rate: float,
    weight_decay: float,
    **adam: object,
) -> "torch.optim.Optimizer":
    """Builds an optimizer over `parameters`.

    Args:
        adam: `betas` and `eps`, ignored by optimizers without them.

    Raises:
        ValueError: an unknown name, or a library that is not installed.
    """
    check_optimizer(name)
    where, kind, _ = OPTIMIZERS[name]
    options = adam if name in ADAMS else {}
    return getattr(importlib.import_module(where), kind)(
        parameters, lr=learning_rate, weight_decay=weight_decay, **options
    )


def check_optimizer(name: str) -> None:
    """Raises unless the name is known and its library is installed."""
    check_choice("optimizer", name, OPTIMIZERS)
    if library := OPTIMIZERS[name][2]:
        check_installed(f"optimizer {name}", library)
