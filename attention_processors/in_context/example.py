"""The smallest use of in-context references."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.core.example import Example, Inputs
from weftwork.attention_processors.core.processor import unwrapped
from weftwork.attention_processors.in_context.adapter import InContextAdapter
from weftwork.attention_processors.in_context.conditions import InContextReference

SIDES = 2, 3
"""Height and width of the reference in tokens."""


def example(denoiser: nn.Module) -> Example:
    """Returns an adapter, and conditions of one reference image that stands behind the target."""

    def conditions(seed: int, **options: Any) -> list[InContextReference]:
        return [InContextReference(0, **{"weight": 0.5, **options})]

    inputs = partial(with_reference, unwrapped(denoiser))
    return Example(InContextAdapter.for_denoiser(denoiser), conditions, inputs=inputs, neutral={"weight": 1.0})


def with_reference(denoiser: Any, given: Inputs) -> Inputs:
    """Returns inputs with a reference image; those of families that read none as they are."""
    shapes, ids = given.get("img_shapes"), given.get("img_ids")
    if shapes is None and ids is None:
        return given
    latents, count = given["hidden_states"], SIDES[0] * SIDES[1]
    more = torch.randn(len(latents), count, latents.shape[-1], generator=torch.Generator().manual_seed(0)).to(latents)
    if "cond_in_channels" in denoiser.config:  # FLUX.3 reads references apart
        assert ids is not None
        return {**given, "image_cond_hidden_states": more, "image_cond_ids": _places(ids, -1)}
    changed = {**given, "hidden_states": torch.cat([latents, more], 1)}
    if given.get("attention_mask") is not None:  # Chroma, True where tokens are seen
        changed["attention_mask"] = F.pad(given["attention_mask"], (0, count), value=1)
    if ids is None:
        return {**changed, "img_shapes": [[*row, (1, *SIDES)] for row in given["img_shapes"]]}
    return {**changed, "img_ids": torch.cat([ids, _places(ids, 0)])}


def _places(ids: Float[Tensor, "token axis"], number: int) -> Float[Tensor, "token axis"]:
    """Returns coordinates of the reference, with its number in an axis."""
    places = ids.new_zeros(*SIDES, ids.shape[-1])
    places[..., 1], places[..., 2] = torch.arange(SIDES[0])[:, None], torch.arange(SIDES[1])
    places[..., number] = -1 if number else 1
    return places.flatten(0, 1)
