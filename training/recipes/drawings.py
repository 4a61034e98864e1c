"""Recipe of backbones that draw: the autoencoder's loss on edges, captions of what is drawn."""

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ConfigMixin
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from weftwork.datasets.drawings.captions import DepictedScene, caption
from weftwork.datasets.drawings.scenes import SIZE
from weftwork.training.recipes.autoencoder import AutoencoderTask
from weftwork.training.recipes.backbone import TextToImageTask, training_caption

UNCONDITIONAL_SHARE: Final = 0.1
"""Share of scenes with an empty caption, for guidance."""


class DrawingAutoencoderTask(AutoencoderTask):
    """A loss on edges (Sobel) beside that on pixels, on whole images, from slightly noisy latents.

    Statistics of group normalization differ between crops and images that are mostly flat: an autoencoder trained on
    crops tints whole drawings.
    """

    def __init__(self, module: AutoencoderKL, held_out: UInt8[np.ndarray, "image height width 3"]) -> None:
        super().__init__(module, held_out, crop=SIZE, kl_weight=1e-4, noise=0.15)

    def edges(self, images: Float[Tensor, "batch 3 height width"]) -> Sequence[Float[Tensor, "batch 6 h w"]]:
        """Horizontal and vertical Sobel gradients by channel."""
        sobel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]], device=images.device) / 4
        return (F.conv2d(images, torch.stack([sobel, sobel.T])[:, None].repeat(3, 1, 1, 1), groups=3),)


class DrawingTask(TextToImageTask):
    """Latents from captions of scenes, and of outfits in plainer words."""

    prompts: Sequence[str] = (
        "a red car, noto style",
        "a brown and white dog in flat fluent style",
        "a yellow star and a green tree, twemoji style",
        "a blue house on a pale yellow background, emojione style",
        "grinning face",
        "an orange fox, a pink flower and a gray elephant, 3d fluent style",
        "black rocket, fluent line style",
        "a person wearing a red jacket, a black dotted skirt and brown boots",
    )

    def caption(self, shown: Any, rng: np.random.Generator) -> str:
        return drawing_caption(shown, rng)


class CaptionedTask(TextToImageTask):
    """Latents from captions of images that have some to choose from.

    Args:
        prompts: eight, for validation images.
    """

    def __init__(self, module: nn.Module, scheduler: ConfigMixin, vae: AutoencoderKL, prompts: Sequence[str]) -> None:
        super().__init__(module, scheduler, vae)
        self.prompts = prompts

    def caption(self, shown: Any, rng: np.random.Generator) -> str:
        return "" if rng.random() < UNCONDITIONAL_SHARE else shown[rng.integers(len(shown))]


def drawing_caption(shown: Any, rng: np.random.Generator) -> str:
    """Draws a caption of a scene or an outfit, sometimes the empty one."""
    if not isinstance(shown, DepictedScene):
        return plainer(training_caption(shown, rng), rng)
    return "" if rng.random() < UNCONDITIONAL_SHARE else caption(shown, rng)


def plainer(words: str, rng: np.random.Generator) -> str:
    """Leaves out articles in some captions, and in others that a garment is plain: one colour alone means that."""
    if rng.random() < 0.5:
        words = re.sub(r"\b(plain|solid) | (without a pattern|in one plain color)", "", words)
    if rng.random() < 0.3:
        words = re.sub(r"\ban? ", "", words)
    return words
