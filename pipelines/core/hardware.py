"""Description of the machine for reports and model cards."""

import os
import platform


def hardware() -> str:
    """Returns the accelerator, or the processor with its number of cores."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores, {platform.machine()}"
