"""Untrained parts that styles and pairs are compared with: a LoRA and an image encoder."""

from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from weftwork.pretrained import shipped


def write_lora(folder: Path, std: float = 0.0, unet: Any = None) -> Path:
    """A LoRA of rank 2, for the shipped backbone by default; without `std` it is zero-initialised and does nothing."""
    unet = unet or UNet2DConditionModel.from_pretrained(shipped("tiny-diffusion"), subfolder="unet")
    layers = ["to_q", "to_k", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights="gaussian", target_modules=layers))
    for name, parameter in unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    weights: Any = get_peft_model_state_dict(unet)
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=weights)
    return folder


def tiny_vision_model() -> CLIPVisionModelWithProjection:
    """Vectors of 128 numbers from images of 128 x 128."""
    config = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=128,
        patch_size=16,
        projection_dim=128,
    )
    return CLIPVisionModelWithProjection(config)
