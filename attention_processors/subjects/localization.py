"""FastComposer's localization loss: attention to a subject's token inside of its mask against that outside.

Source: mit-han-lab/fastcomposer@b9304a2 (fastcomposer/model.py).
Differs: maps are means over heads, which the loss is linear in; of layers in which text and image read each other, maps
are shares of the text's tokens.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from weftwork.attention_processors.core.families import UNET, family_of
from weftwork.attention_processors.core.layers import select_layers

EPSILON = 1e-5
BLOCKS = 5
"""Number of blocks of a U-Net whose layers are used, the coarsest ones."""


def localized_layers(denoiser: nn.Module) -> list[str]:
    """Returns the layers whose maps are used: of U-Nets those of the five middle ones of the blocks that read the text,
    11 of 16 of Stable Diffusion 1.5; of transformers all that read the text."""
    names = list(select_layers(denoiser, "all"))
    if family_of(denoiser) is not UNET:
        return names
    order = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}

    def block(name: str) -> tuple[int, int]:
        kind, index, *_ = name.split(".")
        return order[kind], int(index) if index.isdigit() else 0

    blocks = sorted({block(name) for name in names})
    first = max(0, len(blocks) - BLOCKS) // 2
    return [name for name in names if block(name) in blocks[first : first + BLOCKS]]


def localization_loss(
    maps: Mapping[str, Float[Tensor, "row place token"]],
    grids: Mapping[str, tuple[int, int]],
    masks: Float[Tensor, "row part height width"],
    tokens: Int[Tensor, "row part"],
) -> Float[Tensor, ""]:
    """Returns the mean attention to subjects' tokens outside of their masks minus that inside.

    It is 0 for uniform attention and -1 for attention in the mask alone.

    Args:
        maps: shares of the prompt's tokens by layer, means over heads.
        grids: height and width of the places by layer.
        masks: where each subject is, in [0, 1].
        tokens: position of each subject's token; negative for absent ones.
    """
    valid = (tokens >= 0).float()
    losses = []
    for layer, places in maps.items():
        inside = F.interpolate(masks, grids[layer], mode="bilinear", antialias=True).flatten(2)
        index = tokens.clamp(min=0).unsqueeze(1).expand(-1, places.shape[1], -1)
        attended = places.gather(2, index).transpose(1, 2)
        of_parts = _mean(attended, 1 - inside) - _mean(attended, inside)
        losses.append(((of_parts * valid).sum(1) / (valid.sum(1) + EPSILON)).mean())
    return torch.stack(losses).mean()


def _mean(values: Float[Tensor, "row part place"], weights: Float[Tensor, "row part place"]) -> Tensor:
    return (values * weights).sum(2) / (weights.sum(2) + EPSILON)
