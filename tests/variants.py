"""Every pipeline that takes conditions beside its stock twin, as tiny random models, and how to call them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from peft import LoraConfig
from PIL import Image
from tiny import paired_adapter, tiny_parts, tiny_tokenizer, tiny_unet
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from weftwork.pipelines.core import mixin as conditioned


def run(pipe: Any, **options: Any) -> np.ndarray:
    """Latents of a short call with a fixed seed."""
    settings: dict[str, Any] = dict(
        prompt="a person",
        num_inference_steps=2,
        output_type="latent",
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(0),
    )
    return pipe(**{**settings, **options}).images.float().numpy()


def picture(seed: int = 0, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def half_mask() -> Image.Image:
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    return Image.fromarray(mask)


def add_lora(pipe: Any) -> Any:
    torch.manual_seed(9)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False), "other")
    return pipe


def xl_parts() -> dict[str, Any]:
    parts = tiny_parts()
    torch.manual_seed(5)
    config = CLIPTextConfig(
        vocab_size=len(parts["tokenizer"]),
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        max_position_embeddings=77,
        projection_dim=32,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    parts["text_encoder_2"] = CLIPTextModelWithProjection(config).eval()
    parts["tokenizer_2"] = tiny_tokenizer()
    parts["unet"] = tiny_unet(
        cross_attention_dim=64,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=80,
    )
    return parts


def controlnet_parts() -> dict[str, Any]:
    parts = tiny_parts()
    controlnet = ControlNetModel.from_unet(parts["unet"], conditioning_embedding_out_channels=(16, 16, 16, 16))
    for i, module in enumerate([*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block]):
        torch.manual_seed(i)
        torch.nn.init.normal_(module.weight, std=0.05)  # zero at birth: it would do nothing
    return {**parts, "controlnet": controlnet.eval()}


@dataclass(frozen=True)
class Variant:
    """One pipeline: its classes, components and the arguments it needs beside the prompt."""

    name: str
    conditioned: Any
    stock: Any
    parts: Callable[[], dict[str, Any]] = tiny_parts
    inputs: Callable[[], dict[str, Any]] = dict
    extra: tuple[tuple[str, Any], ...] = (
        ("safety_checker", None),
        ("feature_extractor", None),
        ("requires_safety_checker", False),
    )
    text_dim: int = 32

    def make(self, cls: Any) -> Any:
        pipe = cls(**self.parts(), **dict(self.extra))
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def attached(self) -> Any:
        pipe = self.make(self.conditioned)
        pipe.attach(it=paired_adapter(pipe.unet, text_dim=self.text_dim))
        return pipe


VARIANTS = (
    Variant("sd", conditioned.ConditionedStableDiffusionPipeline, StableDiffusionPipeline),
    Variant(
        "xl",
        conditioned.ConditionedStableDiffusionXLPipeline,
        StableDiffusionXLPipeline,
        xl_parts,
        extra=(("add_watermarker", False),),
        text_dim=64,
    ),
    Variant(
        "img2img",
        conditioned.ConditionedStableDiffusionImg2ImgPipeline,
        StableDiffusionImg2ImgPipeline,
        inputs=lambda: {"image": picture(), "strength": 0.99},
    ),
    Variant(
        "inpaint",
        conditioned.ConditionedStableDiffusionInpaintPipeline,
        StableDiffusionInpaintPipeline,
        inputs=lambda: {"image": picture(), "mask_image": half_mask(), "height": 64, "width": 64},
    ),
    Variant(
        "inpaint_of_nine_channels",
        conditioned.ConditionedStableDiffusionInpaintPipeline,
        StableDiffusionInpaintPipeline,
        lambda: {**tiny_parts(), "unet": tiny_unet(in_channels=9)},
        lambda: {"image": picture(), "mask_image": half_mask(), "height": 64, "width": 64},
    ),
    Variant(
        "controlnet",
        conditioned.ConditionedStableDiffusionControlNetPipeline,
        StableDiffusionControlNetPipeline,
        controlnet_parts,
        lambda: {"image": picture()},
    ),
)
SD = VARIANTS[0]
