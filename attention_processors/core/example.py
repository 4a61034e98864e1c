"""Examples of methods: a small adapter with random weights for any denoiser, and conditions that it reads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from weftwork.attention_processors.core.adapter import Adapter
from weftwork.attention_processors.core.conditioning import Encoded

Inputs = dict[str, Any]
"""Arguments of one call of a denoiser, by name."""


@dataclass(frozen=True)
class Example:
    """Smallest use of a method on one denoiser.

    Args:
        adapter: made for the denoiser, with random weights.
        conditions: function of a seed, and of options of `Condition` by name, that returns the conditions of a design.
        encoders: frozen encoders that `Adapter.features` reads.
        inputs: function of the denoiser's inputs that returns those of a call in which the conditions act.
        neutral: options at which conditions leave the model as it is, bit for bit; None if there are none.
    """

    adapter: Adapter[Any, Any]
    conditions: Callable[..., Sequence[Any]]
    encoders: Mapping[str, Any] = field(default_factory=dict)
    inputs: Callable[[Inputs], Inputs] = dict
    neutral: Mapping[str, Any] | None = field(default_factory=lambda: {"weight": 0.0})

    def encoded(self, designs: Sequence[Sequence[Any]]) -> Encoded:
        """Returns the encoded conditions of designs."""
        features = self.adapter.features(self.adapter.collate(designs), self.encoders)
        return self.adapter(features)
