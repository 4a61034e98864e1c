"""What styles are compared with: a LoRA that reads the style's name in the prompt, and an IP-Adapter.

Both are trained on the pictures, for the steps and through the objective of the style adapter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import StableDiffusionPipeline
from jaxtyping import Float
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn
from torch.utils.data import Dataset

from weft.attention_processors.encoders import ImageEncoder
from weft.attention_processors.reference import Reference, ReferenceAdapter
from weft.evaluation.pictures import as_tensor
from weft.training.adapter_task import AdapterTask, DenoisingTask
from weft.training.style import StyleConfig, StyledRecord, dropped
from weft.training.style_data import StyledCreatures

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
"""What diffusers' scripts put a LoRA on."""


class LoraModule(nn.Module):
    """A PEFT LoRA on the attention layers of a denoiser; its folder is what `load_lora_weights` reads."""

    def __init__(self, unet: Any, rank: int) -> None:
        super().__init__()
        unet.requires_grad_(False)
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=ATTENTION))
        self.unet = unet

    def save_pretrained(self, folder: Path, safe_serialization: bool = True) -> None:
        layers = cast("Any", get_peft_model_state_dict(self.unet))
        StableDiffusionPipeline.save_lora_weights(
            folder, unet_lora_layers=layers, safe_serialization=safe_serialization
        )


class LoraTask(DenoisingTask):
    """One LoRA for all styles; `captions` name them.

    Args:
        rank: of the added matrices.
    """

    def __init__(self, pipe: Any, config: StyleConfig, rank: int) -> None:
        super().__init__(pipe, "lora", config)
        self.module = LoraModule(pipe.unet, rank)

    def collate(self, samples: list[StyledRecord]) -> dict[str, Any]:
        latents = torch.stack([record.latents for record in samples])
        return {"latents": latents, "captions": [record.captions for record in samples]}

    def loss(
        self, module: nn.Module, batch: dict[str, Any], generator: torch.Generator, micro: int
    ) -> Float[Tensor, ""]:
        return self.denoising_loss(self.denoiser(), batch["latents"], batch["captions"], generator)

    def validate(self, module: Any, step: int, folder: Path) -> Mapping[str, float]:
        return {}


@dataclass(frozen=True)
class ReferencedRecord:
    """One picture for training, with what the image encoder says of it."""

    latents: Float[Tensor, "channel height width"]
    embeds: Float[Tensor, " dim"]
    captions: tuple[str, ...]


class ReferencedCreatures(Dataset[ReferencedRecord]):
    """Styled creatures, each with itself as its reference, as IP-Adapter (arXiv 2308.06721) trains."""

    def __init__(self, styled: StyledCreatures, encoder: ImageEncoder) -> None:
        self.styled = styled
        images = styled.pictures.images
        parts = [as_tensor(list(images[start : start + 64])) for start in range(0, len(styled), 64)]
        self.embeds = torch.cat([encoder.pooled(part) for part in parts])

    def __len__(self) -> int:
        return len(self.styled)

    def __getitem__(self, index: int) -> ReferencedRecord:
        record = self.styled[index]
        return ReferencedRecord(record.latents, self.embeds[index], record.captions)


class ReferenceTask(AdapterTask):
    """Latents of styled pictures, with captions of what they show and the pictures as references."""

    module: ReferenceAdapter

    def __init__(self, module: ReferenceAdapter, pipe: Any, config: StyleConfig) -> None:
        super().__init__(module, pipe, "reference", config)
        self.config = config

    def collate(self, samples: list[ReferencedRecord]) -> dict[str, Any]:
        batch = self.module.collate([[Reference(embeds=record.embeds)] for record in samples])
        latents = torch.stack([record.latents for record in samples])
        return {**batch, "latents": latents, "captions": [record.captions for record in samples]}

    def loss(
        self, module: nn.Module, batch: dict[str, Any], generator: torch.Generator, micro: int
    ) -> Float[Tensor, ""]:
        captions, null = dropped(self.config, batch["captions"], generator)
        features = self.module.features(batch, {})
        features["image"] = features["image"] * ~null[:, None, None].to(features["image"].device)
        return self.denoising_loss(self.denoiser(module(features)), batch["latents"], captions, generator)

    def validate(self, module: Any, step: int, folder: Path) -> Mapping[str, float]:
        return {}
