"""Latents of an image in the place of the noisy latents of a call of a denoiser, in the form of its family."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.core.families import Given, family_of, sample_of
from weftwork.attention_processors.core.grids import from_channels_last, from_frames, from_ids, from_shapes, from_sizes
from weftwork.attention_processors.core.processor import unwrapped
from weftwork.datasets.readers.errors import UserError

LatentsT = TypeVar("LatentsT", Tensor, Sequence[Tensor])
"""Latents in the form of a denoiser's calls: one tensor, or one of each row."""
PATCHES: Mapping[object, int] = {from_ids: 2, from_shapes: 2, from_sizes: 1}
"""Side of the patches that a token packs, of families with packed tokens."""
CHANNEL_AXES: Mapping[object, int] = {from_frames: 1, from_channels_last: 3}
"""Axis of channels within a row, of families where it is not the first."""


def latent_size(denoiser: nn.Module, given: Given) -> tuple[int, int]:
    """Returns height and width of the latents in a call of a denoiser, before they are packed.

    Raises:
        ValueError: a denoiser whose grid of tokens is not known.
    """
    grid = family_of(denoiser).grid
    if grid is None:
        raise UserError(
            f"denoiser: got {type(unwrapped(denoiser)).__name__}, whose grid is not known; add a record of its class "
            "to weftwork.attention_processors.core.families.FAMILIES"
        )
    if grid in PATCHES:
        _, height, width = grid(unwrapped(denoiser), given)[0]
        return height * PATCHES[grid], width * PATCHES[grid]
    height, width = sample_of(given)[0].movedim(CHANNEL_AXES.get(grid, 0), 0).shape[-2:]
    return height, width


def latent_channels(denoiser: nn.Module) -> tuple[int, int]:
    """Returns the number of channels of the noisy latents, and the side of the patches that a token has of them."""
    config, grid = unwrapped(denoiser).config, family_of(denoiser).grid
    sides = [config.get("in_channels") or config.get("in_visual_dim"), config.get("out_channels")]
    channels = min(side // (PATCHES.get(grid, 1) ** 2 if i == 0 else 1) for i, side in enumerate(sides) if side)
    patch = PATCHES.get(grid) or max(config.get("all_patch_size") or (0,)) or config.get("patch_size", 1)
    return channels, patch if isinstance(patch, int) else patch[-1]


def with_latents(denoiser: nn.Module, given: Given, latents: Float[Tensor, "row channel h w"]) -> dict[str, Any]:
    """Returns the arguments of a call with other latents in the place of the noisy ones, the same in all frames.

    Further channels and further tokens of the call, as of masks and references, stay.

    Raises:
        ValueError: latents with more channels than the denoiser takes.
    """
    sample, grid = sample_of(given), family_of(denoiser).grid
    if grid is not None and grid in PATCHES:
        frames = grid(unwrapped(denoiser), given)[0][0]
        patches = [F.pixel_unshuffle(one, PATCHES[grid]).flatten(1).T.repeat(frames, 1) for one in latents]
        rows = [_packed(row, own) for row, own in zip(sample, patches, strict=True)]
    else:
        axis = CHANNEL_AXES.get(grid, 0)
        rows = [_placed(row.movedim(axis, 0), own).movedim(0, axis) for row, own in zip(sample, latents, strict=True)]
    return replaced_latents(given, rows if isinstance(sample, list) else torch.stack(rows))


def replaced_latents(given: Given, latents: Tensor | Sequence[Tensor]) -> dict[str, Any]:
    """Returns the arguments of a call with other latents in the form of its own, in their precision."""
    sample = sample_of(given)
    name = next(name for name, value in given.items() if value is sample)
    if isinstance(latents, Tensor):
        return {**given, name: latents.to(sample.dtype)}
    return {**given, name: [one.to(own.dtype) for one, own in zip(latents, sample, strict=True)]}


def _packed(row: Float[Tensor, "token dim"], own: Float[Tensor, "own channel"]) -> Float[Tensor, "token dim"]:
    _check(own.shape[1], row.shape[1])
    return torch.cat([torch.cat([own.to(row), row[: len(own), own.shape[1] :]], 1), row[len(own) :]])


def _placed(row: Float[Tensor, "dim *frame h w"], own: Float[Tensor, "channel h w"]) -> Float[Tensor, "dim *frame h w"]:
    _check(len(own), len(row))
    if row.ndim > own.ndim:
        own = own.unsqueeze(1).expand(-1, row.shape[1], -1, -1)
    return torch.cat([own.to(row), row[len(own) :]])


def _check(channels: int, most: int) -> None:
    if channels > most:
        raise UserError(f"latents: got {channels} channels, expected at most {most}; use the autoencoder of the model")
