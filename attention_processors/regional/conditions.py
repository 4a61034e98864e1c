"""Texts and parts of the prompt that act in a region, as conditions; and prompts joined of several texts."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from weftwork.attention_processors.core.records import TextKind, recorded
from weftwork.attention_processors.core.spans import Span, SpanCondition
from weftwork.datasets.readers.errors import UserError


@dataclass(frozen=True, eq=False)
class RegionalPrompt(SpanCondition):
    """A text beside the prompt, or tokens of the prompt, that are seen in a region alone.

    The other arguments are those of `Condition`. The unconditional half of guidance is always the stock model.

    Args:
        prompt: the text, which the pipeline encodes as it does its prompt; for U-Nets.
        tokens: instead, (first, end) of the text's tokens among those of the prompt, as `joined_prompts` returns it, or
            several such spans, for a text that several encoders read.

    Raises:
        ValueError: both or neither, an empty text, no tokens, or spans that are not 0 <= first < end; and as for
            `Condition`.
    """

    needs: ClassVar[tuple[str, ...]] = ("prompt",)

    prompt: str | None = field(default=None, metadata=recorded(TextKind(), "Text that acts in the region."))


def joined_prompts(
    *embeds: Float[Tensor, "row token dim"],
) -> tuple[Float[Tensor, "row token dim"], list[Span]]:
    """Joins prompt embeddings of texts encoded alone; returns them and the span of each; `ValueError` if not alike."""
    shapes = {(one.shape[0], one.shape[2]) for one in embeds if one.ndim == 3}
    if len(shapes) != 1 or any(one.ndim != 3 for one in embeds):
        got = ", ".join(str(tuple(one.shape)) for one in embeds) or "none"
        raise UserError(f"embeds: got shapes {got}, expected [row, token, dim] of the same rows and width")
    ends = torch.tensor([one.shape[1] for one in embeds]).cumsum(0).tolist()
    return torch.cat(embeds, 1), list(zip([0, *ends[:-1]], ends, strict=True))
