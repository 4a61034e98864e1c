"""Devices: their description for reports and model cards, and the one that a command names."""

import os
import platform
from typing import TYPE_CHECKING

from weftwork.datasets.readers.errors import UserError

if TYPE_CHECKING:
    import torch


def hardware() -> str:
    """Returns the accelerator, or the processor with its number of cores."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores, {platform.machine()}"


def device_named(name: str) -> "torch.device":
    """Returns a device; `ValueError` for an unknown name, or a device that is not there."""
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device: got {name!r}, expected cpu or a device of this machine ({reason})") from error
    return device
