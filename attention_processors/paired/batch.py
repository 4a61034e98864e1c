"""Typed batches of the paired method."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from weftwork.attention_processors.core.batch import Batch


@dataclass(frozen=True, eq=False, kw_only=True)
class PairedParts(Batch):
    """The base of batches and features of pairs; the last part of each design is its global sketch, if any.

    Args:
        pair_mask: False for padding.
        has_sketch, has_text: pairs with a sketch, and with a text.
        whole_mask: designs with a global sketch; None for an adapter without them.
        has_whole: False where the global sketch is the null condition.
    """

    pair_mask: Bool[Tensor, "design pair"]
    has_sketch: Bool[Tensor, "design pair"]
    has_text: Bool[Tensor, "design pair"]
    whole_mask: Bool[Tensor, " design"] | None = None
    has_whole: Bool[Tensor, " design"] | None = None

    def merged(self) -> Batch:
        """Returns all strengths as one part: maxima of weights and regions, schedule of the first."""
        pairs = self.pair_mask.shape[1]

        def strongest(values: Float[Tensor, "design part *place"]) -> Float[Tensor, "design merged_part *place"]:
            return torch.cat([values[:, :pairs].amax(1, keepdim=True), values[:, pairs:]], 1)

        weight = strongest(self.weight)
        factors = self.layer_weight
        if factors is not None:
            by_layer = strongest(self.weight[..., None] * factors)
            factors = torch.where(weight[..., None] > 0, by_layer / weight[..., None].clamp(min=1e-12), 1.0)
        guided = torch.where(weight > 0, strongest(self.weight * self.guided) / weight.clamp(min=1e-12), 1.0)
        return self.derived(
            Batch,
            weight=weight,
            guided=guided,
            layer_weight=factors,
            schedules=tuple((row[0], *row[pairs:]) for row in self.schedules),
            region=None if self.region is None else strongest(self.region),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class PairedBatch(PairedParts):
    """Pairs before the frozen encoders."""

    sketch: Float[Tensor, "design pair channel size size"]
    texts: tuple[tuple[str, ...], ...]
    whole: Float[Tensor, "design channel size size"] | None = None

    def without(
        self,
        *,
        pairs: Bool[Tensor, "design pair"],
        sketches: Bool[Tensor, "design pair"],
        texts: Bool[Tensor, "design pair"],
        null: Bool[Tensor, "design 1"],
        wholes: Bool[Tensor, " design"] | None = None,
    ) -> "PairedBatch":
        """Returns a copy with dropped parts, for training.

        Args:
            pairs, sketches, texts, wholes: masks of the parts to drop.
            null: designs whose parts become the null condition.
        """
        here = ~pairs
        dropped = {
            "pair_mask": self.pair_mask & here,
            "has_sketch": self.has_sketch & ~sketches & ~null,
            "has_text": self.has_text & ~texts & ~null,
        }
        if self.whole_mask is not None and self.has_whole is not None and wholes is not None:
            here = torch.cat([here, ~wholes[:, None]], 1)
            dropped |= {"whole_mask": self.whole_mask & ~wholes, "has_whole": self.has_whole & ~wholes & ~null[:, 0]}
        return replace(self, weight=self.weight * here, **dropped)


@dataclass(frozen=True, eq=False, kw_only=True)
class PairedFeatures(PairedParts):
    """Pairs after the frozen encoders.

    Args:
        text: pooled vectors, or states of tokens; zeros without a text.
        sketch: pixels, read by the adapter's own encoder.
        image: tokens of a frozen sketch encoder, zeros without a sketch, instead of `sketch`.
        whole: the global sketch, as pixels or as tokens, like the pairs.
    """

    text: Float[Tensor, "design pair *state text_dim"]
    sketch: Float[Tensor, "design pair channel size size"] | None = None
    image: Float[Tensor, "design pair image_token image_dim"] | None = None
    whole: Float[Tensor, "design ..."] | None = None
