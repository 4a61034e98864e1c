"""Point correspondences of a warped view as features, added after a denoiser's first convolution.

A frozen `conv_in` of four channels cannot read a warped image. `CorrespondenceEncoder` therefore encodes geometry in
pixels on the latents' grid, with a zero-initialised last layer, and `added_after_conv_in` adds the result to the output
of `conv_in` for the calls within a block.

After MoAI (arXiv 2506.11924); layers and keys are those of the authors' `PoseGuider`. Differs: the authors can feed the
latents of the warped image as further channels of a trained `conv_in`; here these channels' part of the convolution is
added to the frozen result, which is equivalent, and reads the mask of seen pixels, too.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.core.processor import unwrapped
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


class CorrespondenceEncoder(ModelMixin, ConfigMixin):
    """Encoder of per-pixel geometry as features on the latents' grid (an eighth of the sides); zero-initialised.

    Args:
        in_channels: 16, 17, 19 or 20, see `correspondences`.
        out_channels: those of the denoiser's `conv_in`.
        warped_channels: channels of the latents of a warped image, which are read with its mask; 0 reads none.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 20,
        out_channels: int = 320,
        widths: Sequence[int] = WIDTHS,
        warped_channels: int = 0,
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
            self.warped_in = nn.Conv2d(warped_channels + 1, out_channels, 3, padding=1)
            outs.append(self.warped_in)
        for out in outs:
            nn.init.zeros_(out.weight)
            assert out.bias is not None
            nn.init.zeros_(out.bias)

    def forward(
        self, geometry: Float[Tensor, "row 8 height width"], warped: Float[Tensor, "row channel h w"] | None = None
    ) -> Float[Tensor, "row out h w"]:
        """Args:
        warped: latents of the warped image of this geometry, mid-grey where nothing is seen.
        """
        geometry = geometry.to(self.conv_in.weight)
        hidden = F.silu(self.conv_in(correspondences(geometry, self.config["in_channels"])))
        for block in self.blocks:
            hidden = F.silu(block(hidden))
        features = self.conv_out(hidden)
        if warped is not None and self.config["warped_channels"]:
            height, width = warped.shape[-2:]
            seen = F.adaptive_avg_pool2d(geometry[:, 7:], (height, width))
            features = features + self.warped_in(torch.cat([warped.to(seen), seen], 1))
        return features


@contextmanager
def added_after_conv_in(denoiser: nn.Module, features: Float[Tensor, "row channel h w"]) -> Iterator[None]:
    """Adds features to the output of the denoiser's `conv_in` within a `with` block, by a hook.

    Features of fewer rows than a call has are repeated, for the halves of guidance.

    Raises:
        ValueError: in the call, features that do not fit.
    """

    def add(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        repeats, rest = divmod(out.shape[0], features.shape[0])
        if rest or out.shape[1:] != features.shape[1:]:
            raise UserError(
                f"features: got {tuple(features.shape)} for a conv_in that gives {tuple(out.shape)}, expected the same "
                "channels and sides, and rows that divide its rows; encode them for this canvas and batch"
            )
        return out + features.to(out).repeat(repeats, 1, 1, 1)

    handle = unwrapped(denoiser).get_submodule("conv_in").register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
