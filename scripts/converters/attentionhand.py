"""Published AttentionHand checkpoints: their ControlNet as diffusers' `ControlNetModel`, and back.

The file is Lightning's, with the whole latent diffusion model. The ControlNet has the names of the original ControlNet
with the prefix `VAS.` in place of `control_model.`; all else is the frozen Stable Diffusion 1.5 and is left out.

Source: redorangeyellowy/AttentionHand@13e7b03, lllyasviel/ControlNet (cldm/cldm.py).
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import torch
from diffusers import ControlNetModel
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from torch import Tensor

from weftwork.attention_processors.parts.cross_gates import CrossGatedControlNetModel
from weftwork.datasets.readers.errors import UserError
from weftwork.scripts.converters.published import check_names, check_shapes, shapes_of

PREFIX: Final = "VAS."
CONTROLNET: Final = "control_model."
"""Prefix that diffusers' conversion reads."""
FILE: Final = "attentionhand.ckpt"
CONFIG: Final[Mapping[str, Any]] = {"cross_attention_dim": 768, "attention_head_dim": 8, "layers_per_block": 2}
"""Of Stable Diffusion 1.5, where it is not the default of `ControlNetModel` or no tensor's shape determines it."""
HINTS: Final = 4
"""Widths of the layers that encode the control image."""
FITTING: Final = "as in the ControlNet of Stable Diffusion 1.5; pass a whole checkpoint of AttentionHand"
NAMES: Final[Mapping[str, str]] = {
    r"time_embedding\.linear_(\d)": "time_embed.{time}",
    r"conv_in": "input_blocks.0.0",
    r"controlnet_cond_embedding\.conv_in": "input_hint_block.0",
    r"controlnet_cond_embedding\.blocks\.(\d+)": "input_hint_block.{hint}",
    r"controlnet_cond_embedding\.conv_out": "input_hint_block.14",
    r"controlnet_down_blocks\.(\d+)": "zero_convs.{0}.0",
    r"controlnet_mid_block": "middle_block_out.0",
    r"down_blocks\.(\d+)\.resnets\.(\d+)": "input_blocks.{place}.0",
    r"down_blocks\.(\d+)\.attentions\.(\d+)": "input_blocks.{place}.1",
    r"down_blocks\.(\d+)\.downsamplers\.0\.conv": "input_blocks.{last}.0.op",
    r"mid_block\.resnets\.(\d)": "middle_block.{middle}",
    r"mid_block\.attentions\.0": "middle_block.1",
}
"""The original's modules by patterns of diffusers' names, with the numbers that `_numbers` makes of the groups."""
RESNET: Final[Mapping[str, str]] = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def to_controlnet(state: Mapping[str, Tensor], **config: Any) -> ControlNetModel:
    """Returns the ControlNet of a checkpoint, whose tensors it shares.

    Args:
        config: of the `ControlNetModel`, where it is not that of Stable Diffusion 1.5.

    Raises:
        ValueError: keys or shapes that are not those of its ControlNet.
    """
    with torch.device("meta"):
        model = ControlNetModel(**{**CONFIG, **config})
    check_names("keys", (name for name in state if name.startswith(PREFIX)), from_controlnet(model))
    own = {CONTROLNET + name.removeprefix(PREFIX): one for name, one in state.items() if name.startswith(PREFIX)}
    found = convert_controlnet_checkpoint(own, dict(model.config))
    check_shapes(found, shapes_of(model), FITTING)
    model.load_state_dict(found, assign=True)
    return model.eval()


def from_controlnet(model: ControlNetModel) -> dict[str, Tensor]:
    """The inverse of `to_controlnet`: tensors by the names of a checkpoint, without the frozen model's.

    Raises:
        ValueError: a ControlNet of another layout, or with cross-gating.
    """
    if isinstance(model, CrossGatedControlNetModel):
        raise UserError("keys: got those of cross gates, which AttentionHand lacks; convert a ControlNet without")
    channels = model.config["conditioning_embedding_out_channels"]
    if len(channels) != HINTS:
        raise UserError(
            f"conditioning_embedding_out_channels: got {len(channels)}, expected {HINTS}, as in AttentionHand's; "
            "convert a ControlNet of that layout"
        )
    depth = model.config["layers_per_block"]
    return {PREFIX + _original(name, depth): one.contiguous() for name, one in model.state_dict().items()}


def _original(name: str, depth: int) -> str:
    """Returns the original's name of a tensor; `depth` are the layers of a block."""
    for pattern, module in NAMES.items():
        if found := re.fullmatch(rf"{pattern}\.(.+)", name):
            *numbers, rest = found.groups()
            if "resnets" in pattern:
                part, _, kind = rest.rpartition(".")
                rest = f"{RESNET[part]}.{kind}"
            return f"{module.format(*numbers, **_numbers([int(one) for one in numbers], depth))}.{rest}"
    raise UserError(f"keys: got {name}, which AttentionHand's ControlNet lacks; convert one of Stable Diffusion 1.5")


def _numbers(groups: list[int], depth: int) -> dict[str, int]:
    first, second = (*groups, 0, 0)[:2]
    return {
        "time": 2 * first - 2,
        "hint": 2 * first + 2,
        "middle": 2 * first,
        "place": 1 + first * (depth + 1) + second,
        "last": (first + 1) * (depth + 1),
    }
