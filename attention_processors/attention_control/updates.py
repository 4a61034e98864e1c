"""Updates of the latents by the gradient of the loss, before each call of a denoiser in which subjects act."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.attention_control.loss import attendance, loss_of
from weftwork.attention_processors.core.caches import without_caches
from weftwork.attention_processors.core.call_rows import rows_of
from weftwork.attention_processors.core.conditioning import Conditioning
from weftwork.attention_processors.core.families import call_arguments, sample_of
from weftwork.attention_processors.core.frozen_weights import computing
from weftwork.attention_processors.core.grids import Given, Positional
from weftwork.attention_processors.core.processor import conditioned, is_compiled, unwrapped
from weftwork.attention_processors.core.spans import check_tokens
from weftwork.attention_processors.core.strength import Arguments, Layout, Schedule, Strength
from weftwork.attention_processors.core.text_maps import KeepTextMap
from weftwork.datasets.readers.errors import UserError

Losses = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Function of latents that returns the loss and the least attendance by row."""


@dataclass(frozen=True)
class Descent:
    """Settings of the updates.

    Args:
        layers: whose maps are averaged.
        step_size: of the gradient step at the first step of a run; it falls with the root of 1 to 0.5.
        thresholds: (share of the steps, least attendance): the first step from there on is repeated until each subject
            has it, and once more.
        max_refinements: of such a step.
        begins: whether a begin token stands first among the prompt's.
    """

    layers: Sequence[str]
    step_size: float
    thresholds: Sequence[tuple[float, float]]
    max_refinements: int
    begins: bool

    def size(self, step: int, count: int) -> float:
        return self.step_size * math.sqrt(1 - 0.5 * step / max(1, count - 1))

    def threshold(self, step: int, count: int) -> float:
        """Returns the least attendance that a step has to reach; 0 for none."""
        return max((least for share, least in self.thresholds if step == math.ceil(share * count - 1e-6)), default=0)


@dataclass(eq=False)
class Shift:
    """Change of the latents of a call in this step, which both halves of guidance and the scheduler share."""

    value: Float[Tensor, "row ..."] | None = None
    scale: float = 1.0


class LatentUpdates(Strength):
    """Strengths of subjects, which update the latents before a call of the denoiser.

    Args:
        layout: of the call.
        weight, schedules: of the conditional rows.
        members: 1 for the tokens of a subject.
        region: where the subjects have to be; None for everywhere.
        shift: of all layouts of a run.
    """

    def __init__(
        self,
        descent: Descent,
        layout: Layout,
        weight: Float[Tensor, "row part"],
        schedules: Sequence[Sequence[Schedule]],
        members: Float[Tensor, "row token part"],
        region: Float[Tensor, "row part height width"] | None,
        shift: Shift,
    ) -> None:
        none = torch.zeros_like(weight, dtype=torch.bool)[:, :0]
        super().__init__(weight, schedules, none[0].long(), none)
        self.descent, self.layout, self.members, self.region, self.shift = descent, layout, members, region, shift
        self.at = 0, 1
        self.on_call, self.on_step = self.updated, self.shifted

    def set_step(self, step: int, num_steps: int) -> bool:
        self.at = step, num_steps
        super().set_step(step, num_steps)
        return False  # the denoiser itself is the same at all steps

    def updated(
        self, conditioning: Conditioning, denoiser: nn.Module, args: Positional, kwargs: Given
    ) -> Arguments | None:
        """Returns the arguments of a call with updated latents, or None; `ValueError` as `check_differentiable`."""
        given = call_arguments(denoiser, args, kwargs)
        sample = sample_of(given)
        if not bool(self.acting.any()):
            return None
        if "conditional" in self.layout.halves:
            check_differentiable(denoiser)
            self.shift.value = self._shift(conditioning, denoiser, given)
            self.shift.scale = self.sampling.scale
        if self.shift.value is None:
            return None
        shift = self.shift.value.repeat(len(sample) // len(self.shift.value), *[1] * (self.shift.value.ndim - 1))
        new = list(torch.stack(sample) + shift) if isinstance(sample, list) else sample + shift
        return (
            tuple(new if one is sample else one for one in args),
            {name: new if one is sample else one for name, one in kwargs.items()},
        )

    def shifted(self, latents: Tensor) -> Tensor:
        """Returns the pipeline's latents with the change of this step."""
        shift, self.shift.value = self.shift.value, None
        if shift is None:
            return latents
        if shift.ndim == latents.ndim:
            shift = shift[tuple(map(slice, latents.shape))]
        return latents + shift.reshape(latents.shape).to(latents.dtype) / self.shift.scale

    def _shift(self, conditioning: Conditioning, denoiser: nn.Module, given: Given) -> Tensor:
        """Returns the change of the conditional rows of a call's latents."""
        first = (self.layout.conditional or 0) * len(self.weight)
        chosen = range(first, first + len(self.weight))
        given, inputs = rows_of(given, chosen), {n: one[list(chosen)] for n, one in conditioning.inputs.items()}
        alone = replace(conditioning, inputs=inputs, recorder=None)
        sample = sample_of(given)
        start = (torch.stack(sample) if isinstance(sample, list) else sample).detach()
        own = torch.zeros_like(start[:1])  # behind them are masks and references
        shape = self.sampling.shape
        own[tuple(map(slice, shape)) if shape is not None and len(shape) == start.ndim else ...] = 1

        def losses(latents: Tensor) -> tuple[Tensor, Tensor]:
            return loss_of(self._attendance(alone, denoiser, given, latents), self._active)

        with torch.enable_grad(), _frozen(denoiser), computing(denoiser.modules()):
            return (self._descended(start, losses, own) - start).detach()

    def _descended(self, start: Tensor, losses: Losses, own: Tensor) -> Tensor:
        """Returns latents behind the steps of one denoising step.

        Args:
            own: 1 for what may change.
        """
        threshold, size = self.descent.threshold(*self.at), self.descent.size(*self.at)
        latents = start.clone().requires_grad_()
        loss, least = losses(latents)

        def stepped(rows: Tensor) -> Tensor:
            [gradient] = torch.autograd.grad(loss.sum(), [latents])
            moving = own * rows.to(own).view(-1, *[1] * (own.ndim - 1))
            return (latents.detach() - size * moving * gradient).requires_grad_()

        refined = least < threshold
        for _ in range(self.descent.max_refinements):
            if not refined.any():
                break
            reached = least >= threshold
            latents = stepped(refined)
            loss, least = losses(latents)
            refined = refined & ~reached
        return stepped(torch.ones_like(refined))

    def _attendance(
        self, conditioning: Conditioning, denoiser: nn.Module, given: Given, latents: Tensor
    ) -> Float[Tensor, "row part"]:
        """Runs the denoiser with all conditions of the call, and returns how well each subject is attended to."""
        kept: dict[str, Tensor] = {}
        branches = dict(conditioning.branches)
        for layer in self.descent.layers:
            branches[layer] = (*branches.get(layer, ()), KeepTextMap(layer, kept, self.layout.tokens))
        sample = sample_of(given)
        new = list(latents) if isinstance(sample, list) else latents
        with conditioned(denoiser, replace(conditioning, branches=branches)), without_caches(denoiser):
            unwrapped(denoiser).forward(**{name: new if one is sample else one for name, one in given.items()})
        grids = {layer: self.layout.grid(layer) for layer in kept}
        smallest, frames = min(grids.values()), self.layout.frames
        maps = torch.stack([_pooled(one, (frames, *grids[name]), smallest) for name, one in kept.items()]).mean(0)
        check_tokens(self.members.shape[1], maps.shape[-1])
        members = F.pad(self.members, (0, 0, 0, maps.shape[-1] - self.members.shape[1]))
        ones = maps.new_ones(*self._active.shape, *smallest)
        regions = ones if self.region is None else F.adaptive_avg_pool2d(self.region, smallest)
        return attendance(maps, members, regions.unsqueeze(2).expand(-1, -1, frames, -1, -1), self.descent.begins)


def _pooled(
    maps: Float[Tensor, "row place token"], places: tuple[int, int, int], grid: tuple[int, int]
) -> Float[Tensor, "row place token"]:
    if places[1:] == grid:
        return maps
    of_tokens = maps.transpose(1, 2).unflatten(2, places)  # [row, token, frame, height, width]
    pooled = F.adaptive_avg_pool2d(of_tokens.flatten(1, 2), grid).view(*of_tokens.shape[:3], -1)
    return pooled.flatten(2).transpose(1, 2)


@contextmanager
def _frozen(denoiser: nn.Module) -> Iterator[None]:
    """Computes no gradients of parameters within the block."""
    trained = [one for one in denoiser.parameters() if one.requires_grad]
    for one in trained:
        one.requires_grad_(False)
    try:
        yield
    finally:
        for one in trained:
            one.requires_grad_(True)


def check_differentiable(denoiser: nn.Module) -> None:
    """Raises `ValueError` unless the gradient of maps can be computed: not if compiled, nor in inference mode."""
    if torch.is_inference_mode_enabled():
        raise UserError("inference_mode: got it beside conditions that need gradients; use torch.no_grad() instead")
    if is_compiled(denoiser):
        raise UserError(
            f"{type(unwrapped(denoiser)).__name__}: got a compiled denoiser, whose attention maps have no gradient "
            "outside; attend to words with the module that is not compiled"
        )
