"""Selection of attention layers by preset, pattern or name."""

import re
from collections.abc import Mapping, Sequence

from torch import nn

from weftwork.attention_processors.core.processor import attention_layers
from weftwork.datasets.readers.errors import UserError

PRESETS: Mapping[str, str] = {
    "all": r".*\.attn2",
    "encoder": r"down_blocks\..*\.attn2",
    "middle": r"mid_block\..*\.attn2",
    "decoder": r"up_blocks\..*\.attn2",
    "self": r".*\.attn1",
}
"""Presets of layers; `attn2` reads the text, `attn1` the image itself."""


def select_layers(denoiser: nn.Module, layers: str | Sequence[str]) -> dict[str, int]:
    """Selects attention layers: returns the widths of their keys by name.

    Args:
        layers: a preset of `PRESETS`, a regular expression for whole names, or a list of names.

    Raises:
        ValueError: an unknown name, no match, or a layer without key projections of its own.
    """
    known = attention_layers(denoiser)
    return {name: key_width(known[name], name) for name in select_names(list(known), layers)}


def key_width(layer: nn.Module, name: str) -> int:
    """Width of a layer's keys.

    Raises:
        ValueError: the layer has no projection of keys, or none apart from those of queries and values.
    """
    project = getattr(layer, "to_k", None)
    if not isinstance(project, nn.Module):
        raise UserError(f"layers: got {name!r}, which has no projection of keys (to_k); choose other layers")
    return int(project.out_features)  # pyright: ignore[reportArgumentType]


def select_names(known: Sequence[str], layers: str | Sequence[str]) -> list[str]:
    """Selects among known names, as `select_layers`."""
    if isinstance(layers, str):
        pattern = re.compile(PRESETS.get(layers, layers))
        chosen = [name for name in known if pattern.fullmatch(name)]
        if not chosen:
            raise UserError(
                f"layers: got {layers!r}, which matches none of {len(known)} attention layers; pass one of "
                f"{', '.join(PRESETS)}, a regular expression for names like {known[0]!r}, or a list"
            )
        return chosen
    unknown = [name for name in layers if name not in known]
    if unknown or not layers:
        raise UserError(f"layers: got {unknown[0] if unknown else 'an empty list'!r}, expected names like {known[0]!r}")
    return list(layers)


def layer_factors(names: Sequence[str], given: Mapping[str, float]) -> list[float]:
    """Returns a factor per layer from factors by preset or pattern: the last match, 1 without a match.

    Raises:
        ValueError: a pattern that matches nothing.
    """
    factors = dict.fromkeys(names, 1.0)
    for pattern, factor in given.items():
        factors |= dict.fromkeys(select_names(names, pattern), float(factor))
    return [factors[name] for name in names]
