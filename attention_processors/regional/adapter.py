"""Regional prompts: the text's keys get a bias by region, in cross-attention and in joint attention alike.

With a_p(x) = weight * layer factor * schedule * region of part p of the prompt at place x, the image's queries compute

    softmax(Q K^T / sqrt(d) + sum_p log(a_p(x)) [key of p]) V

In joint attention a part's own tokens see all but the other parts, and the rest of the prompt sees no part, so that
parts reach the image in their regions alone. No weights are trained.

Source: the masks of Regional-Prompting-FLUX (arXiv 2411.02395) and of cross-attention control by layout.
Differs: weights, soft regions and schedules; as channels of queries and keys instead of a mask [query, key]; a part's
tokens see the whole image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from weftwork.attention_processors.core.batch import Batch, padded
from weftwork.attention_processors.core.key_bias import EncodedKeyBias, KeyBiasAdapter
from weftwork.attention_processors.core.strength import Layout
from weftwork.attention_processors.regional.conditions import RegionalPrompt

ABSENT = RegionalPrompt((0, 1))


@dataclass(frozen=True, eq=False, kw_only=True)
class RegionalBatch(Batch):
    """Parts of prompts, by which of its tokens they have."""

    members: Float[Tensor, "design token part"]


@dataclass(frozen=True)
class EncodedRegions(EncodedKeyBias):
    """Encoded parts of prompts."""

    of_prompt: Float[Tensor, "design token part"] = field(kw_only=True)

    @property
    def isolates(self) -> bool:
        return True

    def members(self, layout: Layout) -> Float[Tensor, "design token part"]:
        return self.of_prompt


class RegionalAdapter(KeyBiasAdapter[RegionalBatch]):
    """Parts of the prompt in regions; there is nothing to train."""

    condition_type = (RegionalPrompt,)

    def collate(self, conditions: Sequence[Sequence[RegionalPrompt]]) -> RegionalBatch:
        """Returns padded tensors, one row per design.

        Raises:
            ValueError: as for `Batch.of`.
        """
        rows = padded(conditions, ABSENT)
        most = max(end for row in rows for one in row for _, end in one.spans)
        members = torch.zeros(len(rows), most, len(rows[0]))
        for design, row in enumerate(rows):
            for part, one in enumerate(row):
                for first, end in () if one is ABSENT else one.spans:
                    members[design, first:end, part] = 1
        return RegionalBatch.of(rows, self.config, members=members)

    def forward(self, features: RegionalBatch) -> EncodedRegions:
        layers = list(self.config["layers"])
        strengths = features.strengths(layers, features.weight.device)
        return EncodedRegions(
            layers, strengths, torch.ones_like(features.guided, dtype=torch.bool), of_prompt=features.members
        )
