"""Base of tasks that train diffusers' `ControlNetModel` for a frozen U-Net, and initial weights of a new one."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from diffusers import ControlNetModel, ModelMixin, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.datasets.readers.errors import UserError
from weftwork.pipelines.core.mixin import ConditionedPipelineMixin, ConditionedStableDiffusionControlNetPipeline
from weftwork.training.core.config import ObjectiveConfig
from weftwork.training.core.denoisers import Embeds, denoiser_of
from weftwork.training.core.task import BatchT, SampleT
from weftwork.training.tasks.adapter import Denoiser, DenoisingTask

CHANNELS: Final = (16, 32, 96, 256)
"""Channels of the layers that encode the control image, as in diffusers."""
SILU_GAIN: Final = 1.68
"""Gain of weights before a SiLU that preserves the variance of normal inputs."""


def check_unet(pipe: ConditionedPipelineMixin) -> None:
    """Raises `ValueError` unless the denoiser is the U-Net of Stable Diffusion 1.x or 2.x."""
    denoiser: Any = denoiser_of(pipe)
    kind = type(denoiser).__name__
    if not isinstance(denoiser, UNet2DConditionModel) or denoiser.config["addition_embed_type"] is not None:
        kind = f"{kind} of Stable Diffusion XL" if isinstance(denoiser, UNet2DConditionModel) else kind
        raise UserError(
            f"pretrained_model_name_or_path: got a {kind}, expected the U-Net of Stable Diffusion 1.x or 2.x; name "
            "such a model"
        )


def new_controlnet(
    pipe: ConditionedPipelineMixin, background: float, channels: Sequence[int] = CHANNELS
) -> ControlNetModel:
    """Returns a ControlNet with the weights of a pipeline's U-Net, whose outputs are zero.

    Args:
        background: value of control images, in [0, 1], that becomes zero.
        channels: of the layers that encode the control image.
    """
    module = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=tuple(channels))
    init_weights(module, background)
    return module


@torch.no_grad()
def init_weights(controlnet: ModelMixin, background: float) -> None:
    """Initialises the layers that encode the control image to preserve the variance; the background becomes zero.

    With diffusers' initialisation, each of the eight passes a third of the signal and the last one nothing, so that
    control images have no effect for thousands of steps. The ControlNet's outputs stay zero-initialised.
    """
    embedding = controlnet.controlnet_cond_embedding
    layers = [embedding.conv_in, *embedding.blocks, embedding.conv_out]
    for layer in layers:
        fan_in = layer.weight[0].numel()
        nn.init.normal_(layer.weight, std=SILU_GAIN / fan_in**0.5)
        nn.init.zeros_(layer.bias)
    embedding.conv_in.bias.copy_(-background * embedding.conv_in.weight.sum((1, 2, 3)))


class ControlNetTask(DenoisingTask[ModelMixin, SampleT, BatchT]):
    """Trains diffusers' `ControlNetModel` (arXiv 2302.05543); validation images are those of its pipeline."""

    def __init__(
        self, module: ControlNetModel, pipe: ConditionedPipelineMixin, name: str, objective: ObjectiveConfig
    ) -> None:
        super().__init__(pipe, name, objective)
        nn.Module.to(module, self.frozen.device)
        self.module = module.float().train()
        self.pipe = ConditionedStableDiffusionControlNetPipeline.from_pipe(pipe, controlnet=module)

    def controlled(self, control: Float[Tensor, "design 3 height width"]) -> Denoiser:
        """Returns the frozen denoiser with the residuals of control images."""

        def denoise(noisy: Tensor, timesteps: Tensor, embeds: Embeds) -> Tensor:
            given = self.call.arguments(self.frozen, noisy, timesteps, embeds)
            down, middle = self.module(**given, controlnet_cond=control)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            return self.frozen(**given, **residuals)[0]

        return denoise
