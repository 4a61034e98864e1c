"""Guidance of a condition on its own, beside that of the text (three streams).

A pipeline mixes e_0, without text and condition, and e_2, with both, as e_0 + s (e_2 - e_0). With e_1, the text and
the null of the condition, in a further pass of the conditional rows, and e_2 replaced by e_1 + r (e_2 - e_1), this is

    e_0 + s (e_1 - e_0) + r s (e_2 - e_1)

as in DICE-Talk, whose two scales are s and r s. Other adapters act in all passes. It works in one batch and in two
calls, with schedules, and without guidance (s = 1).

Source: toto222/DICE-Talk@a8a92b1 (src/pipelines/pipeline_dicetalk.py), where three rows are one batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from weftwork.attention_processors.core.branch import Branch
from weftwork.attention_processors.core.caches import without_caches
from weftwork.attention_processors.core.call_rows import rows_of
from weftwork.attention_processors.core.conditioning import Conditioning, EncodedTokens
from weftwork.attention_processors.core.families import call_arguments, sample_of
from weftwork.attention_processors.core.grids import Given, Positional
from weftwork.attention_processors.core.processor import conditioned
from weftwork.attention_processors.core.strength import Layout, Strength
from weftwork.datasets.readers.errors import UserError


@dataclass(frozen=True, kw_only=True)
class GuidedTokens(EncodedTokens):
    """Encoded tokens with a guidance scale of their own.

    Args:
        guidance: multiple of the pipeline's; 1 adds no pass.
    """

    guidance: Float[Tensor, " design"]

    @property
    def changes_outputs(self) -> bool:
        return bool((self.guidance != 1).any())

    def build(self, layout: Layout) -> tuple[dict[str, Branch], tuple[Strength, ...]]:
        own, strengths = super().build(layout)
        if not self.changes_outputs or "conditional" not in layout.halves:
            return own, strengths
        if layout.halves.count("conditional") > 1:
            raise UserError("guidance: got a call with perturbed rows; turn these off, or leave out guidance")
        null, moving = super().build(replace(layout, halves=("unconditional",)))
        strengths[0].on_output = StreamGuidance(
            own, null, self.guidance.repeat_interleave(layout.repeat), strengths[0], layout
        )
        return own, (*strengths, *moving)


@dataclass(eq=False)
class StreamGuidance:
    """Replaces the conditional output of a call by one in which the condition is guided on its own.

    Args:
        own, null: branches of the condition, and of its null in the conditional rows alone.
        guidance: of conditional rows.
    """

    own: Mapping[str, Branch]
    null: Mapping[str, Branch]
    guidance: Float[Tensor, " row"]
    strength: Strength
    layout: Layout

    def __call__(self, conditioning: Conditioning, denoiser: Any, args: Positional, kwargs: Given, output: Any) -> Any:
        given = call_arguments(denoiser, args, kwargs)
        count, rows = len(self.guidance), len(sample_of(given))
        half = self.layout.halves.index("conditional")
        acting = self.strength.acting.any(1)[half * count : (half + 1) * count]
        guidance = torch.where(acting, self.guidance, 1)
        if bool((guidance == 1).all()):
            return output
        first = half * count if rows > count else 0  # one half alone where guidance was turned off
        branches = {
            layer: tuple(self.null[layer] if one is self.own.get(layer) else one for one in every)
            for layer, every in conditioning.branches.items()
        }
        with conditioned(denoiser, replace(conditioning, branches=branches, recorder=None)), without_caches(denoiser):
            without = denoiser.forward(**rows_of(given, range(first, first + count)))
        return _replaced(output, _guided(output[0], without[0], guidance, first))


def _guided(whole: Any, without: Any, guidance: Float[Tensor, " row"], first: int) -> Any:
    """Returns the output with its rows from `first` on led away from those without the condition."""
    changed = [one for one in whole]
    for row, factor in enumerate(guidance.tolist()):
        if factor != 1:
            changed[first + row] = torch.lerp(without[row], whole[first + row], factor)
    return torch.stack(changed) if isinstance(whole, Tensor) else changed


def _replaced(output: Any, sample: Any) -> Any:
    """Returns a denoiser's output, a tuple or one of diffusers' classes, with another sample."""
    if isinstance(output, tuple):
        return sample, *output[1:]
    return type(output)(**{**output, next(iter(output)): sample})
