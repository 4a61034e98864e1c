"""A part of the prompt and where it acts, as a condition; and prompts joined of several texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from weftwork.attention_processors.core.condition import Condition
from weftwork.datasets.readers.errors import UserError

Span = tuple[int, int]
"""First position and end of tokens among those of the prompt."""


@dataclass(frozen=True, eq=False)
class RegionalPrompt(Condition):
    """Tokens of the prompt that are seen in a region alone; the other arguments are those of `Condition`.

    The unconditional half of guidance, where other tokens stand, is always the stock model.

    Args:
        tokens: (first, end) of the text's tokens among those of the prompt, as `joined_prompts` returns it, or several
            such spans, for a text that several encoders read.

    Raises:
        ValueError: no tokens, or spans that are not 0 <= first < end; and as for `Condition`.
    """

    tokens: Span | Sequence[Span]

    @property
    def spans(self) -> tuple[Span, ...]:
        """Spans of the tokens."""
        return self.tokens  # pyright: ignore[reportReturnType]  (checked on construction)

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.tokens
        single = isinstance(given, Sequence) and len(given) == 2 and all(isinstance(one, int) for one in given)
        spans = [given] if single else given
        fits = isinstance(spans, Sequence) and len(spans) > 0 and all(map(_is_span, spans))
        if not fits:
            raise UserError(f"tokens: got {given!r}, expected (first, end) with 0 <= first < end, or several of these")
        object.__setattr__(self, "tokens", tuple((int(first), int(end)) for first, end in spans))


def _is_span(span: Any) -> bool:
    return isinstance(span, Sequence) and len(span) == 2 and 0 <= span[0] < span[1]


def joined_prompts(
    *embeds: Float[Tensor, "row token dim"],
) -> tuple[Float[Tensor, "row token dim"], list[Span]]:
    """Joins prompt embeddings of several texts, each encoded alone; returns them and the span of each.

    Raises:
        ValueError: no embeddings, or ones of different rows or widths.
    """
    shapes = {(one.shape[0], one.shape[2]) for one in embeds if one.ndim == 3}
    if len(shapes) != 1 or any(one.ndim != 3 for one in embeds):
        got = ", ".join(str(tuple(one.shape)) for one in embeds) or "none"
        raise UserError(f"embeds: got shapes {got}, expected [row, token, dim] of the same rows and width")
    ends = torch.tensor([one.shape[1] for one in embeds]).cumsum(0).tolist()
    return torch.cat(embeds, 1), list(zip([0, *ends[:-1]], ends, strict=True))
