"""Cross-gating of a ControlNet's features and the U-Net's, before a residual is added.

With a skip x of the U-Net, the ControlNet's features c of the same layer, and its zero-initialised convolution Z:

    x' = x + w (Z(c') + X(f(x) * G(g(c)))),   c' = c + C(g(c) * H(f(x)))

f and g are a layer normalization, a linear layer and GELU. G and H are spatial gates: the channels are doubled; one
half is mixed across a grid of 4 x 4 cells, place by place of the cell, the other within blocks of 4 x 4 places. X and C
are zero-initialised: there x' is x + w Z(c), that of a ControlNet without gates, bit for bit. w is its weight.

Source: cross-gating block of MAXIM (arXiv 2201.02973, google-research/maxim@3c82651).
Differs: MAXIM adds c' without Z and w, which would change the U-Net from the start. Its convolutions that bring x and c
to equal channels are left out, since they have them. Its grids and blocks are 16 x 16 and 8 x 8; here they have to
divide the coarsest level of the U-Net, which is 8 x 8 at 512 pixels.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import torch
import torch.nn.functional as F
from diffusers import ControlNetModel
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.datasets.readers.errors import UserError

SIDE: Final = 4
"""Cells along a side of the grid, and places along a side of a block."""
EPSILON: Final = 1e-6

Places = Float[Tensor, "row height width channel"]


class SpatialGate(nn.Module):
    """Gate of each place and channel, from features of the whole image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.inner = nn.Linear(channels, 2 * channels)
        self.grid, self.block = nn.Linear(SIDE**2, SIDE**2), nn.Linear(SIDE**2, SIDE**2)
        self.outer = nn.Linear(2 * channels, channels)
        for one in (self.grid, self.block):
            nn.init.normal_(one.weight, std=0.02)
            nn.init.ones_(one.bias)

    def forward(self, places: Places) -> Places:
        grid, block = F.gelu(self.inner(self.norm(places)), approximate="tanh").chunk(2, -1)
        return self.outer(torch.cat([_mixed(grid, self.grid, (SIDE, -1)), _mixed(block, self.block, (-1, SIDE))], -1))


def _mixed(places: Places, mix: nn.Linear, parts: tuple[int, int]) -> Places:
    """Mixes places along the `SIDE` x `SIDE` parts of the image.

    Args:
        parts: how each side is split: (SIDE, -1) mixes across a grid of cells, (-1, SIDE) within blocks.
    """
    axes = (1, 3) if parts[0] == SIDE else (2, 4)
    split = places.unflatten(2, parts).unflatten(1, parts).movedim(axes, (-2, -1))
    return mix(split.flatten(-2)).unflatten(-1, (SIDE, SIDE)).movedim((-2, -1), axes).flatten(3, 4).flatten(1, 2)


class CrossGate(nn.Module):
    """A ControlNet's zero-initialised convolution of one layer, with cross-gating.

    Args:
        convolution: of the ControlNet, 1 x 1; its parameters keep their names.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        channels = convolution.out_channels
        self.weight, self.bias = convolution.weight, convolution.bias
        self.feature_in, self.control_in = (
            nn.Sequential(nn.LayerNorm(channels, eps=EPSILON), nn.Linear(channels, channels), nn.GELU("tanh"))
            for _ in range(2)
        )
        self.feature_gate, self.control_gate = SpatialGate(channels), SpatialGate(channels)
        self.feature_out, self.control_out = nn.Linear(channels, channels), nn.Linear(channels, channels)
        for one in (self.feature_out, self.control_out):
            nn.init.zeros_(one.weight)
            nn.init.zeros_(one.bias)

    def forward(self, control: Float[Tensor, "row channel height width"]) -> "GatedResidual":
        return GatedResidual(self, control)

    def gated(
        self, feature: Float[Tensor, "row channel height width"], control: Float[Tensor, "row channel height width"]
    ) -> tuple[Float[Tensor, "row channel height width"], Float[Tensor, "row channel height width"]]:
        """Returns what is added to the U-Net's features, X(...), and to the ControlNet's, C(...)."""
        own, other = self.feature_in(feature.movedim(1, -1)), self.control_in(control.movedim(1, -1))
        to_feature = self.feature_out(own * self.control_gate(other))
        to_control = self.control_out(other * self.feature_gate(own))
        return to_feature.movedim(-1, 1), to_control.movedim(-1, 1)

    def residual(
        self, feature: Float[Tensor, "row channel height width"], control: Float[Tensor, "row channel height width"]
    ) -> Float[Tensor, "row channel height width"]:
        """Returns the residual of features of the U-Net.

        Raises:
            ValueError: other rows, or sides that the grid does not divide.
        """
        if len(feature) != len(control):
            raise UserError(
                f"cross gates: got {len(feature)} rows of features, expected {len(control)} as in the ControlNet; "
                "leave out conditions that run some rows of a call alone"
            )
        if any(side % SIDE for side in feature.shape[2:]):
            height, width = feature.shape[2:]
            raise UserError(
                f"cross gates: got features of {height} x {width} at a level of the U-Net, expected multiples of "
                f"{SIDE}; change height and width of the image"
            )
        to_feature, to_control = self.gated(feature, control)
        return F.conv2d(control + to_control, self.weight, self.bias) + to_feature


@dataclass(frozen=True, eq=False)
class GatedResidual:
    """Residual of a ControlNet that is known once features of the U-Net are added to it.

    U-Nets of diffusers compute `feature + residual`, which calls `__torch_function__`.
    """

    gate: CrossGate
    control: Tensor
    scale: float | Tensor = 1.0

    def __mul__(self, scale: float | Tensor) -> Self:
        return replace(self, scale=self.scale * scale)

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., object], types: Iterable[type], args: Sequence[Any] = (), kwargs: object = None
    ) -> Tensor:
        if function is not Tensor.add:
            raise UserError(
                "cross gates: got a residual that a pipeline changes, expected one that is added to features of a "
                "U-Net; leave guess_mode out, and pass one ControlNet"
            )
        feature, added = args
        return feature + added.gate.residual(feature, added.control) * added.scale


class CrossGatedControlNetModel(ControlNetModel):
    """diffusers' `ControlNetModel` with cross-gating; pipelines of diffusers take it as the only ControlNet."""

    @functools.wraps(ControlNetModel.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own: Any = self
        own.controlnet_down_blocks = nn.ModuleList(map(CrossGate, own.controlnet_down_blocks))
        own.controlnet_mid_block = CrossGate(own.controlnet_mid_block)

    @classmethod
    def of(cls, controlnet: ControlNetModel) -> Self:
        """Returns a copy with new gates, which change no image."""
        new = cls.from_config(controlnet.config)
        assert isinstance(new, cls)
        new.load_state_dict(controlnet.state_dict(), strict=False)
        return new


def load_controlnet(folder: str | Path) -> ControlNetModel:
    """Loads a local ControlNet of diffusers, or one with gates, by the class that its config names."""
    config = ControlNetModel.load_config(folder, local_files_only=True)
    assert isinstance(config, dict)
    gated = config.get("_class_name") == CrossGatedControlNetModel.__name__
    kind = CrossGatedControlNetModel if gated else ControlNetModel
    return kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)


def check_several(controlnets: Sequence[ControlNetModel]) -> None:
    """Raises `ValueError` if one of several ControlNets has gates, which read features without other residuals."""
    if len(controlnets) > 1 and any(isinstance(one, CrossGatedControlNetModel) for one in controlnets):
        raise UserError(
            f"controlnets: got one with cross gates among {len(controlnets)}, expected it alone; leave the others out"
        )
