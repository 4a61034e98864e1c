"""Published MoAI checkpoints as diffusers' models: four U-Nets and the correspondence encoder.

Files are plain state dicts with the keys of Stable Diffusion's U-Net; their "3-D" denoisers have its very keys, and
their references lack the four of the output, which are never used: they come out as zeros here. The encoder's keys are
ours.

Source: the authors' code at 8cfc44f (MoAI/main/models). Sizes are read off the tensors; heads and groups of
normalisation are in none, and are those of Stable Diffusion 2.1 unless others are given.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from weftwork.attention_processors.views.correspondence import CorrespondenceEncoder
from weftwork.scripts.converters.published import Config, check_shapes, shape_of, shapes_of

FILES: Final[Mapping[str, str]] = {
    "image": "denoising_unet.pth",
    "geometry": "geometry_unet.pth",
    "image_reference": "reference_unet.pth",
    "geometry_reference": "geo_reference_unet.pth",
    "correspondence": "pose_guider.pth",
}
"""By role, what the authors call it."""
OUTPUT: Final = ("conv_norm_out.weight", "conv_norm_out.bias", "conv_out.weight", "conv_out.bias")
HEAD_DIM, GROUPS = 64, 32
FITTING: Final = "beside the others; pass a whole file of this method"


def to_denoiser(
    state: Mapping[str, Tensor], head_dim: int = HEAD_DIM, groups: int = GROUPS, **changes: Any
) -> UNet2DConditionModel:
    """The U-Net of a state dict; without the keys of the output, these are zeros.

    Args:
        changes: of its config.

    Raises:
        ValueError: keys that are no such U-Net's, naming the first missing and unexpected, or shapes that do not fit.
    """
    config = _config(state, head_dim, groups) | changes
    with torch.device("meta"):
        module = UNet2DConditionModel(**config)
    wanted = shapes_of(module)
    filled = {**{name: torch.zeros(wanted[name]) for name in OUTPUT}, **state}
    check_shapes(filled, wanted, FITTING)
    module.load_state_dict(filled, assign=True)
    return module


def to_encoder(state: Mapping[str, Tensor]) -> CorrespondenceEncoder:
    """The correspondence encoder of a state dict; `ValueError` as `to_denoiser`, or for channels that none has."""
    module = CorrespondenceEncoder(shape_of(state, 4, "conv_in.weight")[1], shape_of(state, 4, "conv_out.weight")[0])
    check_shapes(state, shapes_of(module), FITTING)
    module.load_state_dict(dict(state))
    return module


def _config(state: Mapping[str, Tensor], head_dim: int, groups: int) -> Config:
    """The config of a U-Net from the names and shapes of its tensors."""

    def count(prefix: str) -> int:
        return len({found[1] for name in state if (found := re.match(rf"{prefix}\.(\d+)\.", name))})

    def attends(side: str, block: int) -> bool:
        return any(name.startswith(f"{side}_blocks.{block}.attentions.") for name in state)

    blocks = range(count("down_blocks"))
    widths = [shape_of(state, 4, f"down_blocks.{i}.resnets.0.conv1.weight")[0] for i in blocks]
    first = next((i for i in blocks if attends("down", i)), 0)
    attention = f"down_blocks.{first}.attentions.0"
    return {
        "in_channels": shape_of(state, 4, "conv_in.weight")[1],
        "out_channels": shape_of(state, 4, "conv_out.weight")[0] if "conv_out.weight" in state else 4,
        "block_out_channels": tuple(widths),
        "layers_per_block": count(r"down_blocks\.0\.resnets"),
        "down_block_types": tuple("CrossAttnDownBlock2D" if attends("down", i) else "DownBlock2D" for i in blocks),
        "up_block_types": tuple("CrossAttnUpBlock2D" if attends("up", i) else "UpBlock2D" for i in blocks),
        "cross_attention_dim": shape_of(state, 2, f"{attention}.transformer_blocks.0.attn2.to_k.weight")[1],
        "attention_head_dim": tuple(max(1, width // head_dim) for width in widths),
        "use_linear_projection": f"{attention}.proj_in.weight" in state
        and state[f"{attention}.proj_in.weight"].ndim == 2,
        "norm_num_groups": groups,
    }
