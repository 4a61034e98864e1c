"""Condition strengths: weights, schedules and regions as tensors that are overwritten between steps."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from weftwork.attention_processors.core.grids import Given, Positional
from weftwork.datasets.readers.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """Time range of a condition: it acts at loop index i of n iff start <= i / n < end; end = 1 includes the last.

    Args:
        curve: optional factor over the progress within [start, end], itself in [0, 1].

    Raises:
        ValueError: not 0 <= start <= end <= 1.
    """

    start: float = 0.0
    end: float = 1.0
    curve: Callable[[float], float] | None = None

    def __post_init__(self) -> None:
        start, end = number(self.start), number(self.end)
        if start is None or end is None or not 0 <= start <= end <= 1:
            raise UserError(
                f"schedule: got start {self.start!r} and end {self.end!r}, expected 0 <= start <= end <= 1: "
                "fractions of the denoising run"
            )

    def at(self, step: int, num_steps: int) -> float:
        """Returns the factor at a loop index."""
        progress = step / num_steps
        if not (self.start <= progress < self.end or (self.end == 1 and self.start <= progress)):
            return 0.0
        if self.curve is None:
            return 1.0
        factor = self.curve((progress - self.start) / max(self.end - self.start, 1e-8))
        check_weight(factor, "curve")
        return float(factor)


MAX_WEIGHT = 1000.0
"""Weights beyond it are mistakes: images are noise far below."""


def number(value: object) -> float | None:
    """Returns a number of Python, NumPy or torch as a float; None for anything else."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim == 0:
        value = value.item()
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else None


def check_weight(weight: float, name: str = "weight") -> None:
    value = number(weight)
    if value is None or not 0 <= value <= MAX_WEIGHT:  # NaN is in no range
        raise UserError(
            f"{name}: got {weight!r}, expected a finite number of at least 0 and at most {MAX_WEIGHT:g}; 0 turns the "
            "condition off"
        )


Half = Literal["conditional", "unconditional"]
"""Half of classifier-free guidance."""
GUIDED: tuple[Half, ...] = ("unconditional", "conditional")
"""Both halves in one batch, as U-Nets get them."""


@dataclass(frozen=True)
class ImageTokens:
    """Place of the image's tokens among the queries of a layer."""

    grid: tuple[int, int, int]
    """Frames, height and width, row by row."""
    stream: int | None = None
    """Number of tokens beside the text: those of the grid, then references and padding; None if all queries are the
    grid's, or those of a level of it."""
    offset: int | None = None
    """Number of queries before the stream, where text is among the queries; None if the stream comes last."""
    references: tuple[int, ...] = ()
    """Numbers of tokens of the references behind the grid's."""

    def span(self, queries: int) -> tuple[int, int]:
        """Returns begin and end of the image's tokens among a number of queries.

        Raises:
            ValueError: fewer queries than that.
        """
        if self.stream is None or queries == math.prod(self.grid):
            return 0, queries
        begin = queries - self.stream if self.offset is None or queries == self.stream else self.offset
        end = begin + math.prod(self.grid)
        if begin < 0 or end > queries:
            raise UserError(
                f"layers: got a layer with {queries} queries, expected those of {self.grid} image tokens in it; choose "
                "layers that read the image, and build the conditioning for the size being denoised"
            )
        return begin, end


@dataclass(frozen=True)
class Layout:
    """Layout of designs as rows of one denoiser call."""

    levels: Mapping[str, int]
    """Number of halvings of the grid, by layer."""
    latent_size: tuple[int, int] | None
    """Height and width of the grid at level 0; None if it is not known, and there are no regions."""
    repeat: int = 1
    """`num_images_per_prompt`."""
    halves: tuple[Half, ...] = GUIDED[1:]
    """Halves of guidance in the batch, in order."""
    tokens: ImageTokens | None = None
    """Place of the image's tokens; None if all queries are the image's."""
    presets: Mapping[str, str] | None = None
    """Patterns of layers by preset; None for those of U-Nets."""
    prompts: tuple[str, ...] = ()
    """The pipeline's prompts, by design; none where it got prompt embeddings."""

    def grid(self, layer: str) -> tuple[int, int]:
        """Returns height and width of a layer's grid: ceil-halvings of the latent size."""
        height, width = self.latent_size or (1, 1)
        for _ in range(self.levels[layer]):
            height, width = (height + 1) // 2, (width + 1) // 2
        return height, width

    @property
    def frames(self) -> int:
        """Number of frames, each with a grid."""
        return 1 if self.tokens is None else self.tokens.grid[0]

    @property
    def conditional(self) -> int | None:
        """Index of the conditional half of the rows; None without two halves."""
        return self.halves.index("conditional") if len(self.halves) > 1 else None

    def expand(self, values: Tensor, null: Tensor | None = None) -> Tensor:
        """Expands [design, …] to [row, …]; `null` (default: the values) fills the unconditional half."""
        null = values if null is None else null.expand(values.shape[0], *null.shape[1:])
        of_half = {"conditional": values, "unconditional": null}
        return torch.cat([of_half[half].repeat_interleave(self.repeat, 0) for half in self.halves])


Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments of a call by position and by name."""
OnCall = Callable[[Any, nn.Module, Positional, Given], Arguments | None]
"""Reads the conditioning, the denoiser and the arguments of one of its calls; returns other arguments, or None."""


@dataclass(frozen=True)
class Sampling:
    """Signal, noise and scale in the latents of the next call of a denoiser.

    Args:
        signal, noise: factors of both in the latents of the call.
        scale: factor of the pipeline's latents in those of the call.
        shape: shape of the pipeline's latents, behind which a call has those of masks and references; None if unknown.
    """

    signal: float = 1.0
    noise: float = 0.0
    scale: float = 1.0
    shape: tuple[int, ...] | None = None


class Strength:
    """Strengths of the parts of one adapter at the current step, by row and place.

    With a_p(x) = weight_p * layer weight_p * schedule_p(step) * region_p(x) and A(x) = max_p a_p(x), the branch is
    A * softmax(Q K^T / sqrt(d) + log(a_p / A)) V: one softmax over the tokens of all parts, as in LOTS, extended by
    weights and regions. Equal a_p give a bias of 0; a part at 0 is absent; all at 0 give a finite 0.
    """

    def __init__(
        self,
        weight: Float[Tensor, "row part"],
        schedules: Sequence[Sequence[Schedule]],
        token_part: Int[Tensor, " token"],
        token_mask: Bool[Tensor, "row token"],
        regions: Mapping[tuple[int, int], Float[Tensor, "row part query"]] | None = None,
        windows: Mapping[tuple[int, int], Float[Tensor, "query token"]] | None = None,
        layer_weights: Mapping[str, Float[Tensor, "row part"]] | None = None,
    ) -> None:
        self.weight, self.schedules = weight, schedules
        self.token_part, self.token_mask = token_part, token_mask
        self.regions, self.windows = regions, windows
        self.layer_weights = layer_weights or {}
        self.on_timestep: Callable[[Tensor], None] | None = None
        """Overwrites what depends on the timestep, [row], before the denoiser runs at it."""
        self.on_call: OnCall | None = None
        """Called before each call of the denoiser."""
        self.on_output: Callable[[Any, nn.Module, Positional, Given, Any], Any] | None = None
        """Called with the conditioning, the denoiser, and the arguments and output of each of its calls; returns the
        output that the pipeline gets."""
        self.on_step: Callable[[Tensor], Tensor] | None = None
        """Called with the latents that the scheduler's step reads; returns those that it should read."""
        self.sampling = Sampling()
        self.competes = weight.shape[1] > 1 or windows is not None or not bool(token_mask.all())
        self._gains: dict[tuple[tuple[int, int] | None, str | None], Tensor] = {}
        self._biases: dict[tuple[tuple[int, int] | None, str | None], Tensor] = {}
        self._active = self._factors(0, 1)

    def gain(self, grid: tuple[int, int], layer: str) -> Float[Tensor, "row place 1 1"]:
        """Returns a gain that follows the schedule; layers of one grid without own weights share it."""
        key = (grid if self.regions is not None else None, layer if layer in self.layer_weights else None)
        if key not in self._gains:
            self._gains[key] = self._gain(*key).clone()
        return self._gains[key]

    def bias(self, grid: tuple[int, int], layer: str) -> Float[Tensor, "row 1 place token"] | None:
        """Returns a bias that follows the schedule; None for a single part, which never needs one."""
        if not (self.competes or self.regions is not None):
            return None
        placed = self.regions is not None or self.windows is not None
        key = (grid if placed else None, layer if layer in self.layer_weights else None)
        if key not in self._biases:
            self._biases[key] = self._bias(*key).clone()
        return self._biases[key]

    def set_step(self, step: int, num_steps: int) -> bool:
        """Overwrites every returned gain and bias with its value at a loop index; returns whether any changed."""
        active = self._factors(step, num_steps)
        if torch.equal(active, self._active):
            return False
        self._active = active
        for key, gain in self._gains.items():
            gain.copy_(self._gain(*key))
        for key, bias in self._biases.items():
            bias.copy_(self._bias(*key))
        return True

    @property
    def acting(self) -> Bool[Tensor, "row part"]:
        """Which parts act at the current step."""
        return self._active > 0

    def _factors(self, step: int, num_steps: int) -> Float[Tensor, "row part"]:
        factors = [[schedule.at(step, num_steps) for schedule in row] for row in self.schedules]
        return self.weight * torch.tensor(factors, dtype=self.weight.dtype, device=self.weight.device)

    def _strength_at(self, grid: tuple[int, int] | None, layer: str | None) -> Float[Tensor, "row part place"]:
        strength = (self._active if layer is None else self._active * self.layer_weights[layer]).unsqueeze(-1)
        return strength if grid is None or self.regions is None else strength * self.regions[grid]

    def _gain(self, grid: tuple[int, int] | None, layer: str | None) -> Tensor:
        return self._strength_at(grid, layer).amax(1)[:, :, None, None]

    def _bias(self, grid: tuple[int, int] | None, layer: str | None) -> Tensor:
        strength = self._strength_at(grid, layer)
        most = strength.amax(1, keepdim=True)
        nothing = most == 0
        relative = torch.where(nothing, 0, (strength / torch.where(nothing, 1, most)).log())  # [row, part, place]
        bias = relative.transpose(1, 2)[..., self.token_part]
        if self.windows is not None and grid is not None:
            bias = bias + self.windows[grid]
        hidden = ~self.token_mask[:, None, :] & ~nothing.transpose(1, 2)
        return bias.masked_fill(hidden, -math.inf).unsqueeze(1)


def anchor_windows(
    anchors: Float[Tensor, "token 2"], grid: tuple[int, int], sigma: float
) -> Float[Tensor, "query token"]:
    """Returns the log of a normal density around each token's place, 0 at its centre and for tokens without a place."""
    height, width = grid
    y = (torch.arange(height, device=anchors.device) + 0.5) / height
    x = (torch.arange(width, device=anchors.device) + 0.5) / width
    places = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flatten(0, 1)
    squared = (places[:, None] - anchors[None].float()).square().sum(-1)
    return torch.nan_to_num(-squared / (2 * sigma**2), nan=0.0)
