"""In-context references: weight, region and schedule of the reference images that a denoiser reads beside its target.

FLUX.1 Kontext, FLUX.2 and Qwen-Image Edit put the tokens of references behind those of the target. With a_r(x) =
weight * layer factor * schedule * region of reference r at place x, their keys get a bias for the target's queries:

    softmax(Q K^T / sqrt(d) + sum_r log(a_r(x)) [key of r]) V

The text's queries see each reference at its strength in the best place, and the references' own queries as ever. No
weights are trained.

Differs: other tools scale the latents of references, which a LayerNorm undoes for the most part.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from inspect import signature

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from weftwork.attention_processors.core.batch import Batch, padded
from weftwork.attention_processors.core.key_bias import EncodedKeyBias, KeyBiasAdapter
from weftwork.attention_processors.core.processor import unwrapped
from weftwork.attention_processors.core.strength import Layout
from weftwork.attention_processors.in_context.conditions import InContextReference
from weftwork.datasets.readers.errors import UserError

ABSENT = InContextReference(0)


@dataclass(frozen=True, eq=False, kw_only=True)
class InContextBatch(Batch):
    """Strengths of references; `index` says which, -1 for none."""

    index: Int[Tensor, "design part"]


@dataclass(frozen=True)
class EncodedReferences(EncodedKeyBias):
    """Encoded strengths of references; `index` is which, -1 for none."""

    index: Int[Tensor, "design part"] = field(kw_only=True)

    def members(self, layout: Layout) -> Float[Tensor, "design key part"]:
        counts = () if layout.tokens is None else layout.tokens.references
        most = int(self.index.max())
        if most >= len(counts):
            raise UserError(
                f"index: got {most}, but this call of the denoiser has {len(counts)} reference images; pass the images "
                "to a pipeline of FLUX.1 Kontext, FLUX.2 or Qwen-Image Edit"
            )
        of_key = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.long))
        return (of_key.to(self.index.device)[None, :, None] == self.index[:, None]).float()


def reads_references(denoiser: nn.Module) -> bool:
    """Whether a denoiser is of a family whose pipelines put tokens of references behind those of the target."""
    return not {"img_ids", "img_shapes"}.isdisjoint(signature(type(unwrapped(denoiser)).forward).parameters)


class InContextAdapter(KeyBiasAdapter[InContextBatch]):
    """Strengths of in-context references; there is nothing to train."""

    condition_type = (InContextReference,)

    def check_base(self, denoiser: nn.Module) -> None:
        """Raises unless the denoiser is of a family that reads references, and the one that this was made for."""
        if not reads_references(denoiser):
            raise UserError(
                f"denoiser: got {type(unwrapped(denoiser)).__name__}, which reads no reference images, expected that "
                "of FLUX.1 Kontext, FLUX.2 or Qwen-Image Edit; use ReferenceOnlyAdapter"
            )
        super().check_base(denoiser)

    def collate(self, conditions: Sequence[Sequence[InContextReference]]) -> InContextBatch:
        """Returns padded tensors, one row per design; `ValueError` for one reference twice, or as `Batch.of`."""
        rows = padded(conditions, ABSENT)
        for row in conditions:
            indices = [one.index for one in row]
            if len(set(indices)) < len(indices):
                raise UserError(f"index: got {indices}, expected one condition per reference image; merge them")
        index = [[one.index if one is not ABSENT else -1 for one in row] for row in rows]
        return InContextBatch.of(rows, self.config, index=torch.tensor(index))

    def forward(self, features: InContextBatch) -> EncodedReferences:
        layers = list(self.config["layers"])
        strengths = features.strengths(layers, features.weight.device)
        return EncodedReferences(layers, strengths, features.guided == 0, index=features.index)
