"""Published FastComposer checkpoints: a subject adapter, its image encoder and the U-Net that was trained with it.

One state dict has all parts, by prefix. Sizes are read off the tensors; heads of attention are in none: those of
Stable Diffusion 1.5 are 8 per layer, those of CLIP's vision models have 64 channels.

Source: mit-han-lab/fastcomposer@b9304a2 (fastcomposer/model.py).
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from weftwork.attention_processors.core.families import base_description
from weftwork.attention_processors.core.layers import select_layers
from weftwork.attention_processors.subjects.adapter import SubjectAdapter
from weftwork.scripts.converters.ip_adapter import denoiser_for
from weftwork.scripts.converters.moai import FITTING, to_denoiser
from weftwork.scripts.converters.published import (
    Groups,
    adapter_on_meta,
    check_names,
    check_shapes,
    shape_of,
    shapes_of,
)

FUSER, ENCODER, UNET = "postfuse_module", "image_encoder", "unet"
STOCK: Final = ("text_encoder", "vae")
"""Parts that were not trained."""
UNUSED: Final = ("vision_model.embeddings.position_ids",)
"""Buffers that earlier versions of `transformers` saved."""
HEADS: Final = 8
HEAD_DIM: Final = 64


def check_groups(groups: Groups) -> None:
    """Raises `ValueError` unless a checkpoint has FastComposer's parts; only untrained ones may be absent."""
    wanted = [FUSER, ENCODER, *(name for name in (UNET, *STOCK) if name in groups)]
    check_names("parts", groups, wanted)


def to_adapter(
    groups: Groups, image_encoder: str, denoiser: nn.Module | None = None
) -> tuple[SubjectAdapter, dict[str, Tensor]]:
    """Returns the adapter, without memory for its tensors, and these.

    Args:
        image_encoder: name of the encoder for the adapter's config.
        denoiser: that it was trained for; by default that of Stable Diffusion of the text's width.

    Raises:
        ValueError: keys or shapes that are not those of a post-fuse module.
    """
    given, vision = groups[FUSER], _vision_config(groups[ENCODER])
    width = shape_of(given, 1, "layer_norm.weight", prefix=f"{FUSER}.")[0]
    denoiser = denoiser or denoiser_for(width)
    adapter = adapter_on_meta(
        SubjectAdapter,
        {
            "layers": select_layers(denoiser, "all"),
            "base": base_description(denoiser),
            "text_dim": width,
            "image_dim": shape_of(given, 1, "mlp1.layernorm.weight", prefix=f"{FUSER}.")[0] - width,
            "image_size": vision.image_size,
            "image_encoder": image_encoder,
        },
    )
    check_shapes(given, shapes_of(adapter.fuser), FITTING)
    return adapter, {f"fuser.{name}": tensor.contiguous() for name, tensor in given.items()}


def to_encoder(state: Mapping[str, Tensor]) -> CLIPVisionModelWithProjection:
    """Returns the image encoder; `ValueError` for keys or shapes of another model than CLIP's with its projection."""
    kept = {name: tensor for name, tensor in state.items() if name not in UNUSED}
    with torch.device("meta"):
        model = CLIPVisionModelWithProjection(_vision_config(kept))
    check_shapes(kept, shapes_of(model), FITTING)
    model = CLIPVisionModelWithProjection(model.config)  # with its buffers, which a state dict has not
    model.load_state_dict(kept)
    return model


def to_unet(state: Mapping[str, Tensor]) -> UNet2DConditionModel:
    """Returns the U-Net; see `moai.to_denoiser`."""
    return to_denoiser(state, attention_head_dim=HEADS)


def _vision_config(state: Mapping[str, Tensor]) -> Any:
    hidden, _, patch, _ = shape_of(state, 4, "vision_model.embeddings.patch_embedding.weight")
    places = shape_of(state, 2, "vision_model.embeddings.position_embedding.weight")[0] - 1
    layers = {name.split(".")[3] for name in state if name.startswith("vision_model.encoder.layers.")}
    return CLIPVisionConfig(
        hidden_size=hidden,
        intermediate_size=shape_of(state, 2, "vision_model.encoder.layers.0.mlp.fc1.weight")[0],
        projection_dim=shape_of(state, 2, "visual_projection.weight")[0],
        num_hidden_layers=len(layers),
        num_attention_heads=max(1, hidden // HEAD_DIM),
        image_size=math.isqrt(places) * patch,
        patch_size=patch,
    )
