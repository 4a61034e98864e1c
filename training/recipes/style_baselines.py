"""The LoRA baseline of styles, conditioned by the style's name in the prompt.

Images, number of steps and objective are those of the style adapter.
"""

from pathlib import Path

import torch
from diffusers import ModelMixin, StableDiffusionPipeline
from jaxtyping import Float
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from weftwork.pipelines.core.mixin import ConditionedPipelineMixin
from weftwork.training.data.styles import StyledRecord
from weftwork.training.tasks.adapter import DenoisingTask, ImageBatch
from weftwork.training.trainers.captioned import StyleConfig

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
"""LoRA target modules, as in diffusers' training scripts."""


class LoraModule(nn.Module):
    """A PEFT LoRA on the attention layers of a denoiser; saved in the format of `load_lora_weights`."""

    def __init__(self, unet: ModelMixin, rank: int) -> None:
        super().__init__()
        unet.requires_grad_(False)
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=ATTENTION))
        self.unet = unet

    def save_pretrained(self, folder: Path, safe_serialization: bool = True) -> None:
        layers: dict[str, Tensor] = get_peft_model_state_dict(self.unet)
        StableDiffusionPipeline.save_lora_weights(folder, {**layers}, safe_serialization=safe_serialization)


class LoraTask(DenoisingTask[LoraModule, StyledRecord, ImageBatch]):
    """Trains one LoRA of a rank for all styles; captions name the style."""

    def __init__(self, pipe: ConditionedPipelineMixin, config: StyleConfig, rank: int) -> None:
        super().__init__(pipe, "lora", config)
        self.module = LoraModule(pipe.unet, rank)

    def collate(self, samples: list[StyledRecord]) -> ImageBatch:
        return ImageBatch.of(samples)

    def loss(self, batch: ImageBatch, generator: torch.Generator, micro: int) -> Float[Tensor, ""]:
        return self.denoising_loss(self.denoiser(), batch.latents, batch.captions, generator)
