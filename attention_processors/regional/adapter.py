"""Regional prompts: the text's keys get a bias by region, in cross-attention and in joint attention alike.

With a_p(x) = weight * layer factor * schedule * region of part p of the prompt at place x, the image's queries compute

    softmax(Q K^T / sqrt(d) + sum_p log(a_p(x)) [key of p]) V

In joint attention a part's own tokens see all but the other parts, and the rest of the prompt sees no part, so that
parts reach the image in their regions alone. No weights are trained.

Texts beside the prompt run through all layers of a transformer, so the pipeline encodes them as it does its prompt and
joins them to it. On U-Nets they are read through the layers' own keys and values in one softmax with the prompt. With
g(x) = max_p a_p(x), so that the layer is the stock one, bit for bit, where nothing acts:

    (1 - g) softmax(Q K^T / sqrt(d)) V + g softmax(Q [K, K_p]^T / sqrt(d) + [0, log(a_p(x) / g(x))]) [V, V_p]

Source: the masks of Regional-Prompting-FLUX (arXiv 2411.02395) and of cross-attention control by layout.
Differs: weights, soft regions and schedules; as channels of queries and keys instead of a mask [query, key]; a part's
tokens see the whole image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from weftwork.attention_processors.core.batch import Batch, Strengths, padded
from weftwork.attention_processors.core.branch import Branch
from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.conditioning import Encoded, EncodedTokens
from weftwork.attention_processors.core.families import UNET, family_of
from weftwork.attention_processors.core.joined_texts import EncodedTexts, Places
from weftwork.attention_processors.core.joint_branch import JointBranch
from weftwork.attention_processors.core.key_bias import EncodedKeyBias, KeyBiasAdapter
from weftwork.attention_processors.core.layers import OwnProjections
from weftwork.attention_processors.core.spans import members_of
from weftwork.attention_processors.core.strength import Layout, Strength
from weftwork.attention_processors.regional.conditions import RegionalPrompt
from weftwork.datasets.readers.errors import UserError

ABSENT = RegionalPrompt(tokens=(0, 1))
NO_TEXT = Condition(weight=0.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class RegionalBatch(Batch):
    """Parts of the prompt, or texts beside it.

    Args:
        members: 1 for the tokens of the prompt that a part has, else 0; filled to a power of two.
        states, keep: encoded texts, and which of their tokens are no padding.
    """

    members: Float[Tensor, "design token part"] | None = None
    texts: tuple[tuple[str, ...], ...] = ()
    states: Float[Tensor, "design part token dim"] | None = None
    keep: Bool[Tensor, "design part token"] | None = None


@dataclass(frozen=True)
class EncodedRegions(EncodedKeyBias):
    """Encoded parts of prompts."""

    of_prompt: Float[Tensor, "design token part"] = field(kw_only=True)

    @property
    def isolates(self) -> bool:
        return True

    def members(self, layout: Layout) -> Float[Tensor, "design token part"]:
        return self.of_prompt

    def build(self, layout: Layout) -> tuple[dict[str, Branch], tuple[Strength, ...]]:
        return super().build(layout) if "conditional" in layout.halves else ({}, ())


@dataclass(frozen=True)
class RegionalTexts(EncodedTexts):
    """Encoded texts in regions, for transformers."""

    layers: Sequence[str]
    strengths: Strengths
    of_designs: Sequence[Sequence[str]]

    @property
    def texts(self) -> Sequence[Sequence[str]]:
        return self.of_designs

    def placed(self, places: Places, *, hidden: bool) -> EncodedRegions:
        weight = self.strengths["weight"]
        # What fills a negative prompt in the same batch is visible, unless a mask hides it.
        free = torch.ones_like(weight, dtype=torch.bool) if hidden else None
        strengths: Strengths = {**self.strengths, "null_weight": torch.zeros_like(weight)}
        return EncodedRegions(self.layers, strengths, free, of_prompt=filled_members(places).to(weight))


def filled_members(places: Places) -> Float[Tensor, "design token part"]:
    """Returns which tokens parts have, filled to a power of two: compiled denoisers have a graph for each number."""
    members = members_of(places)
    return F.pad(members, (0, 0, 0, (1 << (members.shape[1] - 1).bit_length()) - members.shape[1]))


class RegionalAdapter(KeyBiasAdapter[RegionalBatch]):
    """Texts and parts of the prompt in regions; there is nothing to train."""

    condition_type = (RegionalPrompt,)
    own: OwnProjections | None = None

    def bind(self, denoiser: nn.Module) -> None:
        """Lets texts be read through a U-Net's own projections."""
        self.own = OwnProjections(denoiser) if family_of(denoiser) is UNET else None

    def collate(self, conditions: Sequence[Sequence[RegionalPrompt]]) -> RegionalBatch:
        """Returns padded tensors, one row per design; `ValueError` for texts beside tokens, or as `Batch.of`."""
        kinds = {one.prompt is None for row in conditions for one in row}
        if len(kinds) > 1:
            raise UserError("prompt: got texts beside tokens, expected one kind in a call; encode the texts, too")
        if kinds == {False}:
            filled = padded(conditions, NO_TEXT)
            texts = tuple(tuple(getattr(one, "prompt", "") for one in row) for row in filled)
            return RegionalBatch.of(filled, self.config, texts=texts)
        rows = padded(conditions, ABSENT)
        members = filled_members([[() if one is ABSENT else one.spans for one in row] for row in rows])
        return RegionalBatch.of(rows, self.config, members=members)

    def features(self, batch: RegionalBatch, encoders: Mapping[str, Any]) -> RegionalBatch:
        """Returns the batch, for U-Nets with the prompt embeddings of its texts.

        Args:
            encoders: `text`, the pipeline's text encoders.

        Raises:
            ValueError: texts that are too long.
        """
        if not batch.texts or self.own is None:
            return batch
        states, keep = encoders["text"].prompts([text for row in batch.texts for text in row])
        shape = len(batch.texts), -1
        return replace(batch, states=states.unflatten(0, shape), keep=keep.unflatten(0, shape))

    def forward(self, features: RegionalBatch) -> Encoded:
        layers = list(self.config["layers"])
        strengths = features.strengths(layers, features.weight.device)
        if features.members is not None:
            free = torch.ones_like(features.guided, dtype=torch.bool)
            return EncodedRegions(layers, strengths, free, of_prompt=features.members)
        if self.own is None:
            return RegionalTexts(layers, strengths, features.texts)
        assert features.states is not None and features.keep is not None
        parts, tokens = features.keep.shape[1:]
        return EncodedTokens(
            self.own.keys_and_values(features.states.flatten(1, 2), layers),
            None,
            features.keep.flatten(1),
            torch.arange(parts, device=features.keep.device).repeat_interleave(tokens),
            **strengths,
            branch=JointBranch,
        )
