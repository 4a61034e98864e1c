"""A ControlNet on sketches of whole outfits, to compose and compare with weftwork's conditions."""

from dataclasses import dataclass

import torch
from diffusers import ControlNetModel, ModelMixin
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.training.core.config import ObjectiveConfig
from weftwork.training.core.denoisers import Embeds
from weftwork.training.data.pairs import PairRecord
from weftwork.training.tasks.adapter import DenoisingTask, ImageBatch

EMBEDDING_CHANNELS = (16, 32, 64, 96)
"""Channels of the layers that encode the control image."""
SILU_GAIN = 1.68
"""Gain of weights before a SiLU that preserves the variance of normal inputs."""


@torch.no_grad()
def init_weights(controlnet: ModelMixin) -> None:
    """Initialises the layers that encode the control image to preserve the variance; white becomes zero.

    With diffusers' initialisation, each of the eight passes a third of the signal and the last one nothing, so that
    sketches have no effect for thousands of steps. The ControlNet's outputs stay zero-initialised.
    """
    embedding = controlnet.controlnet_cond_embedding
    layers = [embedding.conv_in, *embedding.blocks, embedding.conv_out]
    for layer in layers:
        fan_in = layer.weight[0].numel()
        nn.init.normal_(layer.weight, std=SILU_GAIN / fan_in**0.5)
        nn.init.zeros_(layer.bias)
    embedding.conv_in.bias.copy_(-embedding.conv_in.weight.sum((1, 2, 3)))


@dataclass(frozen=True, eq=False)
class SketchedBatch(ImageBatch):
    """Latents and captions of images, with their control images."""

    sketches: Float[Tensor, "design 3 height width"]


class ControlNetTask(DenoisingTask[ModelMixin, PairRecord, SketchedBatch]):
    """Trains diffusers' `ControlNetModel` (arXiv 2302.05543) for a frozen denoiser, on designs of one merged pair.

    Its control image is the sketch, dark strokes on white.
    """

    def __init__(self, pipe: ConditionedPipelineMixin, objective: ObjectiveConfig) -> None:
        super().__init__(pipe, "controlnet", objective)
        module = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=EMBEDDING_CHANNELS)
        self.module = module.train()
        init_weights(self.module)

    def collate(self, samples: list[PairRecord]) -> SketchedBatch:
        return SketchedBatch.of(samples, sketches=torch.stack([self._drawn(record) for record in samples]))

    @staticmethod
    def _drawn(record: PairRecord) -> Float[Tensor, "3 size size"]:
        (pair,) = record.pairs
        assert pair.pixels is not None
        return (1 - pair.pixels[:1]).expand(3, -1, -1)

    def loss(self, batch: SketchedBatch, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        def denoise(noisy: Tensor, timesteps: Tensor, embeds: Embeds) -> Tensor:
            given = self.call.arguments(self.frozen, noisy, timesteps, embeds)
            down, middle = self.module(**given, controlnet_cond=batch.sketches)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            return self.frozen(**given, **residuals)[0]

        return self.denoising_loss(denoise, batch.latents, batch.captions, generator)
