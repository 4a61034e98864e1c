"""Modules that make tokens of conditions for audio, one per kind: prompts, depth, boxes."""

import math
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioNumberConditioner
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.audio.conditions import AudioPrompt, BoxTrack, DepthClip, OverTime, Times
from weftwork.datasets.readers.errors import UserError

NUMBER_DIM = 64
DEPTH_WIDTHS = (16, 32, 64)
LOG_DEPTH = 3.0
"""Divisor of the logarithms of depths in metres."""


class Tokens(nn.Module):
    """Base of token modules: `read` returns a condition's values, the module makes tokens of these.

    Args:
        rate: tokens per second; 0 is one token for the whole clip.
    """

    kind: ClassVar[type[OverTime]]

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def places(self, seconds: float) -> Times:
        """Times of the tokens, the middles of their intervals, in seconds from the start of the clip."""
        count = max(1, round(seconds * self.rate)) if self.rate else 1
        return (np.arange(count) + 0.5) * (seconds / count)

    def read(self, condition: OverTime | None, times: Times) -> Float[Tensor, "token *size"]:
        """Returns the values of a condition at these times, zeros for None; `ValueError` for another width."""
        raise NotImplementedError


class PromptTokens(Tokens):
    """One token for a prompt's embedding."""

    kind = AudioPrompt

    def __init__(self, audio_dim: int, dim: int) -> None:
        super().__init__(0)
        self.projection = nn.Linear(audio_dim, dim)

    def read(self, condition: OverTime | None, times: Times) -> Float[Tensor, "1 dim"]:
        width = self.projection.in_features
        if not isinstance(condition, AudioPrompt) or condition.embeds is None:  # audio is encoded later
            return torch.zeros(1, width)
        _check_width(condition.embeds.shape[-1], width)
        return torch.from_numpy(condition.embeds)[None]

    def forward(self, values: Float[Tensor, "design 1 dim"]) -> Float[Tensor, "design 1 dim"]:
        return self.projection(values)


class DepthTokens(Tokens):
    """One token per frame, of its embedding or of its map.

    Args:
        depth_dim: width of embeddings; 0 reads maps.
        size: side in pixels that maps are resized to.
    """

    kind = DepthClip

    def __init__(self, rate: float, depth_dim: int, size: int, dim: int) -> None:
        super().__init__(rate)
        self.depth_dim, self.size = depth_dim, size
        if depth_dim:
            self.projection: nn.Module = nn.Linear(depth_dim, dim)
            return
        layers: list[nn.Module] = []
        for before, after in zip((3, *DEPTH_WIDTHS), DEPTH_WIDTHS, strict=False):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.SiLU()]
        side = math.ceil(size / 2 ** len(DEPTH_WIDTHS))
        self.projection = nn.Sequential(*layers, nn.Flatten(), nn.Linear(DEPTH_WIDTHS[-1] * side**2, dim))

    def read(self, condition: OverTime | None, times: Times) -> Float[Tensor, "token *size"]:
        """Returns per map: depth relative to the clip's range, logarithm of metres, and whether metres are known."""
        shape = (self.depth_dim,) if self.depth_dim else (3, self.size, self.size)
        if not isinstance(condition, DepthClip):
            return torch.zeros(len(times), *shape)
        nearest = abs(times[:, None] - condition.times[None]).argmin(1)
        if self.depth_dim:
            if condition.embeds is None:
                raise UserError("depth: got maps, but the adapter reads embeddings; encode them and pass embeds")
            _check_width(condition.embeds.shape[-1], self.depth_dim)
            return torch.from_numpy(condition.embeds[nearest])
        if condition.depth is None:
            raise UserError("embeds: got embeddings, but the adapter reads depth maps; pass depth")
        maps = F.interpolate(torch.from_numpy(condition.depth[nearest])[:, None], (self.size, self.size), mode="area")
        low, high = float(condition.depth.min()), float(condition.depth.max())
        shares = (maps - low) / max(high - low, 1e-6)
        metres = maps.log() / LOG_DEPTH if condition.metric else torch.zeros_like(maps)
        return torch.cat([shares, metres, torch.full_like(maps, float(condition.metric))], 1)

    def forward(self, values: Float[Tensor, "design token *size"]) -> Float[Tensor, "design token dim"]:
        return self.projection(values.flatten(0, 1)).unflatten(0, values.shape[:2])


class BoxTokens(Tokens):
    """One token per box: Stable Audio's conditioner for each of its four numbers, then a projection of all."""

    kind = BoxTrack

    def __init__(self, rate: float, dim: int) -> None:
        super().__init__(rate)
        self.numbers = nn.ModuleList(StableAudioNumberConditioner(NUMBER_DIM, 0.0, 1.0) for _ in range(4))
        self.projection = nn.Linear(4 * NUMBER_DIM, dim)
        self.unseen = nn.Parameter(torch.zeros(dim))

    def read(self, condition: OverTime | None, times: Times) -> Float[Tensor, "token 5"]:
        """Returns the box, and whether the object is seen."""
        if not isinstance(condition, BoxTrack):
            return torch.zeros(len(times), 5)
        boxes, seen = condition.at(times)
        return torch.cat([torch.from_numpy(boxes).float(), torch.from_numpy(seen).float()[:, None]], 1)

    def forward(self, values: Float[Tensor, "design token 5"]) -> Float[Tensor, "design token dim"]:
        sides, seen = values[..., :4].flatten(0, 1), values[..., 4:]
        numbers = torch.cat([one(sides[:, i])[:, 0] for i, one in enumerate(self.numbers)], -1)
        tokens = self.projection(numbers).unflatten(0, values.shape[:2])
        return torch.where(seen > 0, tokens, self.unseen)


def _check_width(got: int, expected: int) -> None:
    if got != expected:
        raise UserError(f"embeds: got {got} numbers, expected {expected}; use the encoder that the adapter reads")
