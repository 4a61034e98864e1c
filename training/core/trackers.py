"""Experiment trackers of accelerate, and memory usage."""

import logging
import resource
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from PIL import Image

from weftwork.datasets.readers.errors import UserError

logger = logging.getLogger(__name__)

DEFAULT = "tensorboard"


def tracker(name: str | None) -> str | None:
    """Returns the tracker to use; None if the default one, `ValueError` if another one, is not installed."""
    if name in (None, "none"):
        return None
    installed = [str(one) for one in get_available_trackers()]
    if name in installed:
        return name
    listed = ", ".join(installed) or "none is installed"
    if name == DEFAULT:
        logger.info("report_to: tensorboard is not installed; metrics are written to metrics.jsonl only")
        return None
    raise UserError(
        f"report_to: got {name!r}, expected none or one of those installed ({listed}); install it or choose another"
    )


def log_images(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Sends the validation images `folder/STEP….png` to the trackers that accept images."""
    for path in sorted(folder.glob(f"{step:06d}*.png")):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))[None]
        name = f"validation{path.stem[6:]}"
        for one in accelerator.trackers:
            options = {"dataformats": "NHWC"} if one.name == DEFAULT else {}
            if (log := getattr(one, "log_images", None)) is not None:
                log({name: pixels}, step=step, **options)


def peak_memory() -> str:
    """Formats the peak memory so far, of the GPU or else of the process."""
    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 1024**3:.1f}G"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2:.1f}G"
