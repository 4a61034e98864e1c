"""Regional prompting without training, a baseline of pairs: texts act in regions through the frozen projections.

In the region of a text, the layer attends to the tokens of the prompt and of that text in one softmax, as masked
attention does in the regional prompters of diffusers' community. The unconditional half is the frozen model's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float
from torch import Tensor

from weftwork.attention_processors.core.adapter import Encoders, KeyValueAdapter
from weftwork.attention_processors.core.batch import Batch, padded
from weftwork.attention_processors.core.condition import Condition
from weftwork.attention_processors.core.conditioning import EncodedTokens
from weftwork.attention_processors.paired.conditions import SketchTextPair
from weftwork.attention_processors.style.fusions import JointBranch

ABSENT: Final = Condition(weight=0.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class RegionalBatch(Batch):
    """Texts by region, and their states once they are encoded."""

    texts: tuple[tuple[str, ...], ...]
    states: Float[Tensor, "design part token dim"] | None = None
    keep: Bool[Tensor, "design part token"] | None = None


class RegionalPrompts(KeyValueAdapter[RegionalBatch, RegionalBatch]):
    """Texts of pairs in their regions; sketches only give the regions. Made by `for_denoiser`, never trained.

    Args:
        layers, base: as of `PairedAdapter`.
        text_dim: width of the text encoder's states.
        text_states: token states read per text.
    """

    condition_type = (SketchTextPair,)

    @register_to_config
    def __init__(
        self, layers: dict[str, int], base: dict[str, object] | None = None, text_dim: int = 768, text_states: int = 40
    ) -> None:
        super().__init__()
        self.make_projections(layers, text_dim)

    def collate(self, conditions: Sequence[Sequence[SketchTextPair]]) -> RegionalBatch:
        rows = padded(conditions, ABSENT)
        texts = tuple(tuple(getattr(one, "text", None) or "" for one in row) for row in rows)
        return RegionalBatch.of(rows, self.config, texts=texts)

    def features(self, batch: RegionalBatch, encoders: Encoders) -> RegionalBatch:
        texts = [text for row in batch.texts for text in row]
        states, keep = encoders["text"].tokens(texts, self.config["text_states"])
        shape = len(batch.texts), -1
        return replace(batch, states=states.unflatten(0, shape), keep=keep.unflatten(0, shape))

    def forward(self, features: RegionalBatch) -> EncodedTokens:
        assert features.states is not None and features.keep is not None
        weight = next(self.parameters())
        states, keep = features.states.to(weight), features.keep.to(weight.device)
        parts, tokens = keep.shape[1:]
        return EncodedTokens(
            self.project(states),
            None,
            keep.flatten(1),
            torch.arange(parts, device=weight.device).repeat_interleave(tokens),
            **features.strengths(list(self.config["layers"]), weight.device),
            branch=JointBranch,
        )
