"""Grids of image tokens: frames, height and width of what a call of a denoiser gets, and the tokens of its stream."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffusers import ModelMixin

from weftwork.datasets.readers.errors import UserError

Grid = tuple[int, int, int]
"""Frames, height and width in tokens."""

Given = Mapping[str, Any]
"""Arguments of one call of a denoiser, by name."""
Positional = Sequence[Any]
"""Arguments of one call of a denoiser, by position."""


def _patch(model: ModelMixin) -> Grid:
    size = getattr(model.config, "patch_size", 1)
    if isinstance(size, int):
        return getattr(model.config, "patch_size_t", None) or 1, size, size
    frames, height, width = size
    return frames, height, width


def _cut(model: ModelMixin, sides: Sequence[int]) -> tuple[Grid, int]:
    frames, height, width = (side // patch for side, patch in zip(sides, _patch(model), strict=True))
    return (frames, height, width), frames * height * width


def from_sample(model: ModelMixin, given: Given) -> tuple[Grid, int]:
    """The latent size itself, [row, channel, height, width]: U-Nets."""
    height, width = given["sample"].shape[-2:]
    return (1, height, width), height * width


def from_latents(model: ModelMixin, given: Given) -> tuple[Grid, int]:
    """Latents in patches, [row, channel, height, width]."""
    return _cut(model, (1, *given["hidden_states"].shape[-2:]))


def from_video(model: ModelMixin, given: Given) -> tuple[Grid, int]:
    """Latents in patches, [row, channel, frame, height, width]."""
    return _cut(model, given["hidden_states"].shape[-3:])


def from_frames(model: ModelMixin, given: Given) -> tuple[Grid, int]:
    """Latents in patches, [row, frame, channel, height, width]."""
    _, frames, _, height, width = given["hidden_states"].shape
    return _cut(model, (frames, height, width))


def from_channels_last(model: ModelMixin, given: Given) -> tuple[Grid, int]:
    """Latents in patches, [row, frame, height, width, channel], in this order of tokens."""
    if (given.get("sparse_params") or {}).get("to_fractal"):
        raise UserError("sparse_params: got tokens in another order than row by row; leave sparse attention off")
    return _cut(model, given["hidden_states"].shape[1:4])


def from_ids(model: ModelMixin, given: Given) -> tuple[Grid, int]:
    """Packed tokens with coordinates (image, y, x, …); those of references have another image than 0."""
    if given.get("kv_cache_mode") is not None:
        raise UserError("kv_cache_mode: got references in a cache, which conditions do not know; leave it out")
    tokens = given["hidden_states"].shape[1]
    if given.get("image_cond_hidden_states") is not None:  # references apart from the target
        tokens += given["image_cond_hidden_states"].shape[1]
        given = {"img_ids": given["img_ids"]}
    ids = given["img_ids"] if given.get("img_ids") is not None else given["position_ids"]
    ids = (ids if ids.ndim == 2 else ids[0])[-tokens:]
    own = ids[ids[:, 0] == 0]
    height, width = (len(axis.unique()) for axis in (own[:, 1], own[:, 2]))  # FLUX.3 scales them
    return (1, height, width), tokens


def from_shapes(model: ModelMixin, given: Given) -> tuple[Grid, int]:
    """Packed tokens with shapes (frames, height, width) of the target and its references."""
    if getattr(model.config, "use_layer3d_rope", False):
        raise UserError(f"denoiser: got {type(model).__name__} for layered images, which conditions do not know")
    shapes = given["img_shapes"]
    first = shapes[0][0] if isinstance(shapes[0], list) else shapes[0]
    frames, height, width = map(int, first)
    return (frames, height, width), given["hidden_states"].shape[1]


def from_sizes(model: ModelMixin, given: Given) -> tuple[Grid, int]:
    """Packed tokens with `num_frames`, `height` and `width` given beside."""
    return (given["num_frames"], given["height"], given["width"]), given["hidden_states"].shape[1]


def from_list(model: ModelMixin, given: Given) -> tuple[Grid, int]:
    """A list of latents [channel, frame, height, width], padded to a multiple of 32 tokens."""
    sample = given["x"][0]
    if isinstance(sample, list):
        raise UserError("x: got several images per sample, which conditions do not know; pass one")
    patch = (given.get("f_patch_size") or 1, *[given.get("patch_size") or 2] * 2)
    frames, height, width = (side // own for side, own in zip(sample.shape[1:], patch, strict=True))
    return (frames, height, width), -(-frames * height * width // 32) * 32


def from_seconds(axis: int) -> Callable[[ModelMixin, Given], tuple[Grid, int]]:
    """Audio latents in patches along an axis."""

    def from_length(model: ModelMixin, given: Given) -> tuple[Grid, int]:
        length = -(-given["hidden_states"].shape[axis] // _patch(model)[2])
        return (1, 1, length), length

    return from_length
