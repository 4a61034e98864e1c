"""A ControlNet on sketches of whole outfits, to compose and compare with weftwork's conditions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.training.core.denoisers import Embeds
from weftwork.training.data.pairs import PairRecord
from weftwork.training.tasks.adapter import DenoisingTask, ObjectiveConfig

EMBEDDING_CHANNELS = (16, 32, 64, 96)
"""Channels of the layers that encode the control image."""
SILU_GAIN = 1.68
"""Gain of weights before a SiLU that preserves the variance of normal inputs."""


@torch.no_grad()
def init_weights(embedding: Any) -> None:
    """Initialises the layers that encode the control image to preserve the variance; white becomes zero.

    With diffusers' initialisation, each of the eight passes a third of the signal and the last one nothing, so that
    sketches have no effect for thousands of steps. The ControlNet's outputs stay zero-initialised.
    """
    layers = [embedding.conv_in, *embedding.blocks, embedding.conv_out]
    for layer in layers:
        fan_in = layer.weight[0].numel()
        nn.init.normal_(layer.weight, std=SILU_GAIN / fan_in**0.5)
        nn.init.zeros_(layer.bias)
    embedding.conv_in.bias.copy_(-embedding.conv_in.weight.sum((1, 2, 3)))


class ControlNetTask(DenoisingTask):
    """Trains diffusers' `ControlNetModel` (arXiv 2302.05543) for a frozen denoiser, on designs of one merged pair.

    Its control image is the sketch, dark strokes on white.
    """

    def __init__(self, pipe: Any, objective: ObjectiveConfig) -> None:
        super().__init__(pipe, "controlnet", objective)
        self.module: Any = ControlNetModel.from_unet(
            pipe.unet, conditioning_embedding_out_channels=EMBEDDING_CHANNELS
        ).train()
        init_weights(self.module.controlnet_cond_embedding)

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
        def denoise(noisy: Tensor, timesteps: Tensor, embeds: Embeds) -> Tensor:
            given = self.call.arguments(self.frozen, noisy, timesteps, embeds)
            down, middle = module(**given, controlnet_cond=batch["sketches"])
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            return self.frozen(**given, **residuals)[0]

        return self.denoising_loss(denoise, batch["latents"], batch["captions"], generator)

    def validate(self, module: Any, step: int, folder: Path) -> Mapping[str, float]:
        return {}
