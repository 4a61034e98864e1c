"""Spans of tokens among those of a prompt."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from weftwork.attention_processors.core.condition import Condition
from weftwork.datasets.readers.errors import UserError
from weftwork.datasets.readers.texts import check_characters

Span = tuple[int, int]
"""First position and end of tokens among those of the prompt."""


def checked_spans(given: object) -> tuple[Span, ...]:
    """Returns one span, or several, as a tuple of spans.

    Raises:
        ValueError: none, or spans that are not 0 <= first < end.
    """
    try:
        spans = np.atleast_2d(np.asarray(given))
    except (TypeError, ValueError):  # not numbers, or of different lengths
        spans = np.empty((0, 2))
    whole = spans.dtype.kind in "iu" and spans.ndim == 2 and spans.shape[0] > 0 and spans.shape[1] == 2
    if not whole or (spans[:, 0] < 0).any() or (spans[:, 0] >= spans[:, 1]).any():
        raise UserError(f"tokens: got {given!r}, expected (first, end) with 0 <= first < end, or several of these")
    return tuple((int(first), int(end)) for first, end in spans)


@dataclass(frozen=True, eq=False)
class SpanCondition(Condition):
    """Base of conditions that have either a text, in the field that `needs` names, or spans of tokens of the prompt."""

    has_maps: ClassVar[bool] = False

    _: KW_ONLY
    tokens: Span | Sequence[Span] | None = None

    @property
    def spans(self) -> tuple[Span, ...]:
        """Spans of the tokens; none for a text."""
        return cast(tuple[Span, ...], self.tokens or ())  # checked on construction

    def __post_init__(self) -> None:
        super().__post_init__()
        (name,) = self.needs
        text = getattr(self, name)
        if (text is None) == (self.tokens is None):
            raise UserError(
                f"{name}: got {text!r} and tokens {self.tokens!r}, expected one of both; pass {name} or tokens"
            )
        if self.tokens is not None:
            object.__setattr__(self, "tokens", checked_spans(self.tokens))
        elif not isinstance(text, str) or not text.strip():
            raise UserError(f"{name}: got {text!r}, expected a text; write some words")
        else:
            check_characters(text, name)


def members_of(spans: Sequence[Sequence[Sequence[Span]]]) -> Float[Tensor, "design token part"]:
    """Returns 1 where a token is in one of the spans of a part, else 0; up to the last end.

    Args:
        spans: by design and part, as many parts of each design.
    """
    last = max((end for row in spans for own in row for _, end in own), default=1)
    members = torch.zeros(len(spans), last, len(spans[0]))
    for design, row in enumerate(spans):
        for part, own in enumerate(row):
            for first, end in own:
                members[design, first:end, part] = 1
    return members


def check_tokens(end: int, count: int) -> None:
    """Raises unless tokens up to `end` are among those of a prompt.

    Raises:
        ValueError: a prompt of fewer tokens.
    """
    if end > count:
        raise UserError(
            f"tokens: got some up to {end}, but the prompt has {count}; give those of the prompt that is being denoised"
        )
