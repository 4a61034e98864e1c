"""Selection of attention layers by preset, pattern or name."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

from jaxtyping import Float
from torch import Tensor, nn

from weftwork.attention_processors.core.families import PRESETS, context_projections, family_of
from weftwork.attention_processors.core.frozen_weights import plain_weight
from weftwork.attention_processors.core.processor import attention_layers, unwrapped
from weftwork.datasets.readers.errors import UserError


def select_layers(denoiser: nn.Module, layers: str | Sequence[str], linear: bool = False) -> dict[str, int]:
    """Selects attention layers: returns the widths of their keys by name.

    Args:
        layers: a preset of `PRESETS`, a regular expression for whole names, or a list of names.
        linear: whether layers of linear attention may be among them.

    Raises:
        ValueError: an unknown name, no match, a layer of text tokens alone, of linear attention, or of unknown width.
    """
    family, known = family_of(denoiser), attention_layers(denoiser)
    chosen = select_names(list(known), layers, family.presets(list(known)))
    for name in chosen:
        if family.role(name) == "text":
            raise UserError(f"layers: got {name!r}, whose tokens are the text's; choose layers that read the image")
        if family.role(name) == "linear" and not linear:
            raise UserError(
                f"layers: got {name!r}, whose attention is linear, without a softmax that conditions could enter; "
                'choose layers that read the text, as "all"'
            )
    return {name: key_width(known[name], name) for name in chosen}


def key_width(layer: nn.Module, name: str) -> int:
    """Width of a layer's keys.

    Raises:
        ValueError: the layer has no projection of keys, nor one of queries, keys and values of known widths.
    """
    projections = context_projections(layer)
    if projections is None:
        width = getattr(layer, "inner_dim", None) or getattr(layer, "heads", 0) * getattr(layer, "dim_heads", 0) or None
    else:
        width = projections[0].out_features
    if not isinstance(width, int):
        raise UserError(f"layers: got {name!r}, which has no projection of keys (to_k); choose other layers")
    return width


def own_projections(layer: Any, name: str) -> tuple[Tensor, Tensor]:
    """Returns a layer's matrices of keys and values, [inner, context]: those of the text where it has both.

    Raises:
        ValueError: as `plain_weight`.
    """
    projections, width = context_projections(layer), key_width(layer, name)
    if projections is None and hasattr(layer, "to_kv"):  # keys, those of a second attention, values
        fused = plain_weight(layer.to_kv, f"{name}.to_kv")
        return fused[:width], fused[-width:]
    if projections is None:  # one matrix of queries, keys, values and more
        fused = plain_weight(layer.to_qkv_mlp_proj, f"{name}.to_qkv_mlp_proj")
        return fused[width : 2 * width], fused[2 * width : 3 * width]
    return plain_weight(projections[0], f"{name}, keys"), plain_weight(projections[1], f"{name}, values")


class OwnProjections:
    """A denoiser's own projections of what its layers read to keys and values; copies of an adapter share them."""

    def __init__(self, denoiser: nn.Module) -> None:
        self.denoiser = unwrapped(denoiser)

    def __deepcopy__(self, memo: Mapping[int, object]) -> Self:
        return self

    def keys_and_values(
        self, context: Float[Tensor, "design token dim"], layers: Sequence[str]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns keys and values by layer, [design, token, inner] each.

        Raises:
            ValueError: a layer whose projections are fused.
        """
        known: Mapping[str, Any] = attention_layers(self.denoiser)
        made: dict[str, tuple[Tensor, Tensor]] = {}
        for name in layers:
            layer, projections = known[name], context_projections(known[name])
            if projections is not None:
                made[name] = projections[0](context), projections[1](context)
            elif hasattr(layer, "to_kv"):  # keys, those of a second attention, values
                width, both = key_width(layer, name), layer.to_kv(context)
                made[name] = both[..., :width], both[..., -width:]
            else:
                raise UserError(f"layers: got {name!r}, which has no projection of keys (to_k); choose other layers")
        return made


def select_names(
    known: Sequence[str], layers: str | Sequence[str], presets: Mapping[str, str] | None = None
) -> list[str]:
    """Selects among known names, as `select_layers`.

    Args:
        presets: patterns by preset; None for those of U-Nets.
    """
    if isinstance(layers, str):
        pattern = re.compile((presets or PRESETS).get(layers, layers))
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


def layer_factors(
    names: Sequence[str], given: Mapping[str, float], presets: Mapping[str, str] | None = None
) -> list[float]:
    """Returns a factor per layer from factors by preset or pattern: the last match, 1 without a match.

    Args:
        presets: as `select_names`.

    Raises:
        ValueError: a pattern that matches nothing.
    """
    factors = dict.fromkeys(names, 1.0)
    for pattern, factor in given.items():
        factors |= dict.fromkeys(select_names(names, pattern, presets), float(factor))
    return [factors[name] for name in names]
