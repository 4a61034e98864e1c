"""Optimizers by name: PyTorch's own, and those of other libraries where they are installed."""

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from weftwork.datasets.readers.errors import UserError

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
"""By name its module, its class, and what to install for it."""
ADAMS: Final = ("adamw", "adamw8bit", "prodigy")
"""These take betas and epsilon."""


def build_optimizer(
    name: str,
    parameters: "Sequence[nn.Parameter]",
    learning_rate: float,
    weight_decay: float,
    **adam: Any,
) -> "torch.optim.Optimizer":
    """An optimizer over some parameters.

    Args:
        adam: `betas` and `eps`, for those that have them.

    Raises:
        ValueError: an unknown name.
        ValueError: its library is not there.
    """
    check_optimizer(name)
    where, kind, library = OPTIMIZERS[name]
    try:
        module = importlib.import_module(where)
    except ImportError as error:
        raise UserError(f"optimizer: {name!r} needs {library}, which is not there; pip install {library}") from error
    options = adam if name in ADAMS else {}
    return getattr(module, kind)(parameters, lr=learning_rate, weight_decay=weight_decay, **options)


def check_optimizer(name: str) -> None:
    """Raise unless the name is known."""
    if name not in OPTIMIZERS:
        raise UserError(f"optimizer: got {name!r}, expected one of {', '.join(OPTIMIZERS)}; pass one of these")
