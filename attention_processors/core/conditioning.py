"""Run-time conditioning: attention branches per layer, with weights, regions and schedules as run-time values.

Shapes, here and everywhere: `design` is one prompt; `row` is one row of the denoiser's batch (designs, repeated for
`num_images_per_prompt`, under guidance the unconditional half first); `part` is one condition of a design (a pair, a
style); `token` runs over the tokens of all parts; `query` over the places of a layer's grid, row by row.

Structure and values are kept apart. The structure (layers, branches, with or without a region) is fixed by the types of
a call's conditions; strengths are tensors that are overwritten in place between steps, so a compiled denoiser is never
recompiled.
"""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from weftwork.attention_processors.core.branch import Branch, DecoupledBranch, LayerBranches
from weftwork.attention_processors.core.regions import check_aspect
from weftwork.attention_processors.core.strength import Arguments, Layout, Sampling, Schedule, Strength, anchor_windows
from weftwork.datasets.readers.errors import UserError

logger = logging.getLogger(__name__)

FEWEST_BIASED = 16
"""Least number of tokens with a bias: torch's fused attention on a CPU takes longer for fewer keys."""


class Encoded(ABC):
    """One adapter's encoded conditions, one row per design, to be laid out as a batch."""

    @property
    def changes_outputs(self) -> bool:
        """Whether a strength of its changes the output of the denoiser (`Strength.on_output`)."""
        return False

    @abstractmethod
    def build(self, layout: Layout) -> tuple[dict[str, Branch], tuple[Strength, ...]]:
        """Returns branches by layer, and the strengths that change with the steps."""


def check_layout(layers: Collection[str], region: Tensor | None, aspect: float | None, layout: Layout) -> None:
    """Raises unless conditions for these layers and regions can be laid out.

    Raises:
        ValueError: layers that the denoiser does not have, regions on an unknown grid, or of another aspect.
    """
    unknown = sorted(set(layers) - set(layout.levels))
    if unknown:
        raise UserError(
            f"layers: got {unknown[0]!r} (and {len(unknown) - 1} more), which the denoiser does not have; load the "
            "adapter that was trained for this backbone"
        )
    if layout.latent_size is None and region is not None:
        raise UserError(
            "region: got some for a denoiser whose grid is not known; leave them out, or add a record of its class "
            "to weftwork.attention_processors.core.families.FAMILIES"
        )
    height, width = layout.latent_size or (1, 1)
    check_aspect(aspect, height / width)


@dataclass(frozen=True)
class EncodedTokens(Encoded):
    """Encoded tokens: keys and values for a `DecoupledBranch` at every layer.

    Args:
        key_value: by layer, [design, part * token, inner] twice.
        null: keys and values in the unconditional half, of each design or [1, …] of all; None leaves that half to the
            frozen model.
        token_mask: True = keep.
        anchors: places of the tokens on the canvas, (y, x) in [0, 1], NaN for everywhere: a token's attention falls off
            around its place as a normal density of standard deviation `anchor_sigma` (a fraction of the canvas).
    """

    key_value: Mapping[str, tuple[Tensor, Tensor]]
    null: Mapping[str, tuple[Tensor, Tensor]] | None
    token_mask: Bool[Tensor, "design token"]
    token_part: Int[Tensor, " token"]
    weight: Float[Tensor, "design part"]
    schedules: Sequence[Sequence[Schedule]]
    region: Float[Tensor, "design part height width"] | None = None
    region_aspect: float | None = None
    """Height over width of the regions' canvas; None fits any."""
    anchors: Float[Tensor, "token 2"] | None = None
    anchor_sigma: float = 0.1
    layer_weight: Mapping[str, Float[Tensor, "design part"]] = field(default_factory=dict)
    """Factors on the weights by layer; 1 for layers that are not named."""
    null_weight: Float[Tensor, "design part"] | None = None
    """Weights in the unconditional half; None: those of the conditional half where `null` is given, else 0."""
    branch: Callable[..., DecoupledBranch] = DecoupledBranch
    gates: Mapping[str, Tensor] | None = None
    """Gates by layer, for branches of `core.gates`."""

    def build(self, layout: Layout) -> tuple[dict[str, Branch], tuple[Strength, ...]]:
        check_layout(self.key_value, self.region if self.anchors is None else self.anchors, self.region_aspect, layout)
        padded = self._padded()
        strength = padded._strength(layout)
        branches: dict[str, Branch] = {}
        for layer, (key, value) in padded.key_value.items():
            null = (None, None) if padded.null is None else padded.null[layer]
            grid = layout.grid(layer)
            make = self.branch if self.gates is None else partial(self.branch, gate=self.gates[layer])
            branches[layer] = make(
                layout.expand(key, null[0]),
                layout.expand(value, null[1]),
                strength.gain(grid, layer),
                strength.bias(grid, layer),
                layout.conditional,
                strength.token_part,
                layout.tokens,
            )
        return branches, (strength,)

    def _strength(self, layout: Layout) -> Strength:
        unconditional = torch.zeros_like(self.weight) if self.null is None else self.null_weight
        weight = layout.expand(self.weight.float(), unconditional)
        grids = {layout.grid(layer) for layer in self.key_value}
        regions, windows, frames = None, None, layout.frames
        if self.region is not None:
            region = layout.expand(self.region.float())
            regions = {grid: F.adaptive_avg_pool2d(region, grid).flatten(2).repeat(1, 1, frames) for grid in grids}
        if self.anchors is not None:
            windows = {grid: anchor_windows(self.anchors, grid, self.anchor_sigma).repeat(frames, 1) for grid in grids}
        rows = [row for row in self.schedules for _ in range(layout.repeat)] * len(layout.halves)
        mask = layout.expand(self.token_mask)
        layer_weights = {layer: layout.expand(factor.float()) for layer, factor in self.layer_weight.items()}
        return Strength(weight, rows, self.token_part, mask, regions, windows, layer_weights)

    def _padded(self) -> "EncodedTokens":
        """Pads tokens to a power of two and masks the padding, so that a compiled denoiser sees few token counts.

        Those that have a bias anyway are filled to `FEWEST_BIASED` at least.
        """
        tokens = self.token_mask.shape[1]
        biased = self.region is not None or self.anchors is not None or self.weight.shape[1] > 1
        extra = (1 << (max(tokens, FEWEST_BIASED if biased else 1) - 1).bit_length()) - tokens
        if extra == 0:
            return self

        def pad(pairs: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, tuple[Tensor, Tensor]]:
            return {n: (F.pad(k, (0, 0, 0, extra)), F.pad(v, (0, 0, 0, extra))) for n, (k, v) in pairs.items()}

        return replace(
            self,
            key_value=pad(self.key_value),
            null=None if self.null is None else pad(self.null),
            token_mask=F.pad(self.token_mask, (0, extra), value=False),
            token_part=F.pad(self.token_part, (0, extra)),
            anchors=None if self.anchors is None else F.pad(self.anchors, (0, 0, 0, extra), value=math.nan),
        )


@dataclass(frozen=True)
class Conditioning:
    """All branches of all adapters for one denoiser batch.

    Build it with `Conditioning.of`. It acts in calls of the denoiser within `with conditioned(denoiser, c):`, also in
    those of a stock pipeline that is passed `callback_on_step_end=c.callback` for schedules.
    """

    branches: Mapping[str, tuple[Branch, ...]]
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Adapter names of the branches, by layer."""
    strengths: tuple[Strength, ...] = ()
    encoded: Mapping[str, Encoded] = field(default_factory=dict)
    layout: Layout | None = None
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors that are added to the inputs of blocks, by the block's path; may be replaced between steps."""
    recorder: Any = None
    """A `weftwork.attention_processors.core.attention_maps.MapRecorder` while attention maps are recorded."""

    @classmethod
    def of(cls, encoded: Mapping[str, Encoded], layout: Layout, recorder: Any = None) -> "Conditioning":
        """Lays out the encoded conditions of adapters (by name, in the order of attaching) for one batch.

        Raises:
            ValueError: a layer the denoiser does not have, or two replacing branches on one layer.
        """
        branches: dict[str, list[tuple[str, Branch]]] = {}
        replacing: dict[str, str] = {}
        strengths: list[Strength] = []
        for name, one in encoded.items():
            made, moving = one.build(layout)
            strengths.extend(moving)
            for layer, branch in made.items():
                if branch.replaces and replacing.setdefault(layer, name) != name:
                    raise UserError(
                        f"adapters: {replacing[layer]!r} and {name!r} both replace queries or keys at {layer}; "
                        "detach one of them or restrict its layers"
                    )
                branches.setdefault(layer, []).append((name, branch))
        by_layer = {layer: tuple(branch for _, branch in row) for layer, row in branches.items()}
        names = {layer: tuple(name for name, _ in row) for layer, row in branches.items()}
        conditioning = cls(by_layer, names, tuple(strengths), dict(encoded), layout, recorder=recorder)
        conditioning.set_step(0, 1)
        return conditioning

    def at(self, layer: str) -> LayerBranches:
        """Returns what acts at a layer, branches in the order of attaching."""
        branches, record = self.branches.get(layer, ()), None
        if self.recorder is not None and branches:
            record = partial(self.recorder.record, layer, self.names[layer])
        return LayerBranches(branches, record, self.inputs)

    def set_step(self, step: int, num_steps: int) -> bool:
        """Sets every schedule to loop index `step` of `num_steps`; returns whether a strength changed."""
        return any([strength.set_step(step, num_steps) for strength in self.strengths])

    def set_timestep(self, timestep: Float[Tensor, " row"]) -> None:
        """Overwrites all that depends on the timestep."""
        for strength in self.strengths:
            if strength.on_timestep is not None:
                strength.on_timestep(timestep)

    def on_call(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
        """Passes the arguments of a call of the denoiser to what reads them, before it runs.

        Returns the arguments that they change; None if none does.
        """
        given = args, kwargs
        for one in self._readers:
            given = one.on_call(self, denoiser, *given) or given
        return None if given[0] is args and given[1] is kwargs else given

    def on_output(self, denoiser: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Returns the output of a call of the denoiser as the strengths change it, after it has run."""
        for strength in self.strengths:
            if strength.on_output is not None:
                output = strength.on_output(self, denoiser, args, kwargs, output)
        return output

    def hooks(self, denoiser: nn.Module) -> list[RemovableHandle]:
        """Lets `on_call` and `on_output` run in the calls of a denoiser, where a strength needs them."""
        found: list[RemovableHandle] = []
        if self.reads_calls:
            found.append(denoiser.register_forward_pre_hook(self.on_call, with_kwargs=True))
        if self.changes_outputs:
            found.append(denoiser.register_forward_hook(self.on_output, with_kwargs=True))
        return found

    def on_latents(self, latents: Tensor) -> Tensor:
        """Returns the latents that the scheduler's step should read in the place of these."""
        for strength in self.strengths:
            latents = latents if strength.on_step is None else strength.on_step(latents)
        return latents

    def set_sampling(self, sampling: Sampling) -> None:
        """Sets signal, noise and scale in the latents of the next call; clean and unscaled at first."""
        for strength in self.strengths:
            strength.sampling = sampling

    @property
    def reads_calls(self) -> bool:
        return bool(self._readers)

    @property
    def _readers(self) -> list[Any]:
        """Strengths, and behind them the recorder, that read the denoiser's calls."""
        return [one for one in (*self.strengths, self.recorder) if one is not None and one.on_call is not None]

    @property
    def changes_outputs(self) -> bool:
        return any(strength.on_output is not None for strength in self.strengths)

    @property
    def reads_timestep(self) -> bool:
        return any(strength.on_timestep is not None for strength in self.strengths)

    def on_step_end(self, step: int, num_steps: int) -> bool:
        """Prepares the step after loop index `step`, and returns whether a strength changed.

        Warns once of schedules that act at no step.
        """
        if step == 0:
            self._warn_of_idle(num_steps)
        if self.recorder is not None:
            self.recorder.on_step_end(step)
        return step + 1 < num_steps and self.set_step(step + 1, num_steps)

    def _warn_of_idle(self, num_steps: int) -> None:
        rows = ((strength.schedules, strength.weight.tolist()) for strength in self.strengths)
        schedules = {s for table, weights in rows for row, own in zip(table, weights, strict=True)
                     for s, weight in zip(row, own, strict=True) if weight > 0 and s.start < s.end}  # fmt: skip
        for one in schedules:
            if not any(Schedule(one.start, one.end).at(index, num_steps) for index in range(num_steps)):
                logger.warning(
                    "schedule: start %g and end %g act at none of %d steps; step i of n acts if start <= i / n < end",
                    one.start, one.end, num_steps,
                )  # fmt: skip

    def callback(
        self, pipe: DiffusionPipeline, step: int, timestep: object, values: dict[str, object]
    ) -> dict[str, object]:
        """`callback_on_step_end` of a stock pipeline."""
        self.on_step_end(step, pipe.num_timesteps)
        return values

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Conditioning":
        """Returns a copy on another device; `dtype` is that of keys and values (gains stay float32)."""
        if self.layout is None:
            branches = {n: tuple(b.to(device, dtype) for b in row) for n, row in self.branches.items()}
            return replace(self, branches=branches)
        moved = {name: _moved(one, device, dtype) for name, one in self.encoded.items()}
        return replace(Conditioning.of(moved, self.layout, self.recorder), inputs=self.inputs)


def _moved(value: Any, device: torch.device | str | None, dtype: torch.dtype | None) -> Any:
    """Moves tensors inside mappings, tuples and encoded conditions; casts floating ones of three dimensions."""
    if isinstance(value, Tensor):
        return value.to(device, dtype if value.is_floating_point() and value.ndim == 3 else None)
    if isinstance(value, Mapping):
        return {key: _moved(item, device, dtype) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_moved(item, device, dtype) for item in value)
    if isinstance(value, Encoded):
        return replace(value, **{k: _moved(v, device, dtype) for k, v in vars(value).items()})  # pyright: ignore
    return value
