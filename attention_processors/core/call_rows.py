"""Rows of the arguments of a denoiser's call."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from weftwork.attention_processors.core.families import Given, sample_of

OF_TOKENS: Final = frozenset(
    {"img_ids", "txt_ids", "image_cond_ids", "position_ids", "image_rotary_emb", "rotary_embedding"}
    | {"visual_rope_pos", "text_rope_pos"}
)
"""Arguments with a place per token, which all rows share unless they have an axis of rows before [token, axis]."""


CONTROL: Final = ("controlnet", "additional_residual")
"""Parts of the names of arguments with residuals of ControlNets and T2I-Adapters."""


def without_control(given: Given) -> dict[str, Any]:
    """Returns the arguments of a call without residuals that control the layout of its image."""
    return {name: value for name, value in given.items() if not any(part in name for part in CONTROL)}


def rows_of(given: Given, rows: Sequence[int]) -> dict[str, Any]:
    """Returns the arguments of a call for some of its rows, in this order; those that all rows share as they are."""
    sample = sample_of(given)
    whole = list(rows) == list(range(len(sample)))
    by_row = isinstance(sample, list)

    def chosen(name: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            of_all = value.ndim == 0 or len(value) != len(sample) or (name in OF_TOKENS and value.ndim < 3)
            return value if of_all else value[list(rows)]
        if isinstance(value, Mapping):
            return {key: chosen(str(key), one) for key, one in value.items()}
        if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor) and not by_row:
            return type(value)(chosen(name, one) for one in value)
        if isinstance(value, list) and len(value) == len(sample):
            return [value[row] for row in rows]
        return value

    return dict(given) if whole else {name: chosen(name, value) for name, value in given.items()}


def first_alike(given: Given) -> list[int]:
    """Returns for each row of a call the first row with the same arguments."""
    count = len(sample_of(given))
    leaves = [tree_leaves(rows_of(given, [row])) for row in range(count)]
    return [next(one for one in range(count) if all(map(_same, leaves[one], leaves[row]))) for row in range(count)]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one is other or torch.equal(one, other)
    return one is other or bool(one == other)
