"""A ControlNet on sketches of whole outfits: what weftwork's own conditions are composed with, and measured beside."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.training.data.pairs import PairRecord
from weftwork.training.data.prompts import Prompted
from weftwork.training.tasks.adapter import DenoisingTask, ObjectiveConfig

EMBEDDING_CHANNELS = (16, 32, 64, 96)
"""Of the layers that bring a control image to the size of latents."""
SILU_GAIN = 1.68
"""Of weights before a SiLU that keeps the variance of normal inputs."""


@torch.no_grad()
def wake(embedding: Any) -> None:
    """Make the layers that read the control image tell images apart from the first step on.

    As diffusers leaves them, each of the eight lets a third of the signal pass and the last one nothing, so that
    thousands of steps go by before sketches mean anything. White becomes zero here, and most of the signal stays.
    What leaves the ControlNet is still zero.
    """
    layers = [embedding.conv_in, *embedding.blocks, embedding.conv_out]
    for layer in layers:
        fan_in = layer.weight[0].numel()
        nn.init.normal_(layer.weight, std=SILU_GAIN / fan_in**0.5)
        nn.init.zeros_(layer.bias)
    embedding.conv_in.bias.copy_(-embedding.conv_in.weight.sum((1, 2, 3)))


class ControlNetTask(DenoisingTask):
    """diffusers' `ControlNetModel` (arXiv 2302.05543) beside a frozen denoiser; the designs have one merged pair each.

    What it reads is the sketch as it is drawn, dark strokes on white.
    """

    def __init__(self, pipe: Any, objective: ObjectiveConfig) -> None:
        super().__init__(pipe, "controlnet", objective)
        self.module: Any = ControlNetModel.from_unet(
            pipe.unet, conditioning_embedding_out_channels=EMBEDDING_CHANNELS
        ).train()
        wake(self.module.controlnet_cond_embedding)

    def collate(self, samples: list[PairRecord]) -> dict[str, Any]:
        sketches = torch.stack([self._drawn(record) for record in samples])
        latents = torch.stack([record.latents for record in samples])
        return {"latents": latents, "sketches": sketches, "captions": [record.captions for record in samples]}

    @staticmethod
    def _drawn(record: PairRecord) -> Float[Tensor, "3 size size"]:
        (pair,) = record.pairs
        assert pair.pixels is not None
        return (1 - pair.pixels[:1]).expand(3, -1, -1)

    def loss(
        self, module: nn.Module, batch: dict[str, Any], generator: torch.Generator, micro: int
    ) -> Float[Tensor, ""]:
        def denoise(noisy: Tensor, times: Tensor, prompted: Prompted) -> Tensor:
            given, added = (noisy, times, prompted.states), dict(prompted.added)
            down, middle = module(*given, controlnet_cond=batch["sketches"], added_cond_kwargs=added, return_dict=False)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            return self.pipe.unet(*given, added_cond_kwargs=added, **residuals).sample

        return self.denoising_loss(denoise, batch["latents"], batch["captions"], generator)

    def validate(self, module: Any, step: int, folder: Path) -> Mapping[str, float]:
        return {}
