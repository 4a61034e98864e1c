"""Depth of one's own image by a depth model of `transformers` in a local folder."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from weftwork.datasets.readers.errors import UserError

NEAREST, FARTHEST = 1.0, 10.0
"""Depth that relative models' nearest and farthest pixels get, since they know neither unit nor offset."""
INVERSE: Final = ("dpt", "depth_anything")
"""Types of models whose output is inverse depth, unless their config says "metric"."""


class DepthModel:
    """Depth model of `transformers`, called with an image.

    Output in metres is returned as it is. Relative models give inverse depth up to scale and offset: their nearest
    pixel gets depth 1, their farthest 10.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model.eval(), processor

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: torch.device | str = "cpu") -> "DepthModel":
        """Loads a local folder of `AutoModelForDepthEstimation`; `ValueError` if there is no such model."""
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        try:
            processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
            model = AutoModelForDepthEstimation.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise UserError(
                f"depth: got the folder {str(folder)!r} without a depth model ({error}), expected config.json, "
                "model.safetensors and preprocessor_config.json; download a model of transformers"
            ) from error
        return cls(model.to(device), processor)

    @torch.no_grad()
    def __call__(self, image: Image.Image) -> Float[np.ndarray, "height width"]:
        inputs = self.processor(images=image, return_tensors="pt").to(self.model.device)
        outputs = self.model(**inputs)
        sizes = [(image.height, image.width)]
        result = self.processor.post_process_depth_estimation(outputs, target_sizes=sizes)[0]["predicted_depth"]
        values = result.float().cpu().numpy()
        return depth_of_inverse(values) if self.inverse else values

    @property
    def inverse(self) -> bool:
        """Whether the output is inverse depth."""
        config = self.model.config
        return config.model_type in INVERSE and getattr(config, "depth_estimation_type", "relative") == "relative"


def depth_of_inverse(values: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    """Converts inverse depth of unknown scale and offset to depth from `NEAREST` to `FARTHEST`."""
    share = (values - values.min()) / max(float(np.ptp(values)), 1e-9)
    return 1 / (1 / FARTHEST + share * (1 / NEAREST - 1 / FARTHEST))
