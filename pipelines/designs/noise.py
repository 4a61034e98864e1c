"""Random numbers of the images of a design, and their variations."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from weftwork.pipelines.designs.design import Design


def generators(designs: Sequence[Design]) -> list[torch.Generator]:
    """Returns the generator of each design's seed."""
    return [_generator(design.seed) for design in designs]


def _generator(seed: int | None) -> torch.Generator:
    assert seed is not None
    return torch.Generator().manual_seed(seed)


def variations(
    designs: Sequence[Design], drawing: Sequence[torch.Generator]
) -> contextlib.AbstractContextManager[object]:
    """Mixes the variations of designs into what their generators draw meanwhile."""
    if not any(design.variations for design in designs):
        return contextlib.nullcontext()
    pairs = zip(drawing, designs, strict=True)
    return _MixedNoise(
        {one: [(_generator(other.seed), other.strength) for other in design.variations] for one, design in pairs}
    )


class _MixedNoise(TorchFunctionMode):
    """Mixes what other generators draw into normal random numbers, so that their variance stays 1.

    Pipelines draw noise inside of their calls, those for initial images also samples of the encoded image, and take
    generators only.

    Args:
        others: by generator those that are mixed in, in order, with their strengths.
    """

    def __init__(self, others: Mapping[object, Sequence[tuple[torch.Generator, float]]]) -> None:
        super().__init__()
        self.others = others

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        made = func(*args, **options)
        if func is torch.randn:
            for other, strength in self.others.get(options.get("generator"), ()):
                angle = strength * math.pi / 2
                made = made * math.cos(angle) + func(*args, **{**options, "generator": other}) * math.sin(angle)
        return made
