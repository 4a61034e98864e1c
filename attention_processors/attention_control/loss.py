"""The loss of attention control: how far the least attended subject is from the most attention that it could have."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SHARPNESS = 100.0
"""Factor on attention before its softmax over tokens."""


def attendance(
    maps: Float[Tensor, "row place token"],
    members: Float[Tensor, "row token part"],
    regions: Float[Tensor, "row part frame height width"],
    begins: bool,
) -> Float[Tensor, "row part"]:
    """Returns the most attention that a place of its region pays to each subject, in [0, 1].

    Maps are compared over tokens by a softmax, averaged over the tokens of a subject, and smoothed over places.

    Args:
        members: 1 for the tokens of a subject; all 0 for an absent one.
        begins: whether a begin token stands first, which is left out together with the last position.
    """
    if begins:
        maps, members = maps[..., 1:-1], members[:, 1:-1]
    masked = (maps == 0).all(1, keepdim=True)
    shares = (SHARPNESS * maps).masked_fill(masked, -math.inf).softmax(-1)
    of_parts = shares @ (members / members.sum(1, keepdim=True).clamp(min=1))
    places = of_parts.transpose(1, 2).unflatten(2, regions.shape[2:])
    return (smoothed(places) * regions).flatten(2).amax(-1)


def smoothed(places: Float[Tensor, "row part frame height width"]) -> Float[Tensor, "row part frame height width"]:
    """Returns maps under the published 3 x 3 kernel, exp(-(x^2 + y^2)), normalised; edges are reflected."""
    side = torch.tensor([math.exp(-1), 1, math.exp(-1)], device=places.device, dtype=places.dtype)
    kernel = torch.outer(side, side) / side.sum() ** 2
    flat = F.pad(places.flatten(0, 2), (1, 1, 1, 1), mode="reflect")
    return F.conv2d(flat.unsqueeze(1), kernel[None, None]).view_as(places)


def loss_of(
    attended: Float[Tensor, "row part"], weight: Float[Tensor, "row part"]
) -> tuple[Float[Tensor, " row"], Float[Tensor, " row"]]:
    """Returns max_p weight_p (1 - attended_p) by row, and the least attendance of parts that act."""
    least = attended.masked_fill(weight == 0, math.inf).amin(1)
    return (weight * (1 - attended).clamp(min=0)).amax(1), least
