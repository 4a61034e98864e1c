"""The smallest use of aligned views."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn

from weftwork.attention_processors.core.call_rows import rows_of
from weftwork.attention_processors.core.example import Example, Inputs
from weftwork.attention_processors.core.image_latents import latent_channels, latent_size
from weftwork.attention_processors.views.adapter import AlignedViews
from weftwork.attention_processors.views.batch import ViewsBatch, ViewsFeatures
from weftwork.attention_processors.views.conditions import ReferenceView
from weftwork.datasets.readers.cameras import Camera

FACTOR = 8
"""Pixels per latent."""


class ExampleViews(AlignedViews):
    """Adapter whose target camera is fixed, and which reads as many rows of a call as there are designs."""

    def collate(
        self, conditions: Sequence[Sequence[ReferenceView]], *, cameras: Sequence[Camera] = (), mesh: bool = True
    ) -> ViewsBatch:
        return super().collate(conditions, cameras=cameras or [_camera(0.0)] * len(conditions), mesh=mesh)

    def features(self, batch: ViewsBatch, encoders: Mapping[str, Any]) -> ViewsFeatures:
        given, count = encoders["given"], len(batch.images)
        return super().features(batch, {**encoders, "given": rows_of(given, range(count))})


def example(denoiser: nn.Module) -> Example:
    """Returns an adapter, and conditions of one reference view of a wall."""
    adapter = ExampleViews.for_denoiser(denoiser, rank=2)
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if "lora_B" in name and parameter.requires_grad:  # zero-initialised
                parameter.normal_(std=0.05)
    sizes: dict[str, Any] = {"block_out_channels": (8,) * 4, "norm_num_groups": 4}
    blocks: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    vae, call = AutoencoderKL(**sizes, **blocks, latent_channels=latent_channels(denoiser)[0]), Inputs()

    def inputs(given: Inputs) -> Inputs:
        """Keeps the inputs, whose prompts the reference roles read too."""
        call.update(given)
        return given

    def conditions(seed: int, **options: Any) -> list[ReferenceView]:
        height, width = (side * FACTOR for side in latent_size(denoiser, call))
        image = np.random.default_rng(seed).random((height, width, 3))
        view = ReferenceView.of_depth(image, np.full((height, width), 3.0), _camera(0.2))
        return [ReferenceView(view.image, view.points, view.camera, **{"weight": 0.5, **options})]

    return Example(adapter, conditions, {"vae": vae, "given": call}, inputs)


def _camera(aside: float) -> Camera:
    return Camera.looking((aside, 0.0, 0.0), (0.0, 0.0, 3.0))
