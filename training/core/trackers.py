"""Where a run is watched: any tracker of accelerate, by name."""

import logging
import resource
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from PIL import Image

from weftwork.datasets.readers.errors import UserError

logger = logging.getLogger(__name__)

DEFAULT = "tensorboard"


def tracker(name: str | None) -> str | None:
    """The tracker to use; the default one only where it is installed.

    Raises:
        ValueError: another one, which is not there.
    """
    if name in (None, "none"):
        return None
    installed = [str(one) for one in get_available_trackers()]
    if name in installed:
        return name
    listed = ", ".join(installed) or "there is none"
    if name == DEFAULT:
        logger.info("report_to: no tensorboard is installed, so metrics.jsonl is all that is written")
        return None
    raise UserError(
        f"report_to: got {name!r}, expected none or one of those installed ({listed}); install it or choose another"
    )


def show_pictures(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Give the pictures of a validation, `folder/STEP….png`, to the trackers that show some."""
    for path in sorted(folder.glob(f"{step:06d}*.png")):
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))[None]
        name = f"validation{path.stem[6:]}"
        for one in accelerator.trackers:
            options: dict[str, Any] = {"dataformats": "NHWC"} if one.name == DEFAULT else {}
            if hasattr(one, "log_images"):
                one.log_images({name: pixels}, step=step, **options)  # pyright: ignore[reportAttributeAccessIssue]


def most_memory() -> str:
    """The most that was held so far, on the accelerator or in main memory."""
    if torch.cuda.is_available():
        return f"{torch.cuda.max_memory_allocated() / 1024**3:.1f}G"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2:.1f}G"
