"""Point correspondences of a warped view as features, added to a denoiser's embedded latents.

A frozen `conv_in` of four channels cannot read a warped image. `CorrespondenceEncoder` therefore encodes geometry in
pixels on the grid of latents, with a zero-initialised last layer, and `added_to_latents` adds the result to the output
of `conv_in`, or of what embeds patches of latents in a transformer, for the calls within a block.

After MoAI (arXiv 2506.11924); layers and keys are those of the authors' `PoseGuider`. Differs: the authors can feed the
latents of the warped image as further channels of a trained `conv_in`; here these channels' part of the convolution is
added to the frozen result, which is equivalent, and reads the mask of seen pixels, too.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Self

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.core.families import family_of
from weftwork.attention_processors.core.image_latents import latent_channels
from weftwork.attention_processors.core.processor import unwrapped
from weftwork.attention_processors.core.strength import ImageTokens
from weftwork.datasets.readers.errors import UserError

WIDTHS = (16, 32, 64, 128)


def fourier_points(points: Float[Tensor, "row 3 height width"]) -> Float[Tensor, "row 15 height width"]:
    """Embeds coordinates p as [p, sin p, cos p, sin 2p, cos 2p]."""
    return torch.cat([points, points.sin(), points.cos(), (2 * points).sin(), (2 * points).cos()], 1)


def correspondences(
    geometry: Float[Tensor, "row 8 height width"], channels: int = 20
) -> Float[Tensor, "row channel height width"]:
    """Returns the encoder's input, in the authors' order: embedded points, normals, depth, 1 where no point is.

    Args:
        geometry: of a view, by pixel: its point in the target camera's frame, scaled to about [-1, 1] (3), its normal
            there (3), its depth (1), and 1 where there is a point at all, else 0.
        channels: 20; 19 without depth, 17 without normals, 16 without both.
    """
    points, normals, depth, seen = (geometry * geometry[:, 7:]).split([3, 3, 1, 1], 1)
    parts = {16: [], 17: [depth], 19: [normals], 20: [normals, depth]}[channels]
    return torch.cat([fourier_points(points), *parts, 1 - seen], 1)


def embedder_of(denoiser: nn.Module) -> tuple[str, Any]:
    """Returns name and module of the layer that embeds a denoiser's latents; `ValueError` where it is not known."""
    inner, name = unwrapped(denoiser), family_of(denoiser).embedder
    kind = type(inner).__name__
    if name is None:
        raise UserError(
            f"denoiser: got {kind}, of which it is not known what embeds an image's latents; write "
            f'FAMILIES["{kind}"] = Family(roles, grid, place, embedder=name), both from '
            "weftwork.attention_processors.core.families"
        )
    try:
        return name, inner.get_submodule(name)
    except AttributeError:
        raise UserError(f"denoiser: got {kind} without {name}; use a model of the published configuration") from None


class CorrespondenceEncoder(ModelMixin, ConfigMixin):
    """Encoder of per-pixel geometry as features on the latents' grid (an eighth of the sides); zero-initialised.

    Args:
        in_channels: 16, 17, 19 or 20, see `correspondences`.
        out_channels: those of the denoiser's embedded latents.
        warped_channels: channels of the latents of a warped image, which are read with its mask; 0 reads none.
        patch: side of the patches of latents that a token has.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 20,
        out_channels: int = 320,
        widths: Sequence[int] = WIDTHS,
        warped_channels: int = 0,
        patch: int = 1,
    ) -> None:
        super().__init__()
        if in_channels not in (16, 17, 19, 20):
            raise UserError(f"in_channels: got {in_channels}, expected 16, 17, 19 or 20; see correspondences")
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in pairwise(widths):
            self.blocks.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)
        outs = [self.conv_out]
        if warped_channels:
            self.warped_in = nn.Conv2d(warped_channels + 1, out_channels, 3, padding=1, stride=patch)
            outs.append(self.warped_in)
        for out in outs:
            nn.init.zeros_(out.weight)
            assert out.bias is not None
            nn.init.zeros_(out.bias)

    @classmethod
    def for_denoiser(cls, denoiser: nn.Module, channels: int, warped: bool) -> Self:
        """Makes a new encoder for the tokens of a denoiser; `ValueError` as `embedder_of`."""
        (latents, patch), embedder = latent_channels(denoiser), embedder_of(denoiser)[1]
        out = embedder.out_features if isinstance(embedder, nn.Linear) else embedder.out_channels
        return cls(channels, out, warped_channels=latents if warped else 0, patch=patch)

    def forward(
        self,
        geometry: Float[Tensor, "row 8 height width"],
        warped: Float[Tensor, "row channel h w"] | None = None,
        grid: tuple[int, int] | None = None,
    ) -> Float[Tensor, "row out h w"]:
        """Args:
        warped: latents of the warped image of this geometry, mid-grey where nothing is seen.
        grid: height and width in tokens; None for an eighth of the sides.
        """
        geometry = geometry.to(self.conv_in.weight)
        hidden = F.silu(self.conv_in(correspondences(geometry, self.config["in_channels"])))
        for block in self.blocks:
            hidden = F.silu(block(hidden))
        features = self.conv_out(hidden)
        if grid is not None and grid != features.shape[-2:]:
            features = F.adaptive_avg_pool2d(features, grid)
        if warped is not None and self.config["warped_channels"]:
            height, width = warped.shape[-2:]
            seen = F.adaptive_avg_pool2d(geometry[:, 7:], (height, width))
            features = features + self.warped_in(torch.cat([warped.to(seen), seen], 1))
        return features


@contextmanager
def added_to_latents(
    denoiser: nn.Module, features: Float[Tensor, "row channel h w"], tokens: ImageTokens | None = None
) -> Iterator[None]:
    """Adds features to the embedded latents of a denoiser within a `with` block, by a hook; in all frames of a video.

    Features of fewer rows than a call has are repeated, for the halves of guidance.

    Args:
        tokens: place of the image's tokens; None in U-Nets.

    Raises:
        ValueError: in the call, features that do not fit.
    """
    name, embedder = embedder_of(denoiser)
    frames, stream = (1, None) if tokens is None else (tokens.grid[0], tokens.stream)

    def add(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        values = features.to(out)
        if isinstance(module, nn.Linear):  # tokens by row, or of all rows together
            own = out.flatten(1, -2) if out.ndim > 2 else out.unflatten(0, (-1, stream or 1))
            values = values.flatten(2).transpose(1, 2).repeat(1, frames, 1)
            values = F.pad(values, (0, 0, 0, max(0, own.shape[1] - values.shape[1])))
        elif out.ndim == 5:
            own, values = out, values.unsqueeze(2).expand(-1, -1, frames, -1, -1)
        else:
            own, values = out, values.repeat_interleave(frames, 0)
        repeats, rest = divmod(own.shape[0], values.shape[0])
        if rest or own.shape[1:] != values.shape[1:]:
            raise UserError(
                f"features: got {tuple(features.shape)} for a {name} that gives {tuple(out.shape)}, expected the same "
                "channels and sides, and rows that divide its rows; encode them for this canvas and batch"
            )
        return (own + values.repeat(repeats, *[1] * (values.ndim - 1))).reshape(out.shape)

    handle = embedder.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
