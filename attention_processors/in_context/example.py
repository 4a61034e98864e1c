"""The smallest uses of in-context references."""

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.core.example import Example, Inputs
from weftwork.attention_processors.core.families import family_of
from weftwork.attention_processors.core.image_latents import PATCHES
from weftwork.attention_processors.core.processor import unwrapped
from weftwork.attention_processors.in_context.adapter import InContextAdapter, reads_references
from weftwork.attention_processors.in_context.conditions import InContextReference, ReferenceOnly
from weftwork.attention_processors.in_context.reference_only import ReferenceOnlyAdapter

SIDES = 2, 3
"""Height and width of the reference in tokens."""


def example(denoiser: nn.Module) -> Example:
    """Returns an adapter, and conditions of one reference image, which stands behind the target where that is known."""
    if not reads_references(denoiser):
        return _reference_only(denoiser)

    def conditions(seed: int, **options: Any) -> list[InContextReference]:
        return [InContextReference(0, **{"weight": 0.5, **options})]

    inputs = partial(with_reference, unwrapped(denoiser))
    return Example(InContextAdapter.for_denoiser(denoiser), conditions, inputs=inputs, neutral={"weight": 1.0})


def _reference_only(denoiser: nn.Module) -> Example:
    """Returns an adapter, and conditions of two reference images."""
    config: Any = unwrapped(denoiser).config
    channels = config.get("in_channels") or config["in_visual_dim"]
    patch = PATCHES.get(family_of(denoiser).grid, 1)
    mixed = torch.randn(channels // patch**2, 3, generator=torch.Generator().manual_seed(0))

    def encode(image: Tensor, size: tuple[int, int]) -> Tensor:
        return torch.einsum("dc,chw->dhw", mixed, F.adaptive_avg_pool2d(image, size))

    def conditions(seed: int, **options: Any) -> list[ReferenceOnly]:
        images = np.random.default_rng(seed).random((2, 8, 8, 3))
        return [ReferenceOnly(image, **options) for image in images]

    adapter = ReferenceOnlyAdapter.for_denoiser(denoiser)
    return Example(adapter, conditions, {"latents": encode})


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
