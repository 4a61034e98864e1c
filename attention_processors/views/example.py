"""The smallest use of aligned views."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn

from weftwork.attention_processors.core.example import Example
from weftwork.attention_processors.core.processor import unwrapped
from weftwork.attention_processors.views.adapter import AlignedViews
from weftwork.attention_processors.views.batch import EncodedViews
from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.datasets.readers.cameras import Camera

SIDE = 64
"""Of images, in pixels."""


class ViewsExample(Example):
    """Example whose conditions are encoded for a target camera; its branches are those of the image role."""

    def encoded(self, designs: Sequence[Sequence[ReferenceView]]) -> EncodedViews:
        adapter: Any = self.adapter
        batch = adapter.collate(designs, cameras=[_camera(0.0)] * len(designs))
        context = self.encoders["context"].expand(len(designs), -1, -1)
        return adapter(adapter.features(batch, {**self.encoders, "context": context}))


def example(denoiser: nn.Module) -> Example:
    """Returns an adapter, and conditions of one reference view of a wall."""
    adapter = AlignedViews.for_denoiser(denoiser, rank=2)
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if "lora_B" in name and parameter.requires_grad:  # zero-initialised
                parameter.normal_(std=0.05)
    sizes: dict[str, Any] = {"block_out_channels": (8,) * 4, "norm_num_groups": 4}
    blocks: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    unet: Any = unwrapped(denoiser)
    context = torch.randn(1, 3, unet.config.cross_attention_dim)

    def conditions(seed: int, **options: Any) -> list[ReferenceView]:
        image = np.random.default_rng(seed).random((SIDE, SIDE, 3))
        view = ReferenceView.of_depth(image, np.full((SIDE, SIDE), 3.0), _camera(0.2))
        return [ReferenceView(view.image, view.points, view.camera, **{"weight": 0.5, **options})]

    return ViewsExample(adapter, conditions, {"vae": AutoencoderKL(**sizes, **blocks), "context": context})


def _camera(aside: float) -> Camera:
    return Camera.looking((aside, 0.0, 0.0), (0.0, 0.0, 3.0))
