"""Spans of tokens among those of a prompt."""

import numpy as np

from weftwork.datasets.readers.errors import UserError

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


def check_tokens(end: int, count: int) -> None:
    """Raises unless tokens up to `end` are among those of a prompt.

    Raises:
        ValueError: a prompt of fewer tokens.
    """
    if end > count:
        raise UserError(
            f"tokens: got some up to {end}, but the prompt has {count}; give those of the prompt that is being denoised"
        )
